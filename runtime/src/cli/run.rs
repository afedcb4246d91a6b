//! `gguf-video run`: from arguments to a finished video.

use super::Failure;
use super::bars::Bars;
use crate::ggml::Precision;
use crate::models::wan::Config;
use crate::output::{ContactSheet, Frame, FrameSink, Target, Video};
use crate::pipeline::sampler::SamplerKind;
use crate::pipeline::{
    DeviceError, Experts, Machine, ModelFolder, Places, Plan, Request, Speed, choose_device,
    generate,
};
use anyhow::anyhow;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Frames on a contact sheet.
const SHEET_COLUMNS: usize = 6;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Folder with the model's GGUF files, as `to-gguf` writes it
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,
    /// What the video should show
    #[arg(long, short)]
    prompt: String,
    /// What it should not show
    #[arg(long, short, default_value = "")]
    negative_prompt: String,
    /// The video: FILE.mp4, FILE.y4m, or a folder for numbered PNG images (frames/)
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// A row of frames as a PNG image, to see the video at a glance
    #[arg(long, value_name = "FILE.png")]
    contact_sheet: Option<PathBuf>,

    /// Width and height in pixels, multiples of 16
    #[arg(long, value_name = "WxH", default_value = "832x480", value_parser = size)]
    size: (usize, usize),
    /// Number of frames, 4n + 1
    #[arg(long, default_value_t = 81)]
    frames: usize,
    /// Frames a second
    #[arg(long, default_value = "16")]
    fps: NonZeroU32,
    /// Denoising steps [default: the model's]
    #[arg(long)]
    steps: Option<usize>,
    /// Guidance scale; 1 runs without the negative prompt, in half the time [default: the model's]
    #[arg(long, value_name = "SCALE")]
    guidance: Option<f32>,
    /// Guidance scale of the low-noise expert [default: --guidance where given, else the model's]
    #[arg(long, value_name = "SCALE")]
    guidance_low: Option<f32>,
    /// Moves steps towards high noise [default: the model's]
    #[arg(long, value_name = "SHIFT")]
    flow_shift: Option<f64>,
    /// Start of the noise, as of PyTorch's CPU generator [default: a new one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// The solver: unipc or euler
    #[arg(long, default_value_t = SamplerKind::UniPc)]
    sampler: SamplerKind,

    /// Where to compute: auto, cpu, metal, cuda, vulkan, or a name that `gguf-video devices` prints
    #[arg(long, default_value = "auto")]
    device: String,
    /// Where to encode the prompt [default: --device]
    #[arg(long, value_name = "DEVICE")]
    text_device: Option<String>,
    /// Where to decode the frames [default: --device]
    #[arg(long, value_name = "DEVICE")]
    vae_device: Option<String>,
    /// Seconds that one operation may take on the device: a display's watchdog ends long ones
    /// [default: the device's]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    dispatch_limit: Option<f64>,
    /// Seconds that one submission to the device may take [default: the device's]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    submission_limit: Option<f64>,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<NonZeroU32>,
    /// Compute everything in F32, as the reference does: slower, for comparisons
    #[arg(long)]
    strict: bool,

    /// The high-noise expert's file, or the only one's, where --model has several or none
    #[arg(long, value_name = "FILE")]
    high_noise: Option<PathBuf>,
    /// The low-noise expert's file
    #[arg(long, value_name = "FILE")]
    low_noise: Option<PathBuf>,
    /// The text encoder's file
    #[arg(long, value_name = "FILE")]
    text_encoder: Option<PathBuf>,
    /// The VAE's file
    #[arg(long, value_name = "FILE")]
    vae: Option<PathBuf>,
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let sides =
        text.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.ok_or_else(|| "expected width x height, such as 832x480".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|s: &f64| s.is_finite() && *s > 0.0);
    number.ok_or_else(|| "expected a number of seconds above 0".into())
}

