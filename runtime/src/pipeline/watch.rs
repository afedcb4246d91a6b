//! What each step's numbers say. Only the impossible ends a run: a false alarm that stops a good run of
//! hours would be worse than a late one. Everything else is said, and the run goes on.
//!
//! Rectified flow (Liu et al. 2022, arXiv 2209.03003) mixes clean latents x₀ and unit noise ε as
//! x = (1 − σ)·x₀ + σ·ε. Latents are normalized by the VAE's own statistics, so that x₀ of a real clip
//! deviates by about 1 from its mean, and x by √((1 − σ)² + σ²).

use super::denoise::Step;
use crate::ggml::HostTensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The most that clean latents deviate. Clips deviate by 0.5 to 1.5; guidance adds to that.
const CLEAN_DEVIATION: f64 = 2.0;
/// How far beyond its envelope a deviation is impossible.
const IMPOSSIBLE: f64 = 3.0;
/// Latents that deviate by less are one constant.
const CONSTANT: f64 = 1e-4;
/// An eighth below the envelope is still nothing to talk of: noise and clip may correlate.
const SLACK: f64 = 0.875;
/// A latent is saturated beyond this: unit noise gets there once in 10⁹ values.
const SATURATED: f64 = 6.0;
const SATURATED_SHARE: f64 = 0.01;
/// Velocities for prompt and negative prompt point about the same way.
const AGREEMENT: f64 = 0.2;
/// Below this noise level the predicted clip has found its shapes: neighbours in it are alike.
const DECIDED: f32 = 0.5;
const CORRELATION: f64 = 0.15;

/// A step's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    /// From 1.
    pub step: usize,
    /// After the step.
    pub sigma: f32,
    /// Of the latents after the step.
    pub mean: f64,
    /// Of the latents from their mean.
    pub deviation: f64,
    /// Between which the deviation is expected.
    pub envelope: [f64; 2],
    /// Of the predicted clean latents x − σ·v.
    pub clean_deviation: f64,
    /// How much neighbours in a row and in a column of the predicted clean latents are alike: the
    /// autocorrelation at a distance of one, averaged over channels and frames. Noise has 0.
    pub correlation: f64,
    /// The share of latents beyond 6.
    pub saturated: f64,
    /// The cosine of the velocities for prompt and negative prompt.
    pub agreement: Option<f64>,
    /// A tensor that wasn't finite until the step was computed once more.
    pub recovered: Option<String>,
}

impl Vitals {
    /// Looks at the latents before and after the step, and at its velocities.
    pub fn of(step: &Step<'_>) -> Self {
        let [sigma, next] = step.sigmas.map(f64::from);
        let (mean, deviation) = moments(&step.latents.data);
        let clean = clean_latents(step);
        let beyond = |v: f32| f64::from(u8::from(f64::from(v.abs()) > SATURATED));
        let saturated = total(&step.latents.data, beyond);
        debug_assert!(sigma > next, "noise levels fall");
        Self {
            step: step.index + 1,
            sigma: step.sigmas[1],
            mean,
            deviation,
            envelope: envelope(next),
            clean_deviation: moments(&clean.data).1,
            correlation: correlation(&clean),
            saturated: saturated / step.latents.data.len() as f64,
            agreement: step.negative_velocity.map(|u| cosine(&step.velocity.data, &u.data)),
            recovered: step.recovered.map(str::to_owned),
        }
    }

    /// Why no run of a working model could have come here, if that is so.
    pub fn impossible(&self) -> Option<String> {
        let Self { mean, deviation, envelope: [low, high], sigma, .. } = *self;
        if !(mean.is_finite() && deviation.is_finite()) {
            return Some("the latents are no numbers".into());
        }
        if deviation < CONSTANT {
            return Some(format!("all latents are {mean:.3}: they are one constant"));
        }
        let range = format!("at noise level {sigma:.3} it is between {low:.2} and {high:.2}");
        if deviation > IMPOSSIBLE * high {
            return Some(format!("the latents' deviation is {deviation:.2}; {range}"));
        }
        if deviation < low / IMPOSSIBLE {
            return Some(format!("the latents' deviation is only {deviation:.3}; {range}"));
        }
        None
    }

    /// What is odd, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let Self { deviation, envelope: [low, high], sigma, .. } = *self;
        let mut odd = Vec::new();
        if let Some(tensor) = &self.recovered {
            odd.push(format!(
                "`{tensor}` held values that are no numbers, but not when computed again: the device may be failing"
            ));
        }
        if deviation > high || deviation < SLACK * low {
            odd.push(format!(
                "the latents' deviation is {deviation:.2}; {low:.2} to {high:.2} is usual at noise level {sigma:.3}"
            ));
        }
        if self.saturated > SATURATED_SHARE {
            let percent = 100.0 * self.saturated;
            odd.push(format!("{percent:.1} % of the latents are saturated: colours may burn out"));
        }
        match self.agreement {
            Some(cosine) if cosine > 1.0 - 1e-9 => odd.push(
                "prompt and negative prompt give the very same velocity: the prompt has no effect"
                    .into(),
            ),
            Some(cosine) if cosine < AGREEMENT => odd.push(format!(
                "the velocities for prompt and negative prompt disagree (cosine {cosine:.2})"
            )),
            _ => {}
        }
        if sigma < DECIDED && self.correlation < CORRELATION {
            odd.push(format!(
                "the clip looks like noise so far: neighbouring latents correlate by {:.2}",
                self.correlation
            ));
        }
        odd
    }
}

