//! What a run will take, known before it begins: each part's own code runs dry, on devices that
//! neither store nor compute, and the books are read afterwards. How fast a device is, [`Calibration`]
//! knows: from finished runs, or by a measurement that takes well under a second.

use super::calibration::{Basis, Calibration};
use super::denoise::Experts;
use super::error::GenerateError;
use super::generate::Timings;
use super::load::{load_transformer, load_weights};
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::progress::Silent;
use super::request::{LatentGrid, Request};
use crate::ggml::{ComputeError, Device, Executor, Family, HostTensor, Rates, Usage, Work};
use crate::models::clip::ImageEncoder;
use crate::models::text::Umt5Encoder;
use crate::models::wan::vae::WanVaeEncoder;
use crate::models::wan::{Config, WanModel, vae};
use crate::models::{Context, Denoiser, TextEncoder, Timesteps};
use gguf::{DType, File};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

/// Tokens of the longest prompt that is encoded whole.
const PROMPT_TOKENS: usize = 512;

/// One part of a run on its device.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// `text encoder`, `high-noise expert`, `VAE`.
    pub name: &'static str,
    /// Where it runs.
    pub device: Device,
    /// When it is the most.
    pub usage: Usage,
    /// All of the part's computing.
    pub seconds: f64,
    /// How `seconds` are known.
    pub basis: Basis,
    /// Seconds by the device's rates alone.
    pub(super) promised: f64,
    /// Seconds of its longest graph, by the guess that graphs are cut by.
    pub longest: f64,
}

/// The parts of a run in their order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The text encoder.
    pub text: Part,
    /// Of a request with an image: the VAE's encoder, then the image encoder of models that have one.
    pub images: Vec<Part>,
    /// High noise first.
    pub experts: Vec<Part>,
    /// The VAE's decoder.
    pub vae: Part,
    /// Whether both experts fit on their device at once.
    pub keep_both: bool,
    /// Bytes that the run's folder may take on the disk.
    pub kept: u64,
}

impl Plan {
    /// Reads headers alone, and fails as the run itself would: on files that don't fit each other,
    /// and on operations that a device doesn't have. Without a `calibration`, speeds are guessed from
    /// what devices call themselves, which need not be there.
    pub fn new(
        machine: &Machine,
        folder: &ModelFolder,
        request: &Request,
        calibration: Option<&mut Calibration>,
    ) -> Result<Self, GenerateError> {
        let mut clock = Clock { machine: *machine, calibration };
        let machine = machine.dry();
        let text = text(&machine, folder, request, &mut clock)?;
        let images = match request.image {
            Some(_) => images(&machine, folder, request, &mut clock)?,
            None => Vec::new(),
        };
        let experts = experts(&machine, folder, request, &mut clock)?;
        let vae = decoder(&machine, folder, request, &mut clock)?;
        let (keep_both, kept) = (folder.transformer_2.is_some(), kept(folder, request)?);
        let mut plan = Self { text, images, experts, vae, keep_both, kept };
        plan.keep_both &= plan.most() <= machine.transformer.capacity().free;
        Ok(plan)
    }

    /// In the order in which they run.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let text = std::iter::once(&self.text).chain(&self.images);
        text.chain(&self.experts).chain([&self.vae])
    }

    /// Bytes that the run holds when it holds the most, should all parts be on one device.
    pub fn most(&self) -> u64 {
        let largest = self.parts().map(|part| part.usage.total()).max().unwrap_or(0);
        // Each expert has its own keys and values of the prompts: count its working set, too.
        let both = self.experts.iter().map(|part| part.usage.total()).sum();
        if self.keep_both { largest.max(both) } else { largest }
    }

    /// A finished run took so long: later plans know better.
    pub fn teach(&self, machine: &Machine, timings: &Timings, calibration: &mut Calibration) {
        let experts = self.experts.iter().map(|part| part.promised).sum();
        let images = [(machine.vae, timings.images), (machine.text, timings.image_encoder)];
        let images = self.images.iter().zip(images);
        let images = images.map(|(part, (device, took))| (device, part.name, part.promised, took));
        for (device, part, promised, took) in [
            (machine.text, "text encoder", self.text.promised, timings.encode),
            (machine.transformer, "transformer", experts, timings.denoise),
            (machine.vae, "VAE", self.vae.promised, timings.decode),
        ]
        .into_iter()
        .chain(images)
        {
            calibration.learn(machine, device, part, promised, took.as_secs_f64());
        }
    }

    /// Of all parts, one after the other.
    pub fn seconds(&self) -> f64 {
        self.parts().map(|part| part.seconds).sum()
    }

    /// The first part that its device has no room for. Weights that a device reads from the mapped
    /// file need not all be in memory at once.
    pub fn too_large(&self) -> Option<&Part> {
        self.parts().find(|part| {
            let needed = match part.device.family() {
                Family::Cpu => part.usage.working(),
                _ => part.usage.total(),
            };
            needed > part.device.capacity().total
        })
    }
}

