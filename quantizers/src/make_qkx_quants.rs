//! `make_qkx2_quants` and `make_qkx3_quants`: a scale and a minimum for each sub-block, found by trying
//! scales around the one that spans its values and fitting both by weighted least squares to the
//! codes that each gives.

use fearless_simd::prelude::*;

use crate::lanes::{Lanes, Mask, nearest_clamped, nearest_small, splat};

/// Which scales are tried: `rmin + rdelta * n` is added to the number of steps, for `n` up to `nstep`.
#[derive(Clone, Copy)]
pub(crate) struct Tries {
    /// The largest code.
    pub(crate) nmax: i32,
    pub(crate) rmin: f32,
    pub(crate) rdelta: f32,
    pub(crate) nstep: i32,
}

/// What was found for sixteen sub-blocks.
#[derive(Clone, Copy)]
pub(crate) struct Fit<S: Simd> {
    pub(crate) scale: Lanes<S>,
    /// What is subtracted: never negative.
    pub(crate) min: Lanes<S>,
    nmax: i32,
    /// The codes are those of `iscale * (x - from)`.
    iscale: Lanes<S>,
    from: Lanes<S>,
    /// Where all codes are zero.
    flat: Mask<S>,
    /// Where codes are limited before they are rounded.
    limited: Mask<S>,
}

impl<S: Simd> Fit<S> {
    /// The codes of elements, one of each sub-block.
    #[inline(always)]
    pub(crate) fn codes(&self, x: Lanes<S>) -> Lanes<S> {
        let zero = splat(x.simd, 0.0);
        let value = self.iscale * (x - self.from);
        let codes = self.limited.select(limited(value, self.nmax), rounded(value, self.nmax));
        self.flat.select(zero, codes)
    }
}

#[inline(always)]
fn error<S: Simd, const MAD: bool>(diff: Lanes<S>) -> Lanes<S> {
    if MAD { diff.abs() } else { diff * diff }
}

#[inline(always)]
fn rounded<S: Simd>(value: Lanes<S>, nmax: i32) -> Lanes<S> {
    nearest_clamped(value, 0, nmax)
}

/// Zero for NaN, too.
#[inline(always)]
fn limited<S: Simd>(value: Lanes<S>, nmax: i32) -> Lanes<S> {
    let (zero, most) = (splat(value.simd, 0.0), splat(value.simd, nmax as f32));
    let less = value.simd_lt(most).select(value, most);
    nearest_small(value.simd_gt(zero).select(less, zero))
}

/// Of weights without importance. With `MAD`, errors aren't squared.
#[inline(always)]
pub(crate) fn make_qkx2_quants<S: Simd, const N: usize, const MAD: bool>(
    simd: S,
    x: &[Lanes<S>; N],
    weights: &[Lanes<S>; N],
    tries: Tries,
) -> Fit<S> {
    simd.vectorize(
        #[inline(always)]
        || fit::<S, N, MAD, false>(simd, x, weights, tries),
    )
}

/// With importance.
#[inline(always)]
pub(crate) fn make_qkx3_quants<S: Simd, const N: usize>(
    simd: S,
    x: &[Lanes<S>; N],
    weights: &[Lanes<S>; N],
    nmax: i32,
) -> Fit<S> {
    let tries = Tries { nmax, rmin: -0.9, rdelta: 0.05, nstep: 36 };
    simd.vectorize(
        #[inline(always)]
        || fit::<S, N, false, true>(simd, x, weights, tries),
    )
}

#[inline(always)]
fn fit<S: Simd, const N: usize, const MAD: bool, const LIMITED: bool>(
    simd: S,
    x: &[Lanes<S>; N],
    weights: &[Lanes<S>; N],
    tries: Tries,
) -> Fit<S> {
    let Tries { nmax, rmin, rdelta, nstep } = tries;
    let zero = splat(simd, 0.0);
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for i in 1..N {
        min = x[i].simd_lt(min).select(x[i], min);
        max = x[i].simd_gt(max).select(x[i], max);
        sum_w += weights[i];
        sum_x += weights[i] * x[i];
    }
    min = min.simd_gt(zero).select(zero, min);
    let flat = if LIMITED { max.simd_le(min) } else { max.simd_eq(min) };
    let flat_min = -min;

    let mut iscale = splat(simd, nmax as f32) / (max - min);
    let mut scale = splat(simd, 1.0) / iscale;
    let mut best_error = zero;
    for i in 0..N {
        let code = rounded(iscale * (x[i] - min), nmax);
        best_error += weights[i] * error::<S, MAD>(scale * code + min - x[i]);
    }
    let mut from = min;
    let mut later = zero.simd_lt(zero);
    let mut codes = [zero; N];
    for step in 0..=nstep {
        let this_iscale = splat(simd, rmin + rdelta * step as f32 + nmax as f32) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for i in 0..N {
            let value = this_iscale * (x[i] - min);
            let code = if LIMITED { limited(value, nmax) } else { rounded(value, nmax) };
            codes[i] = code;
            let wl = weights[i] * code;
            sum_l += wl;
            sum_l2 += wl * code;
            sum_xl += wl * x[i];
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        let positive = determinant.simd_gt(zero);
        let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        let above = this_min.simd_gt(zero);
        this_scale = above.select(sum_xl / sum_l2, this_scale);
        this_min = above.select(zero, this_min);
        let mut this_error = zero;
        for i in 0..N {
            this_error += weights[i] * error::<S, MAD>(this_scale * codes[i] + this_min - x[i]);
        }
        let better = positive & this_error.simd_lt(best_error);
        best_error = better.select(this_error, best_error);
        scale = better.select(this_scale, scale);
        iscale = better.select(this_iscale, iscale);
        from = better.select(min, from);
        min = better.select(this_min, min);
        later |= better;
    }
    Fit {
        scale: flat.select(zero, scale),
        min: flat.select(flat_min, -min),
        nmax,
        iscale,
        from,
        flat,
        limited: if LIMITED { later } else { zero.simd_lt(zero) },
    }
}
