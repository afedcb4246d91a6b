//! What each model must consist of. One file an architecture: a table that gives every tensor's two
//! names, shape and role, written from the configuration; and the metadata a runtime needs.
//!
//! The tables name every tensor whole. So nothing can be renamed by accident, and what a checkpoint
//! holds beyond its table is an error.

mod find;
mod loose;
mod umt5;
mod wan;
mod wan_vae;

pub(crate) use find::{Found, find};

use anyhow::{Result, bail, ensure};
use gguf::Metadata;
use std::collections::BTreeSet;

use crate::lora::{Loaded, Merge};
use crate::source::{Folder, SourceTensor, Weights};

/// How exact a tensor must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Biases, norms, modulation tables, convolutions: F32.
    Exact,
    /// A matrix outside the blocks, or one that everything passes through: not quantized.
    Linear,
    /// A matrix of which the blocks, and so the file, mostly consist.
    Block,
}

/// A line of an architecture's table.
pub(crate) struct Wanted {
    /// The name in a diffusers checkpoint.
    diffusers: String,
    /// The name in the GGUF file.
    name: String,
    shape: Vec<u64>,
    role: Role,
}

impl Wanted {
    fn new(diffusers: &str, name: &str, shape: impl Into<Vec<u64>>, role: Role) -> Self {
        Self { diffusers: diffusers.to_owned(), name: name.to_owned(), shape: shape.into(), role }
    }
}

/// Which of a tensor's names a source uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Diffusers,
    /// Those of the original code, which GGUF files have, too.
    Original,
}

/// A tensor that the source holds as its table says.
pub(crate) struct Tensor {
    pub(crate) source: SourceTensor,
    /// The name in a diffusers checkpoint.
    pub(crate) diffusers: String,
    /// The name in the GGUF file.
    pub(crate) name: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<u64>,
    pub(crate) role: Role,
    /// What is added to its values, in this order.
    pub(crate) merges: Vec<Merge>,
}

impl Tensor {
    pub(crate) fn elements(&self) -> u64 {
        self.source.elements()
    }

    /// Elements of a row.
    pub(crate) fn row(&self) -> u64 {
        *self.shape.last().expect("no scalar is in the tables")
    }
}

/// What a model does in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The transformer of a model that has one.
    Single,
    /// The transformer of the first steps.
    HighNoise,
    /// The transformer of the last steps.
    LowNoise,
    /// The text encoder.
    TextEncoder,
    /// The video autoencoder.
    Vae,
}

impl Part {
    /// Whether it is one of the transformers.
    pub fn is_transformer(self) -> bool {
        matches!(self, Part::Single | Part::HighNoise | Part::LowNoise)
    }
}

/// What becomes one file for each quantization.
pub(crate) struct Model {
    pub(crate) part: Part,
    /// Below the output folder; may be empty.
    pub(crate) folder: &'static str,
    pub(crate) architecture: &'static str,
    /// Also how the file's name begins.
    pub(crate) name: String,
    /// What the source is called.
    pub(crate) source_name: String,
    /// Beside the keys every file has.
    pub(crate) metadata: Metadata,
    pub(crate) weights: Weights,
    /// In the order of the file.
    pub(crate) tensors: Vec<Tensor>,
}

impl Model {
    /// The values of a tensor from element `first` on, with everything that is added to them.
    /// `merges` are the tensor's, loaded.
    pub(crate) fn values(
        &self,
        tensor: &Tensor,
        merges: &[Loaded],
        first: u64,
        len: usize,
        values: &mut Vec<f32>,
    ) -> Result<()> {
        let mut bytes = vec![0; tensor.source.dtype.bytes(len as u64) as usize];
        self.weights.read(&tensor.source, first, &mut bytes)?;
        tensor.source.decode(&bytes, values);
        merges.iter().try_for_each(|merge| merge.add(first, values))
    }

    /// The largest magnitude in a tensor. NaN counts as infinite.
    pub(crate) fn largest(&self, tensor: &Tensor) -> Result<f32> {
        let merges = load(tensor)?;
        let (mut values, mut largest) = (Vec::new(), 0f32);
        // Small steps: the values stay in the processor's cache.
        let step = piece_len(tensor.row());
        for first in (0..tensor.elements()).step_by(step) {
            let len = (tensor.elements() - first).min(step as u64) as usize;
            self.values(tensor, &merges, first, len, &mut values)?;
            // Without a sign, the bits of floats are ordered as the floats are, NaN above all.
            let bits = values.iter().fold(0, |bits: u32, value| bits.max(value.abs().to_bits()));
            let found = f32::from_bits(bits);
            largest = largest.max(if found.is_nan() { f32::INFINITY } else { found });
        }
        Ok(largest)
    }
}

