//! Tensors as the header describes them, and the rules that a description must obey.

use crate::dtype::DType;
use crate::error::Defect;

/// The alignment of files that don't name one, and of every file that is written.
pub(crate) const ALIGNMENT: u64 = 32;

/// The most dimensions a tensor has: a 3-D convolution's kernel.
const DIMENSIONS: usize = 5;

/// The longest tensor name in bytes; the image and video readers that extend ggml's 63 stop here.
pub(crate) const NAME_BYTES: u64 = 127;

/// A tensor in a [`File`](crate::File).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Unique in the file; 1 to 127 bytes.
    pub name: String,
    /// 1 to 5 dimensions in PyTorch order, outermost first; none is 0.
    pub shape: Vec<u64>,
    /// The type of the elements.
    pub dtype: DType,
    /// Where the data begins, in bytes from the start of the file.
    pub offset: u64,
    /// The length of the data in bytes, without padding.
    pub bytes: u64,
}

impl Tensor {
    /// The number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A tensor that a [`Writer`](crate::Writer) is going to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique in the file; 1 to 127 bytes.
    pub name: String,
    /// 1 to 5 dimensions in PyTorch order, outermost first; none is 0.
    pub shape: Vec<u64>,
    /// The type of the elements.
    pub dtype: DType,
}

/// Checks a tensor's name, except for uniqueness.
pub(crate) fn check_name(name: &str) -> Result<(), Defect> {
    let length = name.len() as u64;
    if name.is_empty() {
        Err(Defect::EmptyName)
    } else if length > NAME_BYTES {
        Err(Defect::NameLength { length, limit: NAME_BYTES })
    } else if name.contains('\0') {
        Err(Defect::NameCharacter('\0'))
    } else {
        Ok(())
    }
}

/// Checks the number of dimensions alone, before the dimensions themselves are read.
pub(crate) fn check_dimensions(count: u64) -> Result<(), Defect> {
    if count == 0 || count > DIMENSIONS as u64 {
        return Err(Defect::Dimensions(count));
    }
    Ok(())
}

/// The bytes of a tensor of this shape (outermost first), without padding.
///
/// Sizes stay below 2^63, as in every reader that counts them with a sign.
pub(crate) fn tensor_bytes(shape: &[u64], dtype: DType) -> Result<u64, Defect> {
    check_dimensions(shape.len() as u64)?;
    if shape.contains(&0) {
        return Err(Defect::ZeroDimension);
    }
    shape
        .iter()
        .try_fold(1u64, |product, &n| product.checked_mul(n))
        .filter(|&elements| i64::try_from(elements).is_ok())
        .ok_or(Defect::Overflow)?;
    let (&row, outer) = shape.split_last().expect("there is a dimension");
    if !row.is_multiple_of(dtype.block_len()) {
        return Err(Defect::Row { row, dtype });
    }
    dtype
        .row_bytes(row)
        .and_then(|bytes| bytes.checked_mul(outer.iter().product()))
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or(Defect::Overflow)
}

/// The next multiple of `alignment` from `n` on, below 2^63.
pub(crate) fn padded(n: u64, alignment: u64) -> Result<u64, Defect> {
    n.checked_next_multiple_of(alignment)
        .filter(|&n| i64::try_from(n).is_ok())
        .ok_or(Defect::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_from_shape_and_type() {
        assert_eq!(tensor_bytes(&[5120, 16, 1, 2, 2], DType::F32), Ok(5120 * 64 * 4));
        assert_eq!(tensor_bytes(&[3, 512], DType::Q6_K), Ok(3 * 2 * 210));
        assert_eq!(tensor_bytes(&[], DType::F32), Err(Defect::Dimensions(0)));
        assert_eq!(tensor_bytes(&[1; 6], DType::F32), Err(Defect::Dimensions(6)));
        assert_eq!(tensor_bytes(&[4, 0], DType::F32), Err(Defect::ZeroDimension));
        assert_eq!(
            tensor_bytes(&[32, 33], DType::Q8_0),
            Err(Defect::Row { row: 33, dtype: DType::Q8_0 })
        );
    }

    #[test]
    fn sizes_that_wrap_are_errors() {
        let overflow = Err(Defect::Overflow);
        assert_eq!(tensor_bytes(&[1 << 32, 1 << 32], DType::I8), overflow);
        assert_eq!(tensor_bytes(&[1 << 63], DType::I8), overflow);
        assert_eq!(tensor_bytes(&[1 << 31, 1 << 31], DType::F32), overflow);
        // Its bytes would fit.
        assert_eq!(tensor_bytes(&[1 << 58, 32], DType::Q4_0), overflow);
        assert_eq!(padded(u64::MAX - 3, 32), overflow);
        assert_eq!(padded(i64::MAX as u64, 32), overflow);
        assert_eq!(padded(33, 32), Ok(64));
    }

    #[test]
    fn names_have_limits() {
        assert_eq!(check_name(&"n".repeat(127)), Ok(()));
        assert_eq!(
            check_name(&"n".repeat(128)),
            Err(Defect::NameLength { length: 128, limit: 127 })
        );
        assert_eq!(check_name(""), Err(Defect::EmptyName));
        assert_eq!(check_name("a\0b"), Err(Defect::NameCharacter('\0')));
    }
}
