//! Why a run ended without a video.

use super::lora::AdapterError;
use super::run_folder::RunError;
use super::sampler::StateError;
use super::schedule::ScheduleError;
use crate::ggml::{ComputeError, LoadError, Shape};
use crate::image::ImageError;
use crate::models::ModelError;
use crate::output::OutputError;
use crate::text::TokenizerError;
use std::path::PathBuf;

/// What went wrong with the files, the request, the machine or its results.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum GenerateError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{file}: its tokenizer can't be used", file = .0.display())]
    Tokenizer(PathBuf, #[source] TokenizerError),
    #[error("{file}: token {id} of the prompt is beyond its {rows} embeddings", file = .file.display())]
    Vocabulary { file: PathBuf, id: u32, rows: u32 },
    #[error(
        "{one} has {got} {what}, {other} expects {expected}: the files belong to different models",
        one = one.display(), other = other.display()
    )]
    Mismatch { what: &'static str, one: PathBuf, got: i64, other: PathBuf, expected: i64 },
    #[error(
        "{what} is not a number in {count} of {total} values: this is no video, and none is written"
    )]
    NotFinite { what: String, count: usize, total: usize },
    #[error(
        "step {step} of {steps}: `{tensor}` is the first tensor that is no number, on {device}, and so it was when computed again; steps before it are kept. Check {file} (a damaged file does this), then try another device or another quant",
        file = .file.display()
    )]
    StepNotFinite { step: usize, steps: usize, tensor: String, device: String, file: PathBuf },
    #[error(
        "step {step} of {steps} on {device}: {why}. No working model does this, and more steps won't mend it; the step before it is kept. Try another device or another quant, or look for what is wrong with `gguf-video preflight`"
    )]
    Impossible { step: usize, steps: usize, why: String, device: String },
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the saved latents are {found:?}, the request's are {expected:?}")]
    Checkpoint { found: Shape, expected: Shape },
    #[error("the saved `{what}` isn't what this request and these models need; begin a new run")]
    Conditions { what: &'static str },
    #[error("the saved state of the sampler can't be used")]
    State(#[from] StateError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl From<ComputeError> for GenerateError {
    fn from(cause: ComputeError) -> Self {
        Self::Model(cause.into())
    }
}

impl From<LoadError> for GenerateError {
    fn from(cause: LoadError) -> Self {
        Self::Model(cause.into())
    }
}

impl GenerateError {
    /// Fails if `values` hold anything but numbers; `what` says where they come from.
    pub(super) fn check_finite(values: &[f32], what: impl FnOnce() -> String) -> Result<(), Self> {
        let count = values.iter().filter(|v| !v.is_finite()).count();
        if count == 0 {
            return Ok(());
        }
        Err(Self::NotFinite { what: what(), count, total: values.len() })
    }

    /// Whether the run ended because somebody asked for it.
    pub fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Model(
                ModelError::Compute(ComputeError::Interrupted)
                    | ModelError::Load(LoadError::Interrupted)
            )
        )
    }
}
