//! Brings a model file's tensors to a device.

use super::progress::{Progress, Stage};
use crate::ggml::{Device, LoadError, Weights};
use gguf::File;
use std::sync::Arc;

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
