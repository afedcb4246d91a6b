//! Convolutions on channels-last tensors `[T, H, W, C]`.
//!
//! Differs: PyTorch's tensors are `[C, T, H, W]`. Channels last makes the norms row-wise, 1x1
//! convolutions linear layers, and a 3-D convolution one matrix product; weights are put into the
//! matching order once, at load.

use crate::ggml::{Kernel, LoadError, Param, Scope, Tensor, patch_order};

/// `WanCausalConv3d`: padding 1 around rows and columns for a 3x3 kernel, none in time, where the
/// two frames before come from the caller.
pub struct CausalConv3d {
    weight: Param,
    bias: Param,
    kernel: Kernel,
    inputs: i64,
}

impl CausalConv3d {
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

    /// Channels of `x`.
    pub fn inputs(&self) -> i64 {
        self.inputs
    }

    /// `x`: `[T, H, W, C]`, with the `kt - 1` frames before it in front.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let [_, kh, kw] = self.kernel.map(|k| k as i32);
        let x = if kh > 1 { x.pad_image([kw / 2, kw / 2, kh / 2, kh / 2]) } else { x };
        x.conv3d(&self.weight, self.kernel) + &self.bias
    }
}

/// `torch.nn.Conv2d` on every frame, stride 1, with `padding = kernel / 2`.
pub struct Conv2d {
    weight: Param,
    bias: Param,
    kernel: i64,
}

impl Conv2d {
    pub fn new(w: Scope<'_>, [i, o]: [i64; 2], kernel: i64) -> Result<Self, LoadError> {
        let order = |v: Vec<f32>| patch_order(&v, [o, i], [1, kernel, kernel]);
        let columns = kernel * kernel * i;
        Ok(Self {
            weight: w.derived("weight", &[o, i, kernel, kernel], [o, columns], order)?,
            bias: w.param("bias", [o])?,
            kernel,
        })
    }

    /// `x`: `[T, H, W, C]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let pad = (self.kernel / 2) as i32;
        let x = if pad > 0 { x.pad_image([pad; 4]) } else { x };
        x.conv3d(&self.weight, [1, self.kernel, self.kernel]) + &self.bias
    }
}
