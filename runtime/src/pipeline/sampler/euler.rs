//! The explicit Euler method on the flow: x ← x + (σ' − σ)·v.
//!
//! Reference: diffusers 0.42.1, `schedulers/scheduling_flow_match_euler_discrete.py`,
//! `FlowMatchEulerDiscreteScheduler.step`. That scheduler left to itself spaces its noise levels
//! differently (it shifts its smallest one twice) and reports fractional timesteps. Here Euler
//! walks the same [`Schedule`] as UniPC, as the reference does when it is given those noise levels
//! and a shift of 1: so a change of sampler changes the solver, and neither the timesteps the
//! model sees nor the step at which the experts change.

use super::{Sampler, State, StateError, check_state};
use crate::pipeline::schedule::Schedule;

pub(super) struct Euler {
    sigmas: Vec<f32>,
    step: usize,
}

impl Euler {
    pub(super) fn new(schedule: &Schedule) -> Self {
        Self { sigmas: schedule.sigmas.clone(), step: 0 }
    }

    fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }
}

impl Sampler for Euler {
    fn step(&mut self, latents: &[f32], velocity: &[f32]) -> Vec<f32> {
        assert!(self.step < self.steps(), "step {} of a schedule of {}", self.step, self.steps());
        assert_eq!(latents.len(), velocity.len(), "latents and velocity differ in length");
        let dt = f64::from(self.sigmas[self.step + 1]) - f64::from(self.sigmas[self.step]);
        self.step += 1;
        latents
            .iter()
            .zip(velocity)
            .map(|(&x, &v)| (f64::from(x) + dt * f64::from(v)) as f32)
            .collect()
    }

    fn state(&self) -> State {
        State { step: self.step, buffers: Vec::new() }
    }

    fn restore(&mut self, state: State) -> Result<(), StateError> {
        check_state(&state, self.steps(), &[])?;
        self.step = state.step;
        Ok(())
    }
}
