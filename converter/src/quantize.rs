//! Values to bytes of an element type and back. Quantized blocks are made by [`quantizers`], bit for
//! bit as ggml makes them; ggml reads them, and this is the one place that calls it.
//!
//! Without importance weights a block depends on its own elements only. So a tensor may be cut
//! anywhere between blocks, and the bytes don't depend on the cuts. With them, one for each column,
//! it may be cut between rows.

use gguf::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use quantizers::InstructionSet;

use crate::measure::Sums;

pub use quantizers::QUANTIZED;

/// Whether [`encode`] makes blocks of this type, or plain elements.
pub(crate) fn is_encodable(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16) || QUANTIZED.contains(&dtype)
}

/// Encodes `values`, which are whole blocks, into `out`, which they fill.
///
/// `importance`, if any, has a weight for each column of the rows that `values` consists of: its
/// sum of squares in the activations, which the quantizers' least-squares fits multiply errors by.
///
/// # Panics
/// If the lengths don't fit each other, or `dtype` is neither plain nor one of [`QUANTIZED`].
pub fn encode(dtype: DType, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
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
        _ => {
            quantizers::quantize(InstructionSet::best(), dtype, values, importance, out);
        }
    }
}

/// [`encode`], and how far what the bytes stand for is from the values.
pub(crate) fn encode_and_measure(
    dtype: DType,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    decoded: &mut Vec<f32>,
) -> Sums {
    if dtype.is_quantized() {
        return quantizers::quantize(InstructionSet::best(), dtype, values, importance, out).into();
    }
    encode(dtype, values, None, out);
    if dtype == DType::F32 {
        return Sums::default();
    }
    decode(dtype, out, decoded);
    Sums::of(values, decoded)
}

fn put<const N: usize>(out: &mut [u8], elements: impl Iterator<Item = [u8; N]>) {
    out.chunks_exact_mut(N).zip(elements).for_each(|(out, bytes)| out.copy_from_slice(&bytes));
}

/// Whether [`decode`] knows the type: all that hold weights, older and newer ones included.
pub(crate) fn is_decodable(dtype: DType) -> bool {
    use DType::{F32, F64, I8, I16, I32, I64, Q8_1, Q8_K};
    // Q8_1 and Q8_K are for activations.
    dtype == F32 || !matches!(dtype, F64 | I8 | I16 | I32 | I64 | Q8_1 | Q8_K)
}

/// Replaces `values` by those that the blocks in `bytes` stand for.
///
/// # Panics
/// If `bytes` are no whole blocks, or the type doesn't hold weights.
pub fn decode(dtype: DType, bytes: &[u8], values: &mut Vec<f32>) {
    assert!(is_decodable(dtype), "{dtype}");
    let block = dtype.block_bytes() as usize;
    assert!(bytes.len().is_multiple_of(block), "{} bytes of {dtype}", bytes.len());
    values.clear();
    if dtype == DType::F32 {
        values.extend(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)));
        return;
    }
    values.resize(bytes.len() / block * dtype.block_len() as usize, 0.0);
    // SAFETY: the number is one of ggml's types, by `blocks.rs`, a test, with the same sizes; the
    // table is constant.
    #[expect(unsafe_code, reason = "ggml's table is C")]
    let to_float =
        unsafe { (*ggml_sys::ggml_get_type_traits(dtype.id() as ggml_sys::ggml_type)).to_float };
    let to_float = to_float.expect("every type that holds weights has one");
    // ggml reads structs that may begin with a number of 32 bits; a slice begins anywhere.
    let mut aligned: Vec<u32> = Vec::new();
    let mut blocks = bytes.as_ptr();
    if !blocks.cast::<u32>().is_aligned() {
        aligned.extend(bytes.chunks(4).map(|chunk| {
            let mut whole = [0; 4];
            whole[..chunk.len()].copy_from_slice(chunk);
            u32::from_ne_bytes(whole)
        }));
        blocks = aligned.as_ptr().cast();
    }
    // SAFETY: it reads the blocks of `values.len()` elements, all of `bytes` or of its
    // copy, and writes as many floats; every pattern of bits is a block.
    #[expect(unsafe_code, reason = "ggml's dequantizers are C")]
    unsafe {
        to_float(blocks.cast(), values.as_mut_ptr(), values.len() as i64);
    }
}
