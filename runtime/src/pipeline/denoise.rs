//! The denoising loop, after `WanPipeline.__call__` of diffusers 0.42.1.

use super::conditions::Conditions;
use super::error::GenerateError;
use super::load::load_transformer;
use super::lora::Lora;
use super::noise::Generator;
use super::progress::{Progress, Stage, ticker};
use super::request::{LatentGrid, Request};
use super::sampler::{Sampler, State};
use crate::ggml::{ComputeError, Executor, HostTensor};
use crate::models::wan::{Conditioning, Config, WanModel};
use crate::models::{Denoiser, ModelError, Timesteps};
use gguf::File;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The one or two transformers of a pipeline.
pub struct Experts {
    high: (Arc<File>, Config),
    low: Option<(Arc<File>, Config)>,
    /// Whether an expert stays on the device when the other one's steps begin.
    keep: bool,
}

/// An expert ready to work on one clip.
struct Loaded {
    model: WanModel,
    positive: Conditioning,
    negative: Option<Conditioning>,
}

/// Where a run stands between two steps, whole: what comes after depends on nothing else. (Noise that
/// a sampler draws on the way follows from the seed and the number of the step.)
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// `[C, F, H, W]`.
    pub latents: HostTensor,
    /// It knows how many steps are done.
    pub sampler: State,
}

impl Checkpoint {
    /// Before the first step: the noise that the request's seed stands for.
    pub fn start(request: &Request, grid: LatentGrid) -> Self {
        let shape = request.latents(grid);
        let count = shape.iter().product::<i64>() as usize;
        let noise = Generator::new(request.seed).normal(count);
        Self { latents: HostTensor::new(shape, noise), sampler: State::default() }
    }
}

/// What a step of the loop did. Tensors are `[C, F, H, W]`.
pub struct Step<'a> {
    /// From 0.
    pub index: usize,
    /// Of the whole run.
    pub steps: usize,
    /// Noise levels at its start and at its end.
    pub sigmas: [f32; 2],
    /// What the denoiser was given.
    pub before: &'a HostTensor,
    /// For the prompt.
    pub velocity: &'a HostTensor,
    /// For the negative prompt.
    pub negative_velocity: Option<&'a HostTensor>,
    /// After guidance.
    pub guided_velocity: &'a HostTensor,
    /// After the sampler.
    pub latents: &'a HostTensor,
    /// As the step left it: with `latents`, it is where a run can go on.
    pub sampler: &'a dyn Sampler,
    /// A tensor that wasn't finite at first, but was when the step was computed again.
    pub recovered: Option<&'a str>,
}

