//! Wan 2.1 and 2.2 (<https://github.com/Wan-Video/Wan2.2>): the diffusion transformer and the
//! causal video VAE. Tensor names are the original ones.

mod block_check;
mod conditioning;
mod config;
mod layout;
mod pass;
mod pieces;
mod transformer;
pub mod vae;

pub use block_check::{BlockAnswer, BlockQuestion, BlockValues, of_context};
pub use conditioning::Conditioning;
pub use config::{Config, Expert};
pub use transformer::WanModel;
