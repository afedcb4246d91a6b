//! The building blocks of encoder and decoder.

use crate::ggml::{LoadError, Param, Scope, Storage, Tensor};
use crate::nn::{CausalConv3d, Conv2d, History};

/// `F.normalize(x, dim=channels) · √C · gamma`, which is RMS normalization.
pub(super) struct RmsNorm {
    gamma: Param,
}

impl RmsNorm {
    /// `gamma` has two or three dimensions of 1 behind the channels.
    pub(super) fn new<const N: usize>(w: Scope<'_>, shape: [i64; N]) -> Result<Self, LoadError> {
        Ok(Self { gamma: w.derived("gamma", &shape, [shape[0]], Storage::F32, |v| v)? })
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

    /// The shapes of the frames that its convolutions remember, in the order in which they do.
    pub(super) fn remembered(&self, size: [i64; 2]) -> Vec<[i64; 3]> {
        vec![self.conv1.remembered(size), self.conv2.remembered(size)]
    }

    pub(super) fn forward<'g>(&self, x: Tensor<'g>, past: &mut impl History<'g>) -> Tensor<'g> {
        let h = self.conv1.forward(self.norm1.forward(x).silu(), past);
        let h = self.conv2.forward(self.norm2.forward(h).silu(), past);
        match &self.shortcut {
            Some(conv) => h + conv.forward(x, past),
            None => h + x,
        }
    }
}

/// Self-attention over the pixels of a frame, with one head.
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

    /// `x`: `[H, W, C]`.
    pub(super) fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let [h, w, c] = x.dims();
        let qkv = self.to_qkv.forward(self.norm.forward(x)).reshape([1, h * w, 3 * c]);
        let part = |i: i64| qkv.narrow(2, i * c..(i + 1) * c);
        let y = part(0).scored_attention(part(1), part(2), 1.0 / (c as f32).sqrt(), None);
        x + self.proj.forward(y.reshape([h, w, c]))
    }
}

/// The last layers: norm, SiLU, and the convolution to pixels or to the moments of latents.
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

    pub(super) fn remembered(&self, size: [i64; 2]) -> Vec<[i64; 3]> {
        vec![self.conv.remembered(size)]
    }

    pub(super) fn forward<'g>(&self, x: Tensor<'g>, past: &mut impl History<'g>) -> Tensor<'g> {
        self.conv.forward(self.norm.forward(x).silu(), past)
    }
}