impl Args {
    fn machine(&self) -> Result<Machine, DeviceError> {
        let transformer = choose_device(&self.device)?;
        let other = |name: &Option<String>| name.as_deref().map_or(Ok(transformer), choose_device);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Machine {
            text: other(&self.text_device)?,
            transformer,
            vae: other(&self.vae_device)?,
            precision: if self.strict { Precision::Strict } else { Precision::Native },
            threads: self.threads.map_or(cores, |n| n.get() as usize),
            dispatch: self.dispatch_limit,
            submission: self.submission_limit,
        })
    }

    fn places(&self) -> Places {
        Places {
            folder: self.model.clone(),
            high_noise: self.high_noise.clone(),
            low_noise: self.low_noise.clone(),
            text_encoder: self.text_encoder.clone(),
            vae: self.vae.clone(),
        }
    }

    /// Fills what wasn't typed with the model's own defaults.
    fn request(&self, model: &Config, low: Option<&Config>) -> Request {
        let low_default = low.map_or(model.guidance_scale, |c| c.guidance_scale);
        let shift: f64 = model.flow_shift.to_string().parse().expect("a number's own digits");
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            width: self.size.0,
            height: self.size.1,
            frames: self.frames,
            steps: self.steps.unwrap_or(model.steps as usize),
            guidance_scale: self.guidance.unwrap_or(model.guidance_scale),
            guidance_scale_low: self.guidance_low.or(self.guidance).unwrap_or(low_default),
            flow_shift: self.flow_shift.unwrap_or(shift),
            seed: self.seed.unwrap_or_else(fresh_seed),
            sampler: self.sampler,
        }
    }
}

/// A seed that differs from run to run, within the 32 bits that PyTorch's CPU generator looks at.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u64 & u64::from(u32::MAX)
}

#[expect(clippy::print_stderr, reason = "this is where the program speaks to its user")]
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let target = Target::parse(&args.output).map_err(Failure::request)?;
    let folder = ModelFolder::open(&args.places()).map_err(Failure::request)?;
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone());
    let experts = experts.map_err(Failure::request)?;
    let request = args.request(experts.config(), experts.low_config());
    request.check().map_err(Failure::request)?;

    let Request { width, height, frames, steps, seed, .. } = request;
    let video = Video { width, height, fps: args.fps.get(), frames };
    let mut sinks = vec![target.open(video).map_err(Failure::request)?];
    if let Some(path) = &args.contact_sheet {
        let sheet = ContactSheet::create(path, SHEET_COLUMNS, frames).map_err(Failure::request)?;
        sinks.push(Box::new(sheet));
    }
    let machine = args.machine().map_err(Failure::request)?;
    let plan = Plan::new(&machine, &folder, &request, Speed::Measured).map_err(Failure::request)?;
    if let Some(part) = plan.too_large() {
        return Err(Failure::request(anyhow!(
            "{} has {:.1} GB, the {} needs {:.1} GB:\n{plan}",
            part.device.name(),
            part.device.capacity().total as f64 / 1e9,
            part.name,
            part.usage.total() as f64 / 1e9
        )));
    }

    let guidance = (request.guidance_scale, request.guidance_scale_low);
    eprintln!(
        "{}, {width}x{height}, {frames} frames, {steps} steps, guidance {} and {}, flow shift {}, {}, seed {seed}",
        experts.config().variant,
        guidance.0,
        guidance.1,
        request.flow_shift,
        request.sampler
    );
    eprintln!("{plan}");
    let mut bars = Bars::new().map_err(Failure::run)?;
    let mut push = |frame: &Frame| sinks.iter_mut().try_for_each(|sink| sink.push(frame));
    let done = generate(&machine, &folder, &request, plan.keep_both, &mut bars, &mut push);
    drop(bars);
    let timings = match done {
        Ok(timings) => timings,
        Err(e) if e.is_interruption() => {
            eprintln!("gguf-video: interrupted, nothing was written");
            return Err(Failure { error: None, code: Failure::INTERRUPTED });
        }
        Err(e) => return Err(Failure::run(e)),
    };
    for sink in sinks {
        FrameSink::finish(sink).map_err(Failure::run)?;
    }
    eprintln!(
        "encode {:.1} s, denoise {:.1} s ({:.2} s a step), decode {:.1} s",
        timings.encode.as_secs_f64(),
        timings.denoise.as_secs_f64(),
        timings.denoise.as_secs_f64() / steps as f64,
        timings.decode.as_secs_f64()
    );
    eprintln!("wrote {}", args.output.display());
    Ok(())
}
