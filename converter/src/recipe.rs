//! Which element type each tensor gets, and why.
//!
//! The rules are those of the files in circulation (city96's tools for ComfyUI): only the large
//! matrices inside the blocks are quantized. What readers handle as one-dimensional or as a
//! convolution must be F32 there, since some of them can't use BF16 or packed bytes in its place.

use anyhow::Result;
use gguf::DType;
use std::fmt;
use std::str::FromStr;

use crate::arch::Role;

/// What `--quant` can be: the type of the block matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quant {
    dtype: DType,
    file_type: u32,
}

/// Types with their number under `general.file_type`. A K-quant without a mixture of types counts
/// as its S variant there.
const QUANTS: [Quant; 13] = [
    Quant { dtype: DType::F32, file_type: 0 },
    Quant { dtype: DType::F16, file_type: 1 },
    Quant { dtype: DType::BF16, file_type: 32 },
    Quant { dtype: DType::Q8_0, file_type: 7 },
    Quant { dtype: DType::Q6_K, file_type: 18 },
    Quant { dtype: DType::Q5_K, file_type: 16 },
    Quant { dtype: DType::Q4_K, file_type: 14 },
    Quant { dtype: DType::Q3_K, file_type: 11 },
    Quant { dtype: DType::Q2_K, file_type: 10 },
    Quant { dtype: DType::Q5_1, file_type: 9 },
    Quant { dtype: DType::Q5_0, file_type: 8 },
    Quant { dtype: DType::Q4_1, file_type: 3 },
    Quant { dtype: DType::Q4_0, file_type: 2 },
];

impl Quant {
    /// No quantization at all.
    pub const F32: Quant = QUANTS[0];

    /// Every one there is.
    pub const ALL: &[Quant] = &QUANTS;

    /// The element type of the block matrices.
    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// The number under `general.file_type`, as in `llama.h`'s `llama_ftype`.
    pub fn file_type(self) -> u32 {
        self.file_type
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dtype.fmt(f)
    }
}

/// A name that is no [`Quant`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {known}", known = QUANTS.map(|quant| quant.to_string()).join(", "))]
pub struct UnknownQuant(pub String);

impl FromStr for Quant {
    type Err = UnknownQuant;

    /// Finds one by its name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, UnknownQuant> {
        let known = |quant: &Quant| quant.dtype.name().eq_ignore_ascii_case(name);
        QUANTS.into_iter().find(known).ok_or_else(|| UnknownQuant(name.to_owned()))
    }
}

/// Magnitudes from here on round to infinity in F16.
pub(crate) const F16_LIMIT: f32 = 65520.0;
/// The same for BF16.
pub(crate) const BF16_LIMIT: f32 = f32::from_bits(0x7f7f_8000);

/// The type of a tensor with rows of `row` elements. `largest` finds its largest magnitude, which
/// takes reading it and is only asked for where it decides.
pub(crate) fn dtype(
    quant: Quant,
    role: Role,
    row: u64,
    largest: impl FnOnce() -> Result<f32>,
) -> Result<DType> {
    Ok(match role {
        Role::Exact => DType::F32,
        Role::Linear if quant == Quant::F32 => DType::F32,
        Role::Linear if largest()? < F16_LIMIT => DType::F16,
        Role::Linear => DType::BF16,
        Role::Block if quant.dtype.row_bytes(row).is_some() => quant.dtype,
        // As city96's tools do; another quantized type would surprise whoever asked for this one.
        Role::Block => DType::F16,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quants_are_found_by_name() {
        for &quant in Quant::ALL {
            assert_eq!(quant.to_string().to_lowercase().parse(), Ok(quant));
        }
        let error = "Q9_Z".parse::<Quant>().unwrap_err().to_string();
        assert!(error.starts_with("\"Q9_Z\" is none of F32, F16, BF16, Q8_0,"), "{error}");
        assert!("Q8_1".parse::<Quant>().is_err(), "no type for storage");
    }

    #[test]
    fn only_block_matrices_of_whole_blocks_are_quantized() {
        let q4_k: Quant = "Q4_K".parse().unwrap();
        let unread = || panic!("the values don't matter here");
        let choose = |quant, role, row| dtype(quant, role, row, unread).unwrap();
        assert_eq!(choose(q4_k, Role::Block, 5120), DType::Q4_K);
        assert_eq!(choose(q4_k, Role::Block, 64), DType::F16);
        assert_eq!(choose(q4_k, Role::Exact, 5120), DType::F32);
        assert_eq!(choose(Quant::F32, Role::Linear, 5120), DType::F32);
    }

    #[test]
    fn a_linear_that_overflows_f16_is_bf16() {
        let q8_0: Quant = "Q8_0".parse().unwrap();
        let choose = |largest| dtype(q8_0, Role::Linear, 256, || Ok(largest)).unwrap();
        assert_eq!(choose(65504.0), DType::F16);
        assert_eq!(choose(65519.9), DType::F16, "rounds down to 65504");
        assert_eq!(choose(65520.0), DType::BF16);
    }
}