/// Latents, what a sampler remembers of three earlier ones, and all that once more while it is
/// replaced; the prompts; previews.
fn kept(folder: &ModelFolder, request: &Request) -> Result<u64, GenerateError> {
    const PREVIEWS: i64 = 4_000_000;
    let config = Config::new(&folder.transformer)?;
    let latents = request.latents(folder.latent_grid()?).iter().product::<i64>();
    let prompts = 2 * config.text_len * config.text_dim;
    let image = if config.takes_image_latents() { 2 * latents } else { 0 };
    Ok(((8 * latents + image + prompts) * size_of::<f32>() as i64 + PREVIEWS) as u64)
}

/// Tells seconds from work.
struct Clock<'c> {
    machine: Machine,
    calibration: Option<&'c mut Calibration>,
}

impl Clock<'_> {
    /// Closes the books of `part`, which does `work` on `device` with weights as `weights` are.
    fn close(
        &mut self,
        books: Books,
        name: &'static str,
        exec: &Executor,
        (work, weights): (Work, DType),
    ) -> Result<Part, ComputeError> {
        let Books { device, real } = books;
        let (promised, pace, basis) = match &mut self.calibration {
            None => (Rates::guess(real, self.machine.threads).seconds(work), 1.0, Basis::Guessed),
            Some(known) => {
                let promised = known.rates(&self.machine, real, weights)?.seconds(work);
                match known.pace(&self.machine, real, pace_name(name)) {
                    Some(pace) => (promised, pace, Basis::Runs),
                    None => (promised, 1.0, Basis::Measured),
                }
            }
        };
        Ok(Part {
            name,
            device,
            usage: device.peak_usage(),
            seconds: promised * pace,
            basis,
            promised,
            longest: exec.done().longest_seconds,
        })
    }
}

/// What runs measure a part as: they tell how long both experts take.
fn pace_name(part: &str) -> &str {
    match part {
        "text encoder" | "VAE's encoder" | "image encoder" | "VAE" => part,
        _ => "transformer",
    }
}

/// The type of most of a file's values.
fn main_type(file: &File) -> DType {
    let mut elements: BTreeMap<DType, u64> = BTreeMap::new();
    for tensor in file.tensors() {
        *elements.entry(tensor.dtype).or_default() += tensor.shape.iter().product::<u64>();
    }
    elements.into_iter().max_by_key(|(_, count)| *count).map_or(DType::F32, |(dtype, _)| dtype)
}

fn text(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    clock: &mut Clock<'_>,
) -> Result<Part, GenerateError> {
    let (file, mut exec) = (&folder.text_encoder, machine.executor(machine.text)?);
    let books = Books::open(machine.text, clock.machine.text);
    let encoder = Umt5Encoder::new(&load_weights(file, machine.text, &mut Silent)?, file)?;
    encoder.encode(&mut exec, &[0; PROMPT_TOKENS], &mut go_on)?;
    let passes = if request.guided() { 2.0 } else { 1.0 };
    let work = exec.done().work * passes;
    Ok(clock.close(books, "text encoder", &exec, (work, main_type(file)))?)
}

fn experts(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    clock: &mut Clock<'_>,
) -> Result<Vec<Part>, GenerateError> {
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone())?;
    let schedule = request.schedule()?;
    let grid = folder.latent_grid()?;
    let mut parts = Vec::new();
    for (low, (file, config)) in experts.files().enumerate() {
        let own = schedule.timesteps.iter().map(|t| experts.is_low(*t) == (low == 1));
        let passes = own.enumerate().map(|(i, own)| if own { request.passes(i) } else { 0 });
        let passes: u64 = passes.sum();
        let mut exec = machine.executor(machine.transformer)?;
        let books = Books::open(machine.transformer, clock.machine.transformer);
        let weights = load_transformer(file, &request.loras, machine.transformer, &mut Silent)?;
        let model = WanModel::new(&weights, config.clone())?;
        let prompt = HostTensor::zeros([config.text_len, config.text_dim]);
        let features = config.image_dim.map(|c| HostTensor::zeros([image_rows(config), c]));
        let context = Context { text: &prompt, image: features.as_ref() };
        let mut conditionings = vec![model.condition(&mut exec, context)?];
        if request.guided() {
            conditionings.push(model.condition(&mut exec, context)?);
        }
        let before = exec.done().work;
        let [_, frames, rows, columns] = request.latents(grid);
        let latents = HostTensor::zeros([config.in_channels, frames, rows, columns]);
        // A given frame has a timestep of its own.
        let given = config.expand_timesteps && request.image.is_some();
        let first_frame = if given { 0.0 } else { 500.0 };
        let timesteps = Timesteps { clip: 500.0, first_frame };
        model.velocity(&mut exec, &latents, timesteps, &conditionings[0], &mut go_on)?;
        let forward = exec.done().work + before * -1.0;
        let name = config.expert.name();
        let work = before + forward * passes as f64;
        parts.push(clock.close(books, name, &exec, (work, main_type(file)))?);
    }
    Ok(parts)
}

