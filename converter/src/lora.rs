//! Low-rank adapters (LoRA) that are added to weights before these are quantized.
//!
//! Files name the tensors they change in many ways; what they add is the same everywhere:
//! `strength * alpha / rank * up @ down` ([arXiv 2106.09685](https://arxiv.org/abs/2106.09685)), or a
//! difference of the tensor's own shape.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::arch::{Model, Part, Tensor};
use crate::digest;
use crate::source::{SourceTensor, SourceType, Weights};

/// An adapter and how much of it to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// A safetensors file.
    pub path: PathBuf,
    /// What all its differences are multiplied by.
    pub strength: f32,
}

impl fmt::Display for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.strength)
    }
}

impl FromStr for Lora {
    type Err = String;

    /// `FILE` or `FILE:STRENGTH`.
    fn from_str(text: &str) -> Result<Self, String> {
        let split = text
            .rsplit_once(':')
            .and_then(|(path, strength)| Some((path, strength.parse::<f32>().ok()?)));
        let (path, strength) = split.unwrap_or((text, 1.0));
        if path.is_empty() || !strength.is_finite() {
            return Err(format!("{text:?} is not FILE or FILE:STRENGTH"));
        }
        Ok(Self { path: path.into(), strength })
    }
}

/// What is added to one tensor, where it is.
pub(crate) struct Merge {
    weights: Arc<Weights>,
    kind: Kind,
    scale: f32,
}

enum Kind {
    /// Of `outputs x rank` and `rank x inputs`.
    Product {
        up: SourceTensor,
        down: SourceTensor,
        rank: usize,
    },
    Difference(SourceTensor),
}

/// A [`Merge`] whose matrices are in memory.
pub(crate) struct Loaded {
    weights: Arc<Weights>,
    values: Values,
    scale: f32,
}

enum Values {
    Product {
        up: Vec<f32>,
        down: Vec<f32>,
        rank: usize,
    },
    /// As large as the tensor, so it is read along with it.
    Difference(SourceTensor),
}

impl Merge {
    /// Reads the matrices. `row` is the length of the tensor's rows.
    pub(crate) fn load(&self, row: u64) -> Result<Loaded> {
        let values = match &self.kind {
            Kind::Product { up, down, rank } => {
                let down = self.weights.values(down)?;
                // A convolution's kernel is cut along its outermost dimension, not by rows.
                debug_assert!((down.len() / rank).is_multiple_of(row as usize));
                Values::Product { up: self.weights.values(up)?, down, rank: *rank }
            }
            Kind::Difference(tensor) => Values::Difference(tensor.clone()),
        };
        Ok(Loaded { weights: Arc::clone(&self.weights), values, scale: self.scale })
    }
}

impl Loaded {
    /// Adds to `values`, the tensor's from element `first` on.
    pub(crate) fn add(&self, first: u64, values: &mut [f32]) -> Result<()> {
        match &self.values {
            Values::Difference(tensor) => {
                let mut bytes = vec![0; tensor.dtype.bytes(values.len() as u64) as usize];
                self.weights.read(tensor, first, &mut bytes)?;
                let mut difference = Vec::new();
                tensor.decode(&bytes, &mut difference);
                let pairs = values.iter_mut().zip(&difference);
                pairs.for_each(|(value, difference)| *value += self.scale * difference);
            }
            Values::Product { up, down, rank } => {
                let inputs = down.len() / rank;
                let mut sum = vec![0f32; inputs];
                let mut done = 0;
                while done < values.len() {
                    // A piece may begin and end within an output.
                    let at = first as usize + done;
                    let (output, column) = (at / inputs, at % inputs);
                    let len = (inputs - column).min(values.len() - done);
                    sum.fill(0.0);
                    for (factor, down) in
                        up[output * rank..][..*rank].iter().zip(down.chunks(inputs))
                    {
                        let pairs = sum[..len].iter_mut().zip(&down[column..]);
                        pairs.for_each(|(sum, value)| *sum += factor * value);
                    }
                    let pairs = values[done..][..len].iter_mut().zip(&sum);
                    pairs.for_each(|(value, sum)| *value += self.scale * sum);
                    done += len;
                }
            }
        }
        Ok(())
    }
}

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

/// Has every key of the adapters change a tensor of the model, and says so in its metadata.
///
/// # Errors
/// Where a key has no tensor to change, or what it holds doesn't fit.
pub(crate) fn attach(model: &mut Model, loras: &[Lora]) -> Result<()> {
    // A GGUF file may have had some merged before.
    let before = |n: &usize| model.metadata.get(&format!("wan.lora.{n}.name")).is_some();
    let before = (0..).take_while(before).count();
    for (index, lora) in loras.iter().enumerate() {
        let path = &lora.path;
        ensure!(model.part.is_transformer(), "{}: not for this model", path.display());
        let weights = Arc::new(Weights::open_file(path)?);
        let merged = merge(model, lora, &weights).with_context(|| path.display().to_string())?;
        for (tensor, merge) in merged {
            model.tensors[tensor].merges.push(merge);
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let key = |part: &str| format!("wan.lora.{}.{part}", before + index);
        let hash = digest::sha256(path)?;
        model.metadata.set(key("name"), &*name).set(key("strength"), lora.strength);
        model.metadata.set(key("sha256"), hash);
    }
    Ok(())
}

/// Which adapters a part takes.
pub(crate) fn of_part<'a>(
    part: Part,
    all: &'a [Lora],
    high: &'a [Lora],
    low: &'a [Lora],
) -> Vec<Lora> {
    let own = match part {
        Part::Single => &[],
        Part::HighNoise => high,
        Part::LowNoise => low,
        Part::TextEncoder | Part::ImageEncoder | Part::Vae => return Vec::new(),
    };
    all.iter().chain(own).cloned().collect()
}

