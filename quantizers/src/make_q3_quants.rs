//! `make_q3_quants`: a scale for each sub-block, and codes that are bettered one by one until nothing
//! changes any more.

use fearless_simd::prelude::*;

use crate::lanes::{Lanes, Mask, nearest_clamped, splat};
use crate::make_qx_quants::largest;

/// Elements of a sub-block.
const N: usize = 16;
/// Steps of the search for better codes.
const ITERATIONS: usize = 5;
/// Codes are from `-NMAX` to `NMAX - 1`.
const NMAX: i32 = 4;

/// What was found for sixteen sub-blocks.
pub(crate) struct Fit<S: Simd> {
    pub(crate) scale: Lanes<S>,
    /// From 0 on.
    pub(crate) codes: [Lanes<S>; N],
}

/// `GROUPS` times sixteen sub-blocks at once: each step needs the one before, so that a processor
/// would mostly wait if there were only one.
#[inline(always)]
pub(crate) fn make_q3_quants<S: Simd, const GROUPS: usize>(
    simd: S,
    x: &[[Lanes<S>; N]; GROUPS],
) -> [Fit<S>; GROUPS] {
    let zero = splat(simd, 0.0);
    let (mut sumlx, mut suml2) = ([zero; GROUPS], [zero; GROUPS]);
    let mut codes = [[zero; N]; GROUPS];
    let mut empty: [Mask<S>; GROUPS] = [zero.simd_lt(zero); GROUPS];
    for g in 0..GROUPS {
        let max;
        (max, empty[g]) = largest(simd, &x[g]);
        let iscale = splat(simd, -(NMAX as f32)) / max;
        for i in 0..N {
            let x = x[g][i];
            let code = nearest_clamped(iscale * x, -NMAX, NMAX - 1);
            let w = x * x;
            codes[g][i] = code;
            sumlx[g] += w * x * code;
            suml2[g] += w * code * code;
        }
    }
    for _ in 0..ITERATIONS {
        let mut changed = zero.simd_lt(zero);
        for i in 0..N {
            for g in 0..GROUPS {
                let (x, old) = (x[g][i], codes[g][i]);
                let w = x * x;
                let slx = sumlx[g] - w * x * old;
                let sl2 = suml2[g] - w * old * old;
                let new = nearest_clamped(x * sl2 / slx, -NMAX, NMAX - 1);
                let new_slx = slx + w * x * new;
                let new_sl2 = sl2 + w * new * new;
                let better = !empty[g]
                    & slx.simd_gt(zero)
                    & new.simd_ne(old)
                    & new_sl2.simd_gt(zero)
                    & (new_slx * new_slx * suml2[g]).simd_gt(sumlx[g] * sumlx[g] * new_sl2);
                codes[g][i] = better.select(new, old);
                sumlx[g] = better.select(new_slx, sumlx[g]);
                suml2[g] = better.select(new_sl2, suml2[g]);
                changed |= better;
            }
        }
        if !changed.any_true() {
            break;
        }
    }
    std::array::from_fn(|g| Fit {
        scale: (suml2[g].simd_gt(zero) & !empty[g]).select(sumlx[g] / suml2[g], zero),
        codes: codes[g].map(
            #[inline(always)]
            |code| empty[g].select(zero, code + NMAX as f32),
        ),
    })
}
