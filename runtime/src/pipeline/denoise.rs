//! The denoising loop, after `WanPipeline.__call__` of diffusers 0.42.1.

use super::error::GenerateError;
use super::load::load_weights;
use super::noise::Generator;
use super::progress::{Progress, Stage, ticker};
use super::request::Request;
use super::schedule::Schedule;
use crate::ggml::{Executor, HostTensor};
use crate::models::wan::{Conditioning, Config, WanModel};
use crate::models::{Denoiser, ModelError};
use gguf::File;
use std::sync::Arc;

/// A prompt and a negative prompt as the text encoder left them, `[N, C]` each.
pub struct Prompts {
    pub positive: HostTensor,
    /// Only for guided runs.
    pub negative: Option<HostTensor>,
}

/// The one or two transformers of a pipeline.
pub struct Experts {
    high: (Arc<File>, Config),
    low: Option<(Arc<File>, Config)>,
    /// Whether an expert stays on the device when the other one's steps begin.
    keep: bool,
}

/// An expert ready to work on one prompt.
struct Loaded {
    model: WanModel,
    positive: Conditioning,
    negative: Option<Conditioning>,
}

/// What a step of the loop did.
pub struct Step<'a> {
    pub index: usize,
    /// After guidance, `[C, F, H, W]`.
    pub velocity: &'a HostTensor,
    /// After the sampler, `[C, F, H, W]`.
    pub latents: &'a HostTensor,
}

impl Experts {
    /// Reads the configurations; `transformer_2` is the low-noise expert.
    pub fn new(
        transformer: Arc<File>,
        transformer_2: Option<Arc<File>>,
    ) -> Result<Self, ModelError> {
        let with_config = |file: Arc<File>| -> Result<_, ModelError> {
            let config = Config::new(&file)?;
            Ok((file, config))
        };
        Ok(Self {
            high: with_config(transformer)?,
            low: transformer_2.map(with_config).transpose()?,
            keep: false,
        })
    }

    /// Whether the device has room for both experts: then the first stays when the second comes.
    pub fn keep_both(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Of the high-noise expert, or the only one.
    pub fn config(&self) -> &Config {
        &self.high.1
    }

    pub fn low_config(&self) -> Option<&Config> {
        self.low.as_ref().map(|(_, config)| config)
    }

    /// High noise first.
    pub(super) fn files(&self) -> impl Iterator<Item = &(Arc<File>, Config)> {
        std::iter::once(&self.high).chain(&self.low)
    }

    /// Whether a timestep is the low-noise expert's.
    pub(super) fn is_low(&self, timestep: i64) -> bool {
        let Some(boundary) = self.config().boundary_ratio else { return false };
        // 0.9 in the file means 0.9, not the nearest F32: timestep 900 belongs to the high-noise one.
        let boundary: f64 = boundary.to_string().parse().expect("a number's own digits");
        self.low.is_some() && (timestep as f64) < boundary * 1000.0
    }

    fn expert(&self, low: bool) -> &(Arc<File>, Config) {
        if low {
            self.low.as_ref().expect("only a pair has a low-noise expert")
        } else {
            &self.high
        }
    }

    fn load(
        &self,
        low: bool,
        prompts: &Prompts,
        exec: &mut Executor,
        progress: &mut dyn Progress,
    ) -> Result<Loaded, ModelError> {
        let (file, config) = self.expert(low);
        let weights = load_weights(file, exec.device(), progress)?;
        let model = WanModel::new(&weights, config.clone())?;
        let positive = model.condition(exec, &prompts.positive)?;
        let negative = prompts.negative.as_ref().map(|n| model.condition(exec, n)).transpose()?;
        Ok(Loaded { model, positive, negative })
    }

    /// From the seed's noise to clean latents, `[C, F, H, W]`. `observe` sees every step.
    pub fn denoise(
        &self,
        exec: &mut Executor,
        request: &Request,
        prompts: &Prompts,
        progress: &mut dyn Progress,
        observe: &mut dyn FnMut(Step<'_>),
    ) -> Result<HostTensor, GenerateError> {
        let schedule = Schedule::flow(request.steps, request.flow_shift)?;
        let mut sampler = request.sampler.start(&schedule);
        let mut latents = initial_noise(request, self.config().channels);
        let (stage, limits) = (Stage::Denoise { steps: request.steps }, exec.limits());
        let passes = if request.guided() { 2 } else { 1 };
        let ticks = |t: &i64| {
            let (_, config) = self.expert(self.is_low(*t));
            config.ticks(&limits, latents.shape) * passes
        };
        let ticks: Vec<u64> = schedule.timesteps.iter().map(ticks).collect();
        let mut loaded: [Option<Loaded>; 2] = [None, None];
        for (index, &timestep) in schedule.timesteps.iter().enumerate() {
            let low = self.is_low(timestep);
            if loaded[usize::from(low)].is_none() {
                if !self.keep {
                    loaded = [None, None];
                }
                loaded[usize::from(low)] = Some(self.load(low, prompts, exec, progress)?);
                progress.begin(stage, ticks[..index].iter().sum(), ticks.iter().sum());
            }
            progress.step(index);
            let expert = loaded[usize::from(low)].as_ref().expect("just loaded");
            let scale = if low { request.guidance_scale_low } else { request.guidance_scale };
            let velocity = guided_velocity(expert, exec, &latents, timestep, scale, progress)?;
            GenerateError::check_finite(&velocity.data, || {
                let expert = if low { "low-noise" } else { "high-noise" };
                format!("step {} of {} (the {expert} expert)", index + 1, request.steps)
            })?;
            let next = sampler.step(&latents.data, &velocity.data);
            latents = HostTensor::new(latents.shape, next);
            observe(Step { index, velocity: &velocity, latents: &latents });
        }
        Ok(latents)
    }
}

/// The noise a seed stands for, `[C, F, H, W]`.
pub fn initial_noise(request: &Request, channels: i64) -> HostTensor {
    let shape = request.latents(channels);
    let count = shape.iter().product::<i64>() as usize;
    HostTensor::new(shape, Generator::new(request.seed).normal(count))
}

/// Classifier-free guidance: `u + scale · (v - u)`.
fn guided_velocity(
    expert: &Loaded,
    exec: &mut Executor,
    latents: &HostTensor,
    timestep: i64,
    scale: f32,
    progress: &mut dyn Progress,
) -> Result<HostTensor, ModelError> {
    let mut velocity = |conditioning| {
        let tick = &mut ticker(progress);
        expert.model.velocity(exec, latents, timestep, conditioning, tick)
    };
    let v = velocity(&expert.positive)?;
    let Some(negative) = &expert.negative else { return Ok(v) };
    let u = velocity(negative)?;
    let guided: Vec<f32> = u.data.iter().zip(&*v.data).map(|(u, v)| u + scale * (v - u)).collect();
    Ok(HostTensor::new(v.shape, guided))
}
