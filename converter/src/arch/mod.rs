//! What each model of a source consists of: one file a component of a checkpoint, which reads its
//! configuration; and what needs none. The tables of tensors are the catalog's.

mod clip;
mod find;
mod hunyuan_video15;
mod hunyuan_video15_vae;
mod loose;
mod umt5;
mod wan;
mod wan_vae;

pub use catalog::Part;
pub(crate) use catalog::{Family, Role};
pub(crate) use find::{Found, License, find};

use anyhow::{Result, ensure};
use catalog::{Matched, Naming, Wanted};
use gguf::Metadata;

use crate::lora::{Loaded, Merge};
use crate::source::{Folder, SourceTensor, Weights};

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

/// What becomes one file for each quantization.
pub(crate) struct Model {
    pub(crate) part: Part,
    pub(crate) family: Family,
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
    /// The value of `general.architecture`.
    pub(crate) fn architecture(&self) -> &'static str {
        self.part.architecture(self.family)
    }

    /// Whether programs read it from a GGUF file.
    pub(crate) fn is_for_gguf(&self) -> bool {
        (self.part, self.family) != (Part::Vae, Family::HunyuanVideo15)
    }

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
    tensor.merges.iter().map(Merge::load).collect()
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

/// The models of a checkpoint, each found whole, and what was left aside.
fn models(folder: &Folder, name: &str) -> Result<(Vec<Model>, Vec<String>)> {
    if hunyuan_video15::is(folder) {
        let models =
            vec![hunyuan_video15::model(folder, name)?, hunyuan_video15_vae::model(folder, name)?];
        return Ok((models, hunyuan_video15::left_aside(folder)?));
    }
    let mut models = wan::models(folder, name)?;
    models.push(umt5::model(folder, name)?);
    if folder.class("image_encoder")?.is_some() {
        models.push(clip::model(folder, name)?);
    }
    models.push(wan_vae::model(folder, name)?);
    Ok((models, Vec::new()))
}

/// How the names of a part's files begin, by the name of the model.
fn named(name: &str, part: Part) -> String {
    let label = match part {
        Part::Single => return name.to_owned(),
        // Readers take a text encoder for UMT5's only if its name says so.
        Part::TextEncoder => "umt5",
        Part::ImageEncoder => "clip",
        _ => part.folder(),
    };
    let said = match name.rsplit_once(['-', '_']) {
        // Experts' names have their labels as they are published; files of other parts in any case.
        Some((_, last)) if part.is_transformer() => last == label,
        Some((_, last)) => last.eq_ignore_ascii_case(label),
        None => false,
    };
    if said { name.to_owned() } else { format!("{name}-{label}") }
}

/// Finds each tensor of a table in a component of a checkpoint, with its shape, and nothing else.
fn matched(weights: &Weights, wanted: Vec<Wanted>) -> Result<Vec<Tensor>> {
    tensors(weights, loose::given(weights).matched(Naming::Diffusers, wanted)?)
}

/// The tensors that were found, which must be of a type that can be read.
fn tensors(weights: &Weights, matched: Vec<Matched>) -> Result<Vec<Tensor>> {
    let tensor = |Matched { source: name, wanted }: Matched| {
        let mut source = weights.get(&name).expect("the catalog found it").clone();
        ensure!(
            source.dtype.is_decodable(),
            "{}: tensor {name:?} is {}, which weights can't be read from",
            weights.path().display(),
            source.dtype.name()
        );
        // A GGUF file may have it folded.
        source.shape.clone_from(&wanted.shape);
        let Wanted { diffusers, name, shape, role } = wanted;
        Ok(Tensor { source, diffusers, name, shape, role, merges: Vec::new() })
    };
    matched.into_iter().map(tensor).collect()
}
