//! Which tensors a low-rank adapter (LoRA) changes.
//!
//! Files name the tensors they change in many ways; what they add is the same everywhere:
//! `strength * alpha / rank * up @ down` (Hu et al. 2021, arXiv 2106.09685), or a difference of the
//! tensor's own shape.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::Wanted;
use crate::adapter_metadata::AdapterMetadata;

/// A change of one tensor, by the keys of the adapter's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The place of the tensor in the table.
    pub tensor: usize,
    /// What is added to it.
    pub kind: Kind,
}

/// What is added to a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A product of two matrices.
    Product {
        /// `[outputs, rank]`, also called B.
        up: String,
        /// `[rank, inputs]`, also called A.
        down: String,
        /// The rank.
        rank: u64,
        /// What the product is multiplied by, and divided by the rank.
        alpha: Alpha,
    },
    /// As large as the tensor.
    Difference(String),
}

/// Where alpha is.
#[derive(Clone, Debug, PartialEq)]
pub enum Alpha {
    /// Nowhere: it is the rank.
    Rank,
    /// In the file's header.
    Number(f32),
    /// A tensor of one element.
    Tensor(String),
}

/// The key of a safetensors header, in `__metadata__`, for [`changes`].
pub const METADATA: &str = "lora_adapter_metadata";

/// Why an adapter doesn't fit a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum LoraError {
    #[error(
        "{} of {keys} keys change no tensor of this model: {}{}",
        unknown.len(),
        unknown[..unknown.len().min(LISTED)].join(", "),
        if unknown.len() > LISTED { ", ..." } else { "" }
    )]
    Unknown { unknown: Vec<String>, keys: usize },
    #[error("{METADATA} in its header: {0}")]
    Metadata(String),
    #[error("{key:?} is there under two names")]
    Twice { key: String },
    #[error("{tensor}: {what}")]
    Unfit { tensor: String, what: String },
}

/// How many names an error lists.
const LISTED: usize = 8;

/// The part of a key behind the module's name, in every spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suffix {
    Up,
    Down,
    Alpha,
    /// Of the module's weight.
    Difference,
    /// Of its bias.
    BiasDifference,
    /// Of the modulation table that the module has.
    ModulationDifference,
}

const SUFFIXES: [(&str, Suffix); 15] = [
    (".lora_up.weight", Suffix::Up),
    (".lora_down.weight", Suffix::Down),
    (".lora_B.weight", Suffix::Up),
    (".lora_A.weight", Suffix::Down),
    (".lora_B.default.weight", Suffix::Up),
    (".lora_A.default.weight", Suffix::Down),
    (".lora.up.weight", Suffix::Up),
    (".lora.down.weight", Suffix::Down),
    (".lora_B", Suffix::Up),
    (".lora_A", Suffix::Down),
    (".alpha", Suffix::Alpha),
    (".lora_alpha", Suffix::Alpha),
    (".diff", Suffix::Difference),
    (".diff_b", Suffix::BiasDifference),
    (".diff_m", Suffix::ModulationDifference),
];

/// What tools put before the module's name.
const PREFIXES: [&str; 9] = [
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer_2.",
    "transformer.",
    "unet.",
    "lora_unet_",
    "lora_unet__",
    "lora_transformer_",
];

/// An adapter's file and how much of it to add, as people type them: `FILE`, or `FILE:STRENGTH`.
///
/// # Errors
/// What is wrong with `text`, as a sentence.
pub fn typed(text: &str) -> Result<(PathBuf, f32), String> {
    let split = text
        .rsplit_once(':')
        .and_then(|(path, strength)| Some((path, strength.parse::<f32>().ok()?)));
    if let (None, Some((path, tail))) = (split, text.split_once(".safetensors:")) {
        return Err(format!("{tail:?} is no strength; expected such as {path}.safetensors:0.8"));
    }
    let (path, strength) = split.unwrap_or((text, 1.0));
    if path.is_empty() || !strength.is_finite() {
        return Err(format!("{text:?} is not FILE or FILE:STRENGTH"));
    }
    Ok((path.into(), strength))
}

