//! Before hours are spent: is what this device computes of this model right, at this size?
//!
//! Three looks, from small to large. A tiny video is made from beginning to end, and judged like any
//! other. Then one block of a transformer and the first chunk of the VAE run at the size that was asked
//! for (tiny runs pass where full size fails: watchdogs, offsets of 32 bits, row limits), and a sample of
//! their results is computed once more on the CPU in F32.

use super::conditions::Conditions;
use super::denoise::{Checkpoint, Experts};
use super::error::GenerateError;
use super::full_size::{Comparison, FullSize};
use super::generate::{Timings, decode, encode};
use super::home::Home;
use super::images::encode_images;
use super::machine::Machine;
use super::model_file::ModelFile;
use super::model_folder::ModelFolder;
use super::progress::Progress;
use super::request::Request;
use super::schedule::Spacing;
use super::whole_file::replace;
use crate::ggml::{ComputeError, Device, Executor, HostTensor};
use crate::output::Frame;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

/// The video that is made first.
const TINY: (usize, usize, usize) = (128, 128, 5);
const TINY_STEPS: usize = 10;
/// The largest F16, where GPUs' operands end, and the share of it from which on that is said.
const F16_LIMIT: f64 = 65_504.0;
const F16_NEAR: f64 = 0.25;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the program that looked.
    pub version: String,
    /// The transformer's: ggml's name, and what the hardware calls itself.
    pub device: String,
    /// The VAE's, in the same way.
    pub vae_device: String,
    /// Pixels in a row of the clip that was asked for.
    pub width: usize,
    /// Its rows.
    pub height: usize,
    /// Its frames.
    pub frames: usize,
    /// BLAKE3 of the model's files, by part.
    pub model: BTreeMap<String, String>,
    /// Whether all is well.
    pub passed: bool,
    /// What the judge found in the tiny video; nothing, if it passed.
    pub tiny: Vec<String>,
    /// Of a block of each transformer, then of the VAE's first chunk.
    pub comparisons: Vec<Comparison>,
    /// The largest magnitude at each place of the transformers' blocks during the tiny run.
    pub activations: Vec<Activation>,
    /// Wall time of the preflight.
    pub seconds: f64,
}

/// The largest value at one place, over all blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activation {
    /// Without the block's number.
    pub place: String,
    /// The block that it was seen in: `blocks.7`.
    pub block: String,
    /// Its magnitude; nothing above 65,504 has a place in F16.
    pub largest: f64,
}

impl Report {
    /// A sentence for each thing that is wrong.
    pub fn faults(&self) -> Vec<String> {
        let tiny = self.tiny.iter().map(|found| format!("the tiny video: {found}"));
        let wrong = self.comparisons.iter().filter(|c| !c.passed).map(|c| {
            format!(
                "{} at full size: an error of {:.1e}, rounding explains {:.1e}",
                c.what, c.error, c.explained
            )
        });
        tiny.chain(wrong).collect()
    }

    /// A sentence for each thing that is odd.
    pub fn warnings(&self) -> Vec<String> {
        let near = self.activations.iter().filter(|a| a.largest > F16_NEAR * F16_LIMIT);
        near.map(|a| {
            let Activation { place, block, largest } = a;
            format!("`{place}` of {block} reaches {largest:.0}; F16 ends at {F16_LIMIT:.0}")
        })
        .collect()
    }
}

/// Reports that were made before; one is good for the same model, devices, size and program.
pub struct Reports(PathBuf);

impl Reports {
    /// Where `home` keeps the report on such a clip, made of `files` on `machine`.
    pub fn of(home: &Home, machine: &Machine, request: &Request, files: &[ModelFile]) -> Self {
        let mut key = blake3::Hasher::new();
        let mut add = |text: &str| {
            key.update(text.as_bytes());
            key.update(&[0]);
        };
        add(env!("CARGO_PKG_VERSION"));
        for device in [machine.text, machine.transformer, machine.vae] {
            add(&device.name());
            add(&device.description());
        }
        add(&format!("{:?}", machine.precision));
        add(&format!("{}x{}x{}", request.width, request.height, request.frames));
        // Another picture is no reason to look again.
        files.iter().filter(|file| !file.is_picture()).for_each(|file| add(&file.blake3));
        let name = key.finalize().to_hex();
        Self(home.preflights().join(format!("{}.json", &name[..32])))
    }

    /// None, if there is no report, or none that can be understood.
    pub fn known(&self) -> Option<Report> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// For later runs. That it can't be written is no error: they look again.
    pub fn keep(&self, report: &Report) {
        let bytes = serde_json::to_vec_pretty(report).expect("plain data");
        // Without it, the next run looks again.
        let _ = self.0.parent().map_or(Ok(()), fs::create_dir_all);
        let _ = replace(&self.0, &bytes);
    }
}

/// What a preflight needs.
pub struct Preflight<'a> {
    /// Whose devices are looked at.
    pub machine: &'a Machine,
    /// The model: all its transformers and its VAE are looked at.
    pub folder: &'a ModelFolder,
    /// The tiny video is made as it says, but for its size and, unless the model is distilled, its
    /// steps.
    pub request: &'a Request,
    /// BLAKE3 of the model's files, by part.
    pub model: BTreeMap<String, String>,
    /// Looks at the tiny video, and says what is wrong with it.
    pub judge: &'a mut dyn FnMut(&[Frame]) -> Vec<String>,
    /// What happens to an executor before it is used: for tests of devices that go wrong.
    pub prepare: &'a mut dyn FnMut(&mut Executor),
}

