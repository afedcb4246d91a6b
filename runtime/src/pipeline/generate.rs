//! A request to frames: encode, denoise, decode. Each part has an executor of its own, and its
//! memory is gone before the next comes.

use super::conditions::Conditions;
use super::denoise::{Checkpoint, Experts, Step};
use super::error::GenerateError;
use super::images::encode_images;
use super::load::load_weights;
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::preview::Projection;
use super::progress::{Progress, Stage, ticker};
use super::request::Request;
use super::run_folder::RunFolder;
use super::watch::{Vitals, clean_latents};
use crate::ggml::{Executor, HostTensor, Shape};
use crate::models::TextEncoder;
use crate::models::text::Umt5Encoder;
use crate::models::wan::{self, vae};
use crate::output::{Frame, OutputError};
use crate::text::{Tokenizer, clean};
use gguf::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Wall time by part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Of the prompts.
    pub encode: Duration,
    /// Of what the VAE makes of the images that the clip begins and ends with.
    pub images: Duration,
    /// Of what the image encoder makes of them.
    pub image_encoder: Duration,
    /// Of all steps, and of loading the experts.
    pub denoise: Duration,
    /// Of loading the VAE and decoding, and of handing frames on.
    pub decode: Duration,
    /// Whether all of the run was made at once, nothing taken from before.
    pub whole: bool,
}

/// Where a run keeps what another process would need to go on, and what it looks like so far.
pub struct Kept<'a> {
    /// Written after each step.
    pub run: &'a RunFolder,
    /// The steps, from 1, after which there is a preview.
    pub previews: &'a [usize],
}

/// Makes the video that `request` asks for and hands its frames to `push`, in order, as they
/// appear. What `kept` has from before isn't made again.
///
/// `keep_both`: whether both experts may stay on the device ([`super::Plan`] knows).
pub fn generate(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    keep_both: bool,
    kept: Option<&Kept<'_>>,
    progress: &mut dyn Progress,
    push: &mut dyn FnMut(&Frame) -> Result<(), OutputError>,
) -> Result<Timings, GenerateError> {
    let run = Run { machine, folder, request, keep_both, kept };
    let mut timings = Timings::default();
    let latents = match run.checkpoint()? {
        Some(done) if done.sampler.step == request.steps => done.latents,
        checkpoint => {
            timings.whole = checkpoint.is_none();
            let conditions = run.conditions(&mut timings, progress)?;
            let begin = Instant::now();
            let latents = run.denoise(&conditions, checkpoint, progress)?;
            timings.denoise = begin.elapsed();
            latents
        }
    };
    let begin = Instant::now();
    run.decode(latents, progress, push)?;
    timings.decode = begin.elapsed();
    Ok(timings)
}

/// One video on its way.
struct Run<'a> {
    machine: &'a Machine,
    folder: &'a ModelFolder,
    request: &'a Request,
    keep_both: bool,
    kept: Option<&'a Kept<'a>>,
}

