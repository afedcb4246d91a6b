//! FP8 checkpoints as ComfyUI's: `X.weight` in FP8, and a factor for all its values beside it.

use anyhow::{Context, Result, bail, ensure};

use super::element::SourceType;
use super::weights::Weights;

/// Marks a file whose FP8 tensors all have a factor.
const MARK: &str = "scaled_fp8";

/// Names of the factor of `X.weight`, after `X.`.
const FACTORS: [&str; 2] = ["scale_weight", "weight_scale"];
/// Factors of activations, for products in FP8. They are no part of the weights.
const INPUTS: [&str; 2] = ["scale_input", "input_scale"];

/// Gives FP8 tensors their factors, and takes what only says so out of the list.
///
/// # Errors
/// Where a factor isn't one number, belongs to no tensor or is missing though the file says that
/// tensors have them; and where weights are packed in a way that only their maker reads.
pub(super) fn scale(weights: &mut Weights) -> Result<()> {
    let path = weights.path().display().to_string();
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    if let Some(name) = names.iter().find(|name| last(name) == "comfy_quant") {
        bail!(
            "{path}: {name:?} says that weights are packed by ComfyUI's own quantization; use the \
               BF16 or F16 release of the model"
        );
    }
    let mut marked = false;
    for name in &names {
        let kind = last(name);
        if kind == MARK {
            marked = true;
        } else if FACTORS.contains(&kind.as_str()) {
            let module = name.strip_suffix(&kind).expect("its last part");
            let factor = factor(weights, name).with_context(|| path.clone())?;
            let weight = format!("{module}weight");
            let Some(tensor) = weights.tensors.get_mut(&weight) else {
                bail!("{path}: {name:?} scales {weight:?}, which is missing");
            };
            let twice = tensor.scale.replace(factor).is_some();
            ensure!(!twice, "{path}: {weight:?} has two factors");
        } else if !INPUTS.contains(&kind.as_str()) {
            continue;
        }
        weights.remove(name);
    }
    let bare = |tensor: &super::SourceTensor| {
        matches!(tensor.dtype, SourceType::F8E4M3 | SourceType::F8E5M2) && tensor.scale.is_none()
    };
    match weights.tensors.iter().find(|(_, tensor)| marked && bare(tensor)) {
        Some((name, tensor)) => bail!(
            "{path}: {name:?} is {} without its factor, {}",
            tensor.dtype.name(),
            "though the file says that such tensors have one"
        ),
        None => Ok(()),
    }
}

fn factor(weights: &Weights, name: &str) -> Result<f32> {
    let tensor = weights.get(name).expect("named by the list");
    ensure!(
        tensor.elements() == 1 && tensor.dtype.is_decodable(),
        "{name:?} is {} of {:?}; one number for a tensor is supported",
        tensor.dtype.name(),
        tensor.shape
    );
    let factor = weights.values(tensor)?[0];
    ensure!(factor.is_finite() && factor != 0.0, "{name:?} is {factor}");
    Ok(factor)
}
