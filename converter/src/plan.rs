//! What a file will hold, decided before it is begun: the types of its tensors and its metadata.

use anyhow::Result;
use gguf::{DType, Metadata, TensorSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Job;
use crate::arch::{Model, Part, Role, Tensor};
use crate::recipe::{self, Quant, Recipe, Types, size};
use crate::report::{FileReport, TensorReport};
use crate::shape::{self, Layout};
use crate::write::Measured;

/// The importance of a tensor's columns.
pub(crate) type Importance = Option<Arc<[f32]>>;

/// A model and all files that are made of it, for which its source is read once.
pub(crate) struct Batch {
    pub(crate) model: Model,
    /// In the order of the tensors.
    pub(crate) importance: Vec<Importance>,
    pub(crate) plans: Vec<Plan>,
}

/// One file: its tensors' types, in the order of the model's.
pub(crate) struct Plan {
    /// Below the output folder.
    pub(crate) file: PathBuf,
    /// What the file is called after.
    pub(crate) quant: Quant,
    pub(crate) format: Format,
    pub(crate) dtypes: Vec<DType>,
    /// Bytes of the tensors, with what the format may add between them.
    pub(crate) bytes: u64,
    fallbacks: usize,
}

pub(crate) enum Format {
    Gguf { metadata: Metadata, layout: Layout },
    Safetensors,
}

impl Batch {
    pub(crate) fn new(model: Model, importance: Vec<Importance>, job: &Job) -> Result<Self> {
        let mut batch = Self { model, importance, plans: Vec::new() };
        if !batch.model.is_for_gguf() {
            batch.plans.push(batch.safetensors());
            return Ok(batch);
        }
        let kept = recipe::kept(&batch.model)?;
        let part = batch.model.part;
        if let (Some(bytes), true) = (job.target_size, part.is_transformer()) {
            let dtypes = size::fit(&batch, &kept, &job.types.rules, bytes, job.threads)?;
            batch.plans.push(batch.sized(bytes, dtypes, job));
            return Ok(batch);
        }
        let weighted = batch.importance.iter().any(Option::is_some);
        for &quant in job.quants_of(part) {
            let dtypes = recipe::types(&batch.model, &kept, quant, &job.types, weighted);
            let label = label(part, quant, &job.types);
            let name = format!("{}-{label}.gguf", batch.model.name);
            batch.plans.push(batch.plan(&name, quant, &described(quant, &job.types), dtypes, job));
        }
        if matches!(part, Part::Vae | Part::ImageEncoder) && job.publish {
            batch.plans.push(batch.safetensors());
        }
        Ok(batch)
    }

    /// A plan for types that fill a size; the file is called after the most frequent one.
    fn sized(&self, bytes: u64, dtypes: Vec<DType>, job: &Job) -> Plan {
        let mut elements: BTreeMap<DType, u64> = BTreeMap::new();
        for (tensor, &dtype) in self.model.tensors.iter().zip(&dtypes) {
            if tensor.role == Role::Block {
                *elements.entry(dtype).or_default() += tensor.elements();
            }
        }
        let most = elements.iter().max_by_key(|&(_, count)| count).map(|(&dtype, _)| dtype);
        let quant = most.and_then(Quant::uniform).unwrap_or(Quant::F32);
        let size = format!("{:.2}GB", bytes as f64 / 1e9);
        let name = format!("{}-{size}-{quant}.gguf", self.model.name);
        self.plan(&name, quant, &format!("{size} by measured error"), dtypes, job)
    }

    fn plan(&self, name: &str, quant: Quant, recipe: &str, dtypes: Vec<DType>, job: &Job) -> Plan {
        let model = &self.model;
        let mut plan = Plan {
            file: Path::new(model.part.folder()).join(name),
            quant,
            // The VAE's GGUF file is for our own runtime, which takes five dimensions.
            format: Format::Gguf {
                metadata: metadata(model, quant, recipe, &dtypes, job),
                layout: if model.part.is_transformer() { job.layout } else { Layout::FiveD },
            },
            bytes: 0,
            fallbacks: 0,
            dtypes,
        };
        let fell = |&(tensor, &dtype): &(&Tensor, &DType)| {
            let rows = quant.dtype().row_bytes(tensor.row());
            tensor.role == Role::Block && dtype == DType::F16 && rows.is_none()
        };
        let pairs = || model.tensors.iter().zip(&plan.dtypes);
        plan.fallbacks = pairs().filter(fell).count();
        plan.bytes = pairs().map(|(tensor, &dtype)| bytes(tensor, dtype) + 32).sum();
        plan
    }

    /// The model as other programs keep it: original names, in the types of the source.
    fn safetensors(&self) -> Plan {
        let dtype = |tensor: &Tensor| match tensor.source.dtype {
            crate::source::SourceType::F16 if tensor.merges.is_empty() => DType::F16,
            crate::source::SourceType::BF16 if tensor.merges.is_empty() => DType::BF16,
            _ => DType::F32,
        };
        let dtypes: Vec<DType> = self.model.tensors.iter().map(dtype).collect();
        let pairs = self.model.tensors.iter().zip(&dtypes);
        Plan {
            file: Path::new(self.model.part.folder())
                .join(format!("{}.safetensors", self.model.name)),
            quant: Quant::F32,
            format: Format::Safetensors,
            bytes: pairs.map(|(tensor, &dtype)| bytes(tensor, dtype)).sum(),
            fallbacks: 0,
            dtypes,
        }
    }

    pub(crate) fn specs(&self, plan: &Plan) -> Vec<TensorSpec> {
        let layout = match plan.format {
            Format::Gguf { layout, .. } => layout,
            Format::Safetensors => Layout::FiveD,
        };
        let spec = |(tensor, &dtype): (&Tensor, _)| TensorSpec {
            name: tensor.name.clone(),
            shape: shape::stored(layout, &tensor.shape),
            dtype,
        };
        self.model.tensors.iter().zip(&plan.dtypes).map(spec).collect()
    }

    /// What the file at `path` would hold.
    pub(crate) fn planned(&self, plan: &Plan, path: PathBuf) -> FileReport {
        let tensors = vec![crate::measure::Sums::default(); plan.dtypes.len()];
        self.report(plan, path, Measured { file_bytes: plan.bytes, tensors })
    }

    /// What the file at `path`, written after a plan, holds.
    pub(crate) fn report(&self, plan: &Plan, path: PathBuf, measured: Measured) -> FileReport {
        let tensors = self.model.tensors.iter().zip(&plan.dtypes).zip(&measured.tensors);
        let tensor =
            |((tensor, &dtype), sums): ((&Tensor, _), &crate::measure::Sums)| TensorReport {
                name: tensor.name.clone(),
                dtype,
                elements: tensor.elements(),
                bytes: bytes(tensor, dtype),
                error: sums.error(),
            };
        FileReport {
            path,
            part: self.model.part,
            quant: plan.quant,
            file_bytes: measured.file_bytes,
            fallbacks: plan.fallbacks,
            requantized: self.model.tensors.iter().any(|tensor| tensor.source.dtype.is_quantized()),
            relative_rmse: measured
                .tensors
                .iter()
                .copied()
                .sum::<crate::measure::Sums>()
                .error()
                .relative_rmse,
            tensors: tensors.map(tensor).collect(),
        }
    }
}

fn bytes(tensor: &Tensor, dtype: DType) -> u64 {
    let row = tensor.row();
    tensor.elements() / row * dtype.row_bytes(row).expect("the recipe chose by the row")
}

/// The end of a file's name: the quantization is its last part, by which sites sort files.
fn label(part: Part, quant: Quant, types: &Types) -> String {
    match types.recipe {
        Recipe::Boundary if part.is_transformer() && quant.dtype().is_quantized() => {
            format!("boundary-{quant}")
        }
        _ => quant.to_string(),
    }
}

/// What `wan.recipe` says, or another family's key.
fn described(quant: Quant, types: &Types) -> String {
    let recipe = match types.recipe {
        Recipe::Published => "",
        Recipe::Uniform => " uniform",
        Recipe::Boundary => " boundary",
    };
    let rules = types.rules.iter().map(|rule| format!(" {rule}"));
    format!("{quant}{recipe}{}", rules.collect::<String>())
}

fn metadata(model: &Model, quant: Quant, recipe: &str, dtypes: &[DType], job: &Job) -> Metadata {
    let mut metadata = Metadata::new();
    metadata
        .set("general.architecture", model.architecture())
        .set("general.type", "model")
        .set("general.name", model.name.as_str())
        .set("general.source.name", model.source_name.as_str());
    for (key, value) in [
        ("general.license", &job.license),
        ("general.license.name", &job.license_name),
        ("general.license.link", &job.license_link),
    ] {
        if let Some(value) = value {
            metadata.set(key, value.as_str());
        }
    }
    metadata
        .set("general.quantized_by", concat!("to-gguf ", env!("CARGO_PKG_VERSION")))
        .set("general.file_type", quant.file_type());
    if dtypes.iter().any(|dtype| dtype.is_quantized()) {
        // The second layout of ggml's blocks, the only one in use since 2023.
        metadata.set("general.quantization_version", 2u32);
    }
    // Of licences the job's counts, which is the source's where none was given.
    let own = model.metadata.iter().filter(|(key, _)| !key.starts_with("general.license"));
    for (key, value) in own {
        metadata.set(key, value.clone());
    }
    if model.part.is_transformer() {
        metadata.set(format!("{}.recipe", model.architecture()), recipe);
        if job.layout == Layout::Fold4d {
            shape::describe(&mut metadata, model.tensors.iter().map(|t| (&*t.name, &*t.shape)));
        }
    }
    metadata
}
