//! What errors are multiplied by in the fits, with and without importance.

use fearless_simd::prelude::*;

use crate::lanes::{Group, LANES, Lanes, splat};

/// The sum of the squares, in order.
pub(crate) fn sum_of_squares(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, x| sum + x * x)
}

/// The importance of each element times about its magnitude, `sigma2` telling of that of its block.
#[inline(always)]
pub(crate) fn weighted<S: Simd, const N: usize>(
    x: &[Lanes<S>; N],
    importance: &[Lanes<S>; N],
    sigma2: Lanes<S>,
) -> [Lanes<S>; N] {
    let mut weights = *importance;
    for (weight, &x) in weights.iter_mut().zip(x) {
        *weight *= (sigma2 + x * x).sqrt();
    }
    weights
}

#[inline(always)]
pub(crate) fn squares<S: Simd, const N: usize>(x: &[Lanes<S>; N]) -> [Lanes<S>; N] {
    let mut squares = *x;
    squares.iter_mut().for_each(|x| *x *= *x);
    squares
}

#[inline(always)]
pub(crate) fn sum<S: Simd, const N: usize>(simd: S, values: &[Lanes<S>; N]) -> Lanes<S> {
    let mut sum = splat(simd, 0.0);
    for &value in values {
        sum += value;
    }
    sum
}

/// What `of` makes of the block of `block` elements that each lane's sub-block is in.
#[inline(always)]
pub(crate) fn per_block<S: Simd, const N: usize>(
    simd: S,
    group: &Group<'_, N>,
    block: usize,
    of: impl Fn(&[f32]) -> f32,
) -> Lanes<S> {
    let mut lanes = [0.0; LANES];
    let blocks = group.values().chunks_exact(block);
    for (lanes, values) in lanes.chunks_mut(block / N).zip(blocks) {
        lanes.fill(of(values));
    }
    lanes.simd_into(simd)
}
