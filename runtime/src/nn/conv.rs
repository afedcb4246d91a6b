//! Convolutions on channels-last frames `[H, W, C]`.
//!
//! Differs: PyTorch's tensors are `[C, T, H, W]`. Channels last makes the norms row-wise, 1x1
//! convolutions linear layers, and a 3-D convolution one matrix product; weights are put into the
//! matching order once, at load. One frame at a time keeps memory from growing with the clip.

use crate::ggml::{Kernel, LoadError, Param, Scope, Tensor, conv3d, patch_order};

/// The last two frames that a causal convolution saw, padded; frames before the first are zero.
pub trait History<'g> {
    /// The two frames before `frame`, and `frame`, which is remembered.
    fn push(&mut self, frame: Tensor<'g>) -> [Tensor<'g>; 3];
}

/// `WanCausalConv3d`: padding 1 around rows and columns for a 3x3 kernel, and none behind in time.
pub struct CausalConv3d {
    weight: Param,
    bias: Param,
    kernel: Kernel,
    inputs: i64,
}

impl CausalConv3d {
    /// `kernel` has one frame or three.
    pub fn new(w: Scope<'_>, [i, o]: [i64; 2], kernel: Kernel) -> Result<Self, LoadError> {
        let [kt, kh, kw] = kernel;
        let shape = [o, i, kt, kh, kw];
        let order = |v: Vec<f32>| patch_order(&v, [o, i], kernel);
        Ok(Self {
            weight: w.derived("weight", &shape, [o, kt * kh * kw * i], order)?,
            bias: w.param("bias", [o])?,
            kernel,
            inputs: i,
        })
    }

    /// The shape of a remembered frame, for frames of `[h, w]`.
    pub fn remembered(&self, [h, w]: [i64; 2]) -> [i64; 3] {
        let [_, kh, kw] = self.kernel;
        [h + kh - 1, w + kw - 1, self.inputs]
    }

    /// `x`: `[H, W, C]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>, past: &mut impl History<'g>) -> Tensor<'g> {
        let y = match self.kernel {
            [1, ..] => conv3d(&[padded(x, self.kernel)], &self.weight, self.kernel),
            _ => conv3d(&past.push(padded(x, self.kernel)), &self.weight, self.kernel),
        };
        y + &self.bias
    }
}

/// `torch.nn.Conv2d` with stride 1 and `padding = kernel / 2`.
pub struct Conv2d {
    weight: Param,
    bias: Param,
    kernel: Kernel,
}

impl Conv2d {
    pub fn new(w: Scope<'_>, [i, o]: [i64; 2], side: i64) -> Result<Self, LoadError> {
        let kernel = [1, side, side];
        let order = |v: Vec<f32>| patch_order(&v, [o, i], kernel);
        let columns = side * side * i;
        Ok(Self {
            weight: w.derived("weight", &[o, i, side, side], [o, columns], order)?,
            bias: w.param("bias", [o])?,
            kernel,
        })
    }

    /// `x`: `[H, W, C]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        conv3d(&[padded(x, self.kernel)], &self.weight, self.kernel) + &self.bias
    }
}

/// Zeros around a frame, so that the result of a convolution has its size.
#[track_caller]
fn padded<'g>(x: Tensor<'g>, [_, kh, kw]: Kernel) -> Tensor<'g> {
    let [h, w] = [kh / 2, kw / 2].map(|pad| pad as i32);
    if [h, w] == [0, 0] { x } else { x.pad_image([w, w, h, h]) }
}
