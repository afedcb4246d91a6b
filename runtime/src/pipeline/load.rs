//! Brings a model file's tensors to a device.

use super::error::GenerateError;
use super::lora::{Lora, adapters};
use super::progress::{Progress, Stage};
use crate::ggml::{Device, LoadError, Weights};
use gguf::File;
use std::sync::Arc;

/// The transformer in `file` on `device`, with what of `loras` is meant for it.
pub(super) fn load_transformer(
    file: &Arc<File>,
    loras: &[Lora],
    device: Device,
    progress: &mut dyn Progress,
) -> Result<Weights, GenerateError> {
    let weights = load_weights(file, device, progress)?;
    weights.adapt(adapters(file, loras)?);
    Ok(weights)
}

/// `file` on `device`, with a bar for what has to be copied.
pub(super) fn load_weights(
    file: &Arc<File>,
    device: Device,
    progress: &mut dyn Progress,
) -> Result<Weights, LoadError> {
    if !device.maps_files() && !device.is_dry() {
        let bytes = file.tensors().iter().map(|t| t.bytes).sum();
        progress.begin(Stage::Load, 0, bytes);
    }
    Weights::load_with(file.clone(), device, &mut |bytes| progress.advance(bytes))
}
