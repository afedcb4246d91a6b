//! Q4_0, Q4_1, Q5_0 and Q5_1: blocks of 32 with a scale, and a minimum or none.
//! (`quantize_row_q4_0_ref`, `quantize_row_q4_0_impl` and those of the other three)

use fearless_simd::prelude::*;

use crate::Work;
use crate::blocks::{fifth_bits, put_f16, put_nibbles};
use crate::errors::LaneSums;
use crate::lanes::{Group, LANES, Lanes, load, splat, store_codes};
use crate::make_qkx_quants::make_qkx3_quants;
use crate::make_qx_quants::make_qx_quants;
use crate::weights::{sum_of_squares, weighted};

/// Elements of a block.
const N: usize = 32;

#[inline(always)]
pub(crate) fn quantize_q4_0<S: Simd>(simd: S, work: Work<'_>, sums: &mut LaneSums<S>) {
    symmetric::<S, 18>(simd, work, sums, 8);
}

#[inline(always)]
pub(crate) fn quantize_q5_0<S: Simd>(simd: S, work: Work<'_>, sums: &mut LaneSums<S>) {
    symmetric::<S, 22>(simd, work, sums, 16);
}

#[inline(always)]
pub(crate) fn quantize_q4_1<S: Simd>(simd: S, work: Work<'_>, sums: &mut LaneSums<S>) {
    with_minimum::<S, 20>(simd, work, sums, 15);
}

#[inline(always)]
pub(crate) fn quantize_q5_1<S: Simd>(simd: S, work: Work<'_>, sums: &mut LaneSums<S>) {
    with_minimum::<S, 24>(simd, work, sums, 31);
}

/// Puts what follows the scales: the fifth bits, where there is room for them, and the others.
#[inline(always)]
fn put_codes(out: &mut [u8], codes: &[u8; N]) {
    let (fifth, nibbles) = out.split_at_mut(out.len() - N / 2);
    if !fifth.is_empty() {
        fifth.copy_from_slice(&fifth_bits(codes).to_le_bytes());
    }
    put_nibbles(nibbles, codes, N / 2);
}

#[inline(always)]
fn halves<S: Simd>(simd: S, x: &[f32]) -> [Lanes<S>; 2] {
    [load(simd, x), load(simd, &x[LANES..])]
}

/// The first of `x` in whose place `halves` have `value`.
#[inline(always)]
fn first<S: Simd>(x: &[f32], halves: &[Lanes<S>; 2], value: f32) -> f32 {
    let value = splat(halves[0].simd, value);
    let [low, high] = halves.map(
        #[inline(always)]
        |half| half.simd_eq(value).to_bitmask(),
    );
    x[(low | high << LANES).trailing_zeros() as usize % N]
}

/// The inverse of a scale. One so small that it has none is zero in F16: there are no codes then.
fn inverse(d: f32) -> f32 {
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    if inverse.is_finite() { inverse } else { f32::NAN }
}

/// Rounds what isn't negative as C converts it, and limits it.
#[inline(always)]
fn truncated<S: Simd>(value: Lanes<S>, inverse: f32, most: f32) -> Lanes<S> {
    if inverse.is_nan() {
        return splat(value.simd, 0.0);
    }
    let whole = value.trunc();
    let most = splat(value.simd, most);
    whole.simd_lt(most).select(whole, most)
}

