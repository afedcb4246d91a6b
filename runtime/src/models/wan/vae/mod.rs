//! The Wan video VAEs, after `wan/modules/vae2_1.py` and, where [`Config::is_residual`],
//! `wan/modules/vae2_2.py` of <https://github.com/Wan-Video/Wan2.2>: same classes, same tensor names, in
//! the causal form, one frame at a time. Shapes in comments: H rows, W columns, C channels.
//!
//! Differs: tensors are channels-last, `[H, W, C]` a frame (see `nn::CausalConv3d`).

mod blocks;
mod config;
mod crop_check;
mod decoder;
mod encoder;
mod patches;
mod resample;
mod shortcut;
mod stages;

pub use config::Config;
pub use crop_check::ChunkAnswer;
pub use decoder::{Decoding, WanVae};
pub use encoder::WanVaeEncoder;
