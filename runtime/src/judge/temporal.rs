//! What a frame has from one before it: motion moves a picture, noise is new every time.

use super::planes::{Planes, halved};

/// Pixels of a cell's side in a large frame; half of it in one of fewer than 128 rows or columns.
const CELL: usize = 4;
/// Cells of a block's side.
const BLOCK: usize = 8;
/// How far a block may have moved, in cells.
const REACH: usize = 6;

/// The means of cells, which blocks are compared on: grain is gone there.
pub(super) fn cells(planes: &Planes) -> Planes {
    let large = planes[0].width.min(planes[0].height) >= 128;
    let halvings = if large { CELL.ilog2() } else { CELL.ilog2() - 1 };
    (1..halvings).fold(halved(planes), |cells, _| halved(&cells))
}

/// The share of the variance inside blocks that the best-fitting block of `before` explains: 1 for a
/// picture that moved, little for independent noise. `None` if a block doesn't fit into the frame.
///
/// Source: full-search block matching with the sum of squared differences (Jain and Jain 1981).
pub(super) fn coherence(before: &Planes, now: &Planes) -> Option<f64> {
    let (width, height) = (now[0].width, now[0].height);
    if width < BLOCK || height < BLOCK {
        return None;
    }
    let (mut rest, mut all) = (0.0, 0.0);
    for top in (0..=height - BLOCK).step_by(BLOCK) {
        for left in (0..=width - BLOCK).step_by(BLOCK) {
            let blocks = now.each_ref().map(|plane| {
                let at = |i: usize| plane.at(left + i % BLOCK, top + i / BLOCK);
                std::array::from_fn::<f32, { BLOCK * BLOCK }, _>(at)
            });
            let variance: f32 = blocks
                .iter()
                .map(|block| {
                    let mean = block.iter().sum::<f32>() / block.len() as f32;
                    block.iter().map(|v| (v - mean).powi(2)).sum::<f32>()
                })
                .sum();
            let mut best = variance;
            for y in top.saturating_sub(REACH)..=(top + REACH).min(height - BLOCK) {
                for x in left.saturating_sub(REACH)..=(left + REACH).min(width - BLOCK) {
                    let mut error = 0.0;
                    for (plane, block) in before.iter().zip(&blocks) {
                        for (row, new) in block.chunks_exact(BLOCK).enumerate() {
                            let old = &plane.data[(y + row) * width + x..][..BLOCK];
                            error += old.iter().zip(new).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
                        }
                    }
                    best = best.min(error);
                }
            }
            (rest, all) = (rest + f64::from(best), all + f64::from(variance));
        }
    }
    Some(if all < 1e-6 { 1.0 } else { 1.0 - rest / all })
}