/// What an adapter's `keys`, with their shapes, change of the tensors in `table`. `metadata` is what the file's
/// header has under [`METADATA`], if anything.
///
/// # Errors
/// Where a key has no tensor to change, or what it holds doesn't fit.
pub fn changes<'a>(
    keys: impl Iterator<Item = (&'a str, &'a [u64])>,
    metadata: Option<&str>,
    table: &[Wanted],
) -> Result<Vec<Change>, LoraError> {
    let metadata = metadata.map(AdapterMetadata::parse).transpose().map_err(LoraError::Metadata)?;
    let metadata = metadata.unwrap_or_default();
    let modules = modules(table);
    let mut found: BTreeMap<(usize, bool), Parts<'a>> = BTreeMap::new();
    let (mut unknown, mut count) = (BTreeSet::new(), 0);
    for (key, shape) in keys {
        count += 1;
        let Some((suffix, tensor)) = target(key, &modules) else {
            unknown.insert(key.to_owned());
            continue;
        };
        let whole = matches!(suffix, Suffix::Up | Suffix::Down | Suffix::Alpha);
        let parts = found.entry((tensor, whole)).or_default();
        if parts.insert(suffix, (key, shape)).is_some() {
            return Err(LoraError::Twice { key: key.to_owned() });
        }
    }
    if !unknown.is_empty() {
        return Err(LoraError::Unknown { unknown: unknown.into_iter().collect(), keys: count });
    }
    let mut changes = Vec::new();
    for ((tensor, _), parts) in found {
        let wanted = &table[tensor];
        let kinds = kinds(wanted, &parts, &metadata)
            .map_err(|what| LoraError::Unfit { tensor: wanted.name.clone(), what })?;
        changes.extend(kinds.into_iter().map(|kind| Change { tensor, kind }));
    }
    Ok(changes)
}

/// The keys of one tensor, with their shapes.
type Parts<'a> = BTreeMap<Suffix, (&'a str, &'a [u64])>;

/// What the keys of one tensor add up to.
fn kinds(
    tensor: &Wanted,
    parts: &Parts<'_>,
    metadata: &AdapterMetadata,
) -> Result<Vec<Kind>, String> {
    let elements = |shape: &[u64]| shape.iter().product::<u64>();
    let whole = elements(&tensor.shape);
    let mut kinds = Vec::new();
    for (suffix, (key, shape)) in parts {
        match suffix {
            Suffix::Up | Suffix::Down | Suffix::Alpha => {}
            Suffix::Difference | Suffix::BiasDifference | Suffix::ModulationDifference => {
                if elements(shape) != whole {
                    let wanted = &tensor.shape;
                    return Err(format!("the difference is {shape:?}, the tensor {wanted:?}"));
                }
                kinds.push(Kind::Difference((*key).to_owned()));
            }
        }
    }
    let alpha = parts.get(&Suffix::Alpha);
    let ((up, up_shape), (down, down_shape)) =
        match (parts.get(&Suffix::Up), parts.get(&Suffix::Down)) {
            (Some(&up), Some(&down)) => (up, down),
            (None, None) if alpha.is_none() => return Ok(kinds),
            (None, None) => return Err("there is alpha, but no matrix".into()),
            (Some(_), None) => return Err("the down (A) matrix is missing".into()),
            (None, Some(_)) => return Err("the up (B) matrix is missing".into()),
        };
    let (outputs, inputs) = (tensor.shape[0], whole / tensor.shape[0]);
    let Some(&rank) = down_shape.first() else {
        return Err("the down (A) matrix is a single number".into());
    };
    let fits = rank > 0
        && elements(down_shape) == rank.saturating_mul(inputs)
        && up_shape.first() == Some(&outputs)
        && elements(up_shape) == rank.saturating_mul(outputs);
    if !fits {
        return Err(format!(
            "up {up_shape:?} and down {down_shape:?} do not make a {outputs} x {inputs} matrix"
        ));
    }
    if let Some((_, shape)) = alpha.filter(|(_, shape)| elements(shape) != 1) {
        return Err(format!("alpha is {shape:?}, not one number"));
    }
    let alpha = match alpha {
        Some((key, _)) => Alpha::Tensor((*key).to_owned()),
        None => metadata.alpha(down, rank).map_or(Alpha::Rank, Alpha::Number),
    };
    kinds.push(Kind::Product { up: up.to_owned(), down: down.to_owned(), rank, alpha });
    Ok(kinds)
}

/// Tensors by the names that keys may call them, without what tells the spellings apart.
fn modules(table: &[Wanted]) -> BTreeMap<String, usize> {
    let names = table.iter().enumerate().flat_map(|(index, wanted)| {
        [&wanted.name, &wanted.diffusers].map(|name| (flat(name), index))
    });
    names.collect()
}

/// kohya's files have underscores for the points in a name, which no two names differ by alone.
fn flat(name: &str) -> String {
    name.replace('.', "_")
}

/// The tensor that a key is about.
fn target(key: &str, modules: &BTreeMap<String, usize>) -> Option<(Suffix, usize)> {
    let suffix =
        SUFFIXES.iter().find_map(|(text, suffix)| Some((key.strip_suffix(text)?, *suffix)));
    let (module, suffix) = suffix?;
    let part = match suffix {
        Suffix::Up | Suffix::Down | Suffix::Alpha | Suffix::Difference => "weight",
        Suffix::BiasDifference => "bias",
        Suffix::ModulationDifference => "modulation",
    };
    let mut candidates = vec![module];
    while let Some(name) = PREFIXES
        .iter()
        .filter_map(|prefix| candidates.last()?.strip_prefix(prefix))
        .min_by_key(|name| name.len())
    {
        candidates.push(name);
    }
    let find = |module: &&str| modules.get(&format!("{}_{part}", flat(module))).copied();
    Some((suffix, candidates.iter().find_map(find)?))
}
