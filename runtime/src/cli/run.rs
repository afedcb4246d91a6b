//! `gguf-video run`: from arguments to a finished video.

use super::Failure;
use super::args::{Asked, DeviceArgs, ModelArgs, VideoArgs, open};
use super::awake::keep_awake;
use super::bars::Bars;
use super::make::{Job, check_disk, make, open_sinks, parse_previews};
use super::{imatrix, preflight, say};
use crate::output::Target;
use crate::pipeline::preflight::Reports;
use crate::pipeline::run_folder::{OutputRecord, Record, RunFolder};
use crate::pipeline::{Calibration, Home, ModelFile, Progress, Request, model_files};
use jiff::Zoned;
use std::path::{Path, PathBuf, absolute};

/// At the end of the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  gguf-video run --model models/demo --prompt \"a big red ball moving right on a black background\" \
--size 64x64 --frames 5 -o ball.mp4
  gguf-video run --model models/demo --prompt \"a small blue ball\" --size 64x64 --frames 5 --seed 7 \
-o frames/ --contact-sheet ball.png

Exit codes: 0 a video that the judge passed; 1 failed on the way, and the steps so far are kept; \
2 the request can't be fulfilled, and nothing was computed; 3 the preflight or the judge says that \
what was computed is wrong; 130 interrupted, go on with `gguf-video resume`";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What the video should show
    #[arg(long, short, required_unless_present = "collect_imatrix")]
    prompt: Option<String>,
    /// What it should not show
    #[arg(long, short, default_value = "")]
    negative_prompt: String,
    /// The video: FILE.mp4, FILE.y4m, or a folder for numbered PNG images (frames/)
    #[arg(long, short, value_name = "PATH", required_unless_present = "collect_imatrix")]
    output: Option<PathBuf>,
    /// A row of frames as a PNG image, to see the video at a glance
    #[arg(long, value_name = "FILE.png")]
    contact_sheet: Option<PathBuf>,
    /// Frames a second [default: the model's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    fps: Option<u32>,
    /// Start of the noise, as of PyTorch's CPU generator [default: a new one each time]
    #[arg(long, allow_negative_numbers = true, value_parser = seed)]
    seed: Option<u64>,
    /// Where to keep each step, for `gguf-video resume` [default: a new folder in those that
    /// `gguf-video runs` lists]
    #[arg(long, value_name = "DIR")]
    run_folder: Option<PathBuf>,
    /// Print what happens as JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Steps after which to look at the clip: their numbers, `all`, or `none`
    /// [default: four on the way]
    #[arg(long, value_name = "STEPS")]
    preview: Option<String>,
    /// Begin without checking that the device computes this model right at this size
    #[arg(long)]
    no_preflight: bool,
    /// Let the computer fall asleep while the video is computed
    #[arg(long)]
    allow_sleep: bool,
    /// Instead of making a video, gather an importance matrix for `to-gguf --imatrix` over all
    /// prompts of a file; for two experts, two files
    #[arg(long, value_name = "FILE.gguf", requires = "prompts", conflicts_with_all = ["prompt", "output"])]
    collect_imatrix: Option<PathBuf>,
    /// Prompts for --collect-imatrix, one a line
    #[arg(long, value_name = "FILE.txt", requires = "collect_imatrix")]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    video: VideoArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Args {
    fn output(&self, path: &Path, fps: u32) -> std::io::Result<OutputRecord> {
        let contact_sheet = self.contact_sheet.as_deref().map(absolute).transpose()?;
        // A trailing slash means a folder, and must stay.
        let path = absolute(path)?;
        let fps = self.fps.unwrap_or(fps);
        Ok(OutputRecord { path, fps, contact_sheet })
    }
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a whole number from 0".into())
}

/// In the order of time, and with a name that says what for.
fn new_run(home: &Home, output: &Path) -> PathBuf {
    let time = Zoned::now().strftime("%Y%m%d-%H%M%S");
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{time}-{stem}");
    let again = (2..).map(|i| format!("{name}-{i}"));
    let mut names = std::iter::once(name.clone()).chain(again).map(|n| home.runs().join(n));
    names.find(|path| !path.exists()).expect("an endless number of names")
}

/// The first time that this model is to run on this device at this size, looks whether it can.
fn check_device(
    job: &Job,
    home: &Home,
    files: &[ModelFile],
    bars: &mut Bars,
) -> Result<(), Failure> {
    let Job { machine, folder, request, .. } = job;
    let reports = Reports::of(home, machine, request, files);
    let report = match reports.known() {
        Some(report) => report,
        None => {
            say(
                "preflight: the first run of this model at this size begins with a check of the device (--no-preflight skips it)",
            );
            preflight::look(machine, folder, request, files, &reports, bars)?
        }
    };
    for warning in report.warnings() {
        bars.warn(&warning);
    }
    preflight::verdict(&report)
}

/// Gathers an importance matrix over the prompts of a file.
fn collect(args: &Args, prompts: &Path, path: &Path) -> Result<(), Failure> {
    let dataset = prompts.file_name().unwrap_or_default().to_string_lossy();
    let prompts = imatrix::read_prompts(prompts).map_err(Failure::request)?;
    let Asked { folder, request, .. } = open(&args.model, &args.video, args.seed)?;
    let request = Request { negative_prompt: args.negative_prompt.clone(), ..request };
    let machine = args.device.machine().map_err(Failure::request)?;
    let _awake = keep_awake(args.allow_sleep);
    imatrix::collect(&machine, &folder, &request, &prompts, &dataset, path)
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    if let (Some(path), Some(prompts)) = (&args.collect_imatrix, &args.prompts) {
        return collect(&args, prompts, path);
    }
    let (Some(prompt), Some(output)) = (&args.prompt, &args.output) else {
        unreachable!("clap asks for both, or for the matrix and its prompts");
    };
    let target = Target::parse(output).map_err(Failure::request)?;
    let Asked { folder, request, variant } = open(&args.model, &args.video, args.seed)?;
    let request = Request {
        prompt: prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        ..request
    };
    request.check_prompts().map_err(Failure::request)?;
    let previews = parse_previews(args.preview.as_deref(), request.steps);
    let previews = previews.map_err(Failure::request)?;
    let record = args.output(output, variant.fps).map_err(Failure::request)?;
    let sinks = open_sinks(&target, &request, &record).map_err(Failure::request)?;
    let machine = args.device.machine().map_err(Failure::request)?;

    let home = Home::find();
    let mut calibration = Calibration::load(&home);
    let mut job =
        Job::plan(machine, folder, request, &mut calibration).map_err(Failure::request)?;
    job.previews = previews;
    let path = args.run_folder.clone().unwrap_or_else(|| new_run(&home, output));
    check_disk(&job.plan, &path).map_err(Failure::request)?;
    let _awake = keep_awake(args.allow_sleep);
    let mut bars = Bars::new(args.json).map_err(Failure::run)?;
    let files =
        model_files(&job.folder, &job.request, &home, &mut bars).map_err(Failure::hashing)?;
    if !args.no_preflight {
        check_device(&job, &home, &files, &mut bars)?;
    }
    let record = Record::new(job.request.clone(), job.machine.record(), files, record);
    let run = RunFolder::create(&path, record).map_err(Failure::request)?;
    make(&job, &run, sinks, &mut calibration, bars)
}
