//! Converts diffusers checkpoints to GGUF files: the library behind the program `to-gguf`.
//!
//! ```text
//! source/   a folder of JSON and safetensors: configurations, tensor names, bytes as f32
//!    |
//! arch/     what the model must consist of: each tensor's two names, shape and role; metadata
//!    |      (tokenizer.rs for the text encoder's)
//! recipe    role and --quant -> element type
//!    |
//! write     windows of a tensor -> quantize (ggml's blocks) -> gguf::Writer
//!    |
//! report    what was written
//! ```
//!
//! Everything is checked before the first byte is written: every tensor of the source is either
//! known or an error, every expected one is there with its shape, the output files don't exist and
//! the disk has room. Memory is bounded by the window, whatever the model's size. The same input
//! gives the same bytes, whatever the number of threads.

mod arch;
mod bar;
pub mod cli;
mod plan;
mod quantize;
mod recipe;
mod report;
mod source;
mod tokenizer;
mod write;

pub use recipe::{Quant, UnknownQuant};
pub use report::{FileReport, Report};

use anyhow::{Context, Result, bail, ensure};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use plan::Plan;
use source::Folder;

/// One conversion.
#[derive(Clone, Debug)]
pub struct Job {
    /// The folder that holds `model_index.json`.
    pub source: PathBuf,
    /// The folder to write to; created if need be.
    pub output: PathBuf,
    /// What the block matrices become.
    pub quant: Quant,
    /// How the files' names begin.
    pub name: String,
    /// How many threads quantize; at least 1.
    pub threads: usize,
    /// Whether files that exist are replaced.
    pub force: bool,
}

/// Follows a conversion, and may end it.
pub trait Progress {
    /// A file is begun for which `bytes` of the source will be read.
    fn begin(&mut self, file: &Path, bytes: u64);

    /// So many more bytes are done. `Break` ends the conversion with [`Interrupted`].
    fn advance(&mut self, bytes: u64) -> ControlFlow<()>;
}

/// [`Progress::advance`] ended the conversion; what it had begun to write is removed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted; the unfinished file is removed")]
pub struct Interrupted;

/// Converts the checkpoint to one file a component.
///
/// # Errors
/// Where the source is no checkpoint that is known through and through, the output exists or has no
/// room, and where the operating system fails. [`Interrupted`] can be told apart by its type.
/// Files finished before the error stay.
pub fn convert(job: &Job, progress: &mut dyn Progress) -> Result<Report> {
    let folder = Folder::open(&job.source)?;
    let models = arch::models(&folder, &job.name, job.quant)?;
    let plans = models.into_iter().map(Plan::new).collect::<Result<Vec<_>>>()?;
    let paths: Vec<_> = plans.iter().map(|plan| job.output.join(&plan.model.file)).collect();
    if !job.force {
        for path in &paths {
            ensure!(!path.exists(), "{} exists; --force replaces it", path.display());
        }
    }
    check_space(&job.output, plans.iter().map(|plan| plan.bytes).sum())?;

    let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build();
    let pool = pool.context("cannot start the threads")?;
    let files = plans.iter().zip(paths).map(|(plan, path)| {
        let parent = path.parent().expect("a file in the output folder");
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        let bytes = write::write(plan, &path, &pool, progress)?;
        Ok(plan.report(path, bytes))
    });
    Ok(Report { files: files.collect::<Result<_>>()? })
}

/// Beside the tensors: headers, of which the tokenizer's is the largest by far.
const HEADERS: u64 = 16 << 20;

fn check_space(output: &Path, tensors: u64) -> Result<()> {
    let output = std::path::absolute(output).with_context(|| output.display().to_string())?;
    let Some(existing) = output.ancestors().find(|folder| folder.exists()) else {
        bail!("{}: no part of this path exists", output.display());
    };
    let disk = rustix::fs::statvfs(existing)
        .with_context(|| format!("cannot ask for the free space of {}", existing.display()))?;
    let (free, needed) = (disk.f_bavail.saturating_mul(disk.f_frsize), tensors + HEADERS);
    let gb = |bytes| bytes as f64 / 1e9;
    ensure!(
        free >= needed,
        "{}: the files need {:.2} GB, the disk has {:.2} GB free",
        output.display(),
        gb(needed),
        gb(free)
    );
    Ok(())
}
