//! A conversion from its options to its report.

use anyhow::{Context, Result, bail, ensure};
use gguf::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::arch::{self, Family, Model, Part};
use crate::imatrix::Imatrix;
use crate::lora::{self, Lora};
use crate::plan::{Batch, Format, Plan};
use crate::recipe::{Quant, Recipe, Types, check_rules};
use crate::report::Report;
use crate::shape::Layout;
use crate::{publish, write};

/// One conversion. [`Job::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Job {
    /// A folder with `model_index.json`, a folder of the original release, or a file.
    pub source: PathBuf,
    /// The folder to write to; created if need be.
    pub output: PathBuf,
    /// What the block matrices become: a file for each.
    pub quants: Vec<Quant>,
    /// The same for the expert of the first steps alone.
    pub quants_high: Option<Vec<Quant>>,
    /// The same for the expert of the last steps alone.
    pub quants_low: Option<Vec<Quant>>,
    /// The same for the image encoder alone; F16 unless everything is to be F32.
    pub quants_image: Option<Vec<Quant>>,
    /// How the files' names begin.
    pub name: String,
    /// How many threads quantize; at least 1.
    pub threads: usize,
    /// Whether files that exist are replaced.
    pub force: bool,
    /// Whether files that exist, whole and with the header that they are to have, are left.
    pub resume: bool,
    /// What decides types beside the quantization.
    pub types: Types,
    /// Bytes that a transformer's file may take; decides the types instead of `quants`.
    pub target_size: Option<u64>,
    /// How convolution kernels of transformers are stored.
    pub layout: Layout,
    /// Adapters for every transformer.
    pub loras: Vec<Lora>,
    /// Adapters for the expert of the first steps.
    pub loras_high: Vec<Lora>,
    /// Adapters for the expert of the last steps.
    pub loras_low: Vec<Lora>,
    /// Importance matrices for every model; the first that knows a matrix counts.
    pub imatrix: Vec<PathBuf>,
    /// One for the expert of the first steps.
    pub imatrix_high: Option<PathBuf>,
    /// One for the expert of the last steps.
    pub imatrix_low: Option<PathBuf>,
    /// What a transformer does whose source doesn't say.
    pub part: Option<Part>,
    /// `tokenizer.json` or its folder, for a text encoder whose source has none.
    pub tokenizer: Option<PathBuf>,
    /// The licence, as the metadata and the model card give it.
    pub license: Option<String>,
    /// The name and the address of a licence that is `other`.
    pub license_name: Option<String>,
    /// See [`Self::license_name`].
    pub license_link: Option<String>,
    /// Whether to write what a published model has beside: model card, hashes, VAE for ComfyUI.
    pub publish: bool,
    /// Whether only to say what would be written.
    pub dry_run: bool,
}

impl Job {
    /// A plain conversion on one thread, to files that are named after the source.
    pub fn new(source: impl Into<PathBuf>, output: impl Into<PathBuf>, quants: &[Quant]) -> Self {
        let source = source.into();
        let name = default_name(&source).unwrap_or_else(|| "model".into());
        Self {
            source,
            output: output.into(),
            quants: quants.to_vec(),
            quants_high: None,
            quants_low: None,
            quants_image: None,
            name,
            threads: 1,
            force: false,
            resume: false,
            types: Types::default(),
            target_size: None,
            layout: Layout::default(),
            loras: Vec::new(),
            loras_high: Vec::new(),
            loras_low: Vec::new(),
            imatrix: Vec::new(),
            imatrix_high: None,
            imatrix_low: None,
            part: None,
            tokenizer: None,
            license: None,
            license_name: None,
            license_link: None,
            publish: false,
            dry_run: false,
        }
    }

    /// The quantizations of a part's files.
    pub(crate) fn quants_of(&self, part: Part) -> &[Quant] {
        let own = match part {
            Part::HighNoise => self.quants_high.as_deref(),
            Part::LowNoise => self.quants_low.as_deref(),
            Part::Single | Part::TextEncoder => None,
            // 0.6 billion weights, which run once: hardly anything to save.
            Part::ImageEncoder if self.quants.iter().all(|&quant| quant == Quant::F32) => {
                self.quants_image.as_deref()
            }
            Part::ImageEncoder => self.quants_image.as_deref().or(Some(&[Quant::F16][..])),
            // Small and sensitive.
            Part::Vae => Some(&[Quant::F32][..]),
        };
        own.unwrap_or(&self.quants)
    }
}

