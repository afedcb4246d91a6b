//! Q4_0, Q4_1, Q5_0 and Q5_1: blocks of 32 with a scale, and a minimum or none.
//! (`quantize_row_q4_0_ref`, `quantize_row_q4_0_impl` and those of the other three)

use fearless_simd::i32x16;
use fearless_simd::prelude::*;

use crate::Work;
use crate::block_scales::{BlockScales, N, halves, of_each};
use crate::errors::LaneSums;
use crate::lanes::{Group, LANES, Lanes, from_f16, load, splat, store_bytes, to_f16};
use crate::make_qkx_quants::make_qkx3_quants;
use crate::make_qx_quants::make_qx_quants;
use crate::weights::{sum_of_squares, weighted};

#[inline(always)]
pub(crate) fn quantize_q4_0<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    symmetric::<S, 18>(simd, work, 8)
}

#[inline(always)]
pub(crate) fn quantize_q5_0<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    symmetric::<S, 22>(simd, work, 16)
}

#[inline(always)]
pub(crate) fn quantize_q4_1<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    with_minimum::<S, 20>(simd, work, 15)
}

#[inline(always)]
pub(crate) fn quantize_q5_1<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    with_minimum::<S, 24>(simd, work, 31)
}

/// Puts what follows the scales: the fifth bits, where there is room for them, then four bits of
/// both halves in each byte.
#[inline(always)]
fn put_codes<S: Simd>(out: &mut [u8], [low, high]: [i32x16<S>; 2]) {
    let (fifth, nibbles) = out.split_at_mut(out.len() - N / 2);
    let mut both = low | (high << 4);
    if !fifth.is_empty() {
        let most = i32x16::splat(low.simd, 15);
        let bits = low.simd_gt(most).to_bitmask() | high.simd_gt(most).to_bitmask() << LANES;
        fifth.copy_from_slice(&(bits as u32).to_le_bytes());
        both = (low & 15) | ((high & 15) << 4);
    }
    store_bytes(both, nibbles);
}

/// The first of `x` in whose place `halves` have `value`.
#[inline(always)]
fn first<S: Simd>(x: &[f32], [low, high]: [Lanes<S>; 2], value: f32) -> f32 {
    let value = splat(low.simd, value);
    let places = low.simd_eq(value).to_bitmask() | high.simd_eq(value).to_bitmask() << LANES;
    x[places.trailing_zeros() as usize % N]
}

/// Scales of either sign, and codes around `middle`.
#[inline(always)]
fn symmetric<S: Simd, const BYTES: usize>(simd: S, work: Work<'_>, middle: i32) -> LaneSums<S> {
    let zero = middle as f32;
    if work.importance.is_some() {
        return symmetric_weighted::<S, BYTES>(simd, work, middle);
    }
    let mut sums = LaneSums::new(simd);
    let blocks = work.out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES);
    for (values, blocks) in work.values.chunks(LANES * N).zip(blocks) {
        let max = of_each(
            simd,
            values,
            #[inline(always)]
            |x, [low, high]| {
                let magnitudes = [low.abs(), high.abs()];
                let amax = magnitudes[0].max(magnitudes[1]).reduce_max();
                // The first of those, with its sign; a zero counts as positive.
                if amax == 0.0 { 0.0 } else { first(x, magnitudes, amax) }
            },
        );
        let scales = BlockScales::new(max / splat(simd, -zero));
        let most = scales.lost.select(splat(simd, 0.0), splat(simd, 2.0 * zero - 1.0));
        for (lane, (x, block)) in values.chunks_exact(N).zip(blocks).enumerate() {
            let half = scales.halves.as_slice()[lane] as u16;
            let (d, inverse) = (scales.stored.as_slice()[lane], scales.inverse.as_slice()[lane]);
            let most = i32x16::splat(simd, most.as_slice()[lane] as i32);
            block[..2].copy_from_slice(&half.to_le_bytes());
            let x = halves(simd, x);
            let mut codes = [most; 2];
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (x * inverse + (zero + 0.5)).to_int::<i32x16<S>>().min(most);
            }
            put_codes(&mut block[2..], codes);
            for (x, code) in x.into_iter().zip(codes) {
                let code: Lanes<S> = code.to_float();
                sums.add(x, (code - zero) * d);
            }
        }
        sums.carry();
    }
    sums
}

#[inline(always)]
fn symmetric_weighted<S: Simd, const BYTES: usize>(
    simd: S,
    work: Work<'_>,
    middle: i32,
) -> LaneSums<S> {
    let zero = middle as f32;
    let mut sums = LaneSums::new(simd);
    let sigma2 = row_means(&work);
    let blocks = work.out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES);
    let groups = Group::<N>::all(work.values, work.importance);
    for (group, blocks) in groups.zip(blocks) {
        let columns = group.columns(simd);
        let weights = group_weights(simd, &group, &columns, &sigma2);
        let fit = make_qx_quants(simd, middle, &columns, &weights);
        let halves = to_f16(fit.scale);
        let stored = from_f16(halves);
        let mut codes = [[0; N]; LANES];
        for (i, &x) in columns.iter().enumerate() {
            for (codes, &code) in codes.iter_mut().zip(fit.codes(x).as_slice()) {
                codes[i] = code as i32;
            }
        }
        for (lane, (block, codes)) in blocks.iter_mut().zip(&codes).enumerate() {
            block[..2].copy_from_slice(&(halves.as_slice()[lane] as u16).to_le_bytes());
            let codes = both(simd, codes);
            put_codes(&mut block[2..], codes);
            for (x, code) in group.sub_block(lane).chunks_exact(LANES).zip(codes) {
                let code: Lanes<S> = code.to_float();
                sums.add(load(simd, x), (code - zero) * stored.as_slice()[lane]);
            }
        }
        sums.carry();
    }
    sums
}