fn merge(model: &Model, lora: &Lora, weights: &Arc<Weights>) -> Result<Vec<(usize, Merge)>> {
    let modules = modules(&model.tensors);
    let mut found: BTreeMap<(usize, bool), BTreeMap<Suffix, &SourceTensor>> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for key in weights.names() {
        let Some((suffix, target)) = target(key, &modules) else {
            unknown.insert(key);
            continue;
        };
        let tensor = weights.get(key).expect("named by the list");
        let whole = matches!(suffix, Suffix::Up | Suffix::Down | Suffix::Alpha);
        let twice = found.entry((target, whole)).or_default().insert(suffix, tensor).is_some();
        ensure!(!twice, "{key:?} is there under two names");
    }
    if !unknown.is_empty() {
        let listed: Vec<_> = unknown.iter().take(8).copied().collect();
        bail!(
            "{} of {} keys change no tensor of {}: {}{}",
            unknown.len(),
            weights.names().count(),
            model.name,
            listed.join(", "),
            if unknown.len() > listed.len() { ", ..." } else { "" }
        );
    }
    let mut merges = Vec::new();
    for ((index, _), parts) in found {
        let tensor = &model.tensors[index];
        let kinds = kinds(tensor, &parts, weights).with_context(|| tensor.name.clone())?;
        for (kind, scale) in kinds {
            let scale = scale * lora.strength;
            merges.push((index, Merge { weights: Arc::clone(weights), kind, scale }));
        }
    }
    Ok(merges)
}

/// What the keys of one tensor add up to, with the factors beside the strength.
fn kinds(
    tensor: &Tensor,
    parts: &BTreeMap<Suffix, &SourceTensor>,
    weights: &Weights,
) -> Result<Vec<(Kind, f32)>> {
    for part in parts.values() {
        let number = part.elements() == 1;
        ensure!(number || part.dtype.is_decodable(), "an adapter in {}", part.dtype.name());
    }
    let mut kinds = Vec::new();
    for (suffix, part) in parts {
        match suffix {
            Suffix::Up | Suffix::Down | Suffix::Alpha => {}
            Suffix::Difference | Suffix::BiasDifference | Suffix::ModulationDifference => {
                ensure!(
                    part.elements() == tensor.elements(),
                    "the difference is {:?}, the tensor {:?}",
                    part.shape,
                    tensor.shape
                );
                kinds.push((Kind::Difference((*part).clone()), 1.0));
            }
        }
    }
    let (up, down) = match (parts.get(&Suffix::Up), parts.get(&Suffix::Down)) {
        (Some(&up), Some(&down)) => (up, down),
        (None, None) if !parts.contains_key(&Suffix::Alpha) => return Ok(kinds),
        (None, None) => bail!("there is alpha, but no matrix"),
        (Some(_), None) => bail!("the down (A) matrix is missing"),
        (None, Some(_)) => bail!("the up (B) matrix is missing"),
    };
    let (outputs, inputs) = (tensor.shape[0], tensor.elements() / tensor.shape[0]);
    let rank = *down.shape.first().context("the down (A) matrix is a single number")?;
    ensure!(
        rank > 0
            && down.elements() == rank.saturating_mul(inputs)
            && up.shape.first() == Some(&outputs)
            && up.elements() == rank.saturating_mul(outputs),
        "up {:?} and down {:?} do not make a {outputs} x {inputs} matrix",
        up.shape,
        down.shape
    );
    let alpha = match parts.get(&Suffix::Alpha) {
        Some(alpha) => number(weights, alpha).context("alpha")?,
        None => rank as f32,
    };
    let rank = usize::try_from(rank).context("the rank")?;
    let product = Kind::Product { up: up.clone(), down: down.clone(), rank };
    kinds.push((product, alpha / rank as f32));
    Ok(kinds)
}

/// A single number of any type.
fn number(weights: &Weights, tensor: &SourceTensor) -> Result<f32> {
    ensure!(tensor.elements() == 1, "it is {:?}, not one number", tensor.shape);
    if tensor.dtype.is_decodable() {
        return Ok(weights.values(tensor)?[0]);
    }
    let bytes = weights.bytes(tensor)?;
    let signed = |bytes: &[u8]| {
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(whole) as f32
    };
    match tensor.dtype {
        SourceType::Other { name: "I64" | "I32" | "I16" | "I8", .. } => Ok(signed(&bytes)),
        SourceType::Other { name: "U64" | "U32" | "U16" | "U8", .. } => {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(&bytes);
            Ok(u64::from_le_bytes(whole) as f32)
        }
        other => bail!("it is {}, not a number", other.name()),
    }
}

/// Tensors by the names that keys may call them, without what tells the spellings apart.
fn modules(tensors: &[Tensor]) -> BTreeMap<String, usize> {
    let names = tensors.iter().enumerate().flat_map(|(index, tensor)| {
        [&tensor.name, &tensor.diffusers].map(|name| (flat(name), index))
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
