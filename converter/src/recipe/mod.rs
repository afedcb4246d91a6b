//! Which element type each tensor gets, and why.
//!
//! Only the large matrices inside the blocks are quantized. What readers handle as one-dimensional
//! or as a convolution must be F32, since some of them can't use BF16 or packed bytes in its place.

mod mix;
mod quant;
mod rule;
pub(crate) mod size;

pub use quant::{Quant, UnknownQuant};
pub use rule::{BadRule, Rule};

use anyhow::{Result, ensure};
use gguf::DType;

use crate::arch::{Family, Model, Part, Role, Tensor};
use mix::Place;

/// Magnitudes from here on round to infinity in F16.
pub(crate) const F16_LIMIT: f32 = 65520.0;
/// The same for BF16.
pub(crate) const BF16_LIMIT: f32 = f32::from_bits(0x7f7f_8000);

/// How the types of block matrices follow from the name of a quantization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recipe {
    /// As in the files in circulation.
    #[default]
    Published,
    /// All alike.
    Uniform,
    /// As published, but the first two and the last three blocks two grades higher: they are the
    /// ones whose precision Wan depends on (arXiv 2606.00957).
    Boundary,
}

/// What decides types beside the quantization.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// How types follow from the name.
    pub recipe: Recipe,
    /// The first rule that matches a matrix's name in the GGUF file decides its type.
    pub rules: Vec<Rule>,
}

/// The types of a model's tensors outside the rules: F32 for what must be exact, the smallest type
/// that holds every value for linears outside the blocks, nothing for block matrices. Takes reading
/// the linears.
pub(crate) fn kept(model: &Model) -> Result<Vec<Option<DType>>> {
    let kept = |tensor: &Tensor| {
        Ok(match tensor.role {
            Role::Exact => Some(DType::F32),
            Role::Linear if model.largest(tensor)? < F16_LIMIT => Some(DType::F16),
            Role::Linear => Some(DType::BF16),
            Role::Block => None,
        })
    };
    model.tensors.iter().map(kept).collect()
}

/// The types of a model's tensors. `weighted` says whether importance weights will be used.
pub(crate) fn types(
    model: &Model,
    kept: &[Option<DType>],
    quant: Quant,
    types: &Types,
    weighted: bool,
) -> Vec<DType> {
    let places = mix::places(&model.tensors);
    let blocks = |place: &Place| match place {
        Place::Down { block } => block + 1,
        _ => 0,
    };
    let blocks = places.iter().map(blocks).max().unwrap_or(0);
    let mixed = |place: Place| match (types.recipe, model.part, model.family) {
        (Recipe::Uniform, ..) => quant.dtype(),
        (_, Part::TextEncoder, _) => mix::encoder(quant, place, blocks, weighted),
        (_, part, Family::Wan) if part.is_transformer() => mix::wan(quant, place),
        (_, part, Family::HunyuanVideo15) if part.is_transformer() => {
            mix::hunyuan_video(quant, place)
        }
        _ => quant.dtype(),
    };
    let one = |(index, tensor): (usize, &Tensor)| {
        let fits = |dtype: DType| match dtype.row_bytes(tensor.row()) {
            Some(_) => dtype,
            // As city96's tools do; another quantized type would surprise whoever asked for this one.
            None => DType::F16,
        };
        let ruled = types.rules.iter().find(|rule| rule.matches(&tensor.name));
        match (tensor.role, ruled) {
            (Role::Exact, _) => DType::F32,
            (_, Some(rule)) => fits(rule.dtype),
            (Role::Linear, None) if quant == Quant::F32 => DType::F32,
            (Role::Linear, None) => kept[index].expect("decided by the values"),
            (Role::Block, None) => {
                let dtype = mixed(places[index]);
                let boundary = types.recipe == Recipe::Boundary && at_boundary(tensor, blocks);
                fits(if boundary { higher(dtype, raised(quant.dtype())) } else { dtype })
            }
        }
    };
    model.tensors.iter().enumerate().map(one).collect()
}

/// Every rule has to match a matrix of some model, or it is a mistake.
pub(crate) fn check_rules(rules: &[Rule], models: &[Model]) -> Result<()> {
    for rule in rules {
        let matrices = models.iter().flat_map(|model| &model.tensors);
        let mut matrices = matrices.filter(|tensor| tensor.role != Role::Exact);
        ensure!(
            matrices.any(|tensor| rule.matches(&tensor.name)),
            "--tensor-type {rule}: no matrix has such a name (norms, biases, modulation and \
             convolutions stay F32)"
        );
    }
    Ok(())
}

/// The number of a tensor's block, if it is in one of the main stack.
fn block(tensor: &Tensor) -> Option<usize> {
    tensor.name.strip_prefix("blocks.")?.split('.').next()?.parse().ok()
}

fn at_boundary(tensor: &Tensor, blocks: usize) -> bool {
    // A small model's ends are shorter, or nothing would be left between them.
    let (first, last) = if blocks >= 10 { (2, 3) } else { (1, 1) };
    block(tensor).is_some_and(|n| n < first || n + last >= blocks)
}

/// Two grades above, with types that are as quick to compute with.
fn raised(dtype: DType) -> DType {
    match dtype {
        DType::Q2_K => DType::Q4_K,
        DType::Q3_K => DType::Q5_K,
        DType::Q4_K | DType::IQ4_NL | DType::IQ4_XS => DType::Q6_K,
        DType::Q5_K | DType::Q6_K => DType::Q8_0,
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 => DType::Q8_0,
        // The next would take twice the space.
        other => other,
    }
}

/// The one that takes more bits.
fn higher(a: DType, b: DType) -> DType {
    let bits = |dtype: DType| dtype.block_bytes() * 256 / dtype.block_len();
    if bits(b) > bits(a) { b } else { a }
}
