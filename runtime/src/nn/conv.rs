//! Convolutions on channels-last frames `[H, W, C]`.
//!
//! Differs: PyTorch's tensors are `[C, T, H, W]`. Channels last makes the norms row-wise, 1x1
//! convolutions linear layers, and a 3-D convolution one matrix product; weights are put into the
//! matching order once, at load. One frame at a time keeps memory from growing with the clip.

use crate::ggml::{Kernel, LoadError, Param, Scope, Tensor, conv3d, patch_order};
use std::ops::Range;

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
            weight: w.derived("weight", &shape, [o, kt * kh * kw * i], w.operands(), order)?,
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
            [1, ..] => conv3d(&[padded(x, self.kernel)], &self.weight, self.kernel, 1),
            _ => conv3d(&past.push(padded(x, self.kernel)), &self.weight, self.kernel, 1),
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
    /// From `i` to `o` channels, by a square kernel of so many pixels a `side`: of `w` its `weight`
    /// `[o, i, side, side]` and its `bias` `[o]`.
    ///
    /// # Errors
    /// Where one of them is missing, or has another shape or type, or the device has no room for
    /// it.
    pub fn new(w: Scope<'_>, [i, o]: [i64; 2], side: i64) -> Result<Self, LoadError> {
        let kernel = [1, side, side];
        let order = |v: Vec<f32>| patch_order(&v, [o, i], kernel);
        let columns = side * side * i;
        Ok(Self {
            weight: w.derived("weight", &[o, i, side, side], [o, columns], w.operands(), order)?,
            bias: w.param("bias", [o])?,
            kernel,
        })
    }

    /// `x`: `[H, W, C]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        conv3d(&[padded(x, self.kernel)], &self.weight, self.kernel, 1) + &self.bias
    }

    /// With a stride of 2 after one row of zeros below and one column on the right: `x` `[H, W, C]`
    /// of even sides gives `[H / 2, W / 2, O]`.
    #[track_caller]
    pub fn forward_downsampled<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        assert_eq!(self.kernel, [1, 3, 3], "forward_downsampled");
        let [h, w, _] = x.dims();
        assert!(h % 2 == 0 && w % 2 == 0, "forward_downsampled: {x:?}");
        conv3d(&[x.pad_image([0, 1, 0, 1])], &self.weight, self.kernel, 2) + &self.bias
    }

    /// [`Conv2d::forward`] of `x` `[H, W, C]` upsampled by 2, for a 3x3 kernel. The large frame
    /// between the two exists in bands of rows only.
    #[track_caller]
    pub fn forward_upsampled<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        assert_eq!(self.kernel, [1, 3, 3], "forward_upsampled");
        let ([h, w, c], g) = (x.dims(), x.graph());
        let [outputs] = self.bias.shape().dims();
        // The upsampled rows, before and after padding, beside the convolution's patches.
        let rows = (g.limits().scratch / (8 * w * c * size_of::<f32>() as i64)).max(1);
        let band = |rows: Range<i64>| {
            // One more row on each side, of which the convolution sees the nearer half.
            let (top, bottom) = (rows.start.max(1) - 1, (rows.end + 1).min(h));
            let y = x.narrow(0, top..bottom).upsample_nearest_2x();
            let (above, below) = (rows.start - top, bottom - rows.end);
            let y = y.narrow(0, above..2 * (bottom - top) - below);
            let y = y.pad_image([1, 1, 1 - above as i32, 1 - below as i32]);
            conv3d(&[y], &self.weight, self.kernel, 1) + &self.bias
        };
        if rows >= h {
            return band(0..h);
        }
        let starts = (0..h).step_by(rows as usize);
        starts.fold(g.uninitialized([2 * h, 2 * w, outputs]), |out, start| {
            out.set([2 * start, 0, 0], band(start..h.min(start + rows)))
        })
    }
}

/// Zeros around a frame, so that the result of a convolution has its size.
#[track_caller]
fn padded<'g>(x: Tensor<'g>, [_, kh, kw]: Kernel) -> Tensor<'g> {
    let [h, w] = [kh / 2, kw / 2].map(|pad| pad as i32);
    if [h, w] == [0, 0] { x } else { x.pad_image([w, w, h, h]) }
}