/// The clean latents that a step predicts, x − σ·v.
pub fn clean_latents(step: &Step<'_>) -> HostTensor {
    let sigma = step.sigmas[0];
    let pairs = step.before.data.par_iter().zip(&*step.guided_velocity.data);
    let clean: Vec<f32> = pairs.map(|(x, v)| x - sigma * v).collect();
    HostTensor::new(step.before.shape, clean)
}

/// From noise that is all there is to a clip that deviates by [`CLEAN_DEVIATION`].
fn envelope(sigma: f64) -> [f64; 2] {
    let clean = (1.0 - sigma) * CLEAN_DEVIATION;
    [sigma, (clean * clean + sigma * sigma).sqrt().max(1.0)]
}

/// Values that one thread adds up: so many that the order of sums doesn't depend on how many there are.
const CHUNK: usize = 1 << 16;

fn total(values: &[f32], term: impl Fn(f32) -> f64 + Sync) -> f64 {
    let sum = |chunk: &[f32]| chunk.iter().map(|&v| term(v)).sum::<f64>();
    values.par_chunks(CHUNK).map(sum).collect::<Vec<f64>>().iter().sum()
}

fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = total(values, f64::from) / n;
    let square = total(values, |v| (f64::from(v) - mean).powi(2)) / n;
    (mean, square.sqrt())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        let of = |(a, b): (&[f32], &[f32])| {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
        };
        let chunks = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK));
        chunks.map(of).collect::<Vec<f64>>().iter().sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

/// Moran's I of `[C, F, H, W]` for neighbours in rows and columns, over all planes.
fn correlation(latents: &HostTensor) -> f64 {
    let [.., h, w] = latents.shape.full();
    let (h, w) = (h as usize, w as usize);
    let product = |mean: f64, a: &[f32], b: &[f32]| {
        let off = |v: &f32| f64::from(*v) - mean;
        a.iter().zip(b).map(|(a, b)| off(a) * off(b)).sum::<f64>()
    };
    let of_plane = |plane: &[f32]| {
        let mean = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / plane.len() as f64;
        let in_row = |row: &[f32]| product(mean, &row[1..], &row[..w - 1]);
        let rows = plane.chunks_exact(w).map(in_row).sum::<f64>();
        let columns = product(mean, &plane[w..], &plane[..(h - 1) * w]);
        [rows + columns, product(mean, plane, plane)]
    };
    let planes: Vec<[f64; 2]> = latents.data.par_chunks_exact(h * w).map(of_plane).collect();
    let [products, squares] = [0, 1].map(|i| planes.iter().map(|sums| sums[i]).sum::<f64>());
    let pairs = h * (w - 1) + (h - 1) * w;
    let expected = squares * pairs as f64 / (h * w) as f64;
    if expected == 0.0 { 0.0 } else { products / expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::noise::Generator;

    fn vitals(sigma: f32, deviation: f64) -> Vitals {
        Vitals {
            step: 1,
            sigma,
            mean: 0.0,
            deviation,
            envelope: envelope(f64::from(sigma)),
            clean_deviation: 1.0,
            correlation: 0.8,
            saturated: 0.0,
            agreement: Some(0.98),
            recovered: None,
        }
    }

    #[test]
    fn what_any_clip_may_do_is_silent() {
        for (sigma, deviation) in [(0.99, 1.0), (0.9, 0.92), (0.5, 0.7), (0.1, 0.5), (0.0, 1.4)] {
            let vitals = vitals(sigma, deviation);
            assert_eq!(vitals.impossible(), None, "{vitals:?}");
            assert_eq!(vitals.warnings(), Vec::<String>::new(), "{vitals:?}");
        }
    }

    #[test]
    fn the_impossible_is_told_from_the_odd() {
        for (sigma, deviation) in [(0.9, 4.0), (0.9, 0.2), (0.0, 7.0), (0.0, 1e-6), (0.5, f64::NAN)]
        {
            assert!(vitals(sigma, deviation).impossible().is_some(), "{sigma} {deviation}");
        }
        for (sigma, deviation) in [(0.9, 2.0), (0.9, 0.5), (0.0, 3.0)] {
            let odd = vitals(sigma, deviation);
            assert_eq!(odd.impossible(), None);
            assert_eq!(odd.warnings().len(), 1, "{odd:?}");
        }
        let noise = Vitals { correlation: 0.01, ..vitals(0.2, 1.0) };
        assert!(noise.warnings()[0].contains("looks like noise"));
        let deaf = Vitals { agreement: Some(1.0), ..vitals(0.2, 1.0) };
        assert!(deaf.warnings()[0].contains("no effect"));
    }

    #[test]
    fn noise_does_not_correlate_and_a_ramp_does() {
        let shape = [16, 3, 12, 20];
        let noise = Generator::new(1).normal(16 * 3 * 12 * 20);
        assert!(correlation(&HostTensor::new(shape, noise)).abs() < 0.03);
        let ramp: Vec<f32> = (0..16 * 3 * 12 * 20).map(|i| (i % 20) as f32).collect();
        assert!(correlation(&HostTensor::new(shape, ramp)) > 0.8);
    }
}
