//! `make_qx_quants`: a scale for each sub-block, found by trying some around the one that puts the
//! value of the largest magnitude at the end of the range, and fitting by weighted least squares.

use fearless_simd::prelude::*;

use crate::lanes::{Lanes, Mask, nearest_clamped, nearest_int, splat};

/// Magnitudes below are taken for zero.
pub(crate) const GROUP_MAX_EPS: f32 = 1e-15;

/// What was found for sixteen sub-blocks.
#[derive(Clone, Copy)]
pub(crate) struct Fit<S: Simd> {
    pub(crate) scale: Lanes<S>,
    nmax: i32,
    /// The codes are those of `iscale * x`.
    iscale: Lanes<S>,
    /// Where all codes are zero.
    zero: Mask<S>,
}

impl<S: Simd> Fit<S> {
    /// The codes of elements, one of each sub-block, from 0 on.
    #[inline(always)]
    pub(crate) fn codes(&self, x: Lanes<S>) -> Lanes<S> {
        let codes = nearest_clamped(self.iscale * x, -self.nmax, self.nmax - 1) + self.nmax as f32;
        self.zero.select(splat(x.simd, 0.0), codes)
    }
}

/// The values of the largest magnitudes, the first ones of such, and where there are none.
#[inline(always)]
pub(crate) fn largest<S: Simd>(simd: S, x: &[Lanes<S>]) -> (Lanes<S>, Mask<S>) {
    let (mut amax, mut max) = (splat(simd, 0.0), splat(simd, 0.0));
    for &x in x {
        let larger = x.abs().simd_gt(amax);
        amax = larger.select(x.abs(), amax);
        max = larger.select(x, max);
    }
    (max, amax.simd_lt(splat(simd, GROUP_MAX_EPS)))
}

#[inline(always)]
pub(crate) fn make_qx_quants<S: Simd, const N: usize>(
    simd: S,
    nmax: i32,
    x: &[Lanes<S>; N],
    weights: &[Lanes<S>; N],
) -> Fit<S> {
    simd.vectorize(
        #[inline(always)]
        || fit(simd, nmax, x, weights),
    )
}

#[inline(always)]
fn fit<S: Simd, const N: usize>(
    simd: S,
    nmax: i32,
    x: &[Lanes<S>; N],
    weights: &[Lanes<S>; N],
) -> Fit<S> {
    let zero = splat(simd, 0.0);
    let (max, empty) = largest(simd, x);
    let mut wx = [zero; N];
    for i in 0..N {
        wx[i] = weights[i] * x[i];
    }
    let mut iscale = splat(simd, -(nmax as f32)) / max;
    let (sumlx, suml2) = sums(iscale, nmax, x, &wx, weights);
    let nonzero = suml2.simd_ne(zero);
    let mut scale = nonzero.select(sumlx / suml2, zero);
    let mut best = scale * sumlx;
    for step in (-9..=9).filter(|&step| step != 0) {
        let this_iscale = splat(simd, -(nmax as f32 + 0.1 * step as f32)) / max;
        let (sumlx, suml2) = sums(this_iscale, nmax, x, &wx, weights);
        let better = suml2.simd_gt(zero) & (sumlx * sumlx).simd_gt(best * suml2);
        scale = better.select(sumlx / suml2, scale);
        best = better.select(scale * sumlx, best);
        iscale = better.select(this_iscale, iscale);
    }
    Fit { scale: empty.select(zero, scale), nmax, iscale, zero: empty }
}

/// Of the weighted products of values and codes, and of the weighted squares of codes.
#[inline(always)]
fn sums<S: Simd, const N: usize>(
    iscale: Lanes<S>,
    nmax: i32,
    x: &[Lanes<S>; N],
    wx: &[Lanes<S>; N],
    weights: &[Lanes<S>; N],
) -> (Lanes<S>, Lanes<S>) {
    let zero = splat(iscale.simd, 0.0);
    let (mut sumlx, mut suml2) = (zero, zero);
    for i in 0..N {
        let code = nearest_clamped(iscale * x[i], -nmax, nmax - 1);
        sumlx += wx[i] * code;
        suml2 += weights[i] * code * code;
    }
    (sumlx, suml2)
}

/// The same of one sub-block. Returns the scale.
pub(crate) fn make_qx_quants_of_one<const N: usize>(
    nmax: i32,
    x: &[f32; N],
    weights: &[f32; N],
    codes: &mut [u8; N],
) -> f32 {
    let (mut amax, mut max) = (0.0, 0.0);
    for &x in x {
        if x.abs() > amax {
            (amax, max) = (x.abs(), x);
        }
    }
    if amax < GROUP_MAX_EPS {
        codes.fill(0);
        return 0.0;
    }
    let code = |iscale: f32, x: f32| nearest_int(iscale * x).clamp(-nmax, nmax - 1);
    let sums = |iscale: f32| {
        let (mut sumlx, mut suml2) = (0f32, 0f32);
        for (&x, &w) in x.iter().zip(weights) {
            let code = code(iscale, x) as f32;
            sumlx += w * x * code;
            suml2 += w * code * code;
        }
        (sumlx, suml2)
    };
    let mut iscale = -(nmax as f32) / max;
    let (sumlx, suml2) = sums(iscale);
    let mut scale = if suml2 != 0.0 { sumlx / suml2 } else { 0.0 };
    let mut best = scale * sumlx;
    for step in (-9..=9).filter(|&step| step != 0) {
        let this_iscale = -(nmax as f32 + 0.1 * step as f32) / max;
        let (sumlx, suml2) = sums(this_iscale);
        if suml2 > 0.0 && sumlx * sumlx > best * suml2 {
            scale = sumlx / suml2;
            best = scale * sumlx;
            iscale = this_iscale;
        }
    }
    for (out, &x) in codes.iter_mut().zip(x) {
        *out = (nmax + code(iscale, x)) as u8;
    }
    scale
}
