//! The building blocks of encoder and decoder.

use crate::ggml::{LoadError, Param, Scope, Tensor};
use crate::nn::{CausalConv3d, Conv2d, scored_attention};

/// The frames that a causal convolution saw last, and where the next ones go. Frames before the
/// first are zero.
pub(super) trait History<'g> {
    /// `x` with the two frames before it in front; remembers the last two of the whole.
    fn extend(&mut self, x: Tensor<'g>) -> Tensor<'g>;
}

/// `F.normalize(x, dim=channels) · √C · gamma`, which is RMS normalization.
pub(super) struct RmsNorm {
    gamma: Param,
}

impl RmsNorm {
    /// `gamma` has two or three dimensions of 1 behind the channels.
    pub(super) fn new<const N: usize>(w: Scope<'_>, shape: [i64; N]) -> Result<Self, LoadError> {
        Ok(Self { gamma: w.derived("gamma", &shape, [shape[0]], |v| v)? })
    }

    pub(super) fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        // The reference divides by max(‖x‖, 1e-12): this only keeps 0 / 0 away, too.
        x.rms_norm(1e-24) * &self.gamma
    }
}

pub(super) struct ResidualBlock {
    norm1: RmsNorm,
    conv1: CausalConv3d,
    norm2: RmsNorm,
    conv2: CausalConv3d,
    shortcut: Option<CausalConv3d>,
}

impl ResidualBlock {
    pub(super) fn new(w: Scope<'_>, [i, o]: [i64; 2]) -> Result<Self, LoadError> {
        let r = w.at("residual");
        Ok(Self {
            norm1: RmsNorm::new(r.at(0), [i, 1, 1, 1])?,
            conv1: CausalConv3d::new(r.at(2), [i, o], [3, 3, 3])?,
            norm2: RmsNorm::new(r.at(3), [o, 1, 1, 1])?,
            conv2: CausalConv3d::new(r.at(6), [o, o], [3, 3, 3])?,
            shortcut: (i != o)
                .then(|| CausalConv3d::new(w.at("shortcut"), [i, o], [1, 1, 1]))
                .transpose()?,
        })
    }

    /// Channels of each causal convolution's history.
    pub(super) fn history(&self) -> Vec<i64> {
        vec![self.conv1.inputs(), self.conv2.inputs()]
    }

    pub(super) fn forward<'g>(&self, x: Tensor<'g>, past: &mut impl History<'g>) -> Tensor<'g> {
        let h = self.conv1.forward(past.extend(self.norm1.forward(x).silu()));
        let h = self.conv2.forward(past.extend(self.norm2.forward(h).silu()));
        match &self.shortcut {
            Some(conv) => h + conv.forward(x),
            None => h + x,
        }
    }
}

/// Self-attention over the pixels of each frame, with one head.
pub(super) struct AttentionBlock {
    norm: RmsNorm,
    to_qkv: Conv2d,
    proj: Conv2d,
}

impl AttentionBlock {
    pub(super) fn new(w: Scope<'_>, dim: i64) -> Result<Self, LoadError> {
        Ok(Self {
            norm: RmsNorm::new(w.at("norm"), [dim, 1, 1])?,
            to_qkv: Conv2d::new(w.at("to_qkv"), [dim, 3 * dim], 1)?,
            proj: Conv2d::new(w.at("proj"), [dim, dim], 1)?,
        })
    }

    /// Frames take the place of heads: they don't see each other.
    pub(super) fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let [t, h, w, c] = x.shape().full();
        let qkv = self.to_qkv.forward(self.norm.forward(x)).reshape([t, h * w, 3 * c]);
        let part = |i: i64| qkv.narrow(2, i * c..(i + 1) * c);
        let y = scored_attention(part(0), part(1), part(2), 1.0 / (c as f32).sqrt(), None);
        x + self.proj.forward(y.reshape([t, h, w, c]))
    }
}

/// Upsampling by 2 in space, and in time where there is a `time_conv`.
pub(super) struct Resample {
    conv: Conv2d,
    time_conv: Option<CausalConv3d>,
}

impl Resample {
    pub(super) fn new(w: Scope<'_>, dim: i64, in_time: bool) -> Result<Self, LoadError> {
        Ok(Self {
            conv: Conv2d::new(w.at("resample.1"), [dim, dim / 2], 3)?,
            time_conv: in_time
                .then(|| CausalConv3d::new(w.at("time_conv"), [dim, 2 * dim], [3, 1, 1]))
                .transpose()?,
        })
    }

    pub(super) fn history(&self) -> Vec<i64> {
        self.time_conv.iter().map(CausalConv3d::inputs).collect()
    }

    /// How many frames come out for one that goes in.
    pub(super) fn frames(&self, first: bool) -> i64 {
        if self.time_conv.is_some() && !first { 2 } else { 1 }
    }

    /// The clip's `first` latent frame is one frame only, and `time_conv` never sees it.
    pub(super) fn forward<'g>(
        &self,
        x: Tensor<'g>,
        past: &mut impl History<'g>,
        first: bool,
    ) -> Tensor<'g> {
        let [t, h, w, c] = x.shape().full();
        let x = match &self.time_conv {
            // Each frame's 2C channels are two frames.
            Some(conv) if !first => conv
                .forward(past.extend(x))
                .reshape([t, h * w, 2, c])
                .permute([0, 2, 1, 3])
                .reshape([2 * t, h, w, c]),
            _ => x,
        };
        self.conv.forward(x.upsample_nearest_2x())
    }
}

/// The decoder's last layers: norm, SiLU, and the convolution to pixels.
pub(super) struct Head {
    norm: RmsNorm,
    conv: CausalConv3d,
}

impl Head {
    pub(super) fn new(w: Scope<'_>, [i, o]: [i64; 2]) -> Result<Self, LoadError> {
        Ok(Self {
            norm: RmsNorm::new(w.at(0), [i, 1, 1, 1])?,
            conv: CausalConv3d::new(w.at(2), [i, o], [3, 3, 3])?,
        })
    }

    pub(super) fn history(&self) -> Vec<i64> {
        vec![self.conv.inputs()]
    }

    pub(super) fn forward<'g>(&self, x: Tensor<'g>, past: &mut impl History<'g>) -> Tensor<'g> {
        self.conv.forward(past.extend(self.norm.forward(x).silu()))
    }
}