/// What files of a source are called: its folder less "-Diffusers", at the end or between hyphens, or
/// its file's stem.
pub(crate) fn default_name(source: &Path) -> Option<String> {
    let whole = source.canonicalize().ok()?;
    let name = if whole.is_file() { whole.file_stem() } else { whole.file_name() };
    let mut name = name?.to_str()?;
    if let (true, Some((stem, last))) = (whole.is_file(), name.rsplit_once('-')) {
        // The type of a file that is quantized again isn't what its own files are called after.
        name = if last.parse::<Quant>().is_ok() { stem } else { name };
    }
    let name = name.strip_suffix("-Diffusers").unwrap_or(name);
    Some(name.replacen("-Diffusers-", "-", 1))
}

/// Follows a conversion, and may end it.
pub trait Progress {
    /// A file is begun, or several of which this is the first, for which `bytes` of the source will
    /// be read.
    fn begin(&mut self, file: &Path, bytes: u64);

    /// So many more bytes are done. `Break` ends the conversion with [`Interrupted`].
    fn advance(&mut self, bytes: u64) -> ControlFlow<()>;
}

/// Nobody looks.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &Path, _: u64) {}

    fn advance(&mut self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// [`Progress::advance`] ended the conversion; what it had begun to write is removed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "interrupted; unfinished files are removed, whole ones stay (--continue goes on from there)"
)]
pub struct Interrupted;

