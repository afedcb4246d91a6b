//! What several commands are told in the same way: which model, which devices, which video.

use super::Failure;
use crate::ggml::Precision;
use crate::models::wan::Config;
use crate::pipeline::sampler::SamplerKind;
use crate::pipeline::schedule::Spacing;
use crate::pipeline::{DeviceError, Experts, Machine, ModelFolder, Places, Request, choose_device};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The files of a model.
#[derive(clap::Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// Folder with the model's GGUF files, as `to-gguf` writes it
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,
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

/// Where to compute.
#[derive(clap::Args)]
#[command(next_help_heading = "Where to compute")]
pub(super) struct DeviceArgs {
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
}

/// What a video is like, but for what it shows.
#[derive(clap::Args)]
#[command(next_help_heading = "Video")]
pub(super) struct VideoArgs {
    /// Width and height in pixels, multiples of 16
    #[arg(long, value_name = "WxH", default_value = "832x480", value_parser = size)]
    size: (usize, usize),
    /// Number of frames, 4n + 1
    #[arg(long, default_value_t = 81)]
    frames: usize,
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
    /// The solver: unipc or euler
    #[arg(long, default_value_t = SamplerKind::UniPc)]
    sampler: SamplerKind,
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

/// Opens the model, and fills what wasn't typed with its own defaults: a checked request without prompts.
pub(super) fn open(
    model: &ModelArgs,
    video: &VideoArgs,
    seed: Option<u64>,
) -> Result<(ModelFolder, Request), Failure> {
    let folder = ModelFolder::open(&model.places()).map_err(Failure::request)?;
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone());
    let experts = experts.map_err(Failure::request)?;
    let request = video.request(seed, experts.config(), experts.low_config());
    let grid = folder.latent_grid().map_err(Failure::request)?;
    request.check(grid).map_err(Failure::request)?;
    Ok((folder, request))
}

impl ModelArgs {
    fn places(&self) -> Places {
        Places {
            folder: self.model.clone(),
            high_noise: self.high_noise.clone(),
            low_noise: self.low_noise.clone(),
            text_encoder: self.text_encoder.clone(),
            vae: self.vae.clone(),
        }
    }
}

impl DeviceArgs {
    pub(super) fn machine(&self) -> Result<Machine, DeviceError> {
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
}

impl VideoArgs {
    /// A request without prompts; what wasn't typed is the model's own default.
    fn request(&self, seed: Option<u64>, model: &Config, low: Option<&Config>) -> Request {
        let low_default = low.map_or(model.guidance_scale, |c| c.guidance_scale);
        let shift: f64 = model.flow_shift.to_string().parse().expect("a number's own digits");
        Request {
            prompt: String::new(),
            negative_prompt: String::new(),
            width: self.size.0,
            height: self.size.1,
            frames: self.frames,
            steps: self.steps.unwrap_or(model.steps as usize),
            guidance_scale: self.guidance.unwrap_or(model.guidance_scale),
            guidance_scale_low: self.guidance_low.or(self.guidance).unwrap_or(low_default),
            flow_shift: self.flow_shift.unwrap_or(shift),
            seed: seed.unwrap_or_else(fresh_seed),
            sampler: self.sampler,
            spacing: Spacing::Flow,
            guidance_until: None,
            image: None,
            last_image: None,
        }
    }
}

/// A seed that differs from run to run, within the 32 bits that PyTorch's CPU generator looks at.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u64 & u64::from(u32::MAX)
}
