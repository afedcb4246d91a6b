//! Convolution of channels-last frames, as matrix products.
//!
//! Patches are gathered into a scratch band, row by row `[kt, kh, kw, C]`, and multiplied with
//! the weight, whose columns were put into that order at load ([`patch_order`]). The `kw` taps of
//! a row are neighbours in memory, so each pair of `kt` and `kh` is one strided copy. A band has
//! about [`crate::ggml::Limits::scratch`]; all bands of a graph share one scratch
//! tensor, ordered by explicit edges.

use super::pieces;
use crate::ggml::{Operand, Tensor};
use std::ops::Range;

/// Bands of one convolution: larger bands rather than more nodes than a graph holds.
const MAX_BANDS: i64 = 512;

/// Frames, rows and columns of a kernel.
pub type Kernel = [i64; 3];

/// `torch.nn.functional.conv3d` without padding, with `stride` along rows and columns, for one frame
/// of the result: as many `frames` `[H, W, C]` as the kernel has, F32 or F16, with a weight
/// `[O, kt · kh · kw · C]` in [`patch_order`], F32 or F16 as the patches shall be, give
/// `[(H - kh) / stride + 1, (W - kw) / stride + 1, O]`.
#[track_caller]
pub fn conv3d<'g>(
    frames: &[Tensor<'g>],
    weight: impl Operand<'g>,
    [kt, kh, kw]: Kernel,
    stride: i64,
) -> Tensor<'g> {
    let (x, g) = (frames[0], frames[0].graph());
    let (weight, [h, w, c]) = (weight.in_graph(g), x.dims());
    let [outputs, columns] = weight.dims();
    let fits = frames.len() as i64 == kt && frames.iter().all(|f| f.shape() == x.shape());
    assert!(fits, "conv3d: {frames:?} for a kernel of {kt} frames");
    assert_eq!(columns, kt * kh * kw * c, "conv3d: {x:?} by {weight:?}, kernel {kt}x{kh}x{kw}");
    if [kt, kh, kw, stride] == [1, 1, 1, 1] {
        return x.linear(weight);
    }
    assert!(h >= kh && w >= kw, "conv3d: {x:?} is smaller than the kernel");
    let [height, width] = [(h - kh) / stride + 1, (w - kw) / stride + 1];

    let (fewest, storage) = ((height + MAX_BANDS - 1) / MAX_BANDS, weight.storage());
    let rows = (g.limits().scratch / (width * columns * storage.bytes())).max(fewest);
    let runs: Vec<_> = frames.iter().map(|frame| frame.windows(kw).every(2, stride)).collect();
    let band = |Range { start: top, end: bottom }: Range<i64>| {
        let band = g.scratch([bottom - top, width, columns], storage);
        let tap = |frame: &Tensor<'g>, dh| {
            let (first, last) = (stride * top + dh, stride * (bottom - 1) + dh);
            frame.narrow(0, first..last + 1).every(1, stride)
        };
        let taps = runs.iter().flat_map(|frame| (0..kh).map(move |dh| tap(frame, dh)));
        let band = taps
            .enumerate()
            .fold(band, |band, (i, taps)| band.set([0, 0, i as i64 * kw * c], taps));
        let values = band.linear(weight);
        g.release_scratch(values);
        values
    };
    if rows >= height {
        return band(0..height);
    }
    pieces(height, rows).fold(g.uninitialized([height, width, outputs]), |out, range| {
        out.set([range.start, 0, 0], band(range))
    })
}

/// Values of a convolution's weight `[O, C, kt, kh, kw]` in the column order of [`conv3d`]:
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
