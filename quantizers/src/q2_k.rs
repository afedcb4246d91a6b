//! Q2_K: super-blocks of sixteen sub-blocks of 16, each with a scale and a minimum of four bits.
//! (`quantize_row_q2_K_ref`, `quantize_row_q2_K_impl`)

use fearless_simd::prelude::*;

use crate::Work;
use crate::blocks::{QK_K, put_f16, put_pairs_of_bits};
use crate::errors::LaneSums;
use crate::lanes::{Group, Lanes, load, nearest_clamped, nearest_int, splat, store_codes};
use crate::make_qkx_quants::{Fit, Tries, make_qkx2_quants, make_qkx3_quants};
use crate::make_qp_quants::make_qp_quants;
use crate::weights::{per_block, sum, sum_of_squares, weighted};

/// Elements of a sub-block, and sub-blocks.
const N: usize = 16;
const BYTES: usize = 84;
const NMAX: i32 = 3;
/// The largest code of a scale or minimum.
const LARGEST: i32 = 15;

#[inline(always)]
pub(crate) fn quantize<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let mut sums = LaneSums::new(simd);
    let groups = Group::<N>::all(work.values, work.importance);
    for (group, block) in groups.zip(work.out.as_chunks_mut::<BYTES>().0) {
        let columns = group.columns(simd);
        let (fit, weights) = match group.importance(simd) {
            None => {
                let tries = Tries { nmax: NMAX, rmin: -0.5, rdelta: 0.1, nstep: 15 };
                let mut weights = columns;
                weights.iter_mut().for_each(|x| *x = x.abs());
                (make_qkx2_quants::<S, N, true>(simd, &columns, &weights, tries), None)
            }
            Some(importance) => {
                let sigma2 = per_block(simd, &group, QK_K, |x| sum_of_squares(x) / QK_K as f32);
                let weights = weighted(&columns, &importance, sigma2);
                let fit = make_qkx3_quants(simd, &columns, &weights, NMAX);
                (fit, Some(sum(simd, &weights)))
            }
        };
        let (scales, mins) = (array(&fit.scale), array(&fit.min));
        let (mut ls, mut lm) = ([0; N], [0; N]);
        let [d, dmin] = match weights {
            None => [plain(scales, &mut ls), plain(mins, &mut lm)],
            Some(weights) => {
                let weights = array(&weights);
                let d = make_qp_quants(LARGEST, scales, weights, &mut ls);
                [d, make_qp_quants(LARGEST, mins, weights, &mut lm)]
            }
        };
        let d = put_f16(&mut block[80..82], d);
        let dmin = put_f16(&mut block[82..], dmin);
        let mut codes = [0; QK_K];
        for (j, x) in group.values().chunks_exact(N).enumerate() {
            let packed = ls[j] | lm[j] << 4;
            block[j] = packed;
            let (d, m) = (d * f32::from(packed & 15), dmin * f32::from(packed >> 4));
            let (x, codes) = (load(simd, x), &mut codes[j * N..][..N]);
            if d == 0.0 {
                codes_of_the_fit(&fit, &columns, j, codes);
                sums.add(x, splat(simd, -m));
                continue;
            }
            let code = nearest_clamped((x + m) / d, 0, NMAX);
            store_codes(code, codes);
            sums.add(x, code * d - m);
        }
        put_pairs_of_bits(&mut block[16..80], &codes);
        sums.carry();
    }
    sums
}

#[inline(always)]
fn array<S: Simd>(lanes: &Lanes<S>) -> &[f32; N] {
    lanes.as_slice().first_chunk().expect("as many lanes")
}

/// The codes of values without weights, and their scale.
fn plain(values: &[f32; N], codes: &mut [u8; N]) -> f32 {
    let max = values.iter().fold(0.0, |max, &x| if x > max { x } else { max });
    if max > 0.0 {
        let iscale = LARGEST as f32 / max;
        *codes = values.map(|value| nearest_int(iscale * value) as u8);
        max / LARGEST as f32
    } else {
        0.0
    }
}

/// The codes that a sub-block keeps where its scale has become zero.
#[cold]
fn codes_of_the_fit<S: Simd>(fit: &Fit<S>, x: &[Lanes<S>; N], lane: usize, out: &mut [u8]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = fit.codes(x).as_slice()[lane] as u8;
    }
}
