//! Sizes and defaults of a Wan transformer, from its file's metadata.

use super::layout::Grid;
use super::pieces::Pieces;
use crate::ggml::{Limits, Shape};
use crate::models::{EPSILON, ModelError, Timesteps, is_epsilon};

/// Rows of text that every Wan transformer sees, padded with zeros.
const TEXT_LEN: i64 = 512;

/// Channels of the latents of most Wan models.
const CHANNELS: i64 = 16;
/// Channels of the mask that says which frames are given.
const MASK: i64 = 4;

/// Which part of the noise schedule a transformer was trained for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expert {
    /// Its first part: timesteps from [`Config::boundary_ratio`] on.
    HighNoise,
    /// The rest of it.
    LowNoise,
    /// All of it.
    Single,
}

impl Expert {
    /// As people read it.
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
    /// `wan.variant`: a name of the catalog's, or of a model that it doesn't know.
    pub variant: String,
    /// `wan.expert`: the timesteps that it was trained for.
    pub expert: Expert,
    /// Timesteps at or above this share of 1000 belong to the high-noise expert.
    pub boundary_ratio: Option<f32>,
    /// Of the checkpoint's scheduler; the official one where the source had none.
    pub flow_shift: f32,
    /// Of this transformer.
    pub guidance_scale: f32,
    /// Denoising steps.
    pub steps: u32,
    /// Channels of the residual stream.
    pub dim: i64,
    /// Channels between the two layers of a feed-forward.
    pub ffn_dim: i64,
    /// Attention heads, which share `dim` evenly.
    pub num_heads: i64,
    /// Blocks.
    pub num_layers: i64,
    /// Channels of the text encoder's hidden states.
    pub text_dim: i64,
    /// Rows of text that blocks attend to, padding included.
    pub text_len: i64,
    /// Channels of a timestep's sinusoids.
    pub freq_dim: i64,
    /// Channels of the input: of latents, and for image to video of a mask and an image.
    pub in_channels: i64,
    /// Channels of latents.
    pub out_channels: i64,
    /// Channels of an image encoder's features, for models that attend to them.
    pub image_dim: Option<i64>,
    /// Image features with an embedding of their position: first and last frame to video.
    pub image_positions: Option<i64>,
    /// Whether each token has a timestep of its own, so that a first frame can be given.
    pub expand_timesteps: bool,
    /// Of all norms but the image embedder's.
    pub eps: f32,
}

impl Config {
    /// From the `wan.` keys of a file.
    ///
    /// # Errors
    /// Where one is missing, is of another type, or has a value that no Wan model has.
    pub fn new(file: &gguf::File) -> Result<Self, ModelError> {
        let (m, path) = (file.metadata(), file.path());
        let error = ModelError::metadata(path);
        let size = |key| m.u32(key).map(i64::from).map_err(error);
        let optional = |key| m.get(key).map(|_| size(key)).transpose();
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
            in_channels: optional("wan.in_channels")?.unwrap_or(CHANNELS),
            out_channels: optional("wan.out_channels")?.unwrap_or(CHANNELS),
            image_dim: optional("wan.image_embedding_length")?,
            image_positions: optional("wan.image_positions")?,
            expand_timesteps: match m.get("wan.expand_timesteps") {
                Some(_) => m.bool("wan.expand_timesteps").map_err(error)?,
                None => false,
            },
            eps: number("wan.attention.layer_norm_epsilon")?,
        };
        let (heads, dim) = (config.num_heads, config.dim);
        // Each of three axes turns at least one pair of a head's channels.
        if heads < 1 || dim % heads != 0 || dim / heads % 2 != 0 || dim / heads < 6 {
            let wanted = "which doesn't divide wan.embedding_length into even heads of 6 or more";
            return Err(refuse("wan.attention.head_count", &heads.to_string(), wanted));
        }
        // ggml ends the program at a norm of less than 0, or of no number.
        if !is_epsilon(config.eps) {
            let key = "wan.attention.layer_norm_epsilon";
            return Err(refuse(key, &config.eps.to_string(), EPSILON));
        }
        if let Some(ratio) = config.boundary_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
            let wanted = "expected a share of the timesteps, from 0 to 1";
            return Err(refuse("wan.boundary_ratio", &ratio.to_string(), wanted));
        }
        if config.freq_dim < 2 || config.freq_dim % 2 != 0 {
            let value = config.freq_dim.to_string();
            return Err(refuse("wan.frequency_length", &value, "expected an even number"));
        }
        let (inputs, outputs) = (config.in_channels, config.out_channels);
        if inputs != outputs && inputs != 2 * outputs + MASK {
            let wanted = "which is neither wan.out_channels nor what image to video takes";
            return Err(refuse("wan.in_channels", &inputs.to_string(), wanted));
        }
        if config.text_len != TEXT_LEN {
            let value = config.text_len.to_string();
            return Err(refuse("wan.text_length", &value, "only 512 is known"));
        }
        Ok(config)
    }

    /// Channels of an attention head.
    pub fn head_dim(&self) -> i64 {
        self.dim / self.num_heads
    }

    /// Whether the model takes a mask and an image as further channels of its input.
    pub fn takes_image_latents(&self) -> bool {
        self.in_channels != self.out_channels
    }

    /// Ticks of one forward pass for `latents` `[C, F, H, W]`.
    pub fn ticks(&self, limits: &Limits, latents: Shape, timesteps: Timesteps) -> u64 {
        let grid = Grid::of(latents);
        let pieces = Pieces::new(self, limits, grid.tokens(), grid.apart(timesteps));
        self.num_layers as u64 * pieces.graphs()
    }
}
