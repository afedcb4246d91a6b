//! Latents to frames.

use super::Config;
use super::blocks::{Head, ResidualBlock};
use super::patches::unpatchify;
use super::resample::Resample;
use super::shortcut::{DupUp3D, Shortcut};
use super::stages::{Forgetful, Layer, Network, Stages};
use crate::ggml::{
    ComputeError, Device, Executor, Graph, HostTensor, LoadError, Param, Scope, Tensor, Weights,
};
use crate::models::{ModelError, Tick};
use crate::nn::CausalConv3d;
use std::ops::Range;
use std::sync::Arc;

/// `Decoder3d`.
fn decoder3d(w: &Scope<'_>, cfg: &Config) -> Result<Network, LoadError> {
    let levels = cfg.decoder_levels();
    let top = levels[0].inputs;
    let mut net = Network::new("vae.decoder", 1);
    let conv1 = CausalConv3d::new(w.at("conv1"), [cfg.z_dim, top], [3, 3, 3])?;
    net.push(Layer::Input(conv1), top, Some("conv_in".into()));
    net.push_middle(&w.at("middle"), top)?;

    let mut channels = top;
    for (number, level) in levels.into_iter().enumerate() {
        let (first, outputs) = (net.count(), level.outputs);
        let block = |i| cfg.block(w, "upsamples", cfg.num_res_blocks + 2, [number as i64, i]);
        for i in 0..=cfg.num_res_blocks {
            let residual = ResidualBlock::new(block(i), [channels, outputs])?;
            net.push(Layer::Residual(residual), outputs, None);
            channels = outputs;
        }
        if let Some(in_time) = level.resamples {
            channels = cfg.upsampled(outputs);
            let resample =
                Resample::up(block(cfg.num_res_blocks + 1), [outputs, channels], in_time)?;
            net.push(Layer::Resample(resample), channels, None);
            if cfg.is_residual {
                let dup = DupUp3D::new([level.inputs, channels], in_time);
                net.close(first, Shortcut::DupUp(dup.expect("the configuration was checked")));
            }
        }
        net.name_last(format!("up_blocks.{number}"));
    }
    let pixels = cfg.pixel_channels();
    let head = Head::new(w.at("head"), [channels, pixels])?;
    net.push(Layer::Output(head), pixels, Some("conv_out".into()));
    Ok(net)
}

/// The decoder half of `WanVAE_`.
pub struct WanVae {
    /// `post_quant_conv`.
    conv2: CausalConv3d,
    mean: Param,
    std: Param,
    decoder: Network,
    config: Config,
}

impl WanVae {
    /// The decoder of `file` on `device`, and nothing else of the file.
    pub fn open(file: &Arc<gguf::File>, device: Device) -> Result<Self, ModelError> {
        let config = Config::new(file)?;
        Self::new(&config.load(file, device)?, config)
    }

    /// Refuses a file with missing, misshapen or unknown tensors. The encoder's are known, and not
    /// needed to decode.
    pub fn new(weights: &Weights, config: Config) -> Result<Self, ModelError> {
        let (w, z) = (weights.root(), config.z_dim);
        w.at("encoder").skip();
        w.at("conv1").skip();
        let vae = Self {
            conv2: CausalConv3d::new(w.at("conv2"), [z, z], [1, 1, 1])?,
            mean: w.constant([z], config.latents_mean.clone())?,
            std: w.constant([z], config.latents_std.clone())?,
            decoder: decoder3d(&w.at("decoder"), &config)?,
            config,
        };
        weights.expect_all_used()?;
        Ok(vae)
    }

    /// As [`WanVae::new`] got it.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Ticks of a clip of so many latent frames.
    pub fn ticks(&self, latent_frames: u64) -> u64 {
        self.decoder.ticks(latent_frames)
    }

    /// Starts to decode `latents` `[C, F, H, W]`, normalized as the denoiser has them.
    pub fn decode(
        &self,
        exec: &Executor,
        latents: HostTensor,
    ) -> Result<Decoding<'_>, ComputeError> {
        let [c, _, h, w] = latents.shape.full();
        assert_eq!(c, self.config.z_dim, "latents of {:?}", latents.shape);
        let stages = self.stages(exec, 0..self.count(), [h, w, c])?;
        Ok(Decoding { vae: self, stages, latents, next: 0 })
    }

    /// How many stages there are up to the end of the middle block: what comes after looks at a
    /// pixel's neighbours alone.
    pub(super) fn middle(&self) -> usize {
        self.decoder.middle()
    }

    pub(super) fn count(&self) -> usize {
        self.decoder.count()
    }

    /// Some of the stages, ready for frames `[H, W, C]` of a clip.
    pub(super) fn stages(
        &self,
        exec: &Executor,
        range: Range<usize>,
        shape: [i64; 3],
    ) -> Result<Stages<'_>, ComputeError> {
        self.decoder.start(exec, range, shape)
    }

    /// Normalized `latents` `[H, W, C]` as the decoder's first convolution has them.
    pub(super) fn post_quant<'g>(&self, g: &'g Graph, latents: &HostTensor) -> Tensor<'g> {
        let z = g.input(latents) * &self.std + &self.mean;
        self.conv2.forward(z, &mut Forgetful)
    }
}

/// A clip on its way through the decoder.
pub struct Decoding<'v> {
    vae: &'v WanVae,
    stages: Stages<'v>,
    latents: HostTensor,
    next: i64,
}

impl Decoding<'_> {
    /// Frames of the next latent frame, each `[H, W, 3]` in [-1, 1]: one for the clip's first, then
    /// four each; none at the end. `push` gets them as they appear.
    pub fn next_frames<E: From<ComputeError>>(
        &mut self,
        exec: &mut Executor,
        tick: Tick,
        push: &mut dyn FnMut(HostTensor) -> Result<(), E>,
    ) -> Result<bool, E> {
        let [_, frames, ..] = self.latents.shape.full();
        if self.next == frames {
            return Ok(false);
        }
        let index = self.next;
        self.next += 1;
        let latent = channels_last(&self.latents, index);
        let (vae, patch) = (self.vae, self.vae.config.patch_size);
        let push = &mut |pixels: HostTensor| {
            let pixels = unpatchify(&pixels, patch);
            let clamped: Vec<f32> = pixels.data.iter().map(|v| v.clamp(-1.0, 1.0)).collect();
            push(HostTensor::new(pixels.shape, clamped))
        };
        let name = format!("vae.post_quant_conv.{index}");
        self.stages.feed(exec, |g| vae.post_quant(g, &latent).tap(name), tick, push)?;
        Ok(true)
    }
}

/// Frame `index` of latents `[C, F, H, W]` as `[H, W, C]`.
pub(super) fn channels_last(latents: &HostTensor, index: i64) -> HostTensor {
    let [c, f, h, w] = latents.shape.full();
    let (plane, f, index) = ((h * w) as usize, f as usize, index as usize);
    let value = |pixel, channel| latents.data[(channel * f + index) * plane + pixel];
    let pixels = (0..plane).flat_map(|p| (0..c as usize).map(move |ch| value(p, ch)));
    HostTensor::new([h, w, c], pixels.collect::<Vec<f32>>())
}