impl Run<'_> {
    /// How far an earlier process came.
    fn checkpoint(&self) -> Result<Option<Checkpoint>, GenerateError> {
        let checkpoint = self.kept.map(|kept| kept.run.checkpoint()).transpose()?.flatten();
        if let Some(Checkpoint { latents, .. }) = &checkpoint {
            let (found, expected) =
                (latents.shape, Shape::from(self.request.latents(self.folder.latent_grid()?)));
            if found != expected {
                return Err(GenerateError::Checkpoint { found, expected });
            }
        }
        Ok(checkpoint)
    }

    fn conditions(
        &self,
        timings: &mut Timings,
        progress: &mut dyn Progress,
    ) -> Result<Conditions, GenerateError> {
        let known = self.kept.map(|kept| kept.run.conditions()).transpose()?.flatten();
        if let Some(conditions) = known {
            self.check_conditions(&conditions)?;
            return Ok(conditions);
        }
        let begin = Instant::now();
        let mut conditions = {
            let exec = &mut self.machine.executor(self.machine.text)?;
            encode(exec, self.folder, self.request, progress)?
        };
        timings.encode = begin.elapsed();
        conditions.images =
            encode_images(self.machine, self.folder, self.request, timings, progress)?;
        if let Some(Err(e)) = self.kept.map(|kept| kept.run.save_conditions(&conditions)) {
            progress.warn(&format!("the encoded prompts aren't saved: {e}"));
        }
        Ok(conditions)
    }

    /// What an earlier process kept must be what these models take.
    fn check_conditions(&self, conditions: &Conditions) -> Result<(), GenerateError> {
        let config = wan::Config::new(&self.folder.transformer)?;
        let [channels, frames, h, w] = self.request.latents(self.folder.latent_grid()?);
        let Conditions { positive, negative, images } = conditions;
        let text = |t: &HostTensor| {
            let [a, b, rows, width] = t.shape.full();
            [a, b, width] == [1, 1, config.text_dim] && (1..=config.text_len).contains(&rows)
        };
        let features = |t: &HostTensor| {
            let [a, b, rows, width] = t.shape.full();
            [a, b] == [1, 1]
                && Some(width) == config.image_dim
                && config.image_positions.map_or(rows > 0, |n| n == rows)
        };
        let shaped = |t: &HostTensor, shape: [i64; 4]| t.shape == Shape::from(shape);
        let more = config.in_channels - config.out_channels;
        let (guided, image) = (self.request.guided(), self.request.image.is_some());
        let kept = |t: &Option<HostTensor>, wanted: bool, fits: &dyn Fn(&HostTensor) -> bool| {
            t.is_some() == wanted && t.as_ref().is_none_or(fits)
        };
        let first = config.expand_timesteps && image;
        let all = [
            ("positive", text(positive)),
            ("negative", kept(negative, guided, &text)),
            ("image_features", kept(&images.features, config.image_dim.is_some(), &features)),
            (
                "image_channels",
                kept(&images.channels, config.takes_image_latents(), &|t| {
                    shaped(t, [more, frames, h, w])
                }),
            ),
            ("first_frame", kept(&images.first_frame, first, &|t| shaped(t, [channels, 1, h, w]))),
        ];
        match all.into_iter().find(|(_, fits)| !fits) {
            Some((what, _)) => Err(GenerateError::Conditions { what }),
            None => Ok(()),
        }
    }

    fn denoise(
        &self,
        conditions: &Conditions,
        from: Option<Checkpoint>,
        progress: &mut dyn Progress,
    ) -> Result<HostTensor, GenerateError> {
        let (high, low) = (self.folder.transformer.clone(), self.folder.transformer_2.clone());
        let mut experts = Experts::new(high, low)?;
        experts.keep_both(self.keep_both);
        let exec = &mut self.machine.executor(self.machine.transformer)?;
        let observe = &mut |step: &Step<'_>, progress: &mut dyn Progress| self.step(step, progress);
        let from = match from {
            Some(checkpoint) => checkpoint,
            None => Checkpoint::start(self.request, self.folder.latent_grid()?),
        };
        experts.denoise(exec, self.request, conditions, from, progress, observe)
    }

    /// What happens after each step: the numbers are looked at, and all is kept.
    fn step(&self, step: &Step<'_>, progress: &mut dyn Progress) -> Result<(), GenerateError> {
        let vitals = Vitals::of(step);
        if let Some(Err(e)) = self.kept.map(|kept| kept.run.log(&vitals)) {
            progress.warn(&e.to_string());
        }
        // Before anything is kept: what is kept last is good.
        if let Some(why) = vitals.impossible() {
            let (step, steps, device) = (vitals.step, step.steps, self.machine.transformer.name());
            return Err(GenerateError::Impossible { step, steps, why, device });
        }
        let odd = vitals.warnings();
        for warning in &odd {
            progress.warn(&format!("step {}: {warning}", vitals.step));
        }
        let Some(kept) = self.kept else { return Ok(()) };
        if let Err(e) = kept.run.save_step(step) {
            // The run itself is whole: ending it would lose more than going on may.
            progress.warn(&format!("step {} isn't saved: {e}", vitals.step));
        }
        if (kept.previews.contains(&vitals.step) || !odd.is_empty())
            && let Err(e) = self.preview(&clean_latents(step), &kept.run.preview(vitals.step))
        {
            progress.warn(&format!("step {} has no preview: {e}", vitals.step));
        }
        Ok(())
    }

    fn preview(&self, clean: &HostTensor, path: &Path) -> Result<(), GenerateError> {
        let projection = Projection::fit(self.machine, self.folder, clean)?;
        Ok(projection.write(clean, path)?)
    }

    /// Decodes in smaller bands each time that an earlier decoding didn't come to its end.
    fn decode(
        &self,
        latents: HostTensor,
        progress: &mut dyn Progress,
        push: &mut dyn FnMut(&Frame) -> Result<(), OutputError>,
    ) -> Result<(), GenerateError> {
        let exec = &mut self.machine.executor(self.machine.vae)?;
        let ended_early = match self.kept.map(|kept| kept.run.begin_decoding()) {
            Some(Ok(times)) => times,
            Some(Err(e)) => {
                progress.warn(&e.to_string());
                0
            }
            None => 0,
        };
        if ended_early > 0 {
            let mut limits = exec.limits();
            limits.scratch =
                (limits.scratch >> ended_early.saturating_mul(2).min(32)).max(LEAST_SCRATCH);
            exec.set_limits(limits);
        }
        let done = decode(exec, self.folder, latents, self.request.frames, progress, push);
        if let (Some(kept), Err(e)) = (self.kept, &done)
            && (e.is_interruption() || matches!(e, GenerateError::Output(_)))
        {
            kept.run.forget_decoding();
        }
        done
    }
}

/// Bytes of a convolution's gathered patches below which bands become no smaller.
const LEAST_SCRATCH: i64 = 1 << 20;

/// The prompts' hidden states; the text encoder is loaded and dropped here.
pub fn encode(
    exec: &mut Executor,
    folder: &ModelFolder,
    request: &Request,
    progress: &mut dyn Progress,
) -> Result<Conditions, GenerateError> {
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
    Ok(Conditions::prompts(positive, negative))
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
    let vae = vae::WanVae::open(&folder.vae, exec.device())?;

    let [_, latent_frames, ..] = latents.shape.full();
    progress.begin(Stage::Decode { frames }, 0, vae.ticks(latent_frames as u64));
    let mut decoding = vae.decode(exec, latents)?;
    let mut decoded = 0;
    let mut push = |video: HostTensor| -> Result<(), GenerateError> {
        decoded += 1;
        GenerateError::check_finite(&video.data, || format!("frame {decoded} of {frames}"))?;
        Ok(push(&to_frame(&video))?)
    };
    while decoding.next_frames(exec, &mut ticker(progress), &mut push)? {}
    Ok(())
}

/// `[H, W, 3]` between -1 and 1 in 8 bits.
pub(super) fn to_frame(video: &HostTensor) -> Frame {
    let [h, w, _] = video.shape.dims();
    let byte = |v: &f32| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
    Frame::new(w as usize, h as usize, video.data.iter().map(byte).collect())
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
