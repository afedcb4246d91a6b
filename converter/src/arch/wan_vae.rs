//! The Wan 2.1 VAE: diffusers' `AutoencoderKLWan` to the names of the original
//! `wan/modules/vae2_1.py`. There, each side is one flat list of residual blocks and resamplers.

use anyhow::{Result, ensure};
use gguf::Metadata;
use serde_json::{Value, json};

use super::{Model, Naming, Part, Role, Wanted, joined, matched};
use crate::source::{Config, Folder};

/// Levels and residual blocks a level: real models have 4 and 2.
const MOST_BLOCKS: u64 = 16;
/// What the VAE of Wan 2.1 and of Wan 2.2's A14B is called.
pub(super) const PUBLISHED: &str = "Wan2.1_VAE";
/// Its latents' mean and standard deviation by channel (`wan/modules/vae2_1.py`).
const LATENTS_MEAN: [f64; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517,
    -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
];
const LATENTS_STD: [f64; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579,
    1.6382, 1.1253, 2.8251, 1.9160,
];
/// Channels of the picture.
const COLORS: u64 = 3;

/// The encoder and the decoder in one file. A VAE is small and sensitive: its weights stay F32.
pub(super) fn model(folder: &Folder, name: &str) -> Result<Model> {
    folder.expect_class("vae", &["AutoencoderKLWan"])?;
    let config = folder.config("vae")?;
    let sizes = Sizes::new(&config)?;
    let weights = folder.weights("vae", "diffusion_pytorch_model")?;
    let tensors = matched(&weights, Naming::Diffusers, sizes.tensors())?;
    let mut metadata = Metadata::new();
    sizes.describe(&config, &mut metadata)?;

    let published = (sizes.base, sizes.z) == (96, 16);
    let name = if published { PUBLISHED.into() } else { format!("{name}-VAE") };
    Ok(Model {
        part: Part::Vae,
        folder: "VAE",
        architecture: "wanvae",
        name,
        source_name: folder.name()?,
        metadata,
        weights,
        tensors,
    })
}

/// What decides the shapes.
pub(super) struct Sizes {
    base: u32,
    z: u32,
    /// Residual blocks in a level of the encoder; the decoder has one more.
    blocks: u32,
    /// Channels of the levels, in multiples of `base`.
    multipliers: Vec<u64>,
    /// Which of the encoder's levels, the last excepted, halve time as well.
    temporal: Vec<bool>,
}

impl Sizes {
    fn new(config: &Config) -> Result<Self> {
        config.expect("is_residual", false)?;
        config.expect("patch_size", Value::Null)?;
        config.expect("in_channels", COLORS)?;
        config.expect("out_channels", COLORS)?;
        config.expect("attn_scales", json!([]))?;
        let base = config.size("base_dim")?;
        if !config.get("decoder_base_dim").is_null() {
            config.expect("decoder_base_dim", base)?;
        }
        let multipliers = config.list("dim_mult", "a list of numbers from 1 to 16", |value| {
            value.as_u64().filter(|value| (1..=MOST_BLOCKS).contains(value))
        })?;
        let levels = 1..=MOST_BLOCKS as usize;
        ensure!(levels.contains(&multipliers.len()), config.wrong("dim_mult", "1 to 16 levels"));
        let wanted = format!("a list of {} booleans", multipliers.len() - 1);
        let temporal = config.list("temperal_downsample", &wanted, Value::as_bool)?;
        ensure!(
            temporal.len() + 1 == multipliers.len(),
            config.wrong("temperal_downsample", &wanted)
        );
        // The decoder's resamplers halve the channels.
        ensure!(base % 2 == 0, config.wrong("base_dim", "an even number"));
        let blocks = config.size_up_to("num_res_blocks", MOST_BLOCKS)?;
        Ok(Self { base, z: config.size("z_dim")?, blocks, multipliers, temporal })
    }

    /// The VAE of Wan 2.1, which files without a configuration hold.
    pub(super) fn published() -> Self {
        Self {
            base: 96,
            z: 16,
            blocks: 2,
            multipliers: vec![1, 2, 4, 4],
            temporal: vec![false, true, true],
        }
    }

    /// The metadata of the one that is published.
    pub(super) fn describe_published(&self, metadata: &mut Metadata) {
        self.describe_shapes(metadata);
        metadata
            .set("wanvae.latents_mean", joined(&LATENTS_MEAN))
            .set("wanvae.latents_std", joined(&LATENTS_STD));
    }

    fn describe_shapes(&self, metadata: &mut Metadata) {
        metadata
            .set("wanvae.base_dim", self.base)
            .set("wanvae.z_dim", self.z)
            .set("wanvae.num_res_blocks", self.blocks)
            .set("wanvae.dim_mult", joined(&self.multipliers))
            .set("wanvae.temporal_downsample", joined(&self.temporal));
    }

    fn describe(&self, config: &Config, metadata: &mut Metadata) -> Result<()> {
        self.describe_shapes(metadata);
        for key in ["latents_mean", "latents_std"] {
            let wanted = format!("a list of {} numbers, as many as z_dim", self.z);
            let values = config.list(key, &wanted, Value::as_f64)?;
            ensure!(values.len() == self.z as usize, config.wrong(key, &wanted));
            metadata.set(format!("wanvae.{key}"), joined(&values));
        }
        Ok(())
    }

