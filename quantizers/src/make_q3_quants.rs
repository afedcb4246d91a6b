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

    /// Tries another code for each element; returns where there was a better one.
    #[inline(always)]
    fn round(&mut self, x: &[Lanes<S>; N]) -> Mask<S> {
        let zero = splat(self.sumlx.simd, 0.0);
        let mut changed = zero.simd_lt(zero);
        for (&x, code) in x.iter().zip(&mut self.codes) {
            let (w, old) = (x * x, *code);
            let slx = self.sumlx - w * x * old;
            let sl2 = self.suml2 - w * old * old;
            let new = nearest_clamped(x * sl2 / slx, -NMAX, NMAX - 1);
            let other = slx.simd_gt(zero) & new.simd_ne(old);
            // Few elements have another code at all.
            if !other.any_true() {
                continue;
            }
            let slx = slx + w * x * new;
            let sl2 = sl2 + w * new * new;
            let gain = (slx * slx * self.suml2).simd_gt(self.sumlx * self.sumlx * sl2);
            let better = other & sl2.simd_gt(zero) & gain;
            *code = better.select(new, old);
            self.sumlx = better.select(slx, self.sumlx);
            self.suml2 = better.select(sl2, self.suml2);
            changed |= better;
        }
        changed
    }
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
    for (g, fit) in fits.iter_mut().enumerate() {
        let x: [Lanes<S>; N] = columns(
            simd,
            #[inline(always)]
            |lane| sub_block(g, lane),
        );
        *fit = Fit::first(simd, &x);
        let mut changed = fit.round(&x).to_bitmask();
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
            if !fit.round(&x).any_true() {
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
