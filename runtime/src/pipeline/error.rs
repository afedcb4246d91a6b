//! Why a run ended without a video.

use super::schedule::ScheduleError;
use crate::ggml::{ComputeError, LoadError};
use crate::models::ModelError;
use crate::output::OutputError;
use crate::text::TokenizerError;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
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
