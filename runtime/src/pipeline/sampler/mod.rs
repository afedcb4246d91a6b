//! The solvers that turn predicted velocities into the next latents.
//!
//! They are plain arithmetic on the host: coefficients in `f64`, latents in `f32`.

mod dpm;
mod euler;
mod lcm;
mod unipc;

use std::fmt;
use std::str::FromStr;

use super::schedule::Schedule;
use dpm::DpmSolverPp2M;
use euler::Euler;
use lcm::Lcm;
use unipc::UniPc;

/// Integrates the flow from noise to latents, one step of a [`Schedule`] at a time.
///
/// Latents are flat: every shape has the same arithmetic, element by element.
pub trait Sampler {
    /// Advances `latents` by one step, given the `velocity` predicted at them (same length).
    ///
    /// # Panics
    /// When the schedule is at its end, or a length differs from the one before.
    fn step(&mut self, latents: &[f32], velocity: &[f32]) -> Vec<f32>;

    /// Everything the next step depends on besides its arguments.
    fn state(&self) -> State;

    /// Continues where `state` was taken; later steps equal the uninterrupted ones bit for bit.
    ///
    /// # Errors
    /// When `state` can't come from this kind of sampler on this schedule; the sampler is then
    /// unchanged.
    fn restore(&mut self, state: State) -> Result<(), StateError>;
}

/// A sampler's memory between two steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Steps done so far, the index of the next one.
    pub step: usize,
    /// Named buffers, each as long as the latents.
    pub buffers: Vec<(String, Vec<f32>)>,
}

/// A saved state that doesn't fit the sampler it is given to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StateError {
    /// The saved run had more steps.
    #[error("the saved sampler state is at step {step} of a schedule of {steps}")]
    Step {
        /// Steps done in the saved state.
        step: usize,
        /// Steps of this sampler's schedule.
        steps: usize,
    },
    /// The buffers are those of another sampler or another step.
    #[error(
        "the saved sampler state has buffers [{found}]; at step {step} they must be [{expected}]"
    )]
    Buffers {
        /// Steps done in the saved state.
        step: usize,
        /// Buffer names in the state.
        found: String,
        /// Buffer names this sampler has after that many steps.
        expected: String,
    },
    /// Two buffers of one run differ in length.
    #[error("the saved sampler state has buffers of {0} and {1} values; all must be equally long")]
    Lengths(usize, usize),
}

/// The samplers on offer.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SamplerKind {
    /// UniPC, second order: the one Wan is published with.
    #[default]
    UniPc,
    /// The explicit Euler method: first order, no memory.
    Euler,
    /// DPM-Solver++ (2M): second order, without UniPC's corrector.
    #[serde(rename = "dpm++2m")]
    DpmPp2M,
    /// Predicts the clean latents and noises them anew each step: for consistency-distilled models.
    Lcm,
}

impl SamplerKind {
    /// Every kind, in the order to list them.
    pub const ALL: [Self; 4] = [Self::UniPc, Self::Euler, Self::DpmPp2M, Self::Lcm];

    /// As it is typed and kept in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::UniPc => "unipc",
            Self::Euler => "euler",
            Self::DpmPp2M => "dpm++2m",
            Self::Lcm => "lcm",
        }
    }

    /// A sampler of this kind at the start of `schedule`. `seed` is that of the initial noise: what is
    /// drawn on the way is drawn after it.
    pub fn start(self, schedule: &Schedule, seed: u64) -> Box<dyn Sampler> {
        match self {
            Self::UniPc => Box::new(UniPc::new(schedule)),
            Self::Euler => Box::new(Euler::new(schedule)),
            Self::DpmPp2M => Box::new(DpmSolverPp2M::new(schedule)),
            Self::Lcm => Box::new(Lcm::new(schedule, seed)),
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no sampler has.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("no sampler is called {0:?}; there are unipc, euler, dpm++2m and lcm")]
pub struct UnknownSampler(String);

impl FromStr for SamplerKind {
    type Err = UnknownSampler;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| UnknownSampler(name.to_owned()))
    }
}

/// The weighted sum of equally long buffers, each element rounded once.
fn combine(terms: &[(f64, &[f32])]) -> Vec<f32> {
    let length = terms[0].1.len();
    for (_, values) in terms {
        assert_eq!(values.len(), length, "the latents changed their length between steps");
    }
    (0..length)
        .map(|i| terms.iter().map(|(weight, values)| weight * f64::from(values[i])).sum::<f64>())
        .map(|sum| sum as f32)
        .collect()
}

/// Checks a state against the steps of the schedule and the buffers its step must have.
fn check_state(state: &State, steps: usize, expected: &[&str]) -> Result<(), StateError> {
    if state.step > steps {
        return Err(StateError::Step { step: state.step, steps });
    }
    let found: Vec<&str> = state.buffers.iter().map(|(name, _)| name.as_str()).collect();
    if found != expected {
        return Err(StateError::Buffers {
            step: state.step,
            found: found.join(", "),
            expected: expected.join(", "),
        });
    }
    for pair in state.buffers.windows(2) {
        let (a, b) = (pair[0].1.len(), pair[1].1.len());
        if a != b {
            return Err(StateError::Lengths(a, b));
        }
    }
    Ok(())
}