/// Scales of either sign, and codes around `middle`.
#[inline(always)]
fn symmetric<S: Simd, const BYTES: usize>(
    simd: S,
    work: Work<'_>,
    sums: &mut LaneSums<S>,
    middle: i32,
) {
    let zero = middle as f32;
    let blocks = work.out.as_chunks_mut::<BYTES>().0;
    if let Some(importance) = work.importance {
        let sigma2 = row_means(work.values, importance.len());
        for (group, blocks) in
            Group::<N>::all(work.values, work.importance).zip(blocks.chunks_mut(LANES))
        {
            let columns = group.columns(simd);
            let importance = group.importance(simd).expect("checked above");
            let sigma2 = group.per_row(simd, &sigma2);
            let weights = weighted(&columns, &importance, sigma2);
            let fit = make_qx_quants(simd, middle, &columns, &weights);
            let codes = columns.map(
                #[inline(always)]
                |x| fit.codes(x),
            );
            for (lane, block) in blocks.iter_mut().enumerate() {
                let d = put_f16(&mut block[..2], fit.scale.as_slice()[lane]);
                let codes = codes_of_lane(&codes, lane);
                put_codes(&mut block[2..], &codes);
                measure(simd, group.sub_block(lane), &codes, sums, |code| (code - zero) * d);
            }
            sums.carry();
        }
        return;
    }
    for (x, block) in work.values.chunks_exact(N).zip(blocks) {
        let both = halves(simd, x);
        let magnitudes = [both[0].abs(), both[1].abs()];
        let amax = magnitudes[0].max(magnitudes[1]).reduce_max();
        // The first of those, with its sign; a zero counts as positive.
        let max = if amax == 0.0 { 0.0 } else { first(x, &magnitudes, amax) };
        let d = max / -zero;
        let inverse = inverse(d);
        let d = put_f16(&mut block[..2], d);
        let mut codes = [0; N];
        for (x, codes) in both.into_iter().zip(codes.chunks_exact_mut(LANES)) {
            let code = truncated(x * inverse + (zero + 0.5), inverse, 2.0 * zero - 1.0);
            store_codes(code, codes);
            sums.add(x, (code - zero) * d);
        }
        put_codes(&mut block[2..], &codes);
        sums.carry();
    }
}

/// A scale and a minimum.
#[inline(always)]
fn with_minimum<S: Simd, const BYTES: usize>(
    simd: S,
    work: Work<'_>,
    sums: &mut LaneSums<S>,
    nmax: i32,
) {
    let blocks = work.out.as_chunks_mut::<BYTES>().0;
    if let Some(importance) = work.importance {
        let sigma2 = row_means(work.values, importance.len());
        for (group, blocks) in
            Group::<N>::all(work.values, work.importance).zip(blocks.chunks_mut(LANES))
        {
            let columns = group.columns(simd);
            let importance = group.importance(simd).expect("checked above");
            let sigma2 = group.per_row(simd, &sigma2);
            let weights = weighted(&columns, &importance, sigma2);
            let fit = make_qkx3_quants(simd, &columns, &weights, nmax);
            let codes = columns.map(
                #[inline(always)]
                |x| fit.codes(x),
            );
            for (lane, block) in blocks.iter_mut().enumerate() {
                let d = put_f16(&mut block[..2], fit.scale.as_slice()[lane]);
                let min = put_f16(&mut block[2..4], -fit.min.as_slice()[lane]);
                let codes = codes_of_lane(&codes, lane);
                put_codes(&mut block[4..], &codes);
                measure(simd, group.sub_block(lane), &codes, sums, |code| code * d + min);
            }
            sums.carry();
        }
        return;
    }
    for (x, block) in work.values.chunks_exact(N).zip(blocks) {
        let both = halves(simd, x);
        // Of zeros of both signs, the first.
        let min = first(x, &both, both[0].min(both[1]).reduce_min());
        let max = first(x, &both, both[0].max(both[1]).reduce_max());
        let d = (max - min) / nmax as f32;
        let inverse = inverse(d);
        let d = put_f16(&mut block[..2], d);
        let stored = put_f16(&mut block[2..4], min);
        let mut codes = [0; N];
        for (x, codes) in both.into_iter().zip(codes.chunks_exact_mut(LANES)) {
            let code = truncated((x - min) * inverse + 0.5, inverse, nmax as f32);
            store_codes(code, codes);
            sums.add(x, code * d + stored);
        }
        put_codes(&mut block[4..], &codes);
        sums.carry();
    }
}

/// The mean square of each row.
fn row_means(values: &[f32], row: usize) -> Vec<f32> {
    values.chunks_exact(row).map(|row| sum_of_squares(row) / row.len() as f32).collect()
}

#[inline(always)]
fn codes_of_lane<S: Simd>(codes: &[Lanes<S>; N], lane: usize) -> [u8; N] {
    let mut out = [0; N];
    for (out, code) in out.iter_mut().zip(codes) {
        *out = code.as_slice()[lane] as u8;
    }
    out
}

#[inline(always)]
fn measure<S: Simd>(
    simd: S,
    x: &[f32],
    codes: &[u8; N],
    sums: &mut LaneSums<S>,
    value: impl Fn(Lanes<S>) -> Lanes<S>,
) {
    for (x, codes) in x.chunks_exact(LANES).zip(codes.chunks_exact(LANES)) {
        let codes = Lanes::from_fn(simd, |i| f32::from(codes[i]));
        sums.add(load(simd, x), value(codes));
    }
}