fn images(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    clock: &mut Clock<'_>,
) -> Result<Vec<Part>, GenerateError> {
    let mut parts = Vec::new();
    let mut exec = machine.executor(machine.vae)?;
    let books = Books::open(machine.vae, clock.machine.vae);
    let encoder = WanVaeEncoder::open(&folder.vae, machine.vae)?;
    let frame = HostTensor::zeros([request.height as i64, request.width as i64, 3]);
    let mut encode = |frames: usize| -> Result<Work, GenerateError> {
        let before = exec.done().work;
        encoder.encode(&mut exec, std::iter::repeat_n(frame.clone(), frames), &mut go_on)?;
        Ok(exec.done().work + before * -1.0)
    };
    // The first frame is encoded alone, later ones four at a time: five show all there is.
    let mut work = encode(1)?;
    if !Config::new(&folder.transformer)?.expand_timesteps && request.latent_frames() > 1 {
        work += (encode(5)? + work * -1.0) * (request.latent_frames() - 1) as f64;
    }
    let weights = clock.machine.vae.operands().dtype();
    parts.push(clock.close(books, "VAE's encoder", &exec, (work, weights))?);
    drop((encoder, exec));
    if let Some(file) = &folder.image_encoder {
        let mut exec = machine.executor(machine.text)?;
        let books = Books::open(machine.text, clock.machine.text);
        let encoder = ImageEncoder::new(&load_weights(file, machine.text, &mut Silent)?, file)?;
        let side = encoder.image_size();
        encoder.encode(&mut exec, &HostTensor::zeros([side, side, 3]), &mut go_on)?;
        let count = 1.0 + f64::from(u8::from(request.last_image.is_some()));
        let work = exec.done().work * count;
        parts.push(clock.close(books, "image encoder", &exec, (work, main_type(file)))?);
    }
    Ok(parts)
}

/// Rows of an image encoder's features: of a class token and 16x16 patches, for each image.
fn image_rows(config: &Config) -> i64 {
    config.image_positions.unwrap_or(257)
}

fn decoder(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    clock: &mut Clock<'_>,
) -> Result<Part, GenerateError> {
    let mut exec = machine.executor(machine.vae)?;
    let books = Books::open(machine.vae, clock.machine.vae);
    let config = vae::Config::new(&folder.vae)?;
    let shape = request.latents(LatentGrid::from(&config));
    let vae = vae::WanVae::open(&folder.vae, machine.vae)?;
    let mut decoding = vae.decode(&exec, HostTensor::zeros(shape))?;
    let mut work = Work::default();
    // The first latent frame is one frame, every other one four: two show all there is.
    for index in 0..request.latent_frames().min(2) {
        let before = exec.done().work;
        let mut push = |_| Ok::<(), GenerateError>(());
        decoding.next_frames(&mut exec, &mut go_on, &mut push)?;
        let times = if index == 0 { 1 } else { request.latent_frames() - 1 };
        work += (exec.done().work + before * -1.0) * times as f64;
    }
    let weights = clock.machine.vae.operands().dtype();
    Ok(clock.close(books, "VAE", &exec, (work, weights))?)
}

/// What happens on a device from here on.
struct Books {
    /// The one that only keeps books.
    device: Device,
    real: Device,
}

impl Books {
    fn open(device: Device, real: Device) -> Self {
        device.forget_peak();
        Self { device, real }
    }
}

fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A line a part: memory and time.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.parts() {
            let (name, device) = (part.name, part.device.name());
            let (weights, working) = (bytes(part.usage.weights), bytes(part.usage.working()));
            let time = duration(part.seconds);
            let basis = match part.basis {
                Basis::Runs => "as earlier runs took",
                Basis::Measured => "by a measurement",
                Basis::Guessed => "a guess",
            };
            writeln!(
                f,
                "  {name:<18}{weights:>8} +{working:>8}  on {device}, about {time} ({basis})"
            )?;
        }
        let capacity = self.experts[0].device.capacity().total;
        write!(f, "  {:<18}{:>8} of {}", "at most", bytes(self.most()), bytes(capacity))?;
        if self.experts.len() == 2 {
            let both = if self.keep_both { "both experts stay" } else { "one expert at a time" };
            write!(f, ", {both}")?;
        }
        write!(f, "\n  {:<18}{:>8} on the disk for steps", "", bytes(self.kept))?;
        write!(f, "\n  {:<18}{:>8}", "in all about", duration(self.seconds()))
    }
}

fn bytes(count: u64) -> String {
    match count as f64 {
        n if n < 1e9 => format!("{:.0} MB", n / 1e6),
        n => format!("{:.1} GB", n / 1e9),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
