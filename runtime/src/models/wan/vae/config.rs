//! Sizes and latent statistics of a Wan VAE, from its file's metadata.

use super::shortcut::{AvgDown3D, DupUp3D};
use crate::ggml::{Device, LoadError, Scope, Weights};
use crate::models::ModelError;
use gguf::Metadata;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

/// `AutoencoderKLWan`'s configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the encoder's channels are multiples of.
    pub base_dim: i64,
    /// The same of the decoder.
    pub decoder_base_dim: i64,
    /// Channels of a latent.
    pub z_dim: i64,
    /// Residual blocks in each level of the encoder; the decoder has one more.
    pub num_res_blocks: i64,
    /// Channels of the levels in multiples of `base_dim`, from pixels to latents.
    pub dim_mult: Vec<i64>,
    /// Which of the encoder's levels also halve time; the decoder goes through them backwards.
    pub temporal_downsample: Vec<bool>,
    /// Of each channel of a latent: the denoiser sees (z − mean) / std.
    pub latents_mean: Vec<f32>,
    /// Standard deviations, a channel each.
    pub latents_std: Vec<f32>,
    /// Wan 2.2's blocks, which add their input to their result.
    pub is_residual: bool,
    /// Pixels along a side of what the encoder sees as one.
    pub patch_size: i64,
}

/// One of the scales that encoder and decoder go through.
pub(super) struct Level {
    pub(super) inputs: i64,
    pub(super) outputs: i64,
    /// Whether it ends with a change of scale, and that with one in time.
    pub(super) resamples: Option<bool>,
}

/// Colors of a pixel.
const COLORS: i64 = 3;

