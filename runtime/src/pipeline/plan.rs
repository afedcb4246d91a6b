//! What a run will take, known before it begins: each part's own code runs dry, on devices that
//! neither store nor compute, and the books are read afterwards. How fast a device is, it is asked
//! ([`Rates::measure`]), which takes well under a second.

use super::denoise::Experts;
use super::error::GenerateError;
use super::load::load_weights;
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::progress::Silent;
use super::request::Request;
use super::schedule::Schedule;
use crate::ggml::{ComputeError, Device, Executor, Family, HostTensor, Rates, Usage, Work};
use crate::models::text::Umt5Encoder;
use crate::models::wan::{Expert, WanModel, vae};
use crate::models::{Denoiser, TextEncoder};
use gguf::{DType, File};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

/// Tokens of the longest prompt that is encoded whole.
const PROMPT_TOKENS: usize = 512;

/// How a plan knows what a device does in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speed {
    /// By letting it do a little of each kind of work.
    Measured,
    /// From what it calls itself: for devices that aren't there.
    Guessed,
}

/// One part of a run on its device.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub name: &'static str,
    pub device: Device,
    /// When it is the most.
    pub usage: Usage,
    /// All of the part's computing.
    pub seconds: f64,
    /// Seconds of its longest graph, by the guess that graphs are cut by.
    pub longest: f64,
}

/// The parts of a run in their order.
#[derive(Clone, Debug)]
pub struct Plan {
    pub text: Part,
    /// High noise first.
    pub experts: Vec<Part>,
    pub vae: Part,
    /// Whether both experts fit on their device at once.
    pub keep_both: bool,
}

impl Plan {
    /// Reads headers alone, and fails as the run itself would: on files that don't fit each other,
    /// and on operations that a device doesn't have.
    pub fn new(
        machine: &Machine,
        folder: &ModelFolder,
        request: &Request,
        speed: Speed,
    ) -> Result<Self, GenerateError> {
        let mut clock = Clock { machine: *machine, speed, known: BTreeMap::new() };
        let machine = machine.dry();
        let text = text(&machine, folder, request, &mut clock)?;
        let experts = experts(&machine, folder, request, &mut clock)?;
        let vae = decoder(&machine, folder, request, &mut clock)?;
        let mut plan = Self { text, experts, vae, keep_both: folder.transformer_2.is_some() };
        plan.keep_both &= plan.most() <= machine.transformer.capacity().free;
        Ok(plan)
    }

    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.text).chain(&self.experts).chain([&self.vae])
    }

    /// Bytes that the run holds when it holds the most, should all parts be on one device.
    pub fn most(&self) -> u64 {
        let largest = self.parts().map(|part| part.usage.total()).max().unwrap_or(0);
        // Each expert has its own keys and values of the prompts: count its working set, too.
        let both = self.experts.iter().map(|part| part.usage.total()).sum();
        if self.keep_both { largest.max(both) } else { largest }
    }

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

/// What devices do in a second, asked once for each kind of weights.
struct Clock {
    machine: Machine,
    speed: Speed,
    known: BTreeMap<(String, DType), Rates>,
}

impl Clock {
    /// Of `device` with weights as `weights` are.
    fn rates(&mut self, device: Device, weights: DType) -> Result<Rates, ComputeError> {
        let Machine { precision, threads, .. } = self.machine;
        if self.speed == Speed::Guessed {
            return Ok(Rates::guess(device, threads));
        }
        let key = (device.name(), weights);
        if let Some(rates) = self.known.get(&key) {
            return Ok(*rates);
        }
        let rates = Rates::measure(device, precision, threads, weights)?;
        self.known.insert(key, rates);
        Ok(rates)
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
    clock: &mut Clock,
) -> Result<Part, GenerateError> {
    let (file, mut exec) = (&folder.text_encoder, machine.executor(machine.text)?);
    let books = Books::open(machine.text);
    let encoder = Umt5Encoder::new(&load_weights(file, machine.text, &mut Silent)?, file)?;
    encoder.encode(&mut exec, &[0; PROMPT_TOKENS], &mut go_on)?;
    let passes = if request.guided() { 2.0 } else { 1.0 };
    let rates = clock.rates(clock.machine.text, main_type(file))?;
    Ok(books.close("text encoder", &exec, rates.seconds(exec.done().work * passes)))
}

fn experts(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    clock: &mut Clock,
) -> Result<Vec<Part>, GenerateError> {
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone())?;
    let schedule = Schedule::flow(request.steps, request.flow_shift)?;
    let mut parts = Vec::new();
    for (low, (file, config)) in experts.files().enumerate() {
        let steps = schedule.timesteps.iter().filter(|t| experts.is_low(**t) == (low == 1)).count();
        let mut exec = machine.executor(machine.transformer)?;
        let books = Books::open(machine.transformer);
        let weights = load_weights(file, machine.transformer, &mut Silent)?;
        let model = WanModel::new(&weights, config.clone())?;
        let prompt = HostTensor::zeros([config.text_len, config.text_dim]);
        let passes = if request.guided() { 2 } else { 1 };
        let mut conditionings = Vec::new();
        for _ in 0..passes {
            conditionings.push(model.condition(&mut exec, &prompt)?);
        }
        let before = exec.done().work;
        let latents = HostTensor::zeros(request.latents(config.channels));
        model.velocity(&mut exec, &latents, 500, &conditionings[0], &mut go_on)?;
        let forward = exec.done().work + before * -1.0;
        let name = match config.expert {
            Expert::HighNoise => "high-noise expert",
            Expert::LowNoise => "low-noise expert",
            Expert::Single => "transformer",
        };
        let work = before + forward * (steps * passes) as f64;
        let rates = clock.rates(clock.machine.transformer, main_type(file))?;
        parts.push(books.close(name, &exec, rates.seconds(work)));
    }
    Ok(parts)
}

fn decoder(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    clock: &mut Clock,
) -> Result<Part, GenerateError> {
    let mut exec = machine.executor(machine.vae)?;
    let books = Books::open(machine.vae);
    let config = vae::Config::new(&folder.vae)?;
    let shape = request.latents(config.z_dim);
    let vae = vae::WanVae::new(&load_weights(&folder.vae, machine.vae, &mut Silent)?, config)?;
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
    let rates = clock.rates(clock.machine.vae, clock.machine.vae.operands().dtype())?;
    Ok(books.close("VAE", &exec, rates.seconds(work)))
}

/// What happens on a device from here on.
struct Books(Device);

impl Books {
    fn open(device: Device) -> Self {
        device.forget_peak();
        Self(device)
    }

    fn close(self, name: &'static str, exec: &Executor, seconds: f64) -> Part {
        Part {
            name,
            device: self.0,
            usage: self.0.peak_usage(),
            seconds,
            longest: exec.done().longest_seconds,
        }
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
            writeln!(f, "  {name:<18}{weights:>8} +{working:>8}  on {device}, about {time}")?;
        }
        let capacity = self.experts[0].device.capacity().total;
        write!(f, "  {:<18}{:>8} of {}", "at most", bytes(self.most()), bytes(capacity))?;
        if self.experts.len() == 2 {
            let both = if self.keep_both { "both experts stay" } else { "one expert at a time" };
            write!(f, ", {both}")?;
        }
        Ok(())
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
