//! Convolution over frames, rows and columns of channels-last tensors, as matrix products.
//!
//! Patches are gathered into a scratch band, row by row `[kt, kh, kw, C]`, and multiplied with
//! the weight, whose columns were put into that order at load ([`patch_order`]). The `kw` taps of
//! a row are neighbours in memory, so each pair of `kt` and `kh` is one strided copy. A band has
//! at most [`crate::ggml::Limits::convolution_bytes`]; all bands of a graph share one scratch
//! tensor, ordered by explicit edges.

use super::pieces;
use crate::ggml::{Operand, Tensor};
use std::ops::Range;

/// Bands of one convolution, but for the last of each frame: larger bands rather than more nodes
/// than a graph holds.
const MAX_BANDS: i64 = 512;

/// Frames, rows and columns of a kernel.
pub type Kernel = [i64; 3];

impl<'g> Tensor<'g> {
    /// `torch.nn.functional.conv3d` without padding, with stride 1: `[T, H, W, C]` with a weight
    /// `[O, kt · kh · kw · C]` in [`patch_order`] gives `[T - kt + 1, H - kh + 1, W - kw + 1, O]`.
    #[track_caller]
    pub fn conv3d(self, weight: impl Operand<'g>, [kt, kh, kw]: Kernel) -> Self {
        let (x, weight) = (self.contiguous(), weight.in_graph(self.graph));
        let [t, h, w, c] = x.shape().full();
        let [outputs, columns] = weight.dims();
        assert_eq!(columns, kt * kh * kw * c, "conv3d: {x:?} by {weight:?}, kernel {kt}x{kh}x{kw}");
        if [kt, kh, kw] == [1, 1, 1] {
            return x.linear(weight);
        }
        let [frames, height, width] = [t - kt + 1, h - kh + 1, w - kw + 1];
        assert!(frames > 0 && height > 0 && width > 0, "conv3d: {x:?} is smaller than the kernel");

        let row_bytes = width * columns * 4;
        let fewest = (frames * height + MAX_BANDS - 1) / MAX_BANDS;
        let limit = (self.graph.limits().convolution_bytes / row_bytes).max(fewest);
        let runs = x.windows(kw);
        let mut out = self.graph.uninitialized([frames, height, width, outputs]);
        for frame in 0..frames {
            for Range { start: top, end: bottom } in pieces(height, limit) {
                let count = bottom - top;
                let mut band = self.graph.scratch([1, count, width, columns]);
                for (i, (dt, dh)) in (0..kt).flat_map(|a| (0..kh).map(move |b| (a, b))).enumerate()
                {
                    let taps = runs
                        .narrow4(0, frame + dt..frame + dt + 1)
                        .narrow4(1, top + dh..top + dh + count);
                    band = band.set([0, 0, 0, i as i64 * kw * c], taps);
                }
                let values = band.linear(weight);
                self.graph.release_scratch(values);
                out = out.set([frame, top, 0, 0], values);
            }
        }
        out
    }
}

/// Values of a convolution's weight `[O, C, kt, kh, kw]` in the column order of [`Tensor::conv3d`]:
/// `[O, kt, kh, kw, C]`.
pub fn patch_order(weight: &[f32], [outputs, c]: [i64; 2], kernel: Kernel) -> Vec<f32> {
    let (c, taps) = (c as usize, kernel.iter().product::<i64>() as usize);
    assert_eq!(weight.len(), outputs as usize * c * taps, "patch_order");
    let mut ordered = Vec::with_capacity(weight.len());
    for output in weight.chunks_exact(c * taps) {
        for tap in 0..taps {
            ordered.extend((0..c).map(|channel| output[channel * taps + tap]));
        }
    }
    ordered
}
