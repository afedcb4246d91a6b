//! `make_q3_quants`: a scale for each sub-block, and codes that are bettered one by one until nothing
//! changes any more.
//!
//! Most sub-blocks are done after one round. Those that aren't are put together in fewer vectors for
//! the rounds that follow.

use fearless_simd::prelude::*;

use crate::lanes::{LANES, Lanes, Mask, columns, nearest_clamped, splat};
use crate::make_qx_quants::largest;

/// Elements of a sub-block.
const N: usize = 16;
/// Rounds that are at most made.
const ROUNDS: usize = 5;
/// Codes are from `-NMAX` to `NMAX - 1`.
const NMAX: i32 = 4;

/// What was found for sixteen sub-blocks.
#[derive(Clone, Copy)]
pub(crate) struct Fit<S: Simd> {
    codes: [Lanes<S>; N],
    sumlx: Lanes<S>,
    suml2: Lanes<S>,
    /// Where there is nothing to fit to.
    empty: Mask<S>,
}

impl<S: Simd> Fit<S> {
    #[inline(always)]
    pub(crate) fn scale(&self) -> Lanes<S> {
        let zero = splat(self.sumlx.simd, 0.0);
        self.suml2.simd_gt(zero).select(self.sumlx / self.suml2, zero)
    }

    /// The codes of a sub-block, from 0 on.
    pub(crate) fn codes(&self, lane: usize, out: &mut [u8]) {
        for (out, codes) in out.iter_mut().zip(&self.codes) {
            let empty = self.empty.test(lane);
            *out = if empty { 0 } else { (codes.as_slice()[lane] as i32 + NMAX) as u8 };
        }
    }

    #[inline(always)]
    fn first(simd: S, x: &[Lanes<S>; N]) -> Self {
        let zero = splat(simd, 0.0);
        let (max, empty) = largest(simd, x);
        let iscale = splat(simd, -(NMAX as f32)) / max;
        let mut fit = Self { codes: [zero; N], sumlx: zero, suml2: zero, empty };
        for (&x, code) in x.iter().zip(&mut fit.codes) {
            let w = x * x;
            // Codes and sums of zero, where there is nothing: no code is better, then.
            *code = empty.select(zero, nearest_clamped(iscale * x, -NMAX, NMAX - 1));
            fit.sumlx += w * x * *code;
            fit.suml2 += w * *code * *code;
        }
        fit
    }
}

/// Tries another code for each element of fits; returns where there was a better one. Each step waits
/// for the one before it, so that a processor does several fits in little more time than one.
#[inline(always)]
fn round<S: Simd, const G: usize>(fits: &mut [Fit<S>; G], x: &[[Lanes<S>; N]; G]) -> [Mask<S>; G] {
    let zero = splat(fits[0].sumlx.simd, 0.0);
    let mut changed = [zero.simd_lt(zero); G];
    for i in 0..N {
        // Sums without the element, and its code by them.
        let mut without = [[zero; 3]; G];
        let mut other = changed;
        for g in 0..G {
            let (fit, x) = (&fits[g], x[g][i]);
            let (w, old) = (x * x, fit.codes[i]);
            let slx = fit.sumlx - w * x * old;
            let sl2 = fit.suml2 - w * old * old;
            let new = nearest_clamped(x * sl2 / slx, -NMAX, NMAX - 1);
            other[g] = slx.simd_gt(zero) & new.simd_ne(old);
            without[g] = [slx, sl2, new];
        }
        for g in 0..G {
            // Few elements have another code at all.
            if !other[g].any_true() {
                continue;
            }
            let (fit, x) = (&mut fits[g], x[g][i]);
            let ([slx, sl2, new], w) = (without[g], x * x);
            let slx = slx + w * x * new;
            let sl2 = sl2 + w * new * new;
            let gain = (slx * slx * fit.suml2).simd_gt(fit.sumlx * fit.sumlx * sl2);
            let better = other[g] & sl2.simd_gt(zero) & gain;
            fit.codes[i] = better.select(new, fit.codes[i]);
            fit.sumlx = better.select(slx, fit.sumlx);
            fit.suml2 = better.select(sl2, fit.suml2);
            changed[g] |= better;
        }
    }
    changed
}

/// Groups of sixteen sub-blocks that are searched together.
pub(crate) const GROUPS: usize = 4;

/// Fits of groups; `sub_block` tells the values of one in a group.
#[inline(always)]
pub(crate) fn make_q3_quants<'a, S: Simd>(
    simd: S,
    sub_block: impl Fn(usize, usize) -> &'a [f32],
) -> [Fit<S>; GROUPS] {
    let zero = splat(simd, 0.0);
    let none = Fit { codes: [zero; N], sumlx: zero, suml2: zero, empty: zero.simd_lt(zero) };
    let mut fits = [none; GROUPS];
    let (mut open, mut count) = ([(0, 0); GROUPS * LANES], 0);
    let mut x = [[zero; N]; GROUPS];
    for (g, (fit, x)) in fits.iter_mut().zip(&mut x).enumerate() {
        *x = columns(
            simd,
            #[inline(always)]
            |lane| sub_block(g, lane),
        );
        *fit = Fit::first(simd, x);
    }
    for (g, changed) in round(&mut fits, &x).into_iter().enumerate() {
        let mut changed = changed.to_bitmask();
        while changed != 0 {
            open[count] = (g, changed.trailing_zeros() as usize);
            count += 1;
            changed &= changed - 1;
        }
    }
    for open in open[..count].chunks(LANES) {
        let x: [Lanes<S>; N] = columns(
            simd,
            #[inline(always)]
            |lane| {
                let (g, lane) = open[lane.min(open.len() - 1)];
                sub_block(g, lane)
            },
        );
        let mut fit = none;
        for (to, &(g, lane)) in open.iter().enumerate() {
            for (code, from) in fit.codes.iter_mut().zip(&fits[g].codes) {
                code.as_mut_slice()[to] = from.as_slice()[lane];
            }
            fit.sumlx.as_mut_slice()[to] = fits[g].sumlx.as_slice()[lane];
            fit.suml2.as_mut_slice()[to] = fits[g].suml2.as_slice()[lane];
        }
        // Lanes beyond have sums of zero, which no code makes better.
        for _ in 1..ROUNDS {
            let [changed] = round(std::array::from_mut(&mut fit), std::array::from_ref(&x));
            if !changed.any_true() {
                break;
            }
        }
        for (from, &(g, lane)) in open.iter().enumerate() {
            for (code, to) in fit.codes.iter().zip(&mut fits[g].codes) {
                to.as_mut_slice()[lane] = code.as_slice()[from];
            }
            fits[g].sumlx.as_mut_slice()[lane] = fit.sumlx.as_slice()[from];
            fits[g].suml2.as_mut_slice()[lane] = fit.suml2.as_slice()[from];
        }
    }
    fits
}
