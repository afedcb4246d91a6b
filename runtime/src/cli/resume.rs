//! `gguf-video resume`: goes on with a run that was interrupted, killed, or failed.

use super::Failure;
use super::awake::keep_awake;
use super::bars::Bars;
use super::make::{Job, check_files, make, open_sinks, parse_previews};
use crate::models::wan::Config;
use crate::output::Target;
use crate::pipeline::run_folder::{RunFolder, list};
use crate::pipeline::{
    Calibration, Home, Machine, ModelFolder, Places, choose_device, model_files,
};
use anyhow::anyhow;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  gguf-video resume
  gguf-video resume 20260131-120000-fox --device cpu

Exit codes: those of `gguf-video run`";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The run's folder, or its name alone, as `gguf-video runs` lists it
    /// [default: the last one that is unfinished]
    #[arg(value_name = "RUN")]
    run: Option<PathBuf>,
    /// Compute elsewhere than the run began; the video may then differ in its last bits
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Decode the frames elsewhere [default: --device]
    #[arg(long, value_name = "DEVICE")]
    vae_device: Option<String>,
    /// Print what happens as JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Steps after which to look at the clip: their numbers, `all`, or `none`
    #[arg(long, value_name = "STEPS")]
    preview: Option<String>,
    /// Let the computer fall asleep while the video is computed
    #[arg(long)]
    allow_sleep: bool,
}

/// The folder that is meant.
fn find(wanted: Option<&Path>, home: &Home) -> anyhow::Result<PathBuf> {
    if let Some(path) = wanted {
        let listed = home.runs().join(path);
        return Ok(if !path.exists() && listed.is_dir() { listed } else { path.to_owned() });
    }
    let runs = list(&home.runs())?;
    let unfinished = runs.into_iter().rfind(|run| run.outcome.is_none() && !run.running);
    let found = unfinished.map(|run| run.path);
    found.ok_or_else(|| anyhow!("no run in {} is unfinished", home.runs().display()))
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let home = Home::find();
    let path = find(args.run.as_deref(), &home).map_err(Failure::request)?;
    let run = RunFolder::open(&path).map_err(Failure::request)?;
    let record = run.record();
    let file = |part| record.files.iter().find(|f| f.part == part).map(|f| f.path.clone());
    let places = Places {
        // Every part has a name; what lies around is nobody's business.
        folder: path.clone(),
        transformer: file("transformer"),
        high_noise: file("high_noise"),
        low_noise: file("low_noise"),
        text_encoder: file("text_encoder"),
        image_encoder: file("image_encoder"),
        vae: file("vae"),
    };
    let folder = ModelFolder::open(&places).map_err(Failure::request)?;
    // It was checked when it was written, but a file is what others made of it.
    let grid = folder.latent_grid().map_err(Failure::request)?;
    record.request.check(grid).map_err(Failure::request)?;
    record.request.check_prompts().map_err(Failure::request)?;
    let config = Config::new(&folder.transformer).map_err(Failure::request)?;
    record.request.check_images(&config).map_err(Failure::request)?;
    let _awake = keep_awake(args.allow_sleep);
    let mut bars = Bars::new(args.json).map_err(Failure::run)?;
    let files =
        model_files(&folder, &record.request, &home, &mut bars).map_err(Failure::hashing)?;
    check_files(&record.files, &files).map_err(Failure::request)?;

    let mut machine = Machine::from_record(&record.machine).map_err(Failure::request)?;
    if let Some(name) = &args.device {
        let device = choose_device(name).map_err(Failure::request)?;
        (machine.text, machine.transformer, machine.vae) = (device, device, device);
    }
    if let Some(name) = &args.vae_device {
        machine.vae = choose_device(name).map_err(Failure::request)?;
    }
    let request = record.request.clone();
    let previews = parse_previews(args.preview.as_deref(), request.steps);
    let target = Target::parse(&record.output.path).map_err(Failure::request)?;
    let mut calibration = Calibration::load(&home);
    let sinks = open_sinks(&target, &request, &record.output).map_err(Failure::request)?;
    let mut job =
        Job::plan(machine, folder, request, &mut calibration).map_err(Failure::request)?;
    job.previews = previews.map_err(Failure::request)?;
    make(&job, &run, sinks, &mut calibration, bars)
}