    /// Every tensor, in the order of the forward pass.
    pub(super) fn tensors(&self) -> Vec<Wanted> {
        let (mut list, z) = (List(Vec::new()), u64::from(self.z));
        let level = |i: usize| self.multipliers[i] * u64::from(self.base);
        let last = self.multipliers.len() - 1;

        let mut channels = u64::from(self.base);
        list.conv("encoder.conv_in", "encoder.conv1", &[channels, COLORS, 3, 3, 3]);
        // Both lists are flat here.
        let mut next =
            (0..).map(|k| (format!("encoder.down_blocks.{k}"), format!("encoder.downsamples.{k}")));
        let mut next = || next.next().expect("endless");
        for i in 0..=last {
            for _ in 0..self.blocks {
                let (theirs, ours) = next();
                list.residual(&theirs, &ours, channels, level(i));
                channels = level(i);
            }
            if i < last {
                let (theirs, ours) = next();
                list.resample(
                    &theirs,
                    &ours,
                    channels,
                    channels,
                    self.temporal[i].then_some(channels),
                );
            }
        }
        list.middle("encoder", channels);
        list.gamma("encoder.norm_out", "encoder.head.0", &[channels, 1, 1, 1]);
        list.conv("encoder.conv_out", "encoder.head.2", &[2 * z, channels, 3, 3, 3]);
        list.conv("quant_conv", "conv1", &[2 * z, 2 * z, 1, 1, 1]);

        list.conv("post_quant_conv", "conv2", &[z, z, 1, 1, 1]);
        list.conv("decoder.conv_in", "decoder.conv1", &[channels, z, 3, 3, 3]);
        list.middle("decoder", channels);
        // diffusers nests the decoder's levels.
        let mut k = 0;
        for i in 0..=last {
            let outputs = level(last - i);
            for j in 0..=self.blocks {
                let theirs = format!("decoder.up_blocks.{i}.resnets.{j}");
                list.residual(&theirs, &format!("decoder.upsamples.{k}"), channels, outputs);
                (channels, k) = (outputs, k + 1);
            }
            if i < last {
                let theirs = format!("decoder.up_blocks.{i}.upsamplers.0");
                let ours = format!("decoder.upsamples.{k}");
                // Undoes the encoder's resampler of the level below.
                let time = self.temporal[last - 1 - i].then_some(2 * channels);
                list.resample(&theirs, &ours, channels, channels / 2, time);
                (channels, k) = (channels / 2, k + 1);
            }
        }
        list.gamma("decoder.norm_out", "decoder.head.0", &[channels, 1, 1, 1]);
        list.conv("decoder.conv_out", "decoder.head.2", &[COLORS, channels, 3, 3, 3]);
        list.0
    }
}

/// The table while it grows, by the modules of the VAE.
struct List(Vec<Wanted>);

impl List {
    fn conv(&mut self, theirs: &str, ours: &str, shape: &[u64]) {
        for (part, shape) in [("weight", shape), ("bias", &shape[..1])] {
            let names = [theirs, ours].map(|module| format!("{module}.{part}"));
            self.0.push(Wanted::new(&names[0], &names[1], shape, Role::Exact));
        }
    }

    fn gamma(&mut self, theirs: &str, ours: &str, shape: &[u64]) {
        let names = [theirs, ours].map(|module| format!("{module}.gamma"));
        self.0.push(Wanted::new(&names[0], &names[1], shape, Role::Exact));
    }

    /// `WanResidualBlock`; the original counts activations and dropout, too.
    fn residual(&mut self, theirs: &str, ours: &str, inputs: u64, outputs: u64) {
        let name = |module: &str, part: &str| format!("{module}.{part}");
        self.gamma(&name(theirs, "norm1"), &name(ours, "residual.0"), &[inputs, 1, 1, 1]);
        let shape = [outputs, inputs, 3, 3, 3];
        self.conv(&name(theirs, "conv1"), &name(ours, "residual.2"), &shape);
        self.gamma(&name(theirs, "norm2"), &name(ours, "residual.3"), &[outputs, 1, 1, 1]);
        let shape = [outputs, outputs, 3, 3, 3];
        self.conv(&name(theirs, "conv2"), &name(ours, "residual.6"), &shape);
        if inputs != outputs {
            let shape = [outputs, inputs, 1, 1, 1];
            self.conv(&name(theirs, "conv_shortcut"), &name(ours, "shortcut"), &shape);
        }
    }

    /// `WanResample`; `time` has the outputs of its convolution over frames, if it has one.
    fn resample(&mut self, theirs: &str, ours: &str, inputs: u64, outputs: u64, time: Option<u64>) {
        let names = [theirs, ours].map(|module| format!("{module}.resample.1"));
        self.conv(&names[0], &names[1], &[outputs, inputs, 3, 3]);
        if let Some(time) = time {
            let names = [theirs, ours].map(|module| format!("{module}.time_conv"));
            self.conv(&names[0], &names[1], &[time, inputs, 3, 1, 1]);
        }
    }

    /// `WanMidBlock` of a side: a residual block, attention within a frame, a residual block.
    fn middle(&mut self, side: &str, channels: u64) {
        let theirs = |part: &str| format!("{side}.mid_block.{part}");
        let ours = |part: &str| format!("{side}.middle.{part}");
        self.residual(&theirs("resnets.0"), &ours("0"), channels, channels);
        self.gamma(&theirs("attentions.0.norm"), &ours("1.norm"), &[channels, 1, 1]);
        let shape = [3 * channels, channels, 1, 1];
        self.conv(&theirs("attentions.0.to_qkv"), &ours("1.to_qkv"), &shape);
        let shape = [channels, channels, 1, 1];
        self.conv(&theirs("attentions.0.proj"), &ours("1.proj"), &shape);
        self.residual(&theirs("resnets.1"), &ours("2"), channels, channels);
    }
}
