//! The two VAEs: diffusers' `AutoencoderKLWan` and the names of the original `wan/modules/vae2_1.py`
//! and `vae2_2.py`. In the first, each side is one flat list of residual blocks and resamplers; in the
//! second, which is residual as a whole and works on patches of pixels, a list of levels.

use gguf::Metadata;

use crate::table::List;
use crate::{Error, Given, Naming, Role, Wanted, joined};

/// What the VAE of Wan 2.1 and of Wan 2.2's A14B is called.
const WAN21: &str = "Wan2.1_VAE";
/// That of Wan 2.2's TI2V-5B.
const WAN22: &str = "Wan2.2_VAE";
/// Channels of the picture.
const COLORS: u64 = 3;
/// Mean and standard deviation of the first's latents by channel (`wan/modules/vae2_1.py`).
const MEAN_21: [f64; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517,
    -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
];
const STD_21: [f64; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579,
    1.6382, 1.1253, 2.8251, 1.9160,
];
/// The same of the second (`wan/modules/vae2_2.py`).
const MEAN_22: [f64; 48] = [
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813,
    0.0891, 0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108,
    -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313,
    -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944,
    0.3573, -0.0548, -0.1681, -0.0667,
];
const STD_22: [f64; 48] = [
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
];

/// What decides the shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Channels of the encoder's first level.
    pub base: u32,
    /// Channels of the decoder's last level.
    pub decoder_base: u32,
    /// Channels of the latents.
    pub z: u32,
    /// Residual blocks in a level of the encoder; the decoder has one more.
    pub blocks: u32,
    /// Channels of the levels, in multiples of `base`.
    pub multipliers: Vec<u64>,
    /// Which of the encoder's levels, the last excepted, halve time as well.
    pub temporal: Vec<bool>,
    /// Whether levels have shortcuts, as in Wan 2.2's.
    pub residual: bool,
    /// Rows and columns of pixels that are one position of the network; 1 in Wan 2.1's.
    pub patch: u32,
}

impl Sizes {
    /// The VAE of Wan 2.1, or a smaller one of its kind.
    pub fn wan21(base: u32, z: u32) -> Self {
        Self {
            base,
            decoder_base: base,
            z,
            blocks: 2,
            multipliers: vec![1, 2, 4, 4],
            temporal: vec![false, true, true],
            residual: false,
            patch: 1,
        }
    }

    /// The VAE of Wan 2.2's TI2V-5B, or a smaller one of its kind.
    pub fn wan22(base: u32, decoder_base: u32, z: u32) -> Self {
        Self { decoder_base, residual: true, patch: 2, ..Self::wan21(base, z) }
    }

    /// From the shapes of a file's tensors, the depths being those of the published ones.
    ///
    /// # Errors
    /// Where a tensor that tells a size is missing or has another number of dimensions.
    pub fn of(given: &Given<'_>, naming: Naming) -> Result<Self, Error> {
        let (first, last, latents, nested) = match naming {
            Naming::Original => (
                "encoder.conv1.weight",
                "decoder.head.0.gamma",
                "conv2.weight",
                "decoder.upsamples.0.upsamples.0.residual.0.gamma",
            ),
            Naming::Diffusers => (
                "encoder.conv_in.weight",
                "decoder.norm_out.gamma",
                "post_quant_conv.weight",
                "encoder.down_blocks.0.resnets.0.norm1.gamma",
            ),
        };
        let base = given.size(first, 5, 0)?;
        let decoder_base = given.size(last, given.shape(last).map_or(4, <[u64]>::len), 0)?;
        let z = given.size(latents, 5, 0)?;
        Ok(match given.has(nested) {
            true => Self::wan22(base, decoder_base, z),
            false => Self::wan21(base, z),
        })
    }

