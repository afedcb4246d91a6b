//! A request to frames: encode, denoise, decode. Each part's memory is gone before the next comes.

use super::denoise::{Experts, Prompts};
use super::model_folder::ModelFolder;
use super::noise::Generator;
use super::progress::{Progress, Stage, ticker};
use super::request::Request;
use super::schedule::Schedule;
use crate::ggml::{Executor, HostTensor, Weights};
use crate::models::text::Umt5Encoder;
use crate::models::wan::vae;
use crate::models::{ModelError, TextEncoder};
use crate::output::{Frame, OutputError};
use crate::text::{Tokenizer, TokenizerError, clean};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{file}: its tokenizer can't be used", file = .0.display())]
    Tokenizer(PathBuf, #[source] TokenizerError),
    #[error("{file}: token {id} of the prompt is beyond its {rows} embeddings", file = .file.display())]
    Vocabulary { file: PathBuf, id: u32, rows: u32 },
    #[error(transparent)]
    Schedule(#[from] super::schedule::ScheduleError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl From<crate::ggml::ComputeError> for GenerateError {
    fn from(cause: crate::ggml::ComputeError) -> Self {
        Self::Model(cause.into())
    }
}

impl From<crate::ggml::LoadError> for GenerateError {
    fn from(cause: crate::ggml::LoadError) -> Self {
        Self::Model(cause.into())
    }
}

impl GenerateError {
    /// Whether the run ended because somebody asked for it.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::Model(ModelError::Compute(crate::ggml::ComputeError::Interrupted)))
    }
}

/// Wall time by part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    pub encode: Duration,
    pub denoise: Duration,
    pub decode: Duration,
}

/// Makes the video that `request` asks for and hands its frames to `push`, in order, as they
/// appear.
pub fn generate(
    exec: &mut Executor,
    folder: &ModelFolder,
    request: &Request,
    progress: &mut dyn Progress,
    push: &mut dyn FnMut(&Frame) -> Result<(), OutputError>,
) -> Result<Timings, GenerateError> {
    let mut timings = Timings::default();
    let begin = Instant::now();
    let prompts = encode(exec, folder, request, progress)?;
    timings.encode = begin.elapsed();

    let begin = Instant::now();
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone())?;
    let schedule = Schedule::flow(request.steps, request.flow_shift)?;
    let stage = Stage::Denoise { steps: request.steps };
    progress.begin(stage, experts.ticks(&schedule, request));
    let noise = noise(request, experts.config().channels);
    let latents =
        experts.denoise(exec, request, &schedule, &prompts, noise, progress, &mut |_| {})?;
    timings.denoise = begin.elapsed();

    let begin = Instant::now();
    decode(exec, folder, latents, request.frames, progress, push)?;
    timings.decode = begin.elapsed();
    Ok(timings)
}

/// The prompts' hidden states; the text encoder is loaded and dropped here.
pub fn encode(
    exec: &mut Executor,
    folder: &ModelFolder,
    request: &Request,
    progress: &mut dyn Progress,
) -> Result<Prompts, GenerateError> {
    let file = &folder.text_encoder;
    let tokenizer = Tokenizer::from_metadata(file.metadata())
        .map_err(|cause| GenerateError::Tokenizer(file.path().to_owned(), cause))?;
    progress.begin(Stage::Load, 1);
    let encoder = Umt5Encoder::new(&Weights::load(file.clone(), exec.device())?, file)?;
    interruptible(progress.tick())?;

    let passes = if request.guided() { 2 } else { 1 };
    progress.begin(Stage::Encode, passes * encoder.ticks());
    let mut embed = |prompt: &str| -> Result<HostTensor, GenerateError> {
        let ids = tokenizer.encode(&clean(prompt));
        let rows = encoder.vocabulary();
        if let Some(&id) = ids.iter().find(|&&id| id >= rows) {
            return Err(GenerateError::Vocabulary { file: file.path().to_owned(), id, rows });
        }
        Ok(encoder.encode(exec, &ids, &mut ticker(progress))?)
    };
    let positive = embed(&request.prompt)?;
    let negative = request.guided().then(|| embed(&request.negative_prompt)).transpose()?;
    Ok(Prompts { positive, negative })
}

/// The noise a seed stands for, `[C, F, H, W]`.
pub fn noise(request: &Request, channels: i64) -> HostTensor {
    let (h, w) = (request.height as i64 / 8, request.width as i64 / 8);
    let shape = [channels, request.latent_frames() as i64, h, w];
    let count = shape.iter().product::<i64>() as usize;
    HostTensor::new(shape, Generator::new(request.seed).normal(count))
}

/// Latents `[C, F, H, W]` to 8-bit frames.
pub fn decode(
    exec: &mut Executor,
    folder: &ModelFolder,
    latents: HostTensor,
    frames: usize,
    progress: &mut dyn Progress,
    push: &mut dyn FnMut(&Frame) -> Result<(), OutputError>,
) -> Result<(), GenerateError> {
    progress.begin(Stage::Load, 1);
    let config = vae::Config::new(&folder.vae)?;
    let vae = vae::WanVae::new(&Weights::load(folder.vae.clone(), exec.device())?, config)?;
    interruptible(progress.tick())?;

    let [_, latent_frames, ..] = latents.shape.full();
    progress.begin(Stage::Decode { frames }, vae.ticks() * latent_frames as u64);
    let mut decoding = vae.decode(exec, latents)?;
    while let Some(video) = decoding.next_frames(exec, &mut ticker(progress))? {
        let [_, h, w, c] = video.shape.full();
        for frame in video.data.chunks_exact((h * w * c) as usize) {
            let byte = |v: &f32| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
            let rgb = frame.iter().map(byte).collect();
            push(&Frame { width: w as usize, height: h as usize, rgb })?;
        }
    }
    Ok(())
}

fn interruptible(flow: ControlFlow<()>) -> Result<(), GenerateError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(crate::ggml::ComputeError::Interrupted.into()),
    }
}