/// What is added to a tensor, ready to be added.
pub(crate) fn load(tensor: &Tensor) -> Result<Vec<Loaded>> {
    tensor.merges.iter().map(|merge| merge.load(tensor.row())).collect()
}

/// Elements that a thread handles at once, so that they stay in its cache as f32.
const PIECE: usize = 1 << 16;

/// The length of pieces that a tensor with rows of `row` is cut into: whole rows, or whole blocks of
/// rows that are longer than a piece should be.
pub(crate) fn piece_len(row: u64) -> usize {
    match usize::try_from(row) {
        Ok(row) if row <= PIECE => PIECE / row * row,
        _ => PIECE,
    }
}

/// The models of a checkpoint, each found whole.
fn models(folder: &Folder, name: &str) -> Result<Vec<Model>> {
    let index = folder.index();
    let path = index.path().display();
    let class = index.get("_class_name").as_str();
    let Some(class) = class else { bail!("{path}: \"_class_name\" is missing") };
    ensure!(
        class == "WanPipeline",
        "{path}: the checkpoint is a {class}; supported is WanPipeline (Wan 2.1 and 2.2 text to video)"
    );
    let mut models = wan::models(folder, name)?;
    models.push(umt5::model(folder, name)?);
    models.push(wan_vae::model(folder, name)?);
    Ok(models)
}

/// How many names an error lists before it only counts.
const LISTED: usize = 8;

/// Finds each wanted tensor, with its shape, and nothing else.
fn matched(weights: &Weights, naming: Naming, wanted: Vec<Wanted>) -> Result<Vec<Tensor>> {
    let theirs = |tensor: &Wanted| match naming {
        Naming::Diffusers => tensor.diffusers.clone(),
        Naming::Original => tensor.name.clone(),
    };
    let known: BTreeSet<String> = wanted.iter().map(theirs).collect();
    let missing = known.iter().map(String::as_str).filter(|name| weights.get(name).is_none());
    let missing: Vec<_> = missing.collect();
    let unknown: Vec<_> = weights.names().filter(|name| !known.contains(*name)).collect();
    let folder = weights.path().display();
    let list = |names: &[&str]| {
        let listed = names[..names.len().min(LISTED)].join(", ");
        if names.len() > LISTED {
            format!("{listed}, ... ({} in all)", names.len())
        } else {
            listed
        }
    };
    match (&missing[..], &unknown[..]) {
        ([], []) => {}
        (missing, []) => bail!("{folder}: tensors are missing: {}", list(missing)),
        ([], unknown) => bail!("{folder}: tensors that the model does not have: {}", list(unknown)),
        (missing, unknown) => bail!(
            "{folder}: tensors are missing: {}; and there are some that the model does not have: {}",
            list(missing),
            list(unknown)
        ),
    }
    let tensor = |wanted: Wanted| {
        let source = theirs(&wanted);
        let mut found = weights.get(&source).expect("none is missing").clone();
        let Wanted { diffusers, name, shape, role } = wanted;
        if weights.is_gguf() && folded(&found.shape, &shape) {
            found.shape.clone_from(&shape);
        }
        ensure!(
            found.shape == shape,
            "{folder}: tensor {source:?} is {:?}, by {} it must be {shape:?}",
            found.shape,
            weights.shapes_from()
        );
        ensure!(
            found.dtype.is_decodable(),
            "{folder}: tensor {source:?} is {}, which weights can't be read from",
            found.dtype.name()
        );
        Ok(Tensor { source: found, diffusers, name, shape, role, merges: Vec::new() })
    };
    wanted.into_iter().map(tensor).collect()
}

/// Whether `found` is `wanted` as GGUF files may have it: its two outermost dimensions in one, for
/// readers that stop at four, or without ones in front, which some writers lose.
fn folded(found: &[u64], wanted: &[u64]) -> bool {
    let joined = wanted.len() == 5
        && found.len() == 4
        && wanted[0].checked_mul(wanted[1]) == Some(found[0])
        && found[1..] == wanted[2..];
    let ones = wanted.iter().take_while(|&&n| n == 1).count();
    joined
        || (found.len() < wanted.len()
            && found.len() + ones >= wanted.len()
            && found == &wanted[wanted.len() - found.len()..])
}

/// Values separated by commas: some readers can't load arrays beside tensors of five dimensions.
fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
