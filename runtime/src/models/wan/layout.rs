//! Latents `[C, F, H, W]` and tokens `[n, features]`, and where each token stands.

use crate::ggml::{HostTensor, Shape};
use crate::models::Timesteps;

/// Side of a patch in latent pixels; patches have one frame.
const PATCH: i64 = 2;

/// Frames, rows and columns of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grid {
    pub(super) frames: i64,
    pub(super) rows: i64,
    pub(super) columns: i64,
}

impl Grid {
    /// `latents`: `[C, F, H, W]` with even `H` and `W`.
    pub(super) fn of(latents: Shape) -> Self {
        let [_, frames, h, w] = latents.full();
        assert!(h % PATCH == 0 && w % PATCH == 0, "latents of {latents:?}");
        Self { frames, rows: h / PATCH, columns: w / PATCH }
    }

    pub(super) fn tokens(self) -> i64 {
        self.frames * self.rows * self.columns
    }

    /// Tokens at the beginning whose timestep differs from the others'.
    pub(super) fn apart(self, timesteps: Timesteps) -> i64 {
        if timesteps.first_frame == timesteps.clip { 0 } else { self.rows * self.columns }
    }

    /// Frame, row and column of every token, columns fastest.
    pub(super) fn positions(self) -> [Vec<i32>; 3] {
        let mut positions = [const { Vec::new() }; 3];
        for f in 0..self.frames as i32 {
            for h in 0..self.rows as i32 {
                for w in 0..self.columns as i32 {
                    positions.iter_mut().zip([f, h, w]).for_each(|(p, v)| p.push(v));
                }
            }
        }
        positions
    }
}

/// `[C, F, H, W]` to `[n, C · 4]`, features in order `(c, ph, pw)`: what the patch embedding's
/// kernel is multiplied with.
pub(super) fn patchify(latents: &HostTensor) -> HostTensor {
    let (grid, [c, ..]) = (Grid::of(latents.shape), latents.shape.full());
    let mut tokens = Vec::with_capacity(latents.data.len());
    each_patch(grid, |f, h, w| {
        for channel in 0..c {
            for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let row = (channel * grid.frames + f) * grid.rows * PATCH + h * PATCH + y;
                tokens.push(latents.data[(row * grid.columns * PATCH + w * PATCH + x) as usize]);
            }
        }
    });
    HostTensor::new([grid.tokens(), c * PATCH * PATCH], tokens)
}

/// `[n, 4 · C]` to `[C, F, H, W]`, features in order `(ph, pw, c)`: the reverse of
/// [`patchify`] but for the order of features, which the head has its own way.
pub(super) fn unpatchify(tokens: &HostTensor, grid: Grid) -> HostTensor {
    let [n, features] = tokens.shape.dims();
    assert_eq!(n, grid.tokens());
    let c = features / (PATCH * PATCH);
    let shape = [c, grid.frames, grid.rows * PATCH, grid.columns * PATCH];
    let mut latents = vec![0.0; tokens.data.len()];
    let mut values = tokens.data.iter();
    each_patch(grid, |f, h, w| {
        for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for channel in 0..c {
                let row = (channel * grid.frames + f) * grid.rows * PATCH + h * PATCH + y;
                let at = (row * grid.columns * PATCH + w * PATCH + x) as usize;
                latents[at] = *values.next().expect("the shapes agree");
            }
        }
    });
    HostTensor::new(shape, latents)
}

fn each_patch(grid: Grid, mut visit: impl FnMut(i64, i64, i64)) {
    for f in 0..grid.frames {
        for h in 0..grid.rows {
            for w in 0..grid.columns {
                visit(f, h, w);
            }
        }
    }
}
