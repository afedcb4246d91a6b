//! The names that `--quant` takes: a type for all block matrices, or a mixture of types.

use gguf::DType;
use std::fmt;
use std::str::FromStr;

/// What `--quant` can be: a quantization by its published name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quant {
    name: &'static str,
    dtype: DType,
    file_type: u32,
}

/// Their numbers are those of `general.file_type`. A K-quant without a mixture of types counts as
/// its S variant there.
const QUANTS: [Quant; 22] = [
    Quant { name: "F32", dtype: DType::F32, file_type: 0 },
    Quant { name: "F16", dtype: DType::F16, file_type: 1 },
    Quant { name: "BF16", dtype: DType::BF16, file_type: 32 },
    Quant { name: "Q8_0", dtype: DType::Q8_0, file_type: 7 },
    Quant { name: "Q6_K", dtype: DType::Q6_K, file_type: 18 },
    Quant { name: "Q5_K_M", dtype: DType::Q5_K, file_type: 17 },
    Quant { name: "Q5_K_S", dtype: DType::Q5_K, file_type: 16 },
    Quant { name: "Q5_K", dtype: DType::Q5_K, file_type: 16 },
    Quant { name: "Q5_1", dtype: DType::Q5_1, file_type: 9 },
    Quant { name: "Q5_0", dtype: DType::Q5_0, file_type: 8 },
    Quant { name: "Q4_K_M", dtype: DType::Q4_K, file_type: 15 },
    Quant { name: "Q4_K_S", dtype: DType::Q4_K, file_type: 14 },
    Quant { name: "Q4_K", dtype: DType::Q4_K, file_type: 14 },
    Quant { name: "Q4_1", dtype: DType::Q4_1, file_type: 3 },
    Quant { name: "Q4_0", dtype: DType::Q4_0, file_type: 2 },
    Quant { name: "IQ4_NL", dtype: DType::IQ4_NL, file_type: 25 },
    Quant { name: "IQ4_XS", dtype: DType::IQ4_XS, file_type: 30 },
    Quant { name: "Q3_K_L", dtype: DType::Q3_K, file_type: 13 },
    Quant { name: "Q3_K_M", dtype: DType::Q3_K, file_type: 12 },
    Quant { name: "Q3_K_S", dtype: DType::Q3_K, file_type: 11 },
    Quant { name: "Q3_K", dtype: DType::Q3_K, file_type: 11 },
    Quant { name: "Q2_K", dtype: DType::Q2_K, file_type: 10 },
];

impl Quant {
    /// No quantization at all.
    pub const F32: Quant = QUANTS[0];
    /// Half as exact.
    pub const F16: Quant = QUANTS[1];

    /// Every one there is.
    pub const ALL: &[Quant] = &QUANTS;

    /// As in the files' names.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The element type of most block matrices.
    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// The number under `general.file_type`, as in `llama.h`'s `llama_ftype`.
    pub fn file_type(self) -> u32 {
        self.file_type
    }

    /// The one that has this type for all block matrices; `None` if there is none.
    pub fn uniform(dtype: DType) -> Option<Quant> {
        QUANTS.into_iter().find(|quant| quant.name == dtype.name())
    }

    /// Whether the name stands for a mixture that the type alone doesn't say.
    pub fn is_mixture(self) -> bool {
        self.name != self.dtype.name()
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// A name that is no [`Quant`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {known}", known = QUANTS.map(|quant| quant.name).join(", "))]
pub struct UnknownQuant(pub String);

impl FromStr for Quant {
    type Err = UnknownQuant;

    /// Finds one by its name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, UnknownQuant> {
        let known = |quant: &Quant| quant.name.eq_ignore_ascii_case(name);
        QUANTS.into_iter().find(known).ok_or_else(|| UnknownQuant(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quants_are_found_by_name() {
        for &quant in Quant::ALL {
            assert_eq!(quant.to_string().to_lowercase().parse(), Ok(quant));
            assert_eq!(Quant::uniform(quant.dtype()).unwrap().dtype(), quant.dtype());
        }
        let error = "Q9_Z".parse::<Quant>().unwrap_err().to_string();
        assert!(error.starts_with("\"Q9_Z\" is none of F32, F16, BF16, Q8_0,"), "{error}");
        assert!("Q8_1".parse::<Quant>().is_err(), "no type for storage");
    }

    #[test]
    fn every_quantized_type_has_a_name() {
        for &dtype in crate::quantize::QUANTIZED {
            assert!(Quant::uniform(dtype).is_some(), "{dtype}");
        }
        assert_eq!(Quant::uniform(DType::MXFP4), None);
    }
}
