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
    /// The `steps` timesteps that go with them, 1000 σ; [`Spacing::Flow`] cuts them (not rounds) to
    /// integers.
    pub timesteps: Vec<f32>,
}

/// Where a run's noise levels lie before the flow shift moves them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Evenly from 1 towards 1/1000, timesteps cut to integers: what Wan is published with.
    #[default]
    Flow,
    /// Evenly from 1 towards 0, timesteps as they are: what step-distilled models are trained at (of
    /// four, those at 1000, 750, 500 and 250), after `wan/utils/fm_solvers_euler.py` of
    /// <https://github.com/ModelTC/Wan2.2-Lightning>.
    Distilled,
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
    /// So far from 1 that levels which should differ are the same number.
    #[error(
        "with a flow shift of {flow_shift}, the noise doesn't fall in every one of {steps} steps"
    )]
    Flat {
        /// The shift.
        flow_shift: f64,
        /// How many steps there are.
        steps: usize,
    },
}

impl Schedule {
    /// `steps` noise levels, spaced as `spacing` says and then moved by `flow_shift`:
    /// σ = s·u / (1 + (s−1)·u). A shift above 1 spends more of the steps at high noise.
    ///
    /// # Errors
    /// When `steps` is 0, or `flow_shift` isn't a positive finite number or leaves levels that are equal.
    pub fn new(steps: usize, flow_shift: f64, spacing: Spacing) -> Result<Self, ScheduleError> {
        if steps == 0 {
            return Err(ScheduleError::NoSteps);
        }
        if !(flow_shift.is_finite() && flow_shift > 0.0) {
            return Err(ScheduleError::FlowShift(flow_shift));
        }
        // numpy's linspace(1, end, steps + 1)[:-1], operation for operation.
        let end = match spacing {
            Spacing::Flow => 1.0 / TRAIN_TIMESTEPS,
            Spacing::Distilled => 0.0,
        };
        let stride = (end - 1.0) / steps as f64;
        let mut sigmas: Vec<f64> = (0..steps)
            .map(|i| {
                let u = i as f64 * stride + 1.0;
                flow_shift * u / (1.0 + (flow_shift - 1.0) * u)
            })
            .collect();
        let timestep = |sigma: &f64| match spacing {
            Spacing::Flow => (sigma * TRAIN_TIMESTEPS).trunc() as f32,
            Spacing::Distilled => (sigma * TRAIN_TIMESTEPS) as f32,
        };
        // At σ = 1 the log signal-to-noise ratio of a multistep sampler is −∞.
        const EPSILON: f64 = 1e-6;
        let first = sigmas[0];
        if (first - 1.0).abs() < EPSILON {
            sigmas[0] -= EPSILON;
        }
        let mut timesteps: Vec<f32> = sigmas.iter().map(timestep).collect();
        if spacing == Spacing::Distilled {
            timesteps[0] = timestep(&first);
        }
        let sigmas: Vec<f32> = sigmas.iter().map(|&sigma| sigma as f32).chain([0.0]).collect();
        if !sigmas.is_sorted_by(|a, b| a.is_finite() && a > b) {
            return Err(ScheduleError::Flat { flow_shift, steps });
        }
        Ok(Self { sigmas, timesteps })
    }

    /// The number of denoising steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }
}
