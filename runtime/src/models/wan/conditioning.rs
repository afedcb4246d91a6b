//! A prompt's cross-attention keys and values: computed once per prompt and expert.

use crate::ggml::DeviceTensor;

/// Keys (after their norm) and values of every block, each `[heads, text_len, head_dim]`.
pub struct Conditioning {
    pub(super) blocks: Vec<(DeviceTensor, DeviceTensor)>,
}
