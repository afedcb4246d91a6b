//! The VAE of HunyuanVideo 1.5: diffusers' `AutoencoderKLHunyuanVideo15`, and the names of Tencent's
//! `hyvideo/models/autoencoders/hunyuanvideo_15_vae.py`, which ComfyUI and stable-diffusion.cpp read.

use crate::table::List;
use crate::{Role, Wanted};

/// What files of the published one are called (Comfy-Org's).
const PUBLISHED: &str = "hunyuanvideo15_vae";
/// Channels of the picture.
const COLORS: u64 = 3;
/// Channels of the latents.
pub const LATENTS: u32 = 32;
/// Levels of each side; all but one halve or double height and width.
pub const LEVELS: usize = 5;
/// How many of them do so with time, beside the smallest level.
const TEMPORAL: usize = 2;
/// Residual blocks in a level of the encoder; the decoder has one more.
pub const BLOCKS: u32 = 2;

/// What decides the shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Channels of the levels, from the picture to the latents; multiples of 8.
    pub channels: [u32; LEVELS],
}

impl Sizes {
    /// What files of the published one are called; `None` of others.
    pub fn published(&self) -> Option<&'static str> {
        (self.channels == [128, 256, 512, 1024, 1024]).then_some(PUBLISHED)
    }

    /// Every tensor, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<Wanted> {
        let channels = self.channels.map(u64::from);
        let last = channels[LEVELS - 1];
        let mut list = List(Vec::new());
        let latents = u64::from(LATENTS);
        list.conv3("encoder.conv_in", "encoder.conv_in", channels[0], COLORS);
        for n in 0..LEVELS {
            let (theirs, ours) = (format!("encoder.down_blocks.{n}"), format!("encoder.down.{n}"));
            list.level(&theirs, &ours, BLOCKS, channels[n]);
            if let Some(next) = channels.get(n + 1) {
                // Pixels and frames that become one are channels afterwards.
                let factor = if n + 1 + TEMPORAL >= LEVELS { 8 } else { 4 };
                let names =
                    (format!("{theirs}.downsamplers.0.conv"), format!("{ours}.downsample.conv"));
                list.conv3(&names.0, &names.1, next / factor, channels[n]);
            }
        }
        list.mid_block("encoder", last);
        list.ends("encoder", 2 * latents, last);
        list.conv3("decoder.conv_in", "decoder.conv_in", last, latents);
        list.mid_block("decoder", last);
        for n in 0..LEVELS {
            let (theirs, ours) = (format!("decoder.up_blocks.{n}"), format!("decoder.up.{n}"));
            let level = LEVELS - 1 - n;
            list.level(&theirs, &ours, BLOCKS + 1, channels[level]);
            if let Some(next) = level.checked_sub(1).map(|next| channels[next]) {
                let factor = if n < TEMPORAL { 8 } else { 4 };
                let names =
                    (format!("{theirs}.upsamplers.0.conv"), format!("{ours}.upsample.conv"));
                list.conv3(&names.0, &names.1, factor * next, channels[level]);
            }
        }
        list.ends("decoder", COLORS, channels[0]);
        list.0
    }
}

impl List {
    /// `HunyuanVideo15CausalConv3d` of 3 x 3 x 3.
    fn conv3(&mut self, theirs: &str, ours: &str, outputs: u64, inputs: u64) {
        let names = [theirs, ours].map(|module| format!("{module}.conv"));
        self.conv(&names[0], &names[1], &[outputs, inputs, 3, 3, 3]);
    }

    /// `HunyuanVideo15RMS_norm`.
    fn rms_norm(&mut self, theirs: &str, ours: &str, d: u64) {
        let names = [theirs, ours].map(|module| format!("{module}.gamma"));
        self.one(&names[0], &names[1], &[d, 1, 1, 1], Role::Exact);
    }

    /// `HunyuanVideo15ResnetBlock`.
    fn resnet(&mut self, theirs: &str, ours: &str, d: u64) {
        for n in 1..=2 {
            self.rms_norm(&format!("{theirs}.norm{n}"), &format!("{ours}.norm{n}"), d);
            self.conv3(&format!("{theirs}.conv{n}"), &format!("{ours}.conv{n}"), d, d);
        }
    }

    /// The residual blocks of a level.
    fn level(&mut self, theirs: &str, ours: &str, blocks: u32, d: u64) {
        for n in 0..blocks {
            self.resnet(&format!("{theirs}.resnets.{n}"), &format!("{ours}.block.{n}"), d);
        }
    }

    /// `HunyuanVideo15MidBlock`.
    fn mid_block(&mut self, side: &str, d: u64) {
        let (theirs, ours) = (format!("{side}.mid_block"), format!("{side}.mid"));
        self.resnet(&format!("{theirs}.resnets.0"), &format!("{ours}.block_1"), d);
        let attention = (format!("{theirs}.attentions.0"), format!("{ours}.attn_1"));
        self.rms_norm(&format!("{}.norm", attention.0), &format!("{}.norm", attention.1), d);
        for (their_part, part) in
            [("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("proj_out", "proj_out")]
        {
            let names =
                (format!("{}.{their_part}", attention.0), format!("{}.{part}", attention.1));
            self.conv(&names.0, &names.1, &[d, d, 1, 1, 1]);
        }
        self.resnet(&format!("{theirs}.resnets.1"), &format!("{ours}.block_2"), d);
    }

    /// What follows the levels of a side.
    fn ends(&mut self, side: &str, outputs: u64, d: u64) {
        let norm = format!("{side}.norm_out");
        self.rms_norm(&norm, &norm, d);
        let conv = format!("{side}.conv_out");
        self.conv3(&conv, &conv, outputs, d);
    }
}
