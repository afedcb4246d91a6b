//! Element types of sources, and how their bytes become f32.

use gguf::DType;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::quantize;

/// The element type of a tensor in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceType {
    F64,
    /// FP8 of the Open Compute Project, 4 bits of exponent, without infinities ("e4m3fn").
    F8E4M3,
    /// FP8, 5 bits of exponent: the upper half of an F16.
    F8E5M2,
    /// A type of GGUF files, which safetensors files have in common with them or not.
    Gguf(DType),
    /// Whatever weights are never made of: only its size is known.
    Other {
        name: &'static str,
        bytes: usize,
    },
}

impl SourceType {
    pub(crate) const F32: SourceType = SourceType::Gguf(DType::F32);
    pub(crate) const F16: SourceType = SourceType::Gguf(DType::F16);
    pub(crate) const BF16: SourceType = SourceType::Gguf(DType::BF16);

    /// As files spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SourceType::F64 => "F64",
            SourceType::F8E4M3 => "F8_E4M3",
            SourceType::F8E5M2 => "F8_E5M2",
            SourceType::Gguf(dtype) => dtype.name(),
            SourceType::Other { name, .. } => name,
        }
    }

    /// Bytes of so many elements, whole blocks.
    pub(crate) fn bytes(self, elements: u64) -> u64 {
        match self {
            SourceType::F64 => 8 * elements,
            SourceType::F8E4M3 | SourceType::F8E5M2 => elements,
            SourceType::Gguf(dtype) => dtype.row_bytes(elements).expect("whole blocks"),
            SourceType::Other { bytes, .. } => bytes as u64 * elements,
        }
    }

    /// Whether [`SourceType::decode`] knows it.
    pub(crate) fn is_decodable(self) -> bool {
        match self {
            SourceType::F64 | SourceType::F8E4M3 | SourceType::F8E5M2 => true,
            SourceType::Gguf(dtype) => quantize::is_decodable(dtype),
            SourceType::Other { .. } => false,
        }
    }

    /// Whether values were already rounded to blocks.
    pub(crate) fn is_quantized(self) -> bool {
        matches!(self, SourceType::Gguf(dtype) if dtype.is_quantized())
    }

    /// Replaces `values` by those of the little-endian `bytes`. Every value but F64's is exact in f32.
    pub(crate) fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        let halves = || bytes.as_chunks().0.iter().map(|&half| u16::from_le_bytes(half));
        values.clear();
        match self {
            SourceType::F32 => {
                values.extend(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)));
            }
            SourceType::BF16 => {
                values.extend(halves().map(|half| bf16::from_bits(half).to_f32()));
            }
            SourceType::F16 => {
                let halves: Vec<u16> = halves().collect();
                values.resize(halves.len(), 0.0);
                halves.reinterpret_cast::<f16>().convert_to_f32_slice(values);
            }
            SourceType::F64 => {
                let doubles = bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value));
                values.extend(doubles.map(|value| value as f32));
            }
            SourceType::F8E4M3 => values.extend(bytes.iter().map(|&byte| e4m3(byte))),
            SourceType::F8E5M2 => {
                values.extend(
                    bytes.iter().map(|&byte| f16::from_bits(u16::from(byte) << 8).to_f32()),
                );
            }
            SourceType::Gguf(dtype) => quantize::decode(dtype, bytes, values),
            SourceType::Other { name, .. } => panic!("{name} has no values"),
        }
    }
}

/// Sign, 4 bits of exponent with a bias of 7, 3 of mantissa; all ones is NaN.
/// ([OFP8](https://www.opencompute.org/documents/ocp-8-bit-floating-point-specification-ofp8-revision-1-0-2023-12-01-pdf-1))
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(dtype: SourceType, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::new();
        dtype.decode(bytes, &mut values);
        values
    }

    #[test]
    fn fp8_is_as_the_specification_says() {
        // Largest, smallest normal, smallest subnormal, one, minus zero.
        let values = decoded(SourceType::F8E4M3, &[0x7e, 0x08, 0x01, 0x38, 0x80]);
        assert_eq!(values, [448.0, 0.015625, 0.001953125, 1.0, -0.0]);
        assert!(values[4].is_sign_negative());
        assert!(decoded(SourceType::F8E4M3, &[0x7f, 0xff]).iter().all(|value| value.is_nan()));
        let values = decoded(SourceType::F8E5M2, &[0x7b, 0x04, 0x01, 0x3c, 0x7c]);
        assert_eq!(values, [57344.0, 2f32.powi(-14), 2f32.powi(-16), 1.0, f32::INFINITY]);
    }

    #[test]
    fn doubles_are_rounded() {
        assert_eq!(decoded(SourceType::F64, &0.1f64.to_le_bytes()), [0.1f32]);
    }
}
