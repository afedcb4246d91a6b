//! The command line as it is typed, and the checked job that comes of it.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::bar::Bar;
use crate::{Job, Quant, Report, convert};

/// Convert a diffusers checkpoint folder to GGUF files.
///
/// Writes the Wan transformers, the UMT5 text encoder with its tokenizer, and the VAE, each to a
/// file of its own. Reads safetensors only.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// The checkpoint: the folder that holds model_index.json
    source: PathBuf,

    /// The folder to write to; it is created if need be
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// What the block matrices become: F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q4_K, Q3_K, Q2_K, Q5_1,
    /// Q5_0, Q4_1 or Q4_0
    #[arg(short, long, value_name = "TYPE")]
    quant: Quant,

    /// How the files' names begin [default: the source folder's name less "-Diffusers"]
    #[arg(long)]
    name: Option<String>,

    /// How many threads quantize [default: one for each processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

impl TryFrom<Args> for Job {
    type Error = anyhow::Error;

    fn try_from(args: Args) -> Result<Job> {
        let name = match args.name {
            Some(name) => name,
            None => default_name(&args.source)?,
        };
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        ensure!(plain, "--name {name:?} can't begin a file's name");
        let threads = match args.threads {
            Some(threads) => threads.into(),
            None => thread::available_parallelism().context("cannot count the processors")?.get(),
        };
        let Args { source, output, quant, force, .. } = args;
        Ok(Job { source, output, quant, name, threads, force })
    }
}

/// Converts with a progress bar, and stops where Ctrl-C (or a termination signal) says so.
///
/// # Errors
/// As [`convert`], and if an option's value can't be used.
pub fn run(args: Args) -> Result<Report> {
    let job = Job::try_from(args)?;
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    ctrlc::set_handler(move || raised.store(true, Ordering::Relaxed))
        .context("cannot listen for Ctrl-C")?;
    convert(&job, &mut Bar::new(stop))
}

fn default_name(source: &std::path::Path) -> Result<String> {
    let whole = source.canonicalize().with_context(|| source.display().to_string())?;
    let name = whole.file_name().and_then(|name| name.to_str()).with_context(|| {
        format!("{}: files can't be named after this folder; give --name", source.display())
    })?;
    Ok(name.strip_suffix("-Diffusers").unwrap_or(name).to_owned())
}
