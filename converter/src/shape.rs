//! The two ways to store the kernels of 3-D convolutions, which have five dimensions.
//!
//! ggml's own reader stops at four, and the files in circulation have five nonetheless. The bytes are
//! the same in both layouts.

use gguf::{Metadata, Value};
use std::fmt;
use std::str::FromStr;

/// How a tensor of five dimensions is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// As it is: the files in circulation.
    #[default]
    FiveD,
    /// With the two outermost dimensions in one, and the shape in the metadata: for readers that
    /// refuse five.
    Fold4d,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::FiveD => "5d",
            Layout::Fold4d => "fold4d",
        })
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "5d" => Ok(Layout::FiveD),
            "fold4d" => Ok(Layout::Fold4d),
            _ => Err(format!("{text:?} is neither 5d nor fold4d")),
        }
    }
}

/// ComfyUI-GGUF reads the shapes of reshaped tensors under such keys.
pub(crate) const ORIGINAL: &str = "comfy.gguf.orig_shape.";

/// Whether it is the kernel of a patch embedding, by the end of its name: Wan's, HunyuanVideo's.
pub(crate) fn is_patch_embedding(name: &str) -> bool {
    ["patch_embedding.weight", "img_in.proj.weight"].iter().any(|end| name.ends_with(end))
}

/// The shape that a tensor of this shape is stored with.
pub(crate) fn stored(layout: Layout, shape: &[u64]) -> Vec<u64> {
    match (layout, shape) {
        // No product of two sizes of a tensor that exists wraps.
        (Layout::Fold4d, [a, b, rest @ ..]) if shape.len() == 5 => [&[a * b], rest].concat(),
        _ => shape.to_vec(),
    }
}

/// Notes the shapes of tensors that [`stored`] folds.
pub(crate) fn describe<'a>(
    metadata: &mut Metadata,
    tensors: impl Iterator<Item = (&'a str, &'a [u64])>,
) {
    for (name, shape) in tensors.filter(|(_, shape)| shape.len() == 5) {
        let shape: Vec<i32> = shape.iter().map(|&n| i32::try_from(n).unwrap_or(i32::MAX)).collect();
        metadata.set(format!("{ORIGINAL}{name}"), shape);
    }
}

/// The shape that the metadata gives for a tensor, if it has as many elements.
pub(crate) fn original(metadata: &Metadata, name: &str, stored: &[u64]) -> Option<Vec<u64>> {
    let Some(Value::Array(gguf::Array::I32(shape))) = metadata.get(&format!("{ORIGINAL}{name}"))
    else {
        return None;
    };
    let shape = shape.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<Vec<u64>>>()?;
    let product = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n))?;
    (product == stored.iter().product::<u64>()).then_some(shape)
}
