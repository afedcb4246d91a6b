//! Sizes and defaults of a Wan transformer, from its file's metadata.

use super::layout::Grid;
use super::pieces::Pieces;
use crate::ggml::{Limits, Shape};
use crate::models::ModelError;

/// Rows of text that every Wan transformer sees, padded with zeros.
const TEXT_LEN: i64 = 512;

/// Which part of the noise schedule a transformer was trained for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expert {
    HighNoise,
    LowNoise,
    Single,
}

impl Expert {
    pub fn name(self) -> &'static str {
        match self {
            Self::HighNoise => "high-noise expert",
            Self::LowNoise => "low-noise expert",
            Self::Single => "transformer",
        }
    }
}

/// `WanTransformer3DModel`'s configuration, and the pipeline's defaults that travel with it.
#[derive(Clone, Debug)]
pub struct Config {
    pub variant: String,
    pub expert: Expert,
    /// Timesteps at or above this share of 1000 belong to the high-noise expert.
    pub boundary_ratio: Option<f32>,
    pub flow_shift: f32,
    pub guidance_scale: f32,
    pub steps: u32,
    pub dim: i64,
    pub ffn_dim: i64,
    pub num_heads: i64,
    pub num_layers: i64,
    pub text_dim: i64,
    pub text_len: i64,
    pub freq_dim: i64,
    pub channels: i64,
    pub eps: f32,
}

impl Config {
    pub fn new(file: &gguf::File) -> Result<Self, ModelError> {
        let (m, path) = (file.metadata(), file.path());
        let error = ModelError::metadata(path);
        let size = |key| m.u32(key).map(i64::from).map_err(error);
        let number = |key| m.f32(key).map_err(error);
        let refuse = |key, value: &str, wanted| {
            let (file, value) = (path.to_owned(), value.to_owned());
            ModelError::Value { file, key, value, wanted }
        };
        let expert = match m.string("wan.expert").map_err(error)? {
            "high_noise" => Expert::HighNoise,
            "low_noise" => Expert::LowNoise,
            "single" => Expert::Single,
            other => {
                let wanted = "expected high_noise, low_noise or single";
                return Err(refuse("wan.expert", other, wanted));
            }
        };
        let config = Self {
            variant: m.string("wan.variant").map_err(error)?.to_owned(),
            expert,
            boundary_ratio: match expert {
                Expert::Single => None,
                _ => Some(number("wan.boundary_ratio")?),
            },
            flow_shift: number("wan.flow_shift")?,
            guidance_scale: number("wan.guidance_scale")?,
            steps: m.u32("wan.steps").map_err(error)?,
            dim: size("wan.embedding_length")?,
            ffn_dim: size("wan.feed_forward_length")?,
            num_heads: size("wan.attention.head_count")?,
            num_layers: size("wan.block_count")?,
            text_dim: size("wan.text_embedding_length")?,
            text_len: size("wan.text_length")?,
            freq_dim: size("wan.frequency_length")?,
            channels: 16,
            eps: number("wan.attention.layer_norm_epsilon")?,
        };
        let (heads, dim) = (config.num_heads, config.dim);
        // Each of three axes turns at least one pair of a head's channels.
        if heads < 1 || dim % heads != 0 || dim / heads % 2 != 0 || dim / heads < 6 {
            let wanted = "which doesn't divide wan.embedding_length into even heads of 6 or more";
            return Err(refuse("wan.attention.head_count", &heads.to_string(), wanted));
        }
        if config.freq_dim < 2 || config.freq_dim % 2 != 0 {
            let value = config.freq_dim.to_string();
            return Err(refuse("wan.frequency_length", &value, "expected an even number"));
        }
        if config.text_len != TEXT_LEN {
            let value = config.text_len.to_string();
            return Err(refuse("wan.text_length", &value, "only 512 is known"));
        }
        Ok(config)
    }

    pub fn head_dim(&self) -> i64 {
        self.dim / self.num_heads
    }

    /// Ticks of one forward pass for `latents` `[C, F, H, W]`.
    pub fn ticks(&self, limits: &Limits, latents: Shape) -> u64 {
        let pieces = Pieces::new(self, limits, Grid::of(latents).tokens());
        self.num_layers as u64 * pieces.graphs()
    }
}
