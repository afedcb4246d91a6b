//! What several commands are told in the same way: which model, which devices, which video.

use super::{Failure, say, warn};
use crate::ggml::Precision;
use crate::image::Image;
use crate::models::wan::Config;
use crate::pipeline::run_folder::MOST_THREADS;
use crate::pipeline::sampler::SamplerKind;
use crate::pipeline::{
    DeviceError, Experts, LatentGrid, Lora, Machine, ModelFolder, Of, Places, Preset, Request,
    choose_device, variant,
};
use anyhow::bail;
use catalog::Variant;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::{PathBuf, absolute};
use std::time::{SystemTime, UNIX_EPOCH};

/// The files of a model.
#[derive(clap::Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// Folder with the model's GGUF files, as `to-gguf` writes it
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,
    /// The transformer's file, of a model with one, where --model has several or none
    #[arg(long, value_name = "FILE", conflicts_with_all = ["high_noise", "low_noise"])]
    transformer: Option<PathBuf>,
    /// The high-noise expert's file, of a model with two
    #[arg(long, visible_alias = "high", value_name = "FILE")]
    high_noise: Option<PathBuf>,
    /// The low-noise expert's file
    #[arg(long, visible_alias = "low", value_name = "FILE")]
    low_noise: Option<PathBuf>,
    /// The text encoder's file
    #[arg(long, value_name = "FILE")]
    text_encoder: Option<PathBuf>,
    /// The image encoder's file, for models that have one
    #[arg(long, value_name = "FILE")]
    image_encoder: Option<PathBuf>,
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
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_THREADS as i64))]
    threads: Option<u32>,
    /// Compute everything in F32, as the reference does: slower, for comparisons
    #[arg(long)]
    strict: bool,
}

/// What a video is like, but for what it shows.
#[derive(clap::Args)]
#[command(next_help_heading = "Video")]
pub(super) struct VideoArgs {
    /// The image that the video begins with: PNG, JPEG or WebP
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The image that it ends with
    #[arg(long, value_name = "FILE", requires = "image")]
    last_image: Option<PathBuf>,
    /// Width and height in pixels, multiples of 16 (TI2V-5B: of 32); or `auto`, or `auto:WxH`: of so
    /// large an area, in the image's shape [default: auto with an image, else the model's]
    #[arg(long, value_name = "WxH", value_parser = Size::parse)]
    size: Option<Size>,
    /// Number of frames, 4n + 1 [default: the model's]
    #[arg(long, allow_negative_numbers = true, value_parser = whole)]
    frames: Option<usize>,
    /// Sampling settings that go together: official, hub (what diffusers samples with), fast, or
    /// lightning4 (for step-distilled models) [default: what the model's file says]
    #[arg(long, value_parser = preset(), hide_possible_values = true)]
    preset: Option<Preset>,
    /// Denoising steps [default: the preset's]
    #[arg(long, allow_negative_numbers = true, value_parser = whole)]
    steps: Option<usize>,
    /// Guidance scale; 1 runs without the negative prompt, in half the time [default: the preset's]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true, value_parser = number)]
    guidance: Option<f32>,
    /// Guidance scale of the low-noise expert [default: --guidance where given, else the preset's]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true, value_parser = number)]
    guidance_low: Option<f32>,
    /// Guide so many steps alone: later ones take half the time [default: the preset's]
    #[arg(long, value_name = "STEP", allow_negative_numbers = true, value_parser = whole)]
    guidance_until: Option<usize>,
    /// Moves steps towards high noise [default: the preset's]
    #[arg(long, value_name = "SHIFT", allow_negative_numbers = true, value_parser = shift)]
    flow_shift: Option<f64>,
    /// The solver: unipc, euler, dpm++2m or lcm [default: the preset's]
    #[arg(long, value_parser = sampler(), hide_possible_values = true)]
    sampler: Option<SamplerKind>,
    /// Add a LoRA to the weights, to all transformers; may be repeated
    #[arg(long, value_name = "FILE[:STRENGTH]")]
    lora: Vec<Lora>,
    /// Add a LoRA to the high-noise expert
    #[arg(long, value_name = "FILE[:STRENGTH]")]
    lora_high: Vec<Lora>,
    /// Add a LoRA to the low-noise expert
    #[arg(long, value_name = "FILE[:STRENGTH]")]
    lora_low: Vec<Lora>,
}

/// What `--size` says.
#[derive(Clone, Copy, Debug)]
enum Size {
    Sides(usize, usize),
    /// Of the area of so many pixels, or of the model's size.
    Auto(Option<usize>),
}

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
        let sides = |text: &str| {
            let (w, h) = text.split_once(['x', 'X'])?;
            Some((w.parse::<usize>().ok()?, h.parse::<usize>().ok()?))
        };
        let found = match text.split_once(':') {
            None if text == "auto" => Some(Self::Auto(None)),
            Some(("auto", area)) => {
                sides(area).and_then(|(w, h)| Some(Self::Auto(Some(w.checked_mul(h)?))))
            }
            _ => sides(text).map(|(w, h)| Self::Sides(w, h)),
        };
        found.ok_or_else(|| "expected width x height, such as 832x480, or auto".into())
    }
}

fn whole(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number".into())
}

fn number(text: &str) -> Result<f32, String> {
    text.parse().map_err(|_| "expected a number".into())
}

fn shift(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number".into())
}

fn preset() -> impl TypedValueParser<Value = Preset> {
    let names = PossibleValuesParser::new(Preset::ALL.map(Preset::name));
    names.map(|name| name.parse::<Preset>().expect("a name of the list"))
}