/// A scale and a minimum.
#[inline(always)]
fn with_minimum<S: Simd, const BYTES: usize>(simd: S, work: Work<'_>, nmax: i32) -> LaneSums<S> {
    if work.importance.is_some() {
        return with_minimum_weighted::<S, BYTES>(simd, work, nmax);
    }
    let mut sums = LaneSums::new(simd);
    let most = i32x16::splat(simd, nmax);
    let blocks = work.out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES);
    for (values, blocks) in work.values.chunks(LANES * N).zip(blocks) {
        // Of zeros of both signs, the first.
        let min = of_each(
            simd,
            values,
            #[inline(always)]
            |x, [low, high]| first(x, [low, high], low.min(high).reduce_min()),
        );
        let max = of_each(
            simd,
            values,
            #[inline(always)]
            |x, [low, high]| first(x, [low, high], low.max(high).reduce_max()),
        );
        let scales = BlockScales::new((max - min) / splat(simd, nmax as f32));
        let min_halves = to_f16(min);
        let stored_min = from_f16(min_halves);
        for (lane, (x, block)) in values.chunks_exact(N).zip(blocks).enumerate() {
            let half = scales.halves.as_slice()[lane] as u16;
            let (d, inverse) = (scales.stored.as_slice()[lane], scales.inverse.as_slice()[lane]);
            block[..2].copy_from_slice(&half.to_le_bytes());
            block[2..4].copy_from_slice(&(min_halves.as_slice()[lane] as u16).to_le_bytes());
            let x = halves(simd, x);
            let mut codes = [most; 2];
            for (code, x) in codes.iter_mut().zip(x) {
                let value = (x - min.as_slice()[lane]) * inverse + 0.5;
                *code = value.to_int::<i32x16<S>>().min(most);
            }
            put_codes(&mut block[4..], codes);
            for (x, code) in x.into_iter().zip(codes) {
                let code: Lanes<S> = code.to_float();
                sums.add(x, code * d + stored_min.as_slice()[lane]);
            }
        }
        sums.carry();
    }
    sums
}

#[inline(always)]
fn with_minimum_weighted<S: Simd, const BYTES: usize>(
    simd: S,
    work: Work<'_>,
    nmax: i32,
) -> LaneSums<S> {
    let mut sums = LaneSums::new(simd);
    let sigma2 = row_means(&work);
    let blocks = work.out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES);
    let groups = Group::<N>::all(work.values, work.importance);
    for (group, blocks) in groups.zip(blocks) {
        let columns = group.columns(simd);
        let weights = group_weights(simd, &group, &columns, &sigma2);
        let fit = make_qkx3_quants(simd, &columns, &weights, nmax);
        let (d, min) = (to_f16(fit.scale), to_f16(-fit.min));
        let (stored_d, stored_min) = (from_f16(d), from_f16(min));
        let mut codes = [[0; N]; LANES];
        for (i, &x) in columns.iter().enumerate() {
            for (codes, &code) in codes.iter_mut().zip(fit.codes(x).as_slice()) {
                codes[i] = code as i32;
            }
        }
        for (lane, (block, codes)) in blocks.iter_mut().zip(&codes).enumerate() {
            block[..2].copy_from_slice(&(d.as_slice()[lane] as u16).to_le_bytes());
            block[2..4].copy_from_slice(&(min.as_slice()[lane] as u16).to_le_bytes());
            let codes = both(simd, codes);
            put_codes(&mut block[4..], codes);
            for (x, code) in group.sub_block(lane).chunks_exact(LANES).zip(codes) {
                let code: Lanes<S> = code.to_float();
                let (d, min) = (stored_d.as_slice()[lane], stored_min.as_slice()[lane]);
                sums.add(load(simd, x), code * d + min);
            }
        }
        sums.carry();
    }
    sums
}

/// The mean square of each row.
fn row_means(work: &Work<'_>) -> Vec<f32> {
    let row = work.importance.map_or(work.values.len(), <[f32]>::len);
    let rows = work.values.chunks_exact(row);
    rows.map(|row| sum_of_squares(row) / row.len() as f32).collect()
}

#[inline(always)]
fn group_weights<S: Simd>(
    simd: S,
    group: &Group<'_, N>,
    columns: &[Lanes<S>; N],
    sigma2: &[f32],
) -> [Lanes<S>; N] {
    let importance = group.importance(simd).expect("only where there is importance");
    weighted(columns, &importance, group.per_row(simd, sigma2))
}

#[inline(always)]
fn both<S: Simd>(simd: S, codes: &[i32; N]) -> [i32x16<S>; 2] {
    [i32x16::from_slice(simd, &codes[..LANES]), i32x16::from_slice(simd, &codes[LANES..])]
}
