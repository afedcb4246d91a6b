//! The start of a clip decoded at full size, and pieces of it once more elsewhere.
//!
//! Up to its middle block the decoder works on latents' sizes, and its attention sees whole frames: that
//! part is computed anew as it is. What comes after is most of the work, and sees only so far: it is
//! computed anew for pieces of the frame, from what the middle block made of them and of all around them
//! that they see.

use super::WanVae;
use super::decoder::channels_last;
use crate::ggml::{ComputeError, Executor, HostTensor};
use crate::models::Tick;
use std::ops::{ControlFlow, Range};

/// Latents along a side of a piece.
const PIECE: i64 = 2;
/// Latent frames that are decoded: the first stands alone, the second becomes four frames.
const FRAMES: i64 = 2;

/// What a device made of the first latent frames.
pub struct ChunkAnswer {
    /// What its middle block made of each latent frame, `[H, W, C]`.
    pub features: Vec<HostTensor>,
    /// Frames as the decoder's last convolution makes them, `[H, W, C]`.
    pub frames: Vec<HostTensor>,
}

/// Rows and columns in latents.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    rows: Range<i64>,
    columns: Range<i64>,
}

impl WanVae {
    /// Decodes the first latent frames of `latents` `[C, F, H, W]`.
    pub fn chunk_at_full_size(
        &self,
        exec: &mut Executor,
        latents: &HostTensor,
        tick: Tick,
    ) -> Result<ChunkAnswer, ComputeError> {
        let [c, f, h, w] = latents.shape.full();
        let mut lower = self.stages(exec, 0..self.middle(), [h, w, c])?;
        let mut upper = None;
        let mut answer = ChunkAnswer { features: Vec::new(), frames: Vec::new() };
        for index in 0..f.min(FRAMES) {
            let latent = channels_last(latents, index);
            let mut features = None;
            lower.feed(exec, |g| self.post_quant(g, &latent), tick, &mut |made| {
                features = Some(made);
                Ok::<(), ComputeError>(())
            })?;
            let features = features.expect("a frame for a frame");
            if upper.is_none() {
                let range = self.middle()..self.count();
                upper = Some(self.stages(exec, range, features.shape.dims())?);
            }
            let upper = upper.as_mut().expect("made above");
            upper.feed(exec, |g| g.input(&features), tick, &mut |frame| {
                answer.frames.push(frame);
                Ok::<(), ComputeError>(())
            })?;
            answer.features.push(features);
        }
        Ok(answer)
    }

    /// What the middle block makes of the first latent frames, all of it: `[H, W, C]` each.
    pub fn features(
        &self,
        exec: &mut Executor,
        latents: &HostTensor,
    ) -> Result<Vec<HostTensor>, ComputeError> {
        let [c, f, h, w] = latents.shape.full();
        let mut lower = self.stages(exec, 0..self.middle(), [h, w, c])?;
        let mut made = Vec::new();
        for index in 0..f.min(FRAMES) {
            let latent = channels_last(latents, index);
            let push = &mut |features| {
                made.push(features);
                Ok::<(), ComputeError>(())
            };
            lower.feed(exec, |g| self.post_quant(g, &latent), &mut go_on, push)?;
        }
        Ok(made)
    }

    /// Pieces of the frames that come of the `features` of whole latent frames: from the middle and
    /// from the last corner, each `[n, C]`.
    pub fn pieces(
        &self,
        exec: &mut Executor,
        features: &[HostTensor],
    ) -> Result<Vec<HostTensor>, ComputeError> {
        let [h, w, _] = features[0].shape.dims();
        let (sight, scale) = (self.config().sight(), self.config().scale());
        let mut made = Vec::new();
        for piece in windows(h, w) {
            let around = piece.widened(sight, h, w);
            let crop = |frame: &HostTensor| cut(frame, &around, 1);
            let range = self.middle()..self.count();
            let mut stages = self.stages(exec, range, crop(&features[0]).shape.dims())?;
            let inside = piece.within(&around);
            for frame in features {
                let (start, push) = (crop(frame), &mut |frame: HostTensor| {
                    made.push(flat(&cut(&frame, &inside, scale)));
                    Ok::<(), ComputeError>(())
                });
                stages.feed(exec, |g| g.input(&start), &mut go_on, push)?;
            }
        }
        Ok(made)
    }
}

impl ChunkAnswer {
    /// The pieces of its frames that [`WanVae::pieces`] computes, in the same order.
    pub fn pieces(&self) -> Vec<HostTensor> {
        let [h, w, _] = self.features[0].shape.dims();
        let [rows, ..] = self.frames[0].shape.dims::<3>();
        let of = |window: Window| {
            self.frames.iter().map(move |frame| flat(&cut(frame, &window, rows / h)))
        };
        windows(h, w).into_iter().flat_map(of).collect()
    }
}

/// Where the pieces are in a frame of `h`x`w` latents.
fn windows(h: i64, w: i64) -> [Window; 2] {
    let at = |top: i64, left: i64| Window {
        rows: top..(top + PIECE).min(h),
        columns: left..(left + PIECE).min(w),
    };
    [at((h - PIECE).max(0) / 2, (w - PIECE).max(0) / 2), at((h - PIECE).max(0), (w - PIECE).max(0))]
}

impl Window {
    /// With `by` more on each side, within a frame.
    fn widened(&self, by: i64, h: i64, w: i64) -> Self {
        let wider = |r: &Range<i64>, end: i64| (r.start - by).max(0)..(r.end + by).min(end);
        Self { rows: wider(&self.rows, h), columns: wider(&self.columns, w) }
    }

    /// In the coordinates of a window around it.
    fn within(&self, around: &Self) -> Self {
        let moved = |r: &Range<i64>, by: i64| r.start - by..r.end - by;
        Self {
            rows: moved(&self.rows, around.rows.start),
            columns: moved(&self.columns, around.columns.start),
        }
    }
}

/// A window of a frame `[H, W, C]` that has `scale` pixels for each of the window's.
fn cut(frame: &HostTensor, window: &Window, scale: i64) -> HostTensor {
    let [_, w, c] = frame.shape.dims::<3>();
    let scaled = |r: &Range<i64>| r.start * scale..r.end * scale;
    let (rows, columns) = (scaled(&window.rows), scaled(&window.columns));
    let shape = [rows.end - rows.start, columns.end - columns.start, c];
    let row = |y: i64| ((y * w + columns.start) * c) as usize..((y * w + columns.end) * c) as usize;
    let values: Vec<f32> = rows.flat_map(|y| frame.data[row(y)].iter().copied()).collect();
    HostTensor::new(shape, values)
}

/// `[H, W, C]` as `[H · W, C]`.
fn flat(frame: &HostTensor) -> HostTensor {
    let [h, w, c] = frame.shape.dims();
    HostTensor::new([h * w, c], frame.data.clone())
}

fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}
