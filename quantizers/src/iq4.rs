//! IQ4_NL and IQ4_XS: codes of four bits stand for values of a table whose steps grow outwards.
//! (`quantize_row_iq4_nl_impl`)

use fearless_simd::prelude::*;

use crate::Work;
use crate::blocks::{QK_K, put_f16, put_nibbles};
use crate::errors::LaneSums;
use crate::lanes::{Group, LANES, Lanes, load, nearest_int, splat, store_codes};
use crate::make_qx_quants::largest;
use crate::weights::{per_block, squares, sum_of_squares, weighted};

/// Elements of a sub-block.
const N: usize = 32;
const TRIES: i32 = 7;

/// `kvalues_iq4nl`: what the codes stand for.
const VALUES: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// `best_index_int8`: for the value nearest to `x`, what `of` has in its place. Half-way between two
/// it is the upper one.
///
/// Comparing with the middles decides as ggml does by comparing the distances: near a middle these
/// are exact, for the distances are smaller than what they are the differences of, or of the same
/// exponent; and further off, rounding doesn't turn them round.
#[inline(always)]
fn best<S: Simd>(x: Lanes<S>, of: &[f32; 16]) -> Lanes<S> {
    let mut best = splat(x.simd, of[15]);
    for i in (0..15).rev() {
        let middle = splat(x.simd, (VALUES[i] + VALUES[i + 1]) / 2.0);
        best = x.simd_lt(middle).select(splat(x.simd, of[i]), best);
    }
    best
}

const INDICES: [f32; 16] = {
    let mut indices = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        indices[i] = i as f32;
        i += 1;
    }
    indices
};

/// The scales of sixteen sub-blocks.
#[inline(always)]
fn scales<S: Simd>(simd: S, x: &[Lanes<S>; N], weights: &[Lanes<S>; N]) -> Lanes<S> {
    let zero = splat(simd, 0.0);
    let (max, empty) = largest(simd, x);
    let d = -max / VALUES[0];
    let (sumqx, sumq2) = sums(splat(simd, 1.0) / d, x, weights);
    let mut d = sumq2.simd_gt(zero).select(sumqx / sumq2, zero);
    let mut best = d * sumqx;
    for step in -TRIES..=TRIES {
        let (sumqx, sumq2) = sums(splat(simd, step as f32 + VALUES[0]) / max, x, weights);
        let better = sumq2.simd_gt(zero) & (sumqx * sumqx).simd_gt(best * sumq2);
        d = better.select(sumqx / sumq2, d);
        best = better.select(d * sumqx, best);
    }
    empty.select(zero, d)
}

/// Of the weighted products of values and what stands for them, and of the weighted squares of these.
#[inline(always)]
fn sums<S: Simd>(id: Lanes<S>, x: &[Lanes<S>; N], weights: &[Lanes<S>; N]) -> (Lanes<S>, Lanes<S>) {
    let zero = splat(id.simd, 0.0);
    let (mut sumqx, mut sumq2) = (zero, zero);
    for i in 0..N {
        let q = best(id * x[i], &VALUES);
        let wq = weights[i] * q;
        sumqx += wq * x[i];
        sumq2 += wq * q;
    }
    (sumqx, sumq2)
}

/// The scales of a group, whose sub-blocks' magnitudes are told by those of blocks of `block`.
#[inline(always)]
fn scales_of<S: Simd>(simd: S, group: &Group<'_, N>, block: usize) -> Lanes<S> {
    let columns = group.columns(simd);
    let weights = match group.importance(simd) {
        None => squares(&columns),
        Some(importance) => {
            let factor = 2.0 / block as f32;
            let sigma2 = per_block(simd, group, block, |x| sum_of_squares(x) * factor);
            weighted(&columns, &importance, sigma2)
        }
    };
    simd.vectorize(
        #[inline(always)]
        || scales(simd, &columns, &weights),
    )
}

/// Makes the codes of a sub-block whose values are multiplied by `id`, and by `d` when they are read.
#[inline(always)]
fn codes<S: Simd>(simd: S, x: &[f32], id: f32, d: f32, codes: &mut [u8], errors: &mut LaneSums<S>) {
    for (x, codes) in x.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
        let x = load(simd, x);
        store_codes(best(x * id, &INDICES), codes);
        errors.add(x, best(x * id, &VALUES) * d);
    }
}

fn inverse(value: f32) -> f32 {
    if value != 0.0 { 1.0 / value } else { 0.0 }
}

#[inline(always)]
pub(crate) fn quantize_nl<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let mut errors = LaneSums::new(simd);
    let groups = Group::<N>::all(work.values, work.importance);
    for (group, blocks) in groups.zip(work.out.as_chunks_mut::<18>().0.chunks_mut(LANES)) {
        let scales = scales_of(simd, &group, N);
        for (lane, block) in blocks.iter_mut().enumerate() {
            let scale = scales.as_slice()[lane];
            let d = put_f16(&mut block[..2], scale);
            let mut indices = [0; N];
            codes(simd, group.sub_block(lane), inverse(scale), d, &mut indices, &mut errors);
            put_nibbles(&mut block[2..], &indices, N / 2);
        }
        errors.carry();
    }
    errors
}

#[inline(always)]
pub(crate) fn quantize_xs<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let mut errors = LaneSums::new(simd);
    const SUB_BLOCKS: usize = QK_K / N;
    let mut out = work.out.as_chunks_mut::<136>().0.iter_mut();
    for group in Group::<N>::all(work.values, work.importance) {
        let scales = scales_of(simd, &group, QK_K);
        for (x, scales) in
            group.values().chunks_exact(QK_K).zip(scales.as_slice().chunks_exact(SUB_BLOCKS))
        {
            let block = out.next().expect("as many blocks as values");
            let (mut max_scale, mut amax) = (0.0, 0.0);
            for &scale in scales {
                if scale.abs() > amax {
                    (max_scale, amax) = (scale, scale.abs());
                }
            }
            let d: f32 = -max_scale / 32.0;
            let stored = put_f16(&mut block[..2], d);
            let id = inverse(d);
            let (mut high, mut low) = (0u16, [0u8; SUB_BLOCKS / 2]);
            let mut indices = [0; QK_K];
            for (j, (&scale, x)) in scales.iter().zip(x.chunks_exact(N)).enumerate() {
                let l = nearest_int(id * scale).clamp(-32, 31);
                let (dl, indices) = (d * l as f32, &mut indices[j * N..][..N]);
                codes(simd, x, inverse(dl), stored * l as f32, indices, &mut errors);
                let l = (l + 32) as u16;
                low[j / 2] |= (l as u8 & 15) << (j % 2 * 4);
                high |= (l >> 4) << (2 * j);
            }
            block[2..4].copy_from_slice(&high.to_le_bytes());
            block[4..8].copy_from_slice(&low);
            put_nibbles(&mut block[8..], &indices, N / 2);
        }
        errors.carry();
    }
    errors
}
