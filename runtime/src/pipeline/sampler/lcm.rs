//! The sampler of consistency models on the flow: x ← (1 − σ')·x₀ + σ'·ε with fresh noise ε each step.
//!
//! Paper: "Consistency Models" (Song et al. 2023, arXiv 2303.01469), algorithm 1.
//! Reference: diffusers 0.42.1, `schedulers/scheduling_flow_match_lcm.py`,
//! `FlowMatchLCMScheduler.step`; and `WanStepDistillScheduler` of
//! <https://github.com/ModelTC/LightX2V>, by which the step-distilled Wan 2.1 are sampled.

use super::{Sampler, State, StateError, check_state, combine};
use crate::pipeline::noise::Generator;
use crate::pipeline::schedule::Schedule;

pub(super) struct Lcm {
    sigmas: Vec<f32>,
    step: usize,
    seed: u64,
    /// Draws as the reference's generator does: the initial noise first, then once a step.
    generator: Generator,
    /// How often it has drawn.
    drawn: usize,
}

impl Lcm {
    pub(super) fn new(schedule: &Schedule, seed: u64) -> Self {
        let (sigmas, generator) = (schedule.sigmas.clone(), Generator::new(seed));
        Self { sigmas, step: 0, seed, generator, drawn: 0 }
    }

    fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// The noise of the current step; what was drawn before is drawn again by a restored sampler.
    fn noise(&mut self, count: usize) -> Vec<f32> {
        while self.drawn <= self.step {
            self.generator.normal(count);
            self.drawn += 1;
        }
        self.drawn += 1;
        self.generator.normal(count)
    }
}

impl Sampler for Lcm {
    fn step(&mut self, latents: &[f32], velocity: &[f32]) -> Vec<f32> {
        let (i, steps) = (self.step, self.steps());
        assert!(i < steps, "step {i} of a schedule of {steps}");
        assert_eq!(latents.len(), velocity.len(), "latents and velocity differ in length");
        let [sigma, next] = [self.sigmas[i], self.sigmas[i + 1]].map(f64::from);
        let x0 = combine(&[(1.0, latents), (-sigma, velocity)]);
        // The last step goes to σ = 0 and needs none.
        let result = if next == 0.0 {
            x0
        } else {
            let noise = self.noise(latents.len());
            combine(&[(1.0 - next, &x0), (next, &noise)])
        };
        self.step += 1;
        result
    }

    fn state(&self) -> State {
        State { step: self.step, buffers: Vec::new() }
    }

    fn restore(&mut self, state: State) -> Result<(), StateError> {
        check_state(&state, self.steps(), &[])?;
        (self.generator, self.drawn) = (Generator::new(self.seed), 0);
        self.step = state.step;
        Ok(())
    }
}
