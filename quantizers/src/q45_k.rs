//! Q4_K and Q5_K: super-blocks of eight sub-blocks of 32, each with a scale and a minimum of six bits.
//! (`quantize_row_q4_K_ref`, `quantize_row_q4_K_impl` and those of Q5_K)

use fearless_simd::prelude::*;

use crate::Work;
use crate::blocks::{QK_K, put_f16, put_nibbles};
use crate::errors::LaneSums;
use crate::lanes::{Group, LANES, Lanes, load, nearest_clamped, nearest_int, splat, store_codes};
use crate::make_qkx_quants::{Fit, Tries, make_qkx2_quants, make_qkx3_quants};
use crate::make_qp_quants::make_qp_quants;
use crate::weights::{per_block, squares, sum, sum_of_squares, weighted};

/// Elements of a sub-block.
const N: usize = 32;
const SUB_BLOCKS: usize = QK_K / N;

#[inline(always)]
pub(crate) fn quantize_q4_k<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let tries = Tries { nmax: 15, rmin: -1.0, rdelta: 0.1, nstep: 20 };
    quantize::<S, 144>(simd, work, tries, |block, codes| {
        put_nibbles(&mut block[16..], codes, N);
    })
}

#[inline(always)]
pub(crate) fn quantize_q5_k<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let tries = Tries { nmax: 31, rmin: -0.5, rdelta: 0.1, nstep: 15 };
    quantize::<S, 176>(simd, work, tries, |block, codes| {
        put_nibbles(&mut block[48..], codes, N);
        for (l, high) in block[16..48].iter_mut().enumerate() {
            let bit = |n: usize| (codes[l + N * n] >> 4 & 1) << n;
            *high = (0..SUB_BLOCKS).map(bit).fold(0, |bits, bit| bits | bit);
        }
    })
}

/// The scales and minima of a super-block's sub-blocks, and the sums of their weights.
struct Found {
    scales: [f32; SUB_BLOCKS],
    mins: [f32; SUB_BLOCKS],
    weights: [f32; SUB_BLOCKS],
}

#[inline(always)]
fn quantize<S: Simd, const BYTES: usize>(
    simd: S,
    work: Work<'_>,
    tries: Tries,
    put_codes: impl Fn(&mut [u8; BYTES], &[u8; QK_K]),
) -> LaneSums<S> {
    let mut sums = LaneSums::new(simd);
    let mut out = work.out.as_chunks_mut::<BYTES>().0.iter_mut();
    for group in Group::<N>::all(work.values, work.importance) {
        let columns = group.columns(simd);
        let importance = group.importance(simd);
        let weighted_by_importance = importance.is_some();
        let (fit, weights) = match importance {
            None => {
                let sum_x2 = sum(simd, &squares(&columns));
                let av_x = (sum_x2 / N as f32).sqrt();
                let mut weights = columns;
                weights.iter_mut().for_each(|x| *x = av_x + x.abs());
                (make_qkx2_quants::<S, N, false>(simd, &columns, &weights, tries), sum_x2)
            }
            Some(importance) => {
                let sigma2 =
                    per_block(simd, &group, QK_K, |x| 2.0 * sum_of_squares(x) / QK_K as f32);
                let weights = weighted(&columns, &importance, sigma2);
                let fit = make_qkx3_quants(simd, &columns, &weights, tries.nmax);
                (fit, sum(simd, &weights))
            }
        };
        for (n, x) in group.values().chunks_exact(QK_K).enumerate() {
            let block = out.next().expect("as many blocks as values");
            let of = |lanes: &Lanes<S>| {
                *lanes.as_slice()[n * SUB_BLOCKS..].first_chunk().expect("two fill the lanes")
            };
            let (scales, mins) = (of(&fit.scale), of(&fit.min));
            let found = Found { scales, mins, weights: of(&weights) };
            let (scales, header) = match weighted_by_importance {
                false => plain_header(&found),
                true => weighted_header(&found),
            };
            block[..16].copy_from_slice(&header);
            let mut codes = [0; QK_K];
            for (j, (&(d, dm), x)) in scales.iter().zip(x.chunks_exact(N)).enumerate() {
                let codes = &mut codes[j * N..][..N];
                if d == 0.0 {
                    codes_of_the_fit(&fit, &columns, n * SUB_BLOCKS + j, codes);
                }
                for (x, codes) in x.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
                    let x = load(simd, x);
                    if d == 0.0 {
                        sums.add(x, splat(simd, -dm));
                        continue;
                    }
                    let code = nearest_clamped((x + dm) / d, 0, tries.nmax);
                    store_codes(code, codes);
                    sums.add(x, code * d - dm);
                }
            }
            put_codes(block, &codes);
        }
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

/// The factors of each sub-block, and the sixteen bytes before the codes.
type Header = ([(f32, f32); SUB_BLOCKS], [u8; 16]);

fn plain_header(found: &Found) -> Header {
    let largest = |values: &[f32]| values.iter().fold(0.0, |max, &x| if x > max { x } else { max });
    let (max_scale, max_min) = (largest(&found.scales), largest(&found.mins));
    let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
    let codes = |values: &[f32; SUB_BLOCKS], inverse: f32| {
        values.map(|value| (nearest_int(inverse * value) as u8).min(63))
    };
    let ls = codes(&found.scales, inverse(max_scale));
    let lm = codes(&found.mins, inverse(max_min));
    header(max_scale / 63.0, max_min / 63.0, ls, lm)
}

fn weighted_header(found: &Found) -> Header {
    let (mut ls, mut lm) = ([0; SUB_BLOCKS], [0; SUB_BLOCKS]);
    let d = make_qp_quants(63, &found.scales, &found.weights, &mut ls);
    let dmin = make_qp_quants(63, &found.mins, &found.weights, &mut lm);
    header(d, dmin, ls, lm)
}

fn header(d: f32, dmin: f32, ls: [u8; SUB_BLOCKS], lm: [u8; SUB_BLOCKS]) -> Header {
    let mut bytes = [0; 16];
    let d = put_f16(&mut bytes[..2], d);
    let dmin = put_f16(&mut bytes[2..4], dmin);
    let packed = &mut bytes[4..];
    packed[..4].copy_from_slice(&ls[..4]);
    packed[4..8].copy_from_slice(&lm[..4]);
    for j in SUB_BLOCKS / 2..SUB_BLOCKS {
        packed[j + 4] = ls[j] & 15 | (lm[j] & 15) << 4;
        packed[j - 4] |= ls[j] >> 4 << 6;
        packed[j] |= lm[j] >> 4 << 6;
    }
    let factors = std::array::from_fn(|j| (d * f32::from(ls[j]), dmin * f32::from(lm[j])));
    (factors, bytes)
}
