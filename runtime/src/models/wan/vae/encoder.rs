//! Frames to latents.

use super::Config;
use super::blocks::{Head, ResidualBlock};
use super::patches::patchify;
use super::resample::Resample;
use super::shortcut::{AvgDown3D, Shortcut};
use super::stages::{Forgetful, Layer, Network};
use crate::ggml::{ComputeError, Device, Executor, HostTensor, LoadError, Param, Scope, Weights};
use crate::models::{ModelError, Tick};
use crate::nn::CausalConv3d;
use std::sync::Arc;

/// `Encoder3d`.
fn encoder3d(w: &Scope<'_>, cfg: &Config) -> Result<Network, LoadError> {
    let (levels, pixels) = (cfg.encoder_levels(), cfg.pixel_channels());
    let mut channels = levels[0].inputs;
    let mut net = Network::new("vae.encoder", cfg.temporal_factor());
    let conv1 = CausalConv3d::new(w.at("conv1"), [pixels, channels], [3, 3, 3])?;
    net.push(Layer::Input(conv1), channels, Some("conv_in".into()));

    let a_level = cfg.num_res_blocks + 1;
    for (number, level) in levels.into_iter().enumerate() {
        let (first, number, outputs) = (net.count(), number as i64, level.outputs);
        let block = |i| cfg.block(w, "downsamples", a_level, [number, i]);
        // The reference has one list of all blocks, or a list of levels.
        let tap = |i| (!cfg.is_residual).then(|| format!("down_blocks.{}", number * a_level + i));
        for i in 0..cfg.num_res_blocks {
            let residual = ResidualBlock::new(block(i), [channels, outputs])?;
            net.push(Layer::Residual(residual), outputs, tap(i));
            channels = outputs;
        }
        if let Some(in_time) = level.resamples {
            let resample = Resample::down(block(cfg.num_res_blocks), outputs, in_time)?;
            net.push(Layer::Resample(resample), outputs, tap(cfg.num_res_blocks));
        }
        if cfg.is_residual {
            let average = AvgDown3D::new([level.inputs, outputs], level.resamples);
            net.close(first, Shortcut::AvgDown(average.expect("the configuration was checked")));
            net.name_last(format!("down_blocks.{number}"));
        }
    }
    net.push_middle(&w.at("middle"), channels)?;
    let moments = 2 * cfg.z_dim;
    let head = Head::new(w.at("head"), [channels, moments])?;
    net.push(Layer::Output(head), moments, Some("conv_out".into()));
    Ok(net)
}

/// The encoder half of `WanVAE_`.
pub struct WanVaeEncoder {
    encoder: Network,
    /// `quant_conv`.
    conv1: CausalConv3d,
    /// The latents' means, negative.
    shift: Param,
    /// One over their standard deviations.
    scale: Param,
    config: Config,
}

impl WanVaeEncoder {
    /// The encoder of `file` on `device`, and nothing else of the file.
    pub fn open(file: &Arc<gguf::File>, device: Device) -> Result<Self, ModelError> {
        let config = Config::new(file)?;
        Self::new(&config.load(file, device)?, config)
    }

    /// Refuses a file with missing, misshapen or unknown tensors. The decoder's are known, and not
    /// needed to encode.
    pub fn new(weights: &Weights, config: Config) -> Result<Self, ModelError> {
        let (w, z) = (weights.root(), config.z_dim);
        w.at("decoder").skip();
        w.at("conv2").skip();
        let vae = Self {
            encoder: encoder3d(&w.at("encoder"), &config)?,
            conv1: CausalConv3d::new(w.at("conv1"), [2 * z, 2 * z], [1, 1, 1])?,
            shift: w.constant([z], config.latents_mean.iter().map(|v| -v).collect())?,
            scale: w.constant([z], config.latents_std.iter().map(|v| 1.0 / v).collect())?,
            config,
        };
        weights.expect_all_used()?;
        Ok(vae)
    }

    /// As [`WanVaeEncoder::new`] got it.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Ticks of a clip of so many frames.
    pub fn ticks(&self, frames: u64) -> u64 {
        self.encoder.ticks(frames)
    }

    /// Frames `[H, W, 3]` in [-1, 1] to latents `[C, F, H / 8, W / 8]` (`/ 16` in Wan 2.2), normalized as
    /// the denoiser has them: the distribution's mode. Each frame is asked for when its turn comes.
    ///
    /// Panics without a frame, with a number of frames that isn't one more than a multiple of four, and
    /// with sides that aren't multiples of [`Config::spatial_factor`].
    pub fn encode(
        &self,
        exec: &mut Executor,
        frames: impl IntoIterator<Item = HostTensor>,
        tick: Tick,
    ) -> Result<HostTensor, ComputeError> {
        let mut frames = frames.into_iter().peekable();
        let [h, w, _] = frames.peek().expect("a clip has a frame").shape.dims();
        let (factor, patch) = (self.config.spatial_factor(), self.config.patch_size);
        assert!(h % factor == 0 && w % factor == 0, "frames of {h}x{w} pixels");
        let shape = [h / patch, w / patch, self.config.pixel_channels()];
        let mut stages = self.encoder.start(exec, 0..self.encoder.count(), shape)?;
        let (mut latents, mut count) = (Vec::new(), 0);
        for frame in frames {
            let (pixels, mut moments) = (patchify(&frame, patch), None);
            stages.feed(exec, |g| g.input(&pixels), tick, &mut |made| {
                moments = Some(made);
                Ok::<(), ComputeError>(())
            })?;
            count += 1;
            if let Some(moments) = moments {
                latents.push(self.mode(exec, &moments, latents.len())?);
            }
        }
        assert_eq!(count % self.config.temporal_factor(), 1 % self.config.temporal_factor());
        Ok(channels_first(&latents))
    }

    /// The mode, normalized, of latent frame `index`, of which the network made `moments` `[H, W, 2C]`.
    fn mode(
        &self,
        exec: &mut Executor,
        moments: &HostTensor,
        index: usize,
    ) -> Result<HostTensor, ComputeError> {
        exec.compute(|g| {
            let moments = self.conv1.forward(g.input(moments), &mut Forgetful);
            let moments = moments.tap(format_args!("vae.quant_conv.{index}"));
            (moments.narrow(2, 0..self.config.z_dim) + &self.shift) * &self.scale
        })
    }
}

/// Frames `[H, W, C]` as one `[C, F, H, W]`.
fn channels_first(frames: &[HostTensor]) -> HostTensor {
    let [h, w, c] = frames[0].shape.dims();
    let mut values = Vec::with_capacity(frames.len() * frames[0].data.len());
    for channel in 0..c as usize {
        for frame in frames {
            values.extend(frame.data.iter().skip(channel).step_by(c as usize));
        }
    }
    HostTensor::new([c, frames.len() as i64, h, w], values)
}
