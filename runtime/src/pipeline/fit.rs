//! What would fit where a request doesn't: other files, fewer frames, a smaller picture.

use super::error::GenerateError;
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::plan::{Part, Plan};
use super::request::{FRAMES_MULTIPLE, Request};
use crate::ggml::Family;
use gguf::{DType, File};
use std::fmt;

/// Types that transformers are shared in, best first.
const QUANTS: [DType; 6] =
    [DType::Q8_0, DType::Q6_K, DType::Q5_K, DType::Q4_K, DType::Q3_K, DType::Q2_K];

/// A change of the request, or of its files, that would fit.
#[derive(Clone, Debug, PartialEq)]
pub enum Proposal {
    /// The transformer's files in another type, with so many bytes of weights each.
    Quant {
        /// In place of that of every matrix that isn't F32.
        dtype: DType,
        /// Of weights, in the larger file.
        bytes: u64,
    },
    /// A shorter clip, of 4n + 1 frames.
    Frames(usize),
    /// A smaller picture of about the same shape.
    Size {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quant { dtype, bytes } => {
                write!(f, "files of type {dtype} (about {:.1} GB an expert)", *bytes as f64 / 1e9)
            }
            Self::Frames(frames) => write!(f, "--frames {frames}"),
            Self::Size { width, height } => write!(f, "--size {width}x{height}"),
        }
    }
}

/// What would fit in the place of `request`, each by itself; nothing, if nothing does.
pub fn proposals(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    plan: &Plan,
) -> Result<Vec<Proposal>, GenerateError> {
    let mut found = Vec::new();
    let large = |part: &&Part| plan.too_large().is_some_and(|large| large.name == part.name);
    if plan.experts.iter().any(|part| large(&part)) {
        found.extend(quant(folder, plan));
    }
    let fits = |request: &Request| -> Result<bool, GenerateError> {
        Ok(Plan::new(machine, folder, request, None)?.too_large().is_none())
    };
    let count = (request.frames - 1) / FRAMES_MULTIPLE;
    let fewer = |n: usize| count * n / PARTS * FRAMES_MULTIPLE + 1;
    let frames = most(|n| fits(&Request { frames: fewer(n), ..request.clone() }))?;
    found.extend(frames.map(|n| Proposal::Frames(fewer(n))));
    let multiple = folder.latent_grid()?.size_multiple();
    let smaller = |n: usize| {
        let side = |side: usize| (side / multiple * n / PARTS).max(1) * multiple;
        (side(request.width), side(request.height))
    };
    let size = most(|n| {
        let (width, height) = smaller(n);
        fits(&Request { width, height, ..request.clone() })
    })?;
    found.extend(size.map(|n| {
        let (width, height) = smaller(n);
        Proposal::Size { width, height }
    }));
    Ok(found)
}

/// Into so many parts clips and sides are divided to find how much of them fits.
const PARTS: usize = 16;

/// The largest part that `fits`, if any does. More takes more memory: it is searched for by halves.
fn most(
    fits: impl Fn(usize) -> Result<bool, GenerateError>,
) -> Result<Option<usize>, GenerateError> {
    if !fits(1)? {
        return Ok(None);
    }
    let (mut low, mut high) = (1, PARTS);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Some(low))
}

/// The best type whose weights fit beside what the experts hold besides.
fn quant(folder: &ModelFolder, plan: &Plan) -> Option<Proposal> {
    let expert = plan.experts.iter().max_by_key(|part| part.usage.total())?;
    if expert.device.family() == Family::Cpu {
        // Its weights are read from the file, and need not fit.
        return None;
    }
    let room = expert.device.capacity().total.checked_sub(expert.usage.working())?;
    let files = std::iter::once(&folder.transformer).chain(&folder.transformer_2);
    let largest = files.max_by_key(|file| bytes_in(file, None))?;
    let now = bytes_in(largest, None);
    QUANTS.into_iter().find_map(|dtype| {
        let bytes = bytes_in(largest, Some(dtype));
        (bytes < now && bytes <= room).then_some(Proposal::Quant { dtype, bytes })
    })
}

/// Bytes of the file's weights, with those that are quantized in type `dtype`, if there is one.
fn bytes_in(file: &File, dtype: Option<DType>) -> u64 {
    let of = |tensor: &gguf::Tensor| {
        let elements = tensor.shape.iter().product::<u64>();
        let kept = matches!(tensor.dtype, DType::F32) || tensor.shape.len() < 2;
        match dtype.filter(|_| !kept) {
            Some(dtype) => elements / dtype.block_len() * dtype.block_bytes(),
            None => tensor.bytes,
        }
    };
    file.tensors().iter().map(of).sum()
}
