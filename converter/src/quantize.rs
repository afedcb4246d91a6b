//! Values to bytes of an element type. Quantized blocks are made by ggml, so that they are the ones
//! every other tool makes; this is the one place that calls it.
//!
//! Without importance weights a block depends on its own elements only. So a tensor may be cut
//! anywhere between blocks, and the bytes don't depend on the cuts.

use gguf::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Encodes `values`, which are whole blocks, into `out`, which they fill.
///
/// # Panics
/// If the lengths don't fit each other, or `dtype` is no type that [`crate::Quant`] knows.
pub(crate) fn encode(dtype: DType, values: &[f32], out: &mut [u8]) {
    assert_eq!(dtype.row_bytes(values.len() as u64), Some(out.len() as u64), "{dtype}");
    match dtype {
        DType::F32 => put(out, values.iter().map(|value| value.to_le_bytes())),
        DType::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            put(out, halves.iter().map(|half| half.to_le_bytes()));
        }
        DType::BF16 => {
            let mut halves = vec![bf16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            put(out, halves.iter().map(|half| half.to_le_bytes()));
        }
        _ => quantize(dtype, values, out),
    }
}

fn put<const N: usize>(out: &mut [u8], elements: impl Iterator<Item = [u8; N]>) {
    out.chunks_exact_mut(N).zip(elements).for_each(|(out, bytes)| out.copy_from_slice(&bytes));
}

fn quantize(dtype: DType, values: &[f32], out: &mut [u8]) {
    let known = crate::Quant::ALL.iter().any(|quant| quant.dtype() == dtype);
    assert!(known && dtype.is_quantized(), "{dtype}");
    let n = i64::try_from(values.len()).expect("a slice's length");
    // SAFETY: ggml reads `n` floats from `values` and writes `row_bytes(n)` bytes to `out`, whose
    // length `encode` checked; `n` is a whole number of blocks, and these types need no importance
    // weights. It keeps neither pointer, and takes its own lock around what threads have in common.
    #[expect(unsafe_code, reason = "ggml's quantizers are C")]
    let written = unsafe {
        ggml_sys::ggml_quantize_chunk(
            dtype.id() as ggml_sys::ggml_type,
            values.as_ptr(),
            out.as_mut_ptr().cast(),
            0,
            1,
            n,
            std::ptr::null(),
        )
    };
    assert_eq!(written, out.len(), "bytes that ggml wrote for {dtype}");
}
