//! DPM-Solver++ (2M): a multistep predictor of order 2 for clean latents.
//!
//! Paper: "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"
//! (Lu et al. 2022, arXiv 2211.01095), algorithm 2.
//! Reference: diffusers 0.42.1, `schedulers/scheduling_dpmsolver_multistep.py`,
//! `DPMSolverMultistepScheduler` with `algorithm_type = "dpmsolver++"`, `solver_order = 2`,
//! `solver_type = "midpoint"`, `prediction_type = "flow_prediction"`, `use_flow_sigmas` and
//! `final_sigmas_type = "zero"`, on the noise levels of [`Schedule`].

use super::{Sampler, State, StateError, check_state, combine};
use crate::pipeline::schedule::Schedule;

pub(super) struct DpmSolverPp2M {
    sigmas: Vec<f64>,
    step: usize,
    /// Predicted clean latents of the last step; empty before the first.
    last: Vec<f32>,
}

impl DpmSolverPp2M {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let sigmas = schedule.sigmas.iter().map(|&sigma| f64::from(sigma)).collect();
        Self { sigmas, step: 0, last: Vec::new() }
    }

    fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// Half the logarithm of the signal-to-noise ratio at noise level `index`.
    fn lambda(&self, index: usize) -> f64 {
        (1.0 - self.sigmas[index]).ln() - self.sigmas[index].ln()
    }

    fn buffer_names(step: usize) -> &'static [&'static str] {
        if step == 0 { &[] } else { &["x0.1"] }
    }
}

impl Sampler for DpmSolverPp2M {
    fn step(&mut self, latents: &[f32], velocity: &[f32]) -> Vec<f32> {
        let (i, steps) = (self.step, self.steps());
        assert!(i < steps, "step {i} of a schedule of {steps}");
        assert_eq!(latents.len(), velocity.len(), "latents and velocity differ in length");
        let [sigma, next] = [self.sigmas[i], self.sigmas[i + 1]];
        let x0 = combine(&[(1.0, latents), (-sigma, velocity)]);
        let h = self.lambda(i + 1) - self.lambda(i);
        let clean = -(1.0 - next) * (-h).exp_m1();
        // The last step goes to σ = 0, where h is infinite: order 1 gives x0 itself.
        let result = if i == 0 || i + 1 == steps {
            combine(&[(next / sigma, latents), (clean, &x0)])
        } else {
            let r = (self.lambda(i) - self.lambda(i - 1)) / h;
            let slope = 0.5 * clean / r;
            combine(&[(next / sigma, latents), (clean + slope, &x0), (-slope, &self.last)])
        };
        self.last = x0;
        self.step += 1;
        result
    }

    fn state(&self) -> State {
        let names = Self::buffer_names(self.step).iter();
        let buffers = names.map(|name| (name.to_string(), self.last.clone())).collect();
        State { step: self.step, buffers }
    }

    fn restore(&mut self, state: State) -> Result<(), StateError> {
        check_state(&state, self.steps(), Self::buffer_names(state.step))?;
        self.last = state.buffers.into_iter().next().map(|(_, v)| v).unwrap_or_default();
        self.step = state.step;
        Ok(())
    }
}
