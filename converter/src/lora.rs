//! Low-rank adapters (LoRA) that are added to weights before these are quantized.
//!
//! Files name the tensors they change in many ways; what they add is the same everywhere:
//! `strength * alpha / rank * up @ down` ([arXiv 2106.09685](https://arxiv.org/abs/2106.09685)), or a
//! difference of the tensor's own shape.

use anyhow::{Context, Result, bail, ensure};
use catalog::Wanted;
use catalog::lora::{Alpha, Kind as Change, METADATA, changes, typed};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::arch::{Model, Part, Tensor};
use crate::digest;
use crate::source::{SourceTensor, SourceType, Weights, header_entry};

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
        let (path, strength) = typed(text)?;
        Ok(Self { path, strength })
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
    /// Reads the matrices.
    pub(crate) fn load(&self) -> Result<Loaded> {
        let values = match &self.kind {
            Kind::Product { up, down, rank } => {
                let down = self.weights.values(down)?;
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
    let table: Vec<Wanted> = model.tensors.iter().map(wanted).collect();
    let keys = weights.names().map(|key| (key, weights.get(key).expect("named by the list")));
    let keys = keys.map(|(key, tensor)| (key, tensor.shape.as_slice()));
    let get = |key: &str| -> Result<SourceTensor> {
        let tensor = weights.get(key).expect("a key of the file").clone();
        ensure!(tensor.dtype.is_decodable(), "{key}: an adapter in {}", tensor.dtype.name());
        Ok(tensor)
    };
    let mut merges = Vec::new();
    let metadata = header_entry(&lora.path, METADATA)?;
    for change in changes(keys, metadata.as_deref(), &table)? {
        let (kind, scale) = match change.kind {
            Change::Difference(key) => (Kind::Difference(get(&key)?), 1.0),
            Change::Product { up, down, rank, alpha } => {
                let alpha = match alpha {
                    Alpha::Tensor(key) => {
                        number(weights, weights.get(&key).expect("a key")).context(key)?
                    }
                    Alpha::Number(alpha) => alpha,
                    Alpha::Rank => rank as f32,
                };
                let rank = usize::try_from(rank).context("the rank")?;
                let (up, down) = (get(&up)?, get(&down)?);
                (Kind::Product { up, down, rank }, alpha / rank as f32)
            }
        };
        let scale = scale * lora.strength;
        merges.push((change.tensor, Merge { weights: Arc::clone(weights), kind, scale }));
    }
    Ok(merges)
}

/// What the catalog says of a tensor.
fn wanted(tensor: &Tensor) -> Wanted {
    let Tensor { diffusers, name, shape, role, .. } = tensor;
    let (diffusers, name, shape) = (diffusers.clone(), name.clone(), shape.clone());
    Wanted { diffusers, name, shape, role: *role }
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