impl Config {
    /// From the `wanvae.` keys of a file.
    ///
    /// # Errors
    /// Where one that has no default is missing, or one is of another type or has a value that no
    /// Wan VAE has.
    pub fn new(file: &gguf::File) -> Result<Self, ModelError> {
        let (m, error) = (file.metadata(), ModelError::metadata(file.path()));
        let size = |key| m.u32(key).map(i64::from).map_err(error);
        let base_dim = size("wanvae.base_dim")?;
        let optional = |key, absent| -> Result<i64, ModelError> {
            Ok(Metadata::optional(m.u32(key)).map_err(error)?.map_or(absent, i64::from))
        };
        let is_residual = m.bool("wanvae.is_residual");
        let config = Self {
            base_dim,
            decoder_base_dim: optional("wanvae.decoder_base_dim", base_dim)?,
            z_dim: size("wanvae.z_dim")?,
            num_res_blocks: size("wanvae.num_res_blocks")?,
            dim_mult: list(file, "wanvae.dim_mult")?,
            temporal_downsample: list(file, "wanvae.temporal_downsample")?,
            latents_mean: list(file, "wanvae.latents_mean")?,
            latents_std: list(file, "wanvae.latents_std")?,
            is_residual: Metadata::optional(is_residual).map_err(error)?.unwrap_or(false),
            patch_size: optional("wanvae.patch_size", 1)?,
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
        let refuse = |key, value: String, wanted| {
            Err(ModelError::Value { file: file.path().to_owned(), key, value, wanted })
        };
        for (key, got, wanted) in lengths {
            if got != wanted || wanted == 0 {
                let wanted = "which has not as many numbers as the model's other keys ask for";
                return refuse(key, m.string(key).map_err(error)?.to_owned(), wanted);
            }
        }
        let many = config.dim_mult.len() as i64 > MOST;
        if many || config.dim_mult.iter().any(|m| !(1..=MOST).contains(m)) {
            let (key, wanted) = ("wanvae.dim_mult", "expected 1 to 16 numbers from 1 to 16");
            return refuse(key, m.string(key).map_err(error)?.to_owned(), wanted);
        }
        for (key, value, most) in [
            ("wanvae.base_dim", config.base_dim, MOST_CHANNELS),
            ("wanvae.decoder_base_dim", config.decoder_base_dim, MOST_CHANNELS),
            ("wanvae.num_res_blocks", config.num_res_blocks, MOST),
            ("wanvae.patch_size", config.patch_size, MOST),
        ] {
            if !(1..=most).contains(&value) {
                return refuse(key, value.to_string(), "which no VAE has");
            }
        }
        if !config.shortcuts_are_known() {
            let (key, wanted) = ("wanvae.is_residual", "but its blocks have other channels");
            return refuse(key, "true".into(), wanted);
        }
        Ok(config)
    }

    /// The weights of either half. All but biases are put into another order, so nothing else of the file
    /// has to be on the device as it is; of the other half, biases come along.
    pub(super) fn load(
        &self,
        file: &Arc<gguf::File>,
        device: Device,
    ) -> Result<Weights, LoadError> {
        let needed = |name: &str| name.ends_with(".bias");
        Weights::load_some(file.clone(), device, &needed, &mut |_| ControlFlow::Continue(()))
    }

    /// Pixels along a side of one latent.
    pub fn spatial_factor(&self) -> i64 {
        self.patch_size * self.scale()
    }

    /// Frames of a latent frame that isn't the first, which stands for one alone.
    pub fn temporal_factor(&self) -> i64 {
        1 << self.temporal_downsample.iter().filter(|in_time| **in_time).count()
    }

    /// `[C, F, H, W]` of a clip.
    pub fn latents(&self, width: i64, height: i64, frames: i64) -> [i64; 4] {
        let side = self.spatial_factor();
        [self.z_dim, (frames - 1) / self.temporal_factor() + 1, height / side, width / side]
    }

    /// How often the decoder's last level has each latent along a side.
    pub(super) fn scale(&self) -> i64 {
        1 << (self.dim_mult.len() - 1)
    }

    /// How far a pixel sees in what the decoder's middle block made, in latents: two convolutions of 3x3
    /// in each residual block, and one behind each change of scale and at the end, which see half as far
    /// with each level.
    pub(super) fn sight(&self) -> i64 {
        let last = self.dim_mult.len() - 1;
        let convolutions = |level: usize| match level {
            0 => 2 * (self.num_res_blocks + 1),
            _ => 2 * (self.num_res_blocks + 1) + 1,
        };
        let pixels = (0..=last).map(|level| convolutions(level) << (last - level)).sum::<i64>() + 1;
        (pixels + self.scale() - 1) / self.scale()
    }

    /// Channels of what the encoder sees as one pixel.
    pub(super) fn pixel_channels(&self) -> i64 {
        COLORS * self.patch_size * self.patch_size
    }

    /// From pixels to latents.
    pub(super) fn encoder_levels(&self) -> Vec<Level> {
        let dims: Vec<i64> = [1].iter().chain(&self.dim_mult).map(|m| m * self.base_dim).collect();
        let level = |(i, pair): (usize, &[i64])| Level {
            inputs: pair[0],
            outputs: pair[1],
            resamples: self.temporal_downsample.get(i).copied(),
        };
        dims.windows(2).enumerate().map(level).collect()
    }

    /// From latents to pixels.
    pub(super) fn decoder_levels(&self) -> Vec<Level> {
        let mut inputs = self.dim_mult[self.dim_mult.len() - 1] * self.decoder_base_dim;
        let mut in_time = self.temporal_downsample.iter().rev().copied();
        let level = |m: &i64| {
            let level =
                Level { inputs, outputs: m * self.decoder_base_dim, resamples: in_time.next() };
            inputs = self.upsampled(level.outputs);
            level
        };
        self.dim_mult.iter().rev().map(level).collect()
    }

    /// Block `i` of `level` in a `list` that has so many blocks `a_level`: one list of all, or, in
    /// Wan 2.2, one of levels.
    pub(super) fn block<'w>(
        &self,
        w: &Scope<'w>,
        list: &str,
        a_level: i64,
        [level, i]: [i64; 2],
    ) -> Scope<'w> {
        match self.is_residual {
            false => w.at(list).at(level * a_level + i),
            true => w.at(list).at(level).at(list).at(i),
        }
    }

    /// Channels after a decoder's level of so many.
    pub(super) fn upsampled(&self, outputs: i64) -> i64 {
        if self.is_residual { outputs } else { outputs / 2 }
    }

    /// Whether what Wan 2.2's blocks add is what [`AvgDown3D`] and [`DupUp3D`] compute.
    fn shortcuts_are_known(&self) -> bool {
        let down = |Level { inputs, outputs, resamples }: Level| {
            AvgDown3D::new([inputs, outputs], resamples).is_some()
        };
        let up = |Level { inputs, outputs, resamples }: Level| {
            resamples.is_none_or(|in_time| DupUp3D::new([inputs, outputs], in_time).is_some())
        };
        !self.is_residual
            || self.encoder_levels().into_iter().all(down)
                && self.decoder_levels().into_iter().all(up)
    }
}

/// What levels, blocks in them, and multiples of channels are at most.
const MOST: i64 = 16;
const MOST_CHANNELS: i64 = 1 << 14;

/// Comma-separated values: the file keeps lists as strings, since some readers can't load a file
/// with both arrays and 5-D tensors.
fn list<T: FromStr>(file: &gguf::File, key: &'static str) -> Result<Vec<T>, ModelError> {
    let text = file.metadata().string(key).map_err(ModelError::metadata(file.path()))?;
    text.split(',').map(|v| v.trim().parse()).collect::<Result<_, _>>().map_err(|_| {
        let (file, value) = (file.path().to_owned(), text.to_owned());
        ModelError::Value { file, key, value, wanted: "expected values separated by commas" }
    })
}