fn sampler() -> impl TypedValueParser<Value = SamplerKind> {
    let names = PossibleValuesParser::new(SamplerKind::ALL.map(SamplerKind::name));
    names.map(|name| name.parse::<SamplerKind>().expect("a name of the list"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|s: &f64| s.is_finite() && *s > 0.0);
    number.ok_or_else(|| "expected a number of seconds above 0".into())
}

/// What was asked for, with all that wasn't typed.
pub(super) struct Asked {
    pub(super) folder: ModelFolder,
    /// Checked, without prompts.
    pub(super) request: Request,
    pub(super) variant: &'static Variant,
}

/// Opens the model, says what its files left open, and fills what wasn't typed with its own defaults.
pub(super) fn open(
    model: &ModelArgs,
    video: &VideoArgs,
    seed: Option<u64>,
) -> Result<Asked, Failure> {
    let folder = ModelFolder::open(&model.places()).map_err(Failure::request)?;
    folder.inferred.iter().for_each(|sentence| say(sentence));
    folder.doubts.iter().for_each(|sentence| warn(&format!("warning: {sentence}")));
    let request = video.request(seed, &folder).map_err(Failure::request)?;
    let config = Config::new(&folder.transformer).map_err(Failure::request)?;
    Ok(Asked { folder, request, variant: variant(&config) })
}

impl ModelArgs {
    fn places(&self) -> Places {
        Places {
            folder: self.model.clone(),
            transformer: self.transformer.clone(),
            high_noise: self.high_noise.clone(),
            low_noise: self.low_noise.clone(),
            text_encoder: self.text_encoder.clone(),
            image_encoder: self.image_encoder.clone(),
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
            threads: self.threads.map_or(cores, |n| n as usize),
            dispatch: self.dispatch_limit,
            submission: self.submission_limit,
        })
    }
}

impl VideoArgs {
    /// A checked request without prompts; what wasn't typed is the preset's or the model's own default.
    fn request(&self, seed: Option<u64>, folder: &ModelFolder) -> anyhow::Result<Request> {
        let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone())?;
        let (model, low) = (experts.config(), experts.low_config());
        let (variant, grid) = (variant(model), folder.latent_grid()?);
        let shift: f64 = model.flow_shift.to_string().parse().expect("a number's own digits");
        let full = |path: &PathBuf| absolute(path);
        let request = Request {
            frames: self.frames.unwrap_or(variant.frames as usize),
            steps: model.steps as usize,
            guidance_scale: model.guidance_scale,
            guidance_scale_low: low.map_or(model.guidance_scale, |c| c.guidance_scale),
            flow_shift: shift,
            seed: seed.unwrap_or_else(fresh_seed),
            image: self.image.as_ref().map(full).transpose()?,
            last_image: self.last_image.as_ref().map(full).transpose()?,
            loras: self.loras()?,
            ..Request::default()
        };
        let preset = self.preset.map(|preset| preset.apply(variant, request.clone()));
        let request = preset.unwrap_or(request);
        let (width, height) = self.sides(&request, variant, grid)?;
        let steps = self.steps.unwrap_or(request.steps);
        // A preset guides a share of the steps.
        let until =
            request.guidance_until.map(|until| until.saturating_mul(steps) / request.steps.max(1));
        let request = Request {
            width,
            height,
            steps,
            guidance_scale: self.guidance.unwrap_or(request.guidance_scale),
            guidance_scale_low: self
                .guidance_low
                .or(self.guidance)
                .unwrap_or(request.guidance_scale_low),
            guidance_until: self.guidance_until.or(until),
            flow_shift: self.flow_shift.unwrap_or(request.flow_shift),
            sampler: self.sampler.unwrap_or(request.sampler),
            ..request
        };
        request.check(grid)?;
        request.check_images(model)?;
        if let Some(until) = self.guidance_until.filter(|until| *until > request.steps) {
            bail!("--guidance-until {until}: there are {} steps", request.steps);
        }
        if let Some(preset) = self.preset {
            say(&format!("--preset {preset}: {}", request.sampling()));
            if preset == Preset::Lightning4 && request.loras.is_empty() {
                warn(
                    "--preset lightning4 is for step-distilled models: without their LoRAs (--lora-high, --lora-low), or files that have them merged, four steps make no video",
                );
            }
        }
        Ok(request)
    }

    fn sides(
        &self,
        request: &Request,
        variant: &Variant,
        grid: LatentGrid,
    ) -> anyhow::Result<(usize, usize)> {
        let (width, height) = (variant.size.0 as usize, variant.size.1 as usize);
        let own =
            if request.image.is_some() { Size::Auto(None) } else { Size::Sides(width, height) };
        match (self.size.unwrap_or(own), &request.image) {
            (Size::Sides(width, height), _) => Ok((width, height)),
            (Size::Auto(area), Some(image)) => {
                let picture = Image::read(image)?;
                let shape = (picture.width, picture.height);
                Ok(grid.sides(area.unwrap_or(width * height), shape))
            }
            (Size::Auto(_), None) => {
                bail!("--size auto takes the shape of --image, which isn't given")
            }
        }
    }

    fn loras(&self) -> std::io::Result<Vec<Lora>> {
        let lists = [
            (&self.lora, Of::All),
            (&self.lora_high, Of::HighNoise),
            (&self.lora_low, Of::LowNoise),
        ];
        let all = lists.into_iter().flat_map(|(list, of)| list.iter().map(move |lora| (lora, of)));
        all.map(|(lora, of)| Ok(Lora { path: absolute(&lora.path)?, of, ..lora.clone() })).collect()
    }
}

/// A seed that differs from run to run, within the 32 bits that PyTorch's CPU generator looks at.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u64 & u64::from(u32::MAX)
}