/// Converts a checkpoint to a file for each of its models and each quantization, reading each
/// model's source once.
///
/// # Errors
/// Where the source is no checkpoint that is known through and through, the output exists or has no
/// room, and where the operating system fails. [`Interrupted`] can be told apart by its type.
/// Files finished before the error stay.
pub fn convert(job: &Job, progress: &mut dyn Progress) -> Result<Report> {
    let mut job = job.clone();
    let arch::Found { mut models, notes, doubts, license } = arch::find(&job)?;
    if let (None, Some(arch::License { id, name, link })) = (&job.license, license) {
        (job.license, job.license_name, job.license_link) = (Some(id), name, link);
    }
    ensure!(!job.quants.is_empty() || job.target_size.is_some(), "give --quant or --target-size");
    check_rules(&job.types.rules, &models)?;
    for_wan_alone(&job, &models)?;
    for model in &mut models {
        let loras = lora::of_part(model.part, &job.loras, &job.loras_high, &job.loras_low);
        lora::attach(model, &loras)?;
    }
    unused_experts(&job, &models)?;
    let batches = models.into_iter().map(|mut model| {
        let importance = importance(&job, &mut model)?;
        Batch::new(model, importance, &job)
    });
    let batches = batches.collect::<Result<Vec<_>>>()?;

    let mut taken = std::collections::BTreeSet::new();
    for plan in batches.iter().flat_map(|batch| &batch.plans) {
        let path = job.output.join(&plan.file);
        ensure!(taken.insert(path.clone()), "{} would be written twice", path.display());
    }

    let mut report = Report { notes, doubts, planned: job.dry_run, ..Report::default() };
    if job.dry_run {
        let planned = batches.iter().flat_map(|batch| {
            batch.plans.iter().map(|plan| batch.planned(plan, job.output.join(&plan.file)))
        });
        report.files = planned.collect();
        return Ok(report);
    }
    let mut open: Vec<(&Batch, Vec<(&Plan, PathBuf)>)> = Vec::new();
    for batch in &batches {
        let mut plans = Vec::new();
        for plan in &batch.plans {
            let path = job.output.join(&plan.file);
            if job.resume && is_done(batch, plan, &path) {
                report.continued.push((batch.model.part, path));
                continue;
            }
            let free = job.force || job.resume || !path.exists();
            ensure!(free, "{} exists; --force replaces it", path.display());
            plans.push((plan, path));
        }
        open.push((batch, plans));
    }
    if job.publish && !job.force && !job.resume {
        for name in [publish::CARD, publish::HASHES] {
            let path = job.output.join(name);
            ensure!(!path.exists(), "{} exists; --force replaces it", path.display());
        }
    }
    let plans = open.iter().flat_map(|(_, plans)| plans);
    check_space(&job.output, plans.map(|(plan, _)| plan.bytes + HEADERS).sum())?;

    let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build();
    let pool = pool.context("cannot start the threads")?;
    for (batch, plans) in open {
        for (_, path) in &plans {
            let parent = path.parent().expect("a file in the output folder");
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let written = write::write(batch, &plans, &pool, progress)?;
        for ((plan, path), measured) in plans.into_iter().zip(written) {
            report.files.push(batch.report(plan, path, measured));
        }
    }
    if job.publish {
        publish::publish(&job, &report)?;
    }
    Ok(report)
}

/// Options for experts that the source doesn't have are mistakes.
fn unused_experts(job: &Job, models: &[Model]) -> Result<()> {
    let has = |part: Part| models.iter().any(|model| model.part == part);
    let high =
        job.quants_high.is_some() || !job.loras_high.is_empty() || job.imatrix_high.is_some();
    let low = job.quants_low.is_some() || !job.loras_low.is_empty() || job.imatrix_low.is_some();
    let source = job.source.display();
    ensure!(!high || has(Part::HighNoise), "{source} has no high-noise expert");
    ensure!(!low || has(Part::LowNoise), "{source} has no low-noise expert");
    let image = job.quants_image.is_none() || has(Part::ImageEncoder);
    ensure!(image, "{source} has no image encoder");
    let any = !job.loras.is_empty() || job.target_size.is_some();
    ensure!(!any || models.iter().any(|m| m.part.is_transformer()), "{source} has no transformer");
    Ok(())
}

/// Options that are known for Wan's transformers alone.
fn for_wan_alone(job: &Job, models: &[Model]) -> Result<()> {
    if models.iter().all(|model| model.family == Family::Wan) {
        return Ok(());
    }
    ensure!(
        job.types.recipe != Recipe::Boundary,
        "--recipe boundary: that the first and last blocks need more bits was measured for Wan, not for \
         HunyuanVideo; --tensor-type raises them by name, as in '^double_blocks\\.(0|1)\\.=Q8_0'"
    );
    let loras = [&job.loras, &job.loras_high, &job.loras_low];
    ensure!(
        loras.iter().all(|loras| loras.is_empty()),
        "--lora: only keys of LoRAs for Wan are known; load HunyuanVideo's beside the file in the program \
         that runs it"
    );
    Ok(())
}

/// The importance of a model's columns, of the first matrix file that has it.
fn importance(job: &Job, model: &mut Model) -> Result<Vec<crate::plan::Importance>> {
    let own = match model.part {
        Part::HighNoise => &job.imatrix_high,
        Part::LowNoise => &job.imatrix_low,
        Part::ImageEncoder | Part::Vae => return Ok(vec![None; model.tensors.len()]),
        _ => &None,
    };
    let mut files: Vec<&PathBuf> = own.iter().collect();
    files.extend(&job.imatrix);
    let mut importance = vec![None; model.tensors.len()];
    for path in &files {
        let found = Imatrix::read(path)?.of(model)?;
        if found.iter().any(Option::is_some) {
            importance = found;
            break;
        }
    }
    let given = own.as_ref().or(job.imatrix.first().filter(|_| model.part.is_transformer()));
    match given {
        Some(path) if importance.iter().all(Option::is_none) => {
            bail!("{}: none of its matrices is one of {}", path.display(), model.name)
        }
        _ => Ok(importance),
    }
}

/// Whether a file is there already, whole, as it would be written. Its data is taken for right: a
/// file appears under its name only once it is whole.
fn is_done(batch: &Batch, plan: &Plan, path: &Path) -> bool {
    let Format::Gguf { metadata, .. } = &plan.format else { return false };
    let Ok(file) = File::open(path) else { return false };
    let specs = batch.specs(plan);
    let same = file.tensors().len() == specs.len()
        && file.tensors().iter().zip(&specs).all(|(found, spec)| {
            (&found.name, &found.shape, found.dtype) == (&spec.name, &spec.shape, spec.dtype)
        });
    same && file.metadata().iter().eq(metadata.iter())
}

/// Beside the tensors: headers, of which the tokenizer's is the largest by far.
const HEADERS: u64 = 16 << 20;

pub(crate) fn check_space(output: &Path, needed: u64) -> Result<()> {
    let output = std::path::absolute(output).with_context(|| output.display().to_string())?;
    let Some(existing) = output.ancestors().find(|folder| folder.exists()) else {
        bail!("{}: no part of this path exists", output.display());
    };
    let disk = rustix::fs::statvfs(existing)
        .with_context(|| format!("cannot ask for the free space of {}", existing.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let size = |bytes: u64| match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    };
    ensure!(
        free >= needed,
        "{}: the files need {}, the disk has {} free; make room, or name another folder with -o",
        output.display(),
        size(needed),
        size(free)
    );
    Ok(())
}
