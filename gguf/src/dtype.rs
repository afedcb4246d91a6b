//! The table of element types: what each is called in a file and how many bytes its blocks take.

use std::fmt;
use std::str::FromStr;

macro_rules! dtypes {
    ($($name:ident = $id:literal, $block_len:literal in $block_bytes:literal;)*) => {
        /// The element type of a tensor; the order is that of the ids.
        ///
        /// Ids and block sizes are those of `ggml_type` and `type_traits` in ggml (`ggml.h`, `ggml.c`,
        /// `ggml-common.h`). Ids that ggml removed are unknown here too.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(non_camel_case_types, reason = "the names are ggml's, as users know them")]
        pub enum DType {
            $(
                #[doc = concat!(
                    "Id ", $id, ": ", $block_len, " element(s) in ", $block_bytes, " byte(s)."
                )]
                $name = $id,
            )*
        }

        impl DType {
            /// Every type, by ascending id.
            pub const ALL: &[DType] = &[$(DType::$name),*];

            /// The type with this number in a file; `None` where ggml has no such type (any more).
            pub fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(DType::$name),)*
                    _ => None,
                }
            }

            /// The name in ggml, in upper case: `"Q4_K"`.
            pub fn name(self) -> &'static str {
                match self {
                    $(DType::$name => stringify!($name),)*
                }
            }

            /// Elements in a block; 1 for types that aren't quantized.
            pub fn block_len(self) -> u64 {
                match self {
                    $(DType::$name => $block_len,)*
                }
            }

            /// Bytes in a block.
            pub fn block_bytes(self) -> u64 {
                match self {
                    $(DType::$name => $block_bytes,)*
                }
            }
        }
    };
}

dtypes! {
    F32 = 0, 1 in 4;
    F16 = 1, 1 in 2;
    Q4_0 = 2, 32 in 18;
    Q4_1 = 3, 32 in 20;
    Q5_0 = 6, 32 in 22;
    Q5_1 = 7, 32 in 24;
    Q8_0 = 8, 32 in 34;
    Q8_1 = 9, 32 in 36;
    Q2_K = 10, 256 in 84;
    Q3_K = 11, 256 in 110;
    Q4_K = 12, 256 in 144;
    Q5_K = 13, 256 in 176;
    Q6_K = 14, 256 in 210;
    Q8_K = 15, 256 in 292;
    IQ2_XXS = 16, 256 in 66;
    IQ2_XS = 17, 256 in 74;
    IQ3_XXS = 18, 256 in 98;
    IQ1_S = 19, 256 in 50;
    IQ4_NL = 20, 32 in 18;
    IQ3_S = 21, 256 in 110;
    IQ2_S = 22, 256 in 82;
    IQ4_XS = 23, 256 in 136;
    I8 = 24, 1 in 1;
    I16 = 25, 1 in 2;
    I32 = 26, 1 in 4;
    I64 = 27, 1 in 8;
    F64 = 28, 1 in 8;
    IQ1_M = 29, 256 in 56;
    BF16 = 30, 1 in 2;
    TQ1_0 = 34, 256 in 54;
    TQ2_0 = 35, 256 in 66;
    MXFP4 = 39, 32 in 17;
    NVFP4 = 40, 64 in 36;
    Q1_0 = 41, 128 in 18;
    Q2_0 = 42, 64 in 18;
}

impl DType {
    /// The number that stands for the type in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a row of `n` elements; `None` if `n` isn't a whole number of blocks or the size
    /// overflows.
    pub fn row_bytes(self, n: u64) -> Option<u64> {
        if !n.is_multiple_of(self.block_len()) {
            return None;
        }
        (n / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Whether several elements share a block, so that a single one has no bytes of its own.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no [`DType`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown element type {0:?}")]
pub struct UnknownDType(pub String);

impl FromStr for DType {
    type Err = UnknownDType;

    /// Finds a type by its name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, UnknownDType> {
        DType::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownDType(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_lead_back_to_the_type() {
        for &dtype in DType::ALL {
            assert_eq!(DType::from_id(dtype.id()), Some(dtype));
            assert_eq!(dtype.name().to_lowercase().parse(), Ok(dtype));
            assert_eq!(dtype.to_string(), dtype.name());
        }
        assert!(DType::ALL.is_sorted());
        assert_eq!("Q4_9".parse::<DType>(), Err(UnknownDType("Q4_9".into())));
    }

    #[test]
    fn removed_ids_are_unknown() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, 999, u32::MAX] {
            assert_eq!(DType::from_id(id), None, "{id}");
        }
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(DType::Q4_K.row_bytes(5120), Some(20 * 144));
        assert_eq!(DType::Q4_K.row_bytes(5121), None);
        assert_eq!(DType::F32.row_bytes(3), Some(12));
        assert_eq!(DType::F64.row_bytes(1 << 61), None);
        assert_eq!(format!("{:>6}|", DType::Q8_0), "  Q8_0|");
    }
}
