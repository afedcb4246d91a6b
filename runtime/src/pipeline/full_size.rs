//! A device beside the CPU, at full size: one block of a transformer and the first chunk of the VAE run
//! as they would in the video, and a sample of their results is computed once more on the CPU in F32.
//!
//! Rounding makes results differ, too. How much it explains is measured: the same sample is computed on
//! the CPU with operands rounded as the device rounds them. An error beyond three times that is a fault.

use super::error::GenerateError;
use super::load::load_weights;
use super::machine::Machine;
use super::noise::Generator;
use super::progress::{Progress, Silent, Stage, ticker};
use crate::ggml::{ComputeError, Device, Executor, Family, HostTensor, Precision};
use crate::models::Context;
use crate::models::wan::vae::WanVae;
use crate::models::wan::{BlockQuestion, BlockValues, Config, WanModel, of_context};
use gguf::File;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Tokens whose results are compared.
const TOKENS: usize = 64;
/// The noise level that the block is asked at: half noise, half clip.
const TIMESTEP: f32 = 500.0;
/// An error so many times as large as rounding explains is a fault.
const FAULT: f64 = 3.0;
/// Rows beyond which all products on CUDA take operands of F16, however a block is cut.
const CUDA_ROWS: i64 = 4096;
/// What sums in F32 differ by when they are added up in another order, and some more.
const SUMS: f64 = 1e-5;
/// A result of the device beside the CPU's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What is compared: `keys of the high-noise expert`, `the VAE's pixels`.
    pub what: String,
    /// The largest relative RMS error of a sampled row.
    pub error: f64,
    /// The same of the CPU with rounded operands.
    pub explained: f64,
    /// Whether `error` is at most three times `explained`.
    pub passed: bool,
}

/// Both computations.
pub struct FullSize<'a> {
    /// Its devices for the transformer and the VAE are looked at.
    pub machine: &'a Machine,
    /// What happens to an executor before it is used: for tests of devices that go wrong.
    pub prepare: &'a mut dyn FnMut(&mut Executor),
}

