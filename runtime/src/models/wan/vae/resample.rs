//! Halving and doubling of frames in space and in time.

use crate::ggml::{LoadError, Scope, Tensor};
use crate::nn::{CausalConv3d, Conv2d, History};

/// The reference's `mode`, but for whether time is resampled as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Down,
    Up,
}

/// `Resample`: by 2 in space, and in time where there is a `time_conv`.
pub(super) struct Resample {
    direction: Direction,
    conv: Conv2d,
    time_conv: Option<CausalConv3d>,
}

impl Resample {
    /// `downsample2d` or, `in_time`, `downsample3d`.
    pub(super) fn down(w: Scope<'_>, dim: i64, in_time: bool) -> Result<Self, LoadError> {
        let time_conv = in_time.then(|| time_conv(&w, [dim, dim])).transpose()?;
        let conv = Conv2d::new(w.at("resample.1"), [dim, dim], 3)?;
        Ok(Self { direction: Direction::Down, conv, time_conv })
    }

    /// `upsample2d` or, `in_time`, `upsample3d`.
    pub(super) fn up(w: Scope<'_>, [i, o]: [i64; 2], in_time: bool) -> Result<Self, LoadError> {
        let time_conv = in_time.then(|| time_conv(&w, [i, 2 * i])).transpose()?;
        let conv = Conv2d::new(w.at("resample.1"), [i, o], 3)?;
        Ok(Self { direction: Direction::Up, conv, time_conv })
    }

    /// The shape of a frame that `time_conv` remembers, for frames of `[H, W]`.
    pub(super) fn remembered(&self, size: [i64; 2]) -> Vec<[i64; 3]> {
        let seen = match self.direction {
            Direction::Down => self.size(size),
            Direction::Up => size,
        };
        self.time_conv.iter().map(|conv| conv.remembered(seen)).collect()
    }

    /// `[H, W]` of a result.
    pub(super) fn size(&self, size: [i64; 2]) -> [i64; 2] {
        match self.direction {
            Direction::Down => size.map(|n| n / 2),
            Direction::Up => size.map(|n| 2 * n),
        }
    }

    /// How many frames come out when frame `index` of the clip goes in: the first stands alone, of
    /// all later ones two become one, or one becomes two.
    pub(super) fn frames(&self, index: u64) -> usize {
        match (&self.time_conv, self.direction) {
            (None, _) => 1,
            (_, _) if index == 0 => 1,
            (_, Direction::Down) => usize::from(index.is_multiple_of(2)),
            (_, Direction::Up) => 2,
        }
    }

    /// `x`: `[H, W, C]`, frame `index` of the clip.
    pub(super) fn forward<'g>(
        &self,
        x: Tensor<'g>,
        past: &mut impl History<'g>,
        index: u64,
    ) -> Vec<Tensor<'g>> {
        match self.direction {
            Direction::Down => self.downsample(self.conv.forward_downsampled(x), past, index),
            Direction::Up => {
                let frames = self.upsample(x, past, index).into_iter();
                frames.map(|x| self.conv.forward_upsampled(x)).collect()
            }
        }
    }

    /// The first frame passes as it is; `time_conv` has a stride of two frames.
    fn downsample<'g>(
        &self,
        x: Tensor<'g>,
        past: &mut impl History<'g>,
        index: u64,
    ) -> Vec<Tensor<'g>> {
        match &self.time_conv {
            Some(conv) if index > 0 && index.is_multiple_of(2) => vec![conv.forward(x, past)],
            Some(_) => {
                let _ = past.push(x);
                if index == 0 { vec![x] } else { vec![] }
            }
            None => vec![x],
        }
    }

    /// The first frame passes as it is, and `time_conv` never sees it.
    fn upsample<'g>(
        &self,
        x: Tensor<'g>,
        past: &mut impl History<'g>,
        index: u64,
    ) -> Vec<Tensor<'g>> {
        let [_, _, c] = x.dims();
        match &self.time_conv {
            // Each frame's 2C channels are two frames.
            Some(conv) if index > 0 => {
                let y = conv.forward(x, past);
                vec![y.narrow(2, 0..c), y.narrow(2, c..2 * c)]
            }
            _ => vec![x],
        }
    }
}

fn time_conv(w: &Scope<'_>, channels: [i64; 2]) -> Result<CausalConv3d, LoadError> {
    CausalConv3d::new(w.at("time_conv"), channels, [3, 1, 1])
}
