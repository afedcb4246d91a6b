//! What each model must consist of. One file an architecture: a table that gives every tensor's two
//! names, shape and role, written from the configuration; and the metadata a runtime needs.
//!
//! The tables name every tensor whole. So nothing can be renamed by accident, and what a checkpoint
//! holds beyond its table is an error.

mod umt5;
mod wan;
mod wan_vae;

use anyhow::{Result, bail, ensure};
use gguf::Metadata;
use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::recipe::Quant;
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
    /// The name in the checkpoint.
    source: String,
    /// The name in the GGUF file.
    name: String,
    shape: Vec<u64>,
    role: Role,
}

impl Wanted {
    fn new(source: &str, name: &str, shape: impl Into<Vec<u64>>, role: Role) -> Self {
        Self { source: source.to_owned(), name: name.to_owned(), shape: shape.into(), role }
    }
}

/// A tensor that the checkpoint holds as its table says.
pub(crate) struct Tensor {
    pub(crate) source: SourceTensor,
    /// The name in the GGUF file.
    pub(crate) name: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<u64>,
    pub(crate) role: Role,
}

impl Tensor {
    pub(crate) fn elements(&self) -> u64 {
        self.source.elements()
    }
}

/// What becomes one file.
pub(crate) struct Model {
    /// Below the output folder.
    pub(crate) file: PathBuf,
    pub(crate) architecture: &'static str,
    pub(crate) name: String,
    /// What the checkpoint's folder is called.
    pub(crate) source_name: String,
    pub(crate) quant: Quant,
    /// Beside the keys every file has.
    pub(crate) metadata: Metadata,
    pub(crate) weights: Weights,
    /// In the order of the file.
    pub(crate) tensors: Vec<Tensor>,
}

/// The models of a checkpoint, each found whole.
pub(crate) fn models(folder: &Folder, name: &str, quant: Quant) -> Result<Vec<Model>> {
    let index = folder.index();
    let path = index.path().display();
    let class = index.get("_class_name").as_str();
    let Some(class) = class else { bail!("{path}: \"_class_name\" is missing") };
    ensure!(
        class == "WanPipeline",
        "{path}: the checkpoint is a {class}; supported is WanPipeline (Wan 2.1 and 2.2 text to video)"
    );
    let mut models = wan::models(folder, name, quant)?;
    models.push(umt5::model(folder, name, quant)?);
    models.push(wan_vae::model(folder, name)?);
    Ok(models)
}

/// How many names an error lists before it only counts.
const LISTED: usize = 8;

/// Finds each wanted tensor, with its shape, and nothing else.
fn matched(weights: &Weights, wanted: Vec<Wanted>) -> Result<Vec<Tensor>> {
    let known: BTreeSet<&str> = wanted.iter().map(|tensor| tensor.source.as_str()).collect();
    let missing = known.iter().filter(|name| weights.get(name).is_none());
    let missing: Vec<_> = missing.copied().collect();
    let unknown: Vec<_> = weights.names().filter(|name| !known.contains(name)).collect();
    let folder = weights.folder().display();
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
    let tensor = |Wanted { source, name, shape, role }: Wanted| {
        let found = weights.get(&source).expect("none is missing").clone();
        ensure!(
            found.shape == shape,
            "{folder}: tensor {source:?} is {:?}, by config.json it must be {shape:?}",
            found.shape
        );
        Ok(Tensor { source: found, name, shape, role })
    };
    wanted.into_iter().map(tensor).collect()
}

/// Values separated by commas: some readers can't load arrays beside tensors of five dimensions.
fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
