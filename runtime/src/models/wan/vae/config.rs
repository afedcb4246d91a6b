//! Sizes and latent statistics of a Wan VAE, from its file's metadata.

use crate::models::ModelError;
use std::str::FromStr;

/// `AutoencoderKLWan`'s configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub base_dim: i64,
    pub z_dim: i64,
    pub num_res_blocks: i64,
    pub dim_mult: Vec<i64>,
    /// Which of the encoder's levels also halve time; the decoder goes through them backwards.
    pub temporal_downsample: Vec<bool>,
    pub latents_mean: Vec<f32>,
    pub latents_std: Vec<f32>,
}

impl Config {
    pub fn new(file: &gguf::File) -> Result<Self, ModelError> {
        let (m, error) = (file.metadata(), ModelError::metadata(file.path()));
        let size = |key| m.u32(key).map(i64::from).map_err(error);
        let config = Self {
            base_dim: size("wanvae.base_dim")?,
            z_dim: size("wanvae.z_dim")?,
            num_res_blocks: size("wanvae.num_res_blocks")?,
            dim_mult: list(file, "wanvae.dim_mult")?,
            temporal_downsample: list(file, "wanvae.temporal_downsample")?,
            latents_mean: list(file, "wanvae.latents_mean")?,
            latents_std: list(file, "wanvae.latents_std")?,
        };
        let z_dim = config.z_dim as usize;
        let lengths = [
            ("wanvae.latents_mean", config.latents_mean.len(), z_dim),
            ("wanvae.latents_std", config.latents_std.len(), z_dim),
            (
                "wanvae.temporal_downsample",
                config.temporal_downsample.len() + 1,
                config.dim_mult.len(),
            ),
        ];
        for (key, got, wanted) in lengths {
            if got != wanted || wanted == 0 {
                let value = m.string(key).map_err(error)?.to_owned();
                let wanted = "which has not as many numbers as the model's other keys ask for";
                return Err(ModelError::Value { file: file.path().to_owned(), key, value, wanted });
            }
        }
        Ok(config)
    }
}

impl Config {
    /// Pixels along a side of what becomes of one latent.
    pub fn spatial_factor(&self) -> i64 {
        1 << (self.dim_mult.len() - 1)
    }
}

/// Comma-separated values: the file keeps lists as strings, since some readers can't load a file
/// with both arrays and 5-D tensors.
fn list<T: FromStr>(file: &gguf::File, key: &'static str) -> Result<Vec<T>, ModelError> {
    let text = file.metadata().string(key).map_err(ModelError::metadata(file.path()))?;
    text.split(',').map(|v| v.trim().parse()).collect::<Result<_, _>>().map_err(|_| {
        let (file, value) = (file.path().to_owned(), text.to_owned());
        ModelError::Value { file, key, value, wanted: "expected values separated by commas" }
    })
}
