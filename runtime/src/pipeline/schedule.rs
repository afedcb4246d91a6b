//! The noise levels a sampler visits and the timesteps the denoiser is told.
//!
//! Reference: diffusers 0.42.1, `schedulers/scheduling_unipc_multistep.py`,
//! `UniPCMultistepScheduler.set_timesteps` with `use_flow_sigmas` and
//! `final_sigmas_type = "zero"`, the configuration of every Wan checkpoint.

/// Training steps of the flow matching models; timesteps run from 0 to this.
const TRAIN_TIMESTEPS: f64 = 1000.0;

/// The noise levels of one run, from almost pure noise down to none.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The `steps + 1` noise levels σ (1 is pure noise), strictly falling; the last is 0.
    pub sigmas: Vec<f32>,
    /// The `steps` timesteps that go with them: 1000 σ cut (not rounded) to an integer.
    pub timesteps: Vec<i64>,
}

/// A request for which no schedule exists.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// There must be something to do.
    #[error("the number of steps is 0; it must be at least 1")]
    NoSteps,
    /// The shift divides the noise levels.
    #[error("the flow shift is {0}; it must be a positive number")]
    FlowShift(f64),
}

impl Schedule {
    /// `steps` noise levels, evenly spaced and then moved by `flow_shift`: σ = s·u / (1 + (s−1)·u).
    /// A shift above 1 spends more of the steps at high noise.
    ///
    /// # Errors
    /// When `steps` is 0, or `flow_shift` isn't a positive finite number.
    pub fn flow(steps: usize, flow_shift: f64) -> Result<Self, ScheduleError> {
        if steps == 0 {
            return Err(ScheduleError::NoSteps);
        }
        if !(flow_shift.is_finite() && flow_shift > 0.0) {
            return Err(ScheduleError::FlowShift(flow_shift));
        }
        // numpy's linspace(1, 1 / 1000, steps + 1)[:-1], operation for operation.
        let stride = (1.0 / TRAIN_TIMESTEPS - 1.0) / steps as f64;
        let mut sigmas: Vec<f64> = (0..steps)
            .map(|i| {
                let u = i as f64 * stride + 1.0;
                flow_shift * u / (1.0 + (flow_shift - 1.0) * u)
            })
            .collect();
        // At σ = 1 the log signal-to-noise ratio of a multistep sampler is −∞.
        const EPSILON: f64 = 1e-6;
        if (sigmas[0] - 1.0).abs() < EPSILON {
            sigmas[0] -= EPSILON;
        }
        let timesteps = sigmas.iter().map(|sigma| (sigma * TRAIN_TIMESTEPS) as i64).collect();
        let sigmas = sigmas.iter().map(|&sigma| sigma as f32).chain([0.0]).collect();
        Ok(Self { sigmas, timesteps })
    }

    /// The number of denoising steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }
}
