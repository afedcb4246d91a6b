//! The images that a clip begins and ends with, as the denoiser takes them.
//!
//! Reference: diffusers 0.42.1, `WanImageToVideoPipeline.prepare_latents` and `encode_image`.

use super::conditions::Images;
use super::error::GenerateError;
use super::generate::Timings;
use super::load::load_weights;
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::progress::{Progress, Stage, ticker};
use super::request::{FRAMES_MULTIPLE, Request};
use crate::ggml::{Executor, HostTensor};
use crate::image::{Filter, Image, clip_pixels};
use crate::models::clip::ImageEncoder;
use crate::models::wan;
use crate::models::wan::vae::WanVaeEncoder;
use gguf::File;
use std::sync::Arc;
use std::time::Instant;

/// What the images of `request` are to the model in `folder`; `timings` gets what each of them took.
pub fn encode_images(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    timings: &mut Timings,
    progress: &mut dyn Progress,
) -> Result<Images, GenerateError> {
    let Some(path) = &request.image else { return Ok(Images::default()) };
    let begin = Instant::now();
    let first = Image::read(path)?;
    let last = request.last_image.as_deref().map(Image::read).transpose()?;
    let config = wan::Config::new(&folder.transformer)?;
    let mut images = Images::default();

    let sides = [request.width, request.height];
    let [first_frame, last_frame] =
        [Some(&first), last.as_ref()].map(|image| Some(frame(image?, sides)));
    let first_frame = first_frame.expect("there is a first image");
    let mut exec = machine.executor(machine.vae)?;
    if config.expand_timesteps {
        let frames = std::iter::once(first_frame);
        images.first_frame = Some(encode(&mut exec, &folder.vae, frames, 1, progress)?);
    } else {
        let count = request.frames;
        let frames = clip(first_frame, last_frame, count);
        let latents = encode(&mut exec, &folder.vae, frames, count as u64, progress)?;
        images.channels = Some(masked(&latents, last.is_some()));
    }
    drop(exec);
    timings.images = begin.elapsed();
    if let Some(file) = &folder.image_encoder {
        let begin = Instant::now();
        let seen: Vec<&Image> = std::iter::once(&first).chain(&last).collect();
        images.features = Some(features(machine, file, &seen, progress)?);
        timings.image_encoder = begin.elapsed();
    }
    Ok(images)
}

/// An image as a frame `[H, W, 3]` in [-1, 1].
fn frame(image: &Image, [width, height]: [usize; 2]) -> HostTensor {
    let resized = image.resized([width, height], Filter::Lanczos);
    HostTensor::new([height as i64, width as i64, 3], resized.normalized())
}

/// What an image encoder sees in all images, one after the other: `[M, C]`.
fn features(
    machine: &Machine,
    file: &Arc<File>,
    images: &[&Image],
    progress: &mut dyn Progress,
) -> Result<HostTensor, GenerateError> {
    let exec = &mut machine.executor(machine.text)?;
    let encoder = ImageEncoder::new(&load_weights(file, exec.device(), progress)?, file)?;
    progress.begin(Stage::EncodeImage, 0, encoder.ticks() * images.len() as u64);
    let mut all = Vec::new();
    for image in images {
        let side = encoder.image_size();
        let pixels = HostTensor::new([side, side, 3], clip_pixels(image, side as usize));
        let seen = encoder.encode(exec, &pixels, &mut ticker(progress))?;
        all.extend_from_slice(&seen.data);
    }
    GenerateError::check_finite(&all, || "the image's features".into())?;
    let channels = encoder.dim();
    Ok(HostTensor::new([all.len() as i64 / channels, channels], all))
}

/// A clip that is grey but for the given frames.
fn clip(
    first: HostTensor,
    last: Option<HostTensor>,
    frames: usize,
) -> impl Iterator<Item = HostTensor> {
    let grey = HostTensor::zeros(first.shape);
    (0..frames).map(move |index| match &last {
        _ if index == 0 => first.clone(),
        Some(last) if index + 1 == frames => last.clone(),
        _ => grey.clone(),
    })
}

/// Latents `[C, F, H, W]` of `count` frames.
fn encode(
    exec: &mut Executor,
    file: &Arc<File>,
    frames: impl Iterator<Item = HostTensor>,
    count: u64,
    progress: &mut dyn Progress,
) -> Result<HostTensor, GenerateError> {
    let encoder = WanVaeEncoder::open(file, exec.device())?;
    progress.begin(Stage::EncodeImage, 0, encoder.ticks(count));
    let latents = encoder.encode(exec, frames, &mut ticker(progress))?;
    GenerateError::check_finite(&latents.data, || "the encoded image".into())?;
    Ok(latents)
}

/// Four channels of a mask before `latents` `[C, F, H, W]`: 1 where a pixel frame is given. A latent frame
/// has a channel for each of its four frames; the clip's first stands for one frame, four times.
fn masked(latents: &HostTensor, last: bool) -> HostTensor {
    let [c, f, h, w] = latents.shape.full();
    let (frames, pixels) = (f as usize, (h * w) as usize);
    let mut values = Vec::with_capacity((FRAMES_MULTIPLE * frames * pixels) + latents.data.len());
    for channel in 0..FRAMES_MULTIPLE {
        for frame in 0..frames {
            let ends = last && frame + 1 == frames && channel + 1 == FRAMES_MULTIPLE;
            let given = frame == 0 || ends;
            values.extend(std::iter::repeat_n(f32::from(u8::from(given)), pixels));
        }
    }
    values.extend_from_slice(&latents.data);
    HostTensor::new([c + FRAMES_MULTIPLE as i64, f, h, w], values)
}
