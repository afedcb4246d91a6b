//! Models, and what the pipeline asks of them.
//!
//! The traits speak host tensors, never graphs: a model alone decides how many graphs it runs and
//! what stays on the device between them.

pub mod clip;
pub mod text;
pub mod wan;

use crate::ggml::{ComputeError, Executor, HostTensor, Limits, LoadError, Shape};
use gguf::MetadataError;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Why a file is no model of ours.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum ModelError {
    #[error("{file}", file = .0.display())]
    Metadata(PathBuf, #[source] MetadataError),
    #[error("{file}: `{key}` is `{value}`, {wanted}", file = file.display())]
    Value { file: PathBuf, key: &'static str, value: String, wanted: &'static str },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

impl ModelError {
    fn metadata(file: &Path) -> impl Fn(MetadataError) -> Self + Copy + '_ {
        |cause| Self::Metadata(file.to_owned(), cause)
    }
}

/// Whether norms can be computed with `eps` in their roots.
fn is_epsilon(eps: f32) -> bool {
    eps > 0.0 && eps < 1.0
}

/// What [`is_epsilon`] wants.
const EPSILON: &str = "expected a number between 0 and 1";

/// The largest size in metadata: above any real one, and the product of two is an `i64`.
const LARGEST_SIZE: i64 = 1 << 24;

/// Called after each piece of work (a transformer block, a stage of the VAE) with nothing half
/// done on the device; `Break` ends the computation with [`ComputeError::Interrupted`].
pub type Tick<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// What a prompt becomes for the denoiser.
pub trait TextEncoder {
    /// Token ids to hidden states `[N, C]`.
    fn encode(
        &self,
        exec: &mut Executor,
        ids: &[u32],
        tick: Tick,
    ) -> Result<HostTensor, ComputeError>;

    /// Ticks of one [`TextEncoder::encode`].
    fn ticks(&self) -> u64;
}

/// What a clip is conditioned on.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Hidden states `[N, C]` of the prompt's tokens.
    pub text: &'a HostTensor,
    /// An image encoder's features `[M, C]`, for models that attend to them.
    pub image: Option<&'a HostTensor>,
}

impl<'a> Context<'a> {
    /// Of a model that sees text alone.
    pub fn text(text: &'a HostTensor) -> Self {
        Self { text, image: None }
    }
}

/// Timesteps (0 to 1000) of a clip's latent frames.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Timesteps {
    /// Of all other latent frames: the step's own.
    pub clip: f32,
    /// Of the first latent frame: 0, where it is given and stays.
    pub first_frame: f32,
}

impl From<f32> for Timesteps {
    fn from(timestep: f32) -> Self {
        Self { clip: timestep, first_frame: timestep }
    }
}

/// A flow-matching model of latents.
pub trait Denoiser {
    /// What depends on the context alone, computed once and kept on the device.
    type Conditioning;

    /// Computes what every step needs of `context`.
    ///
    /// # Errors
    /// Where the device fails, or has no room for it.
    fn condition(
        &self,
        exec: &mut Executor,
        context: Context<'_>,
    ) -> Result<Self::Conditioning, ComputeError>;

    /// The velocity `[C, F, H, W]` at `latents`, which have all channels that the model takes.
    fn velocity(
        &self,
        exec: &mut Executor,
        latents: &HostTensor,
        timesteps: Timesteps,
        conditioning: &Self::Conditioning,
        tick: Tick,
    ) -> Result<HostTensor, ComputeError>;

    /// Ticks of one [`Denoiser::velocity`] at `latents` `[C, F, H, W]`.
    fn ticks(&self, limits: &Limits, latents: Shape, timesteps: Timesteps) -> u64;
}

fn ticked(tick: Tick) -> Result<(), ComputeError> {
    match tick() {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ComputeError::Interrupted),
    }
}
