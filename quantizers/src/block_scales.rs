//! Sixteen blocks with a scale each: what is the same of all values is made in one vector.

use fearless_simd::i32x16;
use fearless_simd::prelude::*;

use crate::lanes::{LANES, Lanes, Mask, from_f16, load, splat, to_f16};

/// Elements of a block.
pub(crate) const N: usize = 32;

/// The values of a block, in two vectors.
#[inline(always)]
pub(crate) fn halves<S: Simd>(simd: S, x: &[f32]) -> [Lanes<S>; 2] {
    [load(simd, x), load(simd, &x[LANES..])]
}

/// The scales of blocks.
pub(crate) struct BlockScales<S: Simd> {
    /// As they are stored.
    pub(crate) halves: i32x16<S>,
    /// As they are read.
    pub(crate) stored: Lanes<S>,
    /// What values are multiplied by; zero where there is none.
    pub(crate) inverse: Lanes<S>,
    /// Where a scale is so small that it has no inverse. It is zero in F16, and all codes are, then:
    /// that is what converting infinity comes to on x86-64.
    pub(crate) lost: Mask<S>,
}

impl<S: Simd> BlockScales<S> {
    #[inline(always)]
    pub(crate) fn new(d: Lanes<S>) -> Self {
        let zero = splat(d.simd, 0.0);
        let inverse = splat(d.simd, 1.0) / d;
        let infinite = inverse.abs().simd_eq(splat(d.simd, f32::INFINITY));
        let halves = to_f16(d);
        Self {
            halves,
            stored: from_f16(halves),
            inverse: infinite.select(zero, inverse),
            lost: infinite & d.simd_ne(zero),
        }
    }
}

/// What `of` makes of each block of up to sixteen.
#[inline(always)]
pub(crate) fn of_each<S: Simd>(
    simd: S,
    values: &[f32],
    of: impl Fn(&[f32], [Lanes<S>; 2]) -> f32,
) -> Lanes<S> {
    let mut lanes = [0.0; LANES];
    for (lane, x) in lanes.iter_mut().zip(values.chunks_exact(N)) {
        *lane = of(x, halves(simd, x));
    }
    lanes.simd_into(simd)
}