/// Sees every step, and may end the run.
pub type Observe<'a> = &'a mut dyn FnMut(&Step<'_>, &mut dyn Progress) -> Result<(), GenerateError>;

/// The velocities of one step.
struct Velocities {
    positive: HostTensor,
    negative: Option<HostTensor>,
    guided: HostTensor,
}

impl Velocities {
    fn map(self, f: impl Fn(HostTensor) -> HostTensor) -> Self {
        let Self { positive, negative, guided } = self;
        Self { positive: f(positive), negative: negative.map(&f), guided: f(guided) }
    }
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

    /// None where one transformer does all steps.
    pub fn low_config(&self) -> Option<&Config> {
        self.low.as_ref().map(|(_, config)| config)
    }

    /// High noise first.
    pub(super) fn files(&self) -> impl Iterator<Item = &(Arc<File>, Config)> {
        std::iter::once(&self.high).chain(&self.low)
    }

    /// Whether a timestep is the low-noise expert's.
    pub(super) fn is_low(&self, timestep: f32) -> bool {
        let Some(boundary) = self.config().boundary_ratio else { return false };
        // 0.9 in the file means 0.9, not the nearest F32: timestep 900 belongs to the high-noise one.
        let boundary: f64 = boundary.to_string().parse().expect("a number's own digits");
        self.low.is_some() && f64::from(timestep) < boundary * 1000.0
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
        loras: &[Lora],
        conditions: &Conditions,
        exec: &mut Executor,
        progress: &mut dyn Progress,
    ) -> Result<Loaded, GenerateError> {
        let (file, config) = self.expert(low);
        let weights = load_transformer(file, loras, exec.device(), progress)?;
        let model = WanModel::new(&weights, config.clone())?;
        let positive = model.condition(exec, conditions.context())?;
        let negative =
            conditions.negative_context().map(|c| model.condition(exec, c)).transpose()?;
        Ok(Loaded { model, positive, negative })
    }

    /// From the seed's noise, or from where an earlier run was left, to clean latents
    /// `[C, F, H, W]`.
    pub fn denoise(
        &self,
        exec: &mut Executor,
        request: &Request,
        conditions: &Conditions,
        from: Checkpoint,
        progress: &mut dyn Progress,
        observe: Observe<'_>,
    ) -> Result<HostTensor, GenerateError> {
        let schedule = request.schedule()?;
        let images = &conditions.images;
        let mut sampler = request.sampler.start(&schedule, request.seed);
        let (mut latents, first) = (images.keep_frame(from.latents), from.sampler.step);
        sampler.restore(from.sampler)?;
        let (stage, limits) = (Stage::Denoise { steps: request.steps }, exec.limits());
        let ticks = |(index, t): (usize, &f32)| {
            let (_, config) = self.expert(self.is_low(*t));
            config.ticks(&limits, latents.shape, images.timesteps(*t)) * request.passes(index)
        };
        let ticks: Vec<u64> = schedule.timesteps.iter().enumerate().map(ticks).collect();
        let mut loaded: [Option<Loaded>; 2] = [None, None];
        for (index, &timestep) in schedule.timesteps.iter().enumerate().skip(first) {
            let low = self.is_low(timestep);
            if loaded[usize::from(low)].is_none() {
                if !self.keep {
                    loaded = [None, None];
                }
                let expert = self.load(low, &request.loras, conditions, exec, progress)?;
                loaded[usize::from(low)] = Some(expert);
                progress.begin(stage, ticks[..index].iter().sum(), ticks.iter().sum());
            }
            progress.step(index);
            let expert = loaded[usize::from(low)].as_ref().expect("just loaded");
            let scale = if low { request.guidance_scale_low } else { request.guidance_scale };
            let scale = (request.passes(index) > 1).then_some(scale);
            let (input, timesteps) = (images.input(&latents), images.timesteps(timestep));
            let compute = |exec: &mut Executor, progress: &mut dyn Progress| {
                expert.velocities(exec, &input, timesteps, scale, progress)
            };
            let mut recovered = None;
            let velocities = match compute(exec, progress) {
                Err(ModelError::Compute(ComputeError::NotFinite { tensor, .. })) => {
                    // Once more, to find the first such tensor, or that a device's whim is over.
                    exec.examine(true);
                    let again = compute(exec, &mut Resting(progress));
                    exec.examine(false);
                    recovered = Some(tensor);
                    again
                }
                done => done,
            };
            let velocities = velocities.map_err(|cause| match cause {
                ModelError::Compute(ComputeError::NotFinite { tensor, device }) => {
                    let (step, steps) = (index + 1, request.steps);
                    let file = self.expert(low).0.path().to_owned();
                    GenerateError::StepNotFinite { step, steps, tensor, device, file }
                }
                other => other.into(),
            })?;
            let velocities = velocities.map(|v| images.rest_frame(v));
            let guided = &velocities.guided;
            GenerateError::check_finite(&guided.data, || {
                let expert = if low { "low-noise" } else { "high-noise" };
                format!("step {} of {} (the {expert} expert)", index + 1, request.steps)
            })?;
            let next = sampler.step(&latents.data, &guided.data);
            let next = images.keep_frame(HostTensor::new(latents.shape, next));
            let step = Step {
                index,
                steps: request.steps,
                sigmas: [schedule.sigmas[index], schedule.sigmas[index + 1]],
                before: &latents,
                velocity: &velocities.positive,
                negative_velocity: velocities.negative.as_ref(),
                guided_velocity: guided,
                latents: &next,
                sampler: &*sampler,
                recovered: recovered.as_deref(),
            };
            observe(&step, progress)?;
            latents = next;
        }
        Ok(latents)
    }
}

/// Hears interruptions, but counts nothing: work that is done a second time.
struct Resting<'a>(&'a mut dyn Progress);

impl Progress for Resting<'_> {
    fn begin(&mut self, _: Stage, _: u64, _: u64) {}

    fn advance(&mut self, _: u64) -> ControlFlow<()> {
        self.0.advance(0)
    }

    fn step(&mut self, _: usize) {}

    fn warn(&mut self, message: &str) {
        self.0.warn(message);
    }
}

impl Loaded {
    /// Classifier-free guidance: `u + scale · (v - u)`, or none.
    fn velocities(
        &self,
        exec: &mut Executor,
        input: &HostTensor,
        timesteps: Timesteps,
        scale: Option<f32>,
        progress: &mut dyn Progress,
    ) -> Result<Velocities, ModelError> {
        let mut velocity = |conditioning| {
            let tick = &mut ticker(progress);
            self.model.velocity(exec, input, timesteps, conditioning, tick)
        };
        let v = velocity(&self.positive)?;
        let Some((negative, scale)) = self.negative.as_ref().zip(scale) else {
            return Ok(Velocities { guided: v.clone(), positive: v, negative: None });
        };
        let u = velocity(negative)?;
        let guided: Vec<f32> =
            u.data.iter().zip(&*v.data).map(|(u, v)| u + scale * (v - u)).collect();
        let guided = HostTensor::new(v.shape, guided);
        Ok(Velocities { positive: v, negative: Some(u), guided })
    }
}