    /// What files of a published one are called; `None` of others.
    pub fn published(&self) -> Option<&'static str> {
        match self {
            _ if *self == Self::wan21(96, 16) => Some(WAN21),
            _ if *self == Self::wan22(160, 256, 48) => Some(WAN22),
            _ => None,
        }
    }

    /// Mean and standard deviation of the latents by channel, of a VAE with as many channels as one of
    /// the published.
    pub fn statistics(&self) -> Option<(&'static [f64], &'static [f64])> {
        match (self.residual, self.z) {
            (false, 16) => Some((&MEAN_21, &STD_21)),
            (true, 48) => Some((&MEAN_22, &STD_22)),
            _ => None,
        }
    }

    /// The metadata that a runtime needs to know the shapes. What is not there is as in Wan 2.1's.
    pub fn describe(&self, metadata: &mut Metadata) {
        metadata
            .set("wanvae.base_dim", self.base)
            .set("wanvae.z_dim", self.z)
            .set("wanvae.num_res_blocks", self.blocks)
            .set("wanvae.dim_mult", joined(&self.multipliers))
            .set("wanvae.temporal_downsample", joined(&self.temporal));
        if self.decoder_base != self.base {
            metadata.set("wanvae.decoder_base_dim", self.decoder_base);
        }
        if self.residual {
            metadata.set("wanvae.is_residual", true);
        }
        if self.patch != 1 {
            metadata.set("wanvae.patch_size", self.patch);
        }
    }

    /// The metadata of [`Self::statistics`], or of other values.
    pub fn describe_latents(mean: &[f64], std: &[f64], metadata: &mut Metadata) {
        metadata.set("wanvae.latents_mean", joined(mean)).set("wanvae.latents_std", joined(std));
    }

    /// Every tensor, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<Wanted> {
        let mut list = List(Vec::new());
        self.encoder(&mut list);
        self.decoder(&mut list);
        list.0
    }

    /// Channels of a picture as the network sees it: patches have all of their pixels' colours.
    fn colors(&self) -> u64 {
        COLORS * u64::from(self.patch) * u64::from(self.patch)
    }

    fn encoder(&self, list: &mut List) {
        let z = u64::from(self.z);
        let level = |i: usize| self.multipliers[i] * u64::from(self.base);
        let last = self.multipliers.len() - 1;
        let mut channels = u64::from(self.base);
        list.conv("encoder.conv_in", "encoder.conv1", &[channels, self.colors(), 3, 3, 3]);
        let mut k = 0;
        for i in 0..=last {
            let mut next = |j: u32, theirs: &str| {
                k += 1;
                match self.residual {
                    // Both are nested here,
                    true => (
                        format!("encoder.down_blocks.{i}.{theirs}"),
                        format!("encoder.downsamples.{i}.downsamples.{j}"),
                    ),
                    // and both are flat here.
                    false => (
                        format!("encoder.down_blocks.{}", k - 1),
                        format!("encoder.downsamples.{}", k - 1),
                    ),
                }
            };
            for j in 0..self.blocks {
                let (theirs, ours) = next(j, &format!("resnets.{j}"));
                list.residual(&theirs, &ours, channels, level(i));
                channels = level(i);
            }
            if i < last {
                let (theirs, ours) = next(self.blocks, "downsampler");
                let time = self.temporal[i].then_some(channels);
                list.resample(&theirs, &ours, channels, channels, time);
            }
        }
        list.middle("encoder", channels);
        list.gamma("encoder.norm_out", "encoder.head.0", &[channels, 1, 1, 1]);
        list.conv("encoder.conv_out", "encoder.head.2", &[2 * z, channels, 3, 3, 3]);
        list.conv("quant_conv", "conv1", &[2 * z, 2 * z, 1, 1, 1]);
    }

    fn decoder(&self, list: &mut List) {
        let z = u64::from(self.z);
        let level = |i: usize| self.multipliers[i] * u64::from(self.decoder_base);
        let last = self.multipliers.len() - 1;
        let mut channels = level(last);
        list.conv("post_quant_conv", "conv2", &[z, z, 1, 1, 1]);
        list.conv("decoder.conv_in", "decoder.conv1", &[channels, z, 3, 3, 3]);
        list.middle("decoder", channels);
        let mut k = 0;
        for i in 0..=last {
            let outputs = level(last - i);
            // diffusers nests the decoder's levels in both.
            let mut next = |j: u32, theirs: &str| {
                k += 1;
                let ours = match self.residual {
                    true => format!("decoder.upsamples.{i}.upsamples.{j}"),
                    false => format!("decoder.upsamples.{}", k - 1),
                };
                (format!("decoder.up_blocks.{i}.{theirs}"), ours)
            };
            for j in 0..=self.blocks {
                let (theirs, ours) = next(j, &format!("resnets.{j}"));
                list.residual(&theirs, &ours, channels, outputs);
                channels = outputs;
            }
            if i < last {
                // Undoes the encoder's resampler of the level below. Wan 2.1's halves the channels.
                let time = self.temporal[last - 1 - i].then_some(2 * channels);
                let (name, after) = match self.residual {
                    true => ("upsampler", channels),
                    false => ("upsamplers.0", channels / 2),
                };
                let (theirs, ours) = next(self.blocks + 1, name);
                list.resample(&theirs, &ours, channels, after, time);
                channels = after;
            }
        }
        list.gamma("decoder.norm_out", "decoder.head.0", &[channels, 1, 1, 1]);
        list.conv("decoder.conv_out", "decoder.head.2", &[self.colors(), channels, 3, 3, 3]);
    }
}

impl List {
    fn gamma(&mut self, theirs: &str, ours: &str, shape: &[u64]) {
        let names = [theirs, ours].map(|module| format!("{module}.gamma"));
        self.one(&names[0], &names[1], shape, Role::Exact);
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