impl FullSize<'_> {
    fn executor(&mut self, device: Device) -> Result<Executor, ComputeError> {
        let mut exec = self.machine.executor(device)?;
        (self.prepare)(&mut exec);
        Ok(exec)
    }

    /// The CPU, computing as `precision` says.
    fn reference(&self, precision: Precision) -> Result<Executor, ComputeError> {
        Executor::new(Device::cpu(), precision, self.machine.threads)
    }

    /// How operands of `rows` rows are rounded on `device`, as far as the CPU can do the same.
    fn roundings(&self, device: Device, rows: i64) -> &'static [Precision] {
        match device.family() {
            Family::Cpu if self.machine.precision == Precision::Strict => &[Precision::Halved],
            Family::Cpu => &[Precision::Native],
            Family::Metal => &[Precision::Halved],
            Family::Cuda if rows > CUDA_ROWS => &[Precision::Halved],
            // Kernels that round activations to eight bits may be chosen there.
            Family::Cuda | Family::Vulkan | Family::Other => {
                &[Precision::Halved, Precision::Native]
            }
        }
    }

    /// The first block of the transformer in `file`, for a clip of clean `latents` `[C, F, H, W]` (all
    /// channels that the model takes) in its context.
    pub fn block(
        &mut self,
        file: &Arc<File>,
        latents: &HostTensor,
        context: Context<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Comparison>, GenerateError> {
        let mixed = half_noise(latents);
        let [_, f, h, w] = mixed.shape.full();
        let tokens = sample((f * h * w / 4) as usize);
        let (latents, timestep) = (&mixed, TIMESTEP);
        let question = BlockQuestion { latents, timestep, context, tokens: &tokens };
        let config = Config::new(file)?;
        let expert = config.expert;
        let model = |device, progress: &mut dyn Progress| -> Result<_, GenerateError> {
            let weights = load_weights(file, device, progress)?;
            Ok(WanModel::new(&weights, config.clone())?)
        };
        let device = self.machine.transformer;
        let mut exec = self.executor(device)?;
        let there = model(device, progress)?;
        progress.begin(Stage::Preflight, 0, 1);
        let answer = there.block_at_full_size(&mut exec, &question, &mut ticker(progress))?;
        drop((there, exec));
        let here = model(Device::cpu(), &mut Silent)?;
        let again = |precision| -> Result<BlockValues, GenerateError> {
            let mut exec = self.reference(precision)?;
            Ok(here.block_for_tokens(&mut exec, &question, &answer)?)
        };
        let expected = again(Precision::Strict)?;
        let (clip, prompt) =
            (self.roundings(device, f * h * w / 4), self.roundings(device, config.text_len));
        let rounded = prompt.iter().map(|p| Ok((*p, again(*p)?)));
        let rounded = rounded.collect::<Result<Vec<_>, GenerateError>>()?;
        let mut comparisons = Vec::new();
        for (i, (what, expected)) in expected.iter().enumerate() {
            let of_prompt = of_context(what);
            let like = |p: &Precision| of_prompt || clip.contains(p);
            let rounded = rounded.iter().filter(|(p, _)| like(p)).map(|(_, values)| &values[i].1);
            let what = format!("{what} of the {}", expert.name());
            comparisons.push(compare(what, &answer.rows[i].1, expected, rounded));
        }
        Ok(comparisons)
    }

    /// The first chunk of the VAE in `file`, for clean `latents` `[C, F, H, W]`.
    pub fn chunk(
        &mut self,
        file: &Arc<File>,
        latents: &HostTensor,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Comparison>, GenerateError> {
        let device = self.machine.vae;
        let mut exec = self.executor(device)?;
        let there = WanVae::open(file, device)?;
        progress.begin(Stage::Preflight, 0, 1);
        let answer = there.chunk_at_full_size(&mut exec, latents, &mut ticker(progress))?;
        drop((there, exec));
        let here = WanVae::open(file, Device::cpu())?;
        let again = |precision| -> Result<[Vec<HostTensor>; 2], GenerateError> {
            let mut exec = self.reference(precision)?;
            let features = here.features(&mut exec, latents)?;
            Ok([features, here.pieces(&mut exec, &answer.features)?])
        };
        let expected = again(Precision::Strict)?;
        let rounded = self.roundings(device, i64::MAX).iter().map(|p| again(*p));
        let rounded = rounded.collect::<Result<Vec<_>, _>>()?;
        let got = [answer.features.clone(), answer.pieces()];
        let mut comparisons = Vec::new();
        for (part, what) in ["the VAE's middle block", "the VAE's pixels"].iter().enumerate() {
            let all = |of: &[HostTensor]| rows_of(of);
            let rounded: Vec<_> = rounded.iter().map(|values| all(&values[part])).collect();
            let (got, expected) = (all(&got[part]), all(&expected[part]));
            comparisons.push(compare((*what).into(), &got, &expected, rounded.iter()));
        }
        Ok(comparisons)
    }
}

/// Numbers of tokens out of `count`: the first, the last, and some between.
fn sample(count: usize) -> Vec<i32> {
    let wanted = TOKENS.min(count);
    (0..wanted).map(|i| (i * (count - 1) / (wanted - 1).max(1)) as i32).collect()
}

/// As the denoiser sees a clip halfway.
fn half_noise(clean: &HostTensor) -> HostTensor {
    let noise = Generator::new(0).normal(clean.data.len());
    let mixed: Vec<f32> = clean.data.iter().zip(noise).map(|(x, n)| 0.5 * x + 0.5 * n).collect();
    HostTensor::new(clean.shape, mixed)
}

/// Rows of all tensors `[.., C]` in one matrix.
fn rows_of(tensors: &[HostTensor]) -> HostTensor {
    let [.., columns] = tensors[0].shape.full();
    let values: Vec<f32> = tensors.iter().flat_map(|t| t.data.iter().copied()).collect();
    HostTensor::new([values.len() as i64 / columns, columns], values)
}

fn compare<'a>(
    what: String,
    got: &HostTensor,
    expected: &HostTensor,
    rounded: impl Iterator<Item = &'a HostTensor>,
) -> Comparison {
    let error = distance(got, expected);
    let explained = rounded.map(|r| distance(r, expected)).fold(SUMS, f64::max);
    // NaN compares as false: it fails.
    Comparison { what, error, explained, passed: error <= FAULT * explained }
}

/// The largest distance of a row, relative to the rows' usual length.
fn distance(got: &HostTensor, expected: &HostTensor) -> f64 {
    assert_eq!(got.shape, expected.shape, "what is compared");
    let [.., columns] = expected.shape.full();
    let rows = |t: &'_ HostTensor| -> Vec<Vec<f32>> {
        t.data.chunks_exact(columns as usize).map(<[f32]>::to_vec).collect()
    };
    let square = |v: f64| v * v;
    let total: f64 = expected.data.iter().map(|&v| square(v.into())).sum();
    let usual = (total / (expected.data.len() as f64 / columns as f64)).sqrt();
    let off = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum::<f64>().sqrt()
    };
    let (got, expected) = (rows(got), rows(expected));
    let worst = got
        .iter()
        .zip(&expected)
        .map(off)
        .fold(0.0, |worst: f64, v| if v.is_nan() { f64::NAN } else { worst.max(v) });
    worst / usual.max(f64::MIN_POSITIVE)
}
