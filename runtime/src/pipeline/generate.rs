//! A request to frames: encode, denoise, decode. Each part has an executor of its own, and its
//! memory is gone before the next comes.

use super::denoise::{Experts, Prompts};
use super::error::GenerateError;
use super::load::load_weights;
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::progress::{Progress, Stage, ticker};
use super::request::Request;
use crate::ggml::{Executor, HostTensor};
use crate::models::TextEncoder;
use crate::models::text::Umt5Encoder;
use crate::models::wan::{self, vae};
use crate::output::{Frame, OutputError};
use crate::text::{Tokenizer, clean};
use gguf::File;
use std::time::{Duration, Instant};

/// Wall time by part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    pub encode: Duration,
    pub denoise: Duration,
    pub decode: Duration,
}

/// Makes the video that `request` asks for and hands its frames to `push`, in order, as they
/// appear.
///
/// `keep_both`: whether both experts may stay on the device ([`super::Plan`] knows).
pub fn generate(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    keep_both: bool,
    progress: &mut dyn Progress,
    push: &mut dyn FnMut(&Frame) -> Result<(), OutputError>,
) -> Result<Timings, GenerateError> {
    let mut timings = Timings::default();
    let begin = Instant::now();
    let prompts = encode(&mut machine.executor(machine.text)?, folder, request, progress)?;
    timings.encode = begin.elapsed();

    let begin = Instant::now();
    let mut experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone())?;
    experts.keep_both(keep_both);
    let exec = &mut machine.executor(machine.transformer)?;
    let latents = experts.denoise(exec, request, &prompts, progress, &mut |_| {})?;
    drop(experts);
    timings.denoise = begin.elapsed();

    let begin = Instant::now();
    let exec = &mut machine.executor(machine.vae)?;
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
    let encoder = Umt5Encoder::new(&load_weights(file, exec.device(), progress)?, file)?;
    for transformer in std::iter::once(&folder.transformer).chain(&folder.transformer_2) {
        let expected = wan::Config::new(transformer)?.text_dim;
        agree("text channels", (file, encoder.dim()), (transformer, expected))?;
    }

    let passes = if request.guided() { 2 } else { 1 };
    progress.begin(Stage::Encode, 0, passes * encoder.ticks());
    let mut embed = |prompt: &str| -> Result<HostTensor, GenerateError> {
        let ids = tokenizer.encode(&clean(prompt));
        let rows = encoder.vocabulary();
        if let Some(&id) = ids.iter().find(|&&id| id >= rows) {
            return Err(GenerateError::Vocabulary { file: file.path().to_owned(), id, rows });
        }
        Ok(encoder.encode(exec, &ids, &mut ticker(progress))?)
    };
    let positive = embed(&request.prompt)?;
    GenerateError::check_finite(&positive.data, || "the encoded prompt".into())?;
    let negative = request.guided().then(|| embed(&request.negative_prompt)).transpose()?;
    Ok(Prompts { positive, negative })
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
    let config = vae::Config::new(&folder.vae)?;
    let [channels, ..] = latents.shape.full();
    agree("latent channels", (&folder.vae, config.z_dim), (&folder.transformer, channels))?;
    let vae = vae::WanVae::new(&load_weights(&folder.vae, exec.device(), progress)?, config)?;

    let [_, latent_frames, ..] = latents.shape.full();
    progress.begin(Stage::Decode { frames }, 0, vae.ticks(latent_frames as u64));
    let mut decoding = vae.decode(exec, latents)?;
    let mut decoded = 0;
    let mut push = |video: HostTensor| -> Result<(), GenerateError> {
        decoded += 1;
        GenerateError::check_finite(&video.data, || format!("frame {decoded} of {frames}"))?;
        let [h, w, _] = video.shape.dims();
        let byte = |v: &f32| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
        Ok(push(&Frame::new(w as usize, h as usize, video.data.iter().map(byte).collect()))?)
    };
    while decoding.next_frames(exec, &mut ticker(progress), &mut push)? {}
    Ok(())
}

/// Whether two files mean the same number.
fn agree(
    what: &'static str,
    (one, got): (&File, i64),
    (other, expected): (&File, i64),
) -> Result<(), GenerateError> {
    if got == expected {
        return Ok(());
    }
    let (one, other) = (one.path().to_owned(), other.path().to_owned());
    Err(GenerateError::Mismatch { what, one, got, other, expected })
}
