//! Which operations of ours each backend really computes. ggml's `supports_op` is asked as well,
//! but on its word alone the CPU takes everything, and Metal takes norms of F16 (and runs its F32
//! kernel on them), attention of 65,536 rows (and aborts), and tensors whose offsets overflow.

use super::graph::Node;
use super::{Device, Family, dry};
use ggml_sys as sys;

/// Rows at which Metal's attention kernel aborts: it keeps the row in 16 bits.
const METAL_ATTENTION_ROWS: i64 = 65_536;

/// Elements from which on kernels of several backends compute offsets wrong.
const ELEMENTS: i64 = 1 << 31;

const F32: sys::ggml_type = sys::GGML_TYPE_F32;
const F16: sys::ggml_type = sys::GGML_TYPE_F16;

/// Bytes that Vulkan's attention reads at a time: it rounds strides down to them.
const VULKAN_VECTOR: usize = 16;

/// Head sizes of CUDA's fused attention (`fattn.cu`); larger ones it knows for grouped queries alone.
const CUDA_HEADS: [i64; 8] = [40, 64, 72, 80, 96, 112, 128, 256];

/// Head sizes of Metal's fused attention (`ggml-metal-device.m`) for which keys and values are alike.
const METAL_HEADS: [i64; 12] = [32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 512];

/// Vulkan's fused attention takes multiples of this.
const VULKAN_HEADS: i64 = 8;

/// The alignment in bytes at which operands of matrix products, attention and softmax must begin,
/// and the rows of attention: ggml aborts on some views that don't, and computes nonsense of others.
pub(super) fn alignment(device: Device) -> usize {
    match device.family() {
        Family::Vulkan => {
            // SAFETY: the device's buffer type lives as long as the program.
            let least = unsafe { sys::ggml_backend_buft_get_alignment(dry::buffer_type(device)) };
            least.max(VULKAN_VECTOR)
        }
        _ => 1,
    }
}

/// Whether fused attention there has a kernel for heads of `size` channels, keys and values alike.
/// Where nothing is known of the backend, ggml is asked as for any operation.
pub(super) fn fuses_attention(family: Family, size: i64) -> bool {
    match family {
        Family::Cpu | Family::Other => true,
        Family::Cuda => CUDA_HEADS.contains(&size),
        Family::Metal => METAL_HEADS.contains(&size),
        Family::Vulkan => size % VULKAN_HEADS == 0,
    }
}