impl Preflight<'_> {
    /// Makes the tiny video, then compares at full size.
    ///
    /// # Errors
    /// Where something can't be loaded or computed, or is interrupted. What is computed wrong is no
    /// error: the report says it.
    pub fn run(mut self, progress: &mut dyn Progress) -> Result<Report, GenerateError> {
        let begin = Instant::now();
        let (width, height, frames) = TINY;
        // Distilled models know their own steps alone.
        let steps = match self.request.spacing {
            Spacing::Flow => TINY_STEPS,
            Spacing::Distilled => self.request.steps,
        };
        let tiny = Request { width, height, frames, steps, ..self.request.clone() };
        let mut exec = self.machine.executor(self.machine.text)?;
        let mut conditions = encode(&mut exec, self.folder, &tiny, progress)?;
        drop(exec);
        let timings = &mut Timings::default();
        conditions.images = encode_images(self.machine, self.folder, &tiny, timings, progress)?;
        let (latents, activations) = self.denoise(&tiny, &conditions, progress)?;
        let tiny = self.tiny(latents.clone(), progress)?;

        let [_, shape @ ..] = self.request.latents(self.folder.latent_grid()?);
        let input = tiled(&conditions.images.input(&latents), shape);
        let latents = tiled(&latents, shape);
        let mut comparisons = Vec::new();
        let mut beside = FullSize { machine: self.machine, prepare: self.prepare };
        let (high, low) = (&self.folder.transformer, &self.folder.transformer_2);
        for file in std::iter::once(high).chain(low) {
            comparisons.extend(beside.block(file, &input, conditions.context(), progress)?);
        }
        comparisons.extend(beside.chunk(&self.folder.vae, &latents, progress)?);
        let passed = tiny.is_empty() && comparisons.iter().all(|c| c.passed);
        let name = |device: Device| format!("{} ({})", device.name(), device.description());
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").into(),
            device: name(self.machine.transformer),
            vae_device: name(self.machine.vae),
            width: self.request.width,
            height: self.request.height,
            frames: self.request.frames,
            model: self.model,
            passed,
            tiny,
            comparisons,
            activations,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    fn executor(&mut self, device: Device) -> Result<Executor, ComputeError> {
        let mut exec = self.machine.executor(device)?;
        (self.prepare)(&mut exec);
        Ok(exec)
    }

    /// The tiny clip's latents, and how large the values in its blocks were.
    fn denoise(
        &mut self,
        tiny: &Request,
        conditions: &Conditions,
        progress: &mut dyn Progress,
    ) -> Result<(HostTensor, Vec<Activation>), GenerateError> {
        let (high, low) = (self.folder.transformer.clone(), self.folder.transformer_2.clone());
        let experts = Experts::new(high, low)?;
        let mut exec = self.executor(self.machine.transformer)?;
        let largest = Rc::new(RefCell::new(BTreeMap::<String, (f64, String)>::new()));
        let seen = largest.clone();
        exec.observe(move |name, value| {
            let Some((block, place)) = place(name) else { return };
            let most = value.data.iter().fold(0f32, |most, v| most.max(v.abs()));
            let mut seen = seen.borrow_mut();
            let entry = seen.entry(place.to_owned()).or_default();
            if f64::from(most) > entry.0 {
                *entry = (most.into(), block.to_owned());
            }
        });
        let start = Checkpoint::start(tiny, self.folder.latent_grid()?);
        let latents =
            experts.denoise(&mut exec, tiny, conditions, start, progress, &mut |_, _| Ok(()))?;
        let activations = largest.take().into_iter().map(|(place, (largest, block))| Activation {
            place,
            block,
            largest,
        });
        Ok((latents, activations.collect()))
    }

    /// What the judge says of the tiny clip.
    fn tiny(
        &mut self,
        latents: HostTensor,
        progress: &mut dyn Progress,
    ) -> Result<Vec<String>, GenerateError> {
        let mut exec = self.executor(self.machine.vae)?;
        let mut frames = Vec::new();
        let (_, _, count) = TINY;
        decode(&mut exec, self.folder, latents, count, progress, &mut |frame| {
            frames.push(frame.clone());
            Ok(())
        })?;
        Ok((self.judge)(&frames))
    }
}

/// `blocks.7.ffn.0` is the place `ffn.0` in `blocks.7`.
fn place(tap: &str) -> Option<(&str, &str)> {
    let number = tap.strip_prefix("blocks.")?;
    let dot = number.find('.')?;
    let end = "blocks.".len() + dot;
    Some((&tap[..end], &tap[end + 1..]))
}

/// The tiny clip's latents side by side, until they fill the frames, rows and columns that were asked for.
fn tiled(tiny: &HostTensor, shape: [i64; 3]) -> HostTensor {
    let [c, f, h, w] = tiny.shape.full().map(|d| d as usize);
    let [frames, rows, columns] = shape.map(|d| d as usize);
    let mut values = Vec::with_capacity(c * frames * rows * columns);
    for channel in 0..c {
        for frame in 0..frames {
            for row in 0..rows {
                let start = ((channel * f + frame % f) * h + row % h) * w;
                values.extend((0..columns).map(|x| tiny.data[start + x % w]));
            }
        }
    }
    HostTensor::new([c as i64, shape[0], shape[1], shape[2]], values)
}
