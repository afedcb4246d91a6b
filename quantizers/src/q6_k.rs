//! Q6_K: super-blocks of sixteen sub-blocks of 16, each with a scale of eight bits.
//! (`quantize_row_q6_K_ref`, `quantize_row_q6_K_impl`)

use fearless_simd::prelude::*;

use crate::Work;
use crate::blocks::{QK_K, put_f16};
use crate::errors::LaneSums;
use crate::lanes::{Group, Lanes, load, nearest_clamped, nearest_int, splat, store_codes};
use crate::make_qx_quants::{Fit, GROUP_MAX_EPS, make_qx_quants};
use crate::weights::squares;

/// Elements of a sub-block, and sub-blocks.
const N: usize = 16;
const BYTES: usize = 210;
/// Codes are from `-NMAX` to `NMAX - 1`.
const NMAX: i32 = 32;

#[inline(always)]
pub(crate) fn quantize<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let mut sums = LaneSums::new(simd);
    let groups = Group::<N>::all(work.values, work.importance);
    for (group, block) in groups.zip(work.out.as_chunks_mut::<BYTES>().0) {
        let columns = group.columns(simd);
        let weights = group.importance(simd).unwrap_or_else(
            #[inline(always)]
            || squares(&columns),
        );
        let fit = make_qx_quants(simd, NMAX, &columns, &weights);
        let (mut max_scale, mut max_abs) = (0.0, 0.0);
        for &scale in fit.scale.as_slice() {
            if scale.abs() > max_abs {
                (max_scale, max_abs) = (scale, scale.abs());
            }
        }
        if max_abs < GROUP_MAX_EPS {
            block.fill(0);
            for x in group.values().chunks_exact(N) {
                sums.add(load(simd, x), splat(simd, 0.0));
            }
            sums.carry();
            continue;
        }
        let iscale = -128.0 / max_scale;
        let d = put_f16(&mut block[208..], 1.0 / iscale);
        let mut codes = [0; QK_K];
        for (j, x) in group.values().chunks_exact(N).enumerate() {
            let scale = nearest_int(iscale * fit.scale.as_slice()[j]).min(127) as i8;
            block[192 + j] = scale as u8;
            let d = d * f32::from(scale);
            let (x, codes) = (load(simd, x), &mut codes[j * N..][..N]);
            if d == 0.0 {
                codes_of_the_fit(&fit, &columns, j, codes);
                sums.add(x, splat(simd, 0.0));
                continue;
            }
            let code = nearest_clamped(x / d, -NMAX, NMAX - 1);
            store_codes(code + NMAX as f32, codes);
            sums.add(x, code * d);
        }
        put_codes(block, &codes);
        sums.carry();
    }
    sums
}

/// The codes that a sub-block keeps where its scale has become zero.
#[cold]
fn codes_of_the_fit<S: Simd>(fit: &Fit<S>, x: &[Lanes<S>; N], lane: usize, out: &mut [u8]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = fit.codes(x).as_slice()[lane] as u8;
    }
}

/// Four bits of each code, those of 32 and the 32 that are 64 on in a byte, then the other two.
#[inline(always)]
fn put_codes(block: &mut [u8; BYTES], codes: &[u8; QK_K]) {
    let (low, rest) = block.split_at_mut(128);
    let (high, _) = rest.split_at_mut(64);
    let halves = low.chunks_exact_mut(64).zip(high.chunks_exact_mut(32));
    for ((low, high), codes) in halves.zip(codes.chunks_exact(128)) {
        let code = |l: usize, quarter: usize| codes[l + 32 * quarter];
        for l in 0..32 {
            low[l] = code(l, 0) & 15 | code(l, 2) << 4;
            low[l + 32] = code(l, 1) & 15 | code(l, 3) << 4;
            high[l] = code(l, 0) >> 4
                | code(l, 1) >> 4 << 2
                | code(l, 2) >> 4 << 4
                | code(l, 3) >> 4 << 6;
        }
    }
}
