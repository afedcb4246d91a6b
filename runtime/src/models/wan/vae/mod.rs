//! The Wan 2.1 video VAE, after `wan/modules/vae2_1.py` of <https://github.com/Wan-Video/Wan2.2>:
//! same classes, same tensor names, in the causal form that decodes one latent frame at a time.
//! Shapes in comments: T frames, H rows, W columns, C channels.
//!
//! Differs: tensors are channels-last, `[T, H, W, C]` (see `nn::CausalConv3d`).

mod blocks;
mod config;
mod decoder;

pub use config::Config;
pub use decoder::{Decoding, WanVae};
