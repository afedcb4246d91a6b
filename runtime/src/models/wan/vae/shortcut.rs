//! What Wan 2.2's blocks add to their results: their input, brought to the results' size by means and
//! copies alone.

use crate::ggml::Tensor;

/// `AvgDown3D` or `DupUp3D`.
pub(super) enum Shortcut {
    AvgDown(AvgDown3D),
    DupUp(DupUp3D),
}

/// Means over pieces of `factor_t` frames and `factor_s`x`factor_s` pixels, some of which become
/// channels of their own.
///
/// Differs: the reference takes the mean of so many neighbours, counted through channel, frame, row and
/// column, as make the channels come out right. In every model there is, these are the pixels of a
/// piece's frame; other sizes are refused when the model is loaded.
pub(super) struct AvgDown3D {
    factor_t: i64,
    factor_s: i64,
}

/// Each channel of a pixel goes to `factor_t` frames of 2x2 pixels, or to a part of them, where there
/// are fewer channels in the result.
pub(super) struct DupUp3D {
    outputs: i64,
    factor_t: i64,
    /// Channels of the input for one of the result.
    shares: i64,
}

impl AvgDown3D {
    /// `resamples`: whether the block changes its scale, and that in time, too. None, if channels would
    /// have to be averaged as well.
    pub(super) fn new([i, o]: [i64; 2], resamples: Option<bool>) -> Option<Self> {
        let factor_t = if resamples == Some(true) { 2 } else { 1 };
        let factor_s = if resamples.is_some() { 2 } else { 1 };
        (o == i * factor_t).then_some(Self { factor_t, factor_s })
    }
}

impl DupUp3D {
    /// None, if there would have to be more channels than before.
    pub(super) fn new([i, o]: [i64; 2], in_time: bool) -> Option<Self> {
        let (factor_t, shares) = (if in_time { 2 } else { 1 }, i / o);
        let fits = i % o == 0 && shares > 0 && 4 * factor_t % shares == 0;
        fits.then_some(Self { outputs: o, factor_t, shares })
    }

    /// Frame `t` of those that `x` `[H, W, C]` becomes: `[2H, 2W, O]`.
    fn forward<'g>(&self, x: Tensor<'g>, t: i64) -> Tensor<'g> {
        let ([h, w, _], o) = (x.dims(), self.outputs);
        let shares = x.reshape([h, w, o, self.shares]);
        // Channel, frame, row and column, counted through, in pieces of equal length.
        let pixel = |row: i64, column: i64| {
            let share = (4 * t + 2 * row + column) * self.shares / (4 * self.factor_t);
            shares.narrow4(3, share..share + 1).reshape([h, w, o])
        };
        let row = |row| pixel(row, 0).concat(pixel(row, 1), 3).reshape([h, 1, 2 * w * o]);
        row(0).concat(row(1), 2).reshape([2 * h, 2 * w, o])
    }
}

impl Shortcut {
    /// How many frames of which shape are kept of frames `[H, W, C]`.
    pub(super) fn kept(&self, [h, w, c]: [i64; 3]) -> [i64; 4] {
        match self {
            Self::AvgDown(AvgDown3D { factor_t, factor_s }) => {
                [*factor_t, h / factor_s, w / factor_s, c]
            }
            Self::DupUp(_) => [1, h, w, c],
        }
    }

    /// What is kept of a frame `[H, W, C]` that comes to the block.
    pub(super) fn keep<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        match self {
            Self::AvgDown(AvgDown3D { factor_s: 2, .. }) => mean_of_2x2(x),
            _ => x,
        }
    }

    /// The frames that leave the block, with the shortcut added. `now` and `before`: what is kept of
    /// the last frame that came, and of the one before it, if so many are kept.
    pub(super) fn add<'g>(
        &self,
        frames: Vec<Tensor<'g>>,
        now: Tensor<'g>,
        before: Tensor<'g>,
    ) -> Vec<Tensor<'g>> {
        match self {
            Self::AvgDown(AvgDown3D { factor_t, .. }) => {
                let shortcut = || match factor_t {
                    1 => now,
                    _ => interleaved(before, now),
                };
                frames.into_iter().map(|y| y + shortcut()).collect()
            }
            Self::DupUp(dup) => {
                // The clip's first frame doesn't become two: it is the last of what it would become.
                let first = dup.factor_t - frames.len() as i64;
                let numbered = (first..).zip(frames);
                numbered.map(|(t, y)| add_in_bands(y, now, |x| dup.forward(x, t))).collect()
            }
        }
    }
}

/// The mean of each 2x2 pixels of `[H, W, C]`.
fn mean_of_2x2(x: Tensor<'_>) -> Tensor<'_> {
    let [h, w, c] = x.dims();
    let pairs = x.reshape([h / 2, 2, w / 2, 2 * c]);
    let pixel = |row: i64, column: i64| {
        pairs.narrow4(1, row..row + 1).narrow4(3, column * c..(column + 1) * c)
    };
    let sum = pixel(0, 0) + pixel(0, 1) + pixel(1, 0) + pixel(1, 1);
    (sum * 0.25).reshape([h / 2, w / 2, c])
}

/// `[H, W, C]` twice, channel by channel in turn: `[H, W, 2C]`.
fn interleaved<'g>(x: Tensor<'g>, y: Tensor<'g>) -> Tensor<'g> {
    let [h, w, c] = x.dims();
    let [x, y] = [x, y].map(|t| t.reshape([h, w, c, 1]));
    x.concat(y, 3).reshape([h, w, 2 * c])
}

/// `y` `[2H, 2W, O]` with what `made` makes of `x` `[H, W, C]` added, some rows at a time.
fn add_in_bands<'g>(
    y: Tensor<'g>,
    x: Tensor<'g>,
    made: impl Fn(Tensor<'g>) -> Tensor<'g>,
) -> Tensor<'g> {
    let ([h, ..], [_, width, o]) = (x.dims::<3>(), y.dims());
    // Pixels, rows, the added band and the sum.
    let row = 4 * 2 * width * o * size_of::<f32>() as i64;
    let rows = (y.graph().limits().scratch / row).max(1);
    if rows >= h {
        return y + made(x);
    }
    (0..h).step_by(rows as usize).fold(y.contiguous(), |y, start| {
        let end = h.min(start + rows);
        let band = y.narrow(0, 2 * start..2 * end) + made(x.narrow(0, start..end));
        y.set([2 * start, 0, 0], band)
    })
}