/// Why `node` can't run there, if it can't.
///
/// # Safety
/// `node` and its sources are alive.
pub(super) unsafe fn refusal(family: Family, node: Node) -> Option<&'static str> {
    // SAFETY: by contract.
    let (t, a, b) = unsafe {
        let t = node.as_ref();
        (t, t.src[0].as_ref(), t.src[1].as_ref())
    };
    let large = |t: &sys::ggml_tensor| t.ne.iter().product::<i64>() >= ELEMENTS;
    if large(t) || a.is_some_and(large) || b.is_some_and(large) {
        return Some("tensors of 2^31 elements overflow the offsets of some kernels");
    }
    let is = |t: Option<&sys::ggml_tensor>, dtype| t.is_none_or(|t| t.type_ == dtype);
    let float = |t: Option<&sys::ggml_tensor>| is(t, F32) || is(t, F16);
    let gpu = family != Family::Cpu;
    match t.op {
        sys::GGML_OP_NONE
        | sys::GGML_OP_RESHAPE
        | sys::GGML_OP_VIEW
        | sys::GGML_OP_PERMUTE
        | sys::GGML_OP_GET_ROWS => None,
        sys::GGML_OP_NORM
        | sys::GGML_OP_RMS_NORM
        | sys::GGML_OP_SOFT_MAX
        | sys::GGML_OP_SUM_ROWS => {
            (!is(a, F32)).then_some("norms, softmax and sums are computed right for F32 alone")
        }
        sys::GGML_OP_MUL_MAT => {
            (!float(b)).then_some("matrix products take activations of F32 or F16")
        }
        sys::GGML_OP_FLASH_ATTN_EXT => {
            let rows = a.map_or(0, |q| q.ne[1]);
            if family == Family::Metal && rows >= METAL_ATTENTION_ROWS {
                Some("Metal's attention aborts at 65,536 rows")
            } else if !is(a, F32) || !float(b) {
                Some("attention takes queries of F32, keys and values of F32 or F16")
            } else {
                None
            }
        }
        sys::GGML_OP_ADD | sys::GGML_OP_MUL => (gpu && !(is(a, F32) && is(b, F32)))
            .then_some("sums and products of mixed types are computed by the CPU alone"),
        sys::GGML_OP_ROPE
        | sys::GGML_OP_SCALE
        | sys::GGML_OP_SQR
        | sys::GGML_OP_UNARY
        | sys::GGML_OP_PAD => (!is(a, F32)).then_some("only F32 is known to be computed right"),
        sys::GGML_OP_CONCAT | sys::GGML_OP_REPEAT | sys::GGML_OP_CONT | sys::GGML_OP_CPY => {
            let widened = t.type_ == F32 && family == Family::Cpu;
            (!(float(a) && float(Some(t)) || widened))
                .then_some("copies are known to be right between F32 and F16 alone")
        }
        _ => Some("no model here uses it, and nothing is known of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Device, Executor, Precision};
    use super::*;

    const GPUS: [Family; 4] = [Family::Metal, Family::Cuda, Family::Vulkan, Family::Other];

    /// What the table says of a node that `make` builds from a tensor of `ne` and `dtype`.
    fn asked(
        family: Family,
        dtype: sys::ggml_type,
        ne: [i64; 4],
        make: impl Fn(*mut sys::ggml_context, *mut sys::ggml_tensor) -> *mut sys::ggml_tensor,
    ) -> Option<&'static str> {
        let mut exec = Executor::new(Device::cpu().dry(), Precision::Native, 1).unwrap();
        let mut answer = None;
        exec.update(|g| {
            // SAFETY: the graph's context is valid; `make` gets a tensor of it.
            let node =
                g.node(|c| unsafe { make(c, sys::ggml_new_tensor(c, dtype, 4, ne.as_ptr())) });
            // SAFETY: the node is alive until the end of the graph.
            answer = unsafe { refusal(family, node.raw) };
        })
        .unwrap();
        answer
    }

    fn attend(c: *mut sys::ggml_context, q: *mut sys::ggml_tensor) -> *mut sys::ggml_tensor {
        // SAFETY: called by `asked` alone.
        unsafe {
            let kv = sys::ggml_new_tensor(c, F16, 4, [128, 512, 1, 1].as_ptr());
            sys::ggml_flash_attn_ext(c, q, kv, kv, std::ptr::null_mut(), 1.0, 0.0, 0.0)
        }
    }

    #[test]
    fn an_unknown_operation_is_refused() {
        for family in GPUS.into_iter().chain([Family::Cpu]) {
            let answer = asked(family, F32, [64, 8, 1, 1], |c, t| {
                // SAFETY: the caller's tensor.
                unsafe { sys::ggml_sin(c, t) }
            });
            assert!(answer.is_some_and(|a| a.contains("nothing is known")), "{family:?}");
        }
    }

    #[test]
    fn a_norm_of_anything_but_f32_is_refused() {
        for dtype in [sys::GGML_TYPE_BF16, F16] {
            let answer = asked(Family::Metal, dtype, [64, 8, 1, 1], |c, t| {
                // SAFETY: the caller's tensor.
                unsafe { sys::ggml_rms_norm(c, t, 1e-6) }
            });
            assert!(answer.is_some_and(|a| a.contains("F32 alone")));
        }
    }

    #[test]
    fn attention_of_70_000_rows_is_refused_on_metal() {
        let rows = |n| asked(Family::Metal, F32, [128, n, 1, 1], attend);
        assert_eq!(rows(70_000), Some("Metal's attention aborts at 65,536 rows"));
        assert_eq!(rows(METAL_ATTENTION_ROWS), Some("Metal's attention aborts at 65,536 rows"));
        assert_eq!(rows(METAL_ATTENTION_ROWS - 1), None);
        assert_eq!(asked(Family::Cpu, F32, [128, 70_000, 1, 1], attend), None);
    }

    #[test]
    fn heads_of_an_unknown_size_are_not_fused() {
        // Wan's heads are fused everywhere, those of the parity fixture not on CUDA.
        let fused = |family| [32, 128, 20].map(|size| fuses_attention(family, size));
        assert_eq!(fused(Family::Cpu), [true, true, true]);
        assert_eq!(fused(Family::Cuda), [false, true, false]);
        assert_eq!(fused(Family::Metal), [true, true, false]);
        assert_eq!(fused(Family::Vulkan), [true, true, false]);
    }

    #[test]
    fn tensors_of_two_to_the_31_elements_are_refused() {
        let answer = |rows| {
            asked(Family::Metal, F32, [5120, rows, 1, 1], |c, t| {
                // SAFETY: the caller's tensor.
                unsafe { sys::ggml_silu(c, t) }
            })
        };
        assert!(answer((1 << 31) / 5120 + 1).is_some_and(|a| a.contains("2^31")));
        assert_eq!(answer((1 << 31) / 5120), None);
    }

    #[test]
    fn mixed_sums_are_refused_on_gpus() {
        for family in GPUS {
            let answer = asked(family, F16, [64, 8, 1, 1], |c, t| {
                // SAFETY: the caller's tensor.
                unsafe { sys::ggml_add(c, t, sys::ggml_new_tensor(c, F32, 4, (*t).ne.as_ptr())) }
            });
            assert!(answer.is_some(), "{family:?}");
        }
    }
}
