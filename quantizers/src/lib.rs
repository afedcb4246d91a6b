//! The quantizers: blocks that are, bit for bit, those of ggml's scalar code without fused
//! multiply-add (`ggml-quants.c`), made sixteen sub-blocks at a time.
//!
//! A sub-block's sums must be built in the order of its elements, or their rounding differs. So the
//! kernels put the same element of sixteen sub-blocks side by side, in the lanes of one vector: each
//! lane does what the scalar code does, in its order. What that code does in branches is done for
//! all lanes and taken in those that it holds for. Functions are called as ggml calls them.
//!
//! Beside the blocks come the sums of their errors, from the values on which they were made: no
//! block is read again.

#![warn(missing_docs)]

mod block_scales;
mod blocks;
mod errors;
mod instruction_set;
mod iq4;
mod lanes;
mod legacy;
mod make_q3_quants;
mod make_qkx_quants;
mod make_qp_quants;
mod make_qx_quants;
mod q2_k;
mod q3_k;
mod q45_k;
mod q6_k;
mod q8_0;
mod weights;

pub use errors::Errors;
pub use instruction_set::InstructionSet;

use fearless_simd::Simd;
use gguf::DType;

/// What a quantizer works on.
struct Work<'a> {
    values: &'a [f32],
    importance: Option<&'a [f32]>,
    out: &'a mut [u8],
}

/// The types that there are quantizers for.
pub const QUANTIZED: &[DType] = &[
    DType::Q8_0,
    DType::Q6_K,
    DType::Q5_K,
    DType::Q5_1,
    DType::Q5_0,
    DType::Q4_K,
    DType::Q4_1,
    DType::Q4_0,
    DType::IQ4_NL,
    DType::IQ4_XS,
    DType::Q3_K,
    DType::Q2_K,
];

/// Fills `out` with the blocks of `values`, whole ones; returns how far they are from the values.
///
/// `importance`, if any, has a weight for each column of the rows that `values` consists of, which
/// then are whole, too. The bytes and the errors are the same with every set of instructions.
///
/// # Panics
/// If the lengths don't fit each other, there is no quantizer for the type, or the processor lacks
/// the instructions.
pub fn quantize(
    set: InstructionSet,
    dtype: DType,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Errors {
    assert!(QUANTIZED.contains(&dtype), "there is no quantizer for {dtype}");
    assert_eq!(dtype.row_bytes(values.len() as u64), Some(out.len() as u64), "{dtype}");
    if let Some(row) = importance.map(<[f32]>::len) {
        let fits = row > 0 && values.len().is_multiple_of(row);
        assert!(fits, "{} values in rows of {row}", values.len());
        assert!((row as u64).is_multiple_of(dtype.block_len()), "rows of {row} in {dtype}");
    }
    if values.is_empty() {
        return Errors::default();
    }
    let work = Work { values, importance, out };
    instruction_set::run!(set, simd => blocks_of(simd, dtype, work))
}

#[inline(always)]
fn blocks_of<S: Simd>(simd: S, dtype: DType, work: Work<'_>) -> Errors {
    // Each in a function of its own: in one, they would be too much for the compiler.
    macro_rules! with {
        ($quantizer:expr) => {
            simd.vectorize(
                #[inline(always)]
                || $quantizer(simd, work).finish(),
            )
        };
    }
    match dtype {
        DType::Q8_0 => with!(q8_0::quantize),
        DType::Q4_0 => with!(legacy::quantize_q4_0),
        DType::Q4_1 => with!(legacy::quantize_q4_1),
        DType::Q5_0 => with!(legacy::quantize_q5_0),
        DType::Q5_1 => with!(legacy::quantize_q5_1),
        DType::Q2_K => with!(q2_k::quantize),
        DType::Q3_K => with!(q3_k::quantize),
        DType::Q4_K => with!(q45_k::quantize_q4_k),
        DType::Q5_K => with!(q45_k::quantize_q5_k),
        DType::Q6_K => with!(q6_k::quantize),
        DType::IQ4_NL => with!(iq4::quantize_nl),
        DType::IQ4_XS => with!(iq4::quantize_xs),
        _ => unreachable!("one of the types that there are quantizers for"),
    }
}
