//! UniPC of order 2: a multistep predictor, whose last step is corrected once the velocity at the
//! predicted point is known.
//!
//! Paper: "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models"
//! (Zhao et al. 2023, arXiv 2302.04867), data prediction with B₂(h) = exp(−h) − 1.
//! Reference: diffusers 0.42.1, `schedulers/scheduling_unipc_multistep.py`,
//! `UniPCMultistepScheduler` with `solver_order = 2`, `solver_type = "bh2"`, `predict_x0`,
//! `lower_order_final`, no disabled corrector steps and `prediction_type = "flow_prediction"`.
//!
//! Differs: the reference finds its first step by looking the timestep up among all timesteps, and
//! so skips a step when a long schedule has its first integer timestep twice. Here steps are
//! counted.

use super::{Sampler, State, StateError, check_state, combine};
use crate::pipeline::schedule::Schedule;

/// The highest order of predictor and corrector.
const ORDER: usize = 2;

pub(super) struct UniPc {
    sigmas: Vec<f64>,
    step: usize,
    /// The corrected latents that the last prediction started from; empty before the first step.
    sample: Vec<f32>,
    /// Predicted clean latents of the last step and of the one before it; empty if not yet made.
    x0: [Vec<f32>; ORDER],
}

impl UniPc {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let sigmas = schedule.sigmas.iter().map(|&sigma| f64::from(sigma)).collect();
        Self { sigmas, step: 0, sample: Vec::new(), x0: Default::default() }
    }

    fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// The order of the predictor at `step`: it warms up at the start and comes down at the end.
    fn order(&self, step: usize) -> usize {
        ORDER.min(self.steps() - step).min(step + 1)
    }

    /// Half the logarithm of the signal-to-noise ratio at noise level `index`.
    fn lambda(&self, index: usize) -> f64 {
        (1.0 - self.sigmas[index]).ln() - self.sigmas[index].ln()
    }

    /// h, exp(−h) − 1 and the factors of the two terms that both formulas share, for the step from
    /// noise level `from` to the next: σ'/σ of the sample, and −α'·(exp(−h) − 1) of clean latents.
    fn coefficients(&self, from: usize) -> Coefficients {
        let h = self.lambda(from + 1) - self.lambda(from);
        let expm1 = (-h).exp_m1();
        Coefficients {
            h,
            expm1,
            sample: self.sigmas[from + 1] / self.sigmas[from],
            clean: -(1.0 - self.sigmas[from + 1]) * expm1,
        }
    }

    /// UniC: the latents at the current step again, from the step before and now `x0` too.
    fn correct(&self, x0: &[f32]) -> Vec<f32> {
        let from = self.step - 1;
        let c = self.coefficients(from);
        let [last, older] = &self.x0;
        if self.order(from) == 1 {
            return combine(&[
                (c.sample, &self.sample),
                (0.5 * c.clean, last),
                (0.5 * c.clean, x0),
            ]);
        }
        let r = (self.lambda(from - 1) - self.lambda(from)) / c.h;
        // The order conditions: ρ₀ + ρ₁ = b₁ and r·ρ₀ + ρ₁ = b₂.
        let phi = c.expm1 / -c.h - 1.0;
        let b1 = phi / c.expm1;
        let b2 = 2.0 * (phi / -c.h - 0.5) / c.expm1;
        let rho0 = (b1 - b2) / (1.0 - r);
        let rho1 = b1 - rho0;
        combine(&[
            (c.sample, &self.sample),
            (c.clean * (1.0 - rho0 / r - rho1), last),
            (c.clean * rho0 / r, older),
            (c.clean * rho1, x0),
        ])
    }

    /// UniP: the latents at the next noise level, from the corrected ones and the history.
    fn predict(&self) -> Vec<f32> {
        let c = self.coefficients(self.step);
        let [last, older] = &self.x0;
        if self.order(self.step) == 1 {
            return combine(&[(c.sample, &self.sample), (c.clean, last)]);
        }
        let r = (self.lambda(self.step - 1) - self.lambda(self.step)) / c.h;
        combine(&[
            (c.sample, &self.sample),
            (c.clean * (1.0 - 0.5 / r), last),
            (c.clean * 0.5 / r, older),
        ])
    }

    /// The names of the buffers that exist after `step` steps.
    fn buffer_names(step: usize) -> &'static [&'static str] {
        match step {
            0 => &[],
            1 => &["sample", "x0.1"],
            _ => &["sample", "x0.1", "x0.2"],
        }
    }
}

struct Coefficients {
    h: f64,
    expm1: f64,
    sample: f64,
    clean: f64,
}

impl Sampler for UniPc {
    fn step(&mut self, latents: &[f32], velocity: &[f32]) -> Vec<f32> {
        assert!(self.step < self.steps(), "step {} of a schedule of {}", self.step, self.steps());
        assert_eq!(latents.len(), velocity.len(), "latents and velocity differ in length");
        let x0 = combine(&[(1.0, latents), (-self.sigmas[self.step], velocity)]);
        self.sample = if self.step == 0 { latents.to_vec() } else { self.correct(&x0) };
        let [last, older] = &mut self.x0;
        *older = std::mem::replace(last, x0);
        let next = self.predict();
        self.step += 1;
        next
    }

    fn state(&self) -> State {
        let [last, older] = &self.x0;
        let buffers = Self::buffer_names(self.step)
            .iter()
            .zip([&self.sample, last, older])
            .map(|(name, values)| (name.to_string(), values.clone()))
            .collect();
        State { step: self.step, buffers }
    }

    fn restore(&mut self, state: State) -> Result<(), StateError> {
        check_state(&state, self.steps(), Self::buffer_names(state.step))?;
        let mut buffers = state.buffers.into_iter().map(|(_, values)| values);
        let mut next = || buffers.next().unwrap_or_default();
        (self.sample, self.x0) = (next(), [next(), next()]);
        self.step = state.step;
        Ok(())
    }
}
