//! Q3_K: super-blocks of sixteen sub-blocks of 16, each with a scale of six bits.
//! (`quantize_row_q3_K_ref`, `quantize_row_q3_K_impl`)

use fearless_simd::prelude::*;

use crate::Work;
use crate::blocks::{QK_K, put_f16, put_pairs_of_bits};
use crate::errors::LaneSums;
use crate::lanes::{
    Group, LANES, Lanes, load, nearest_clamped_int, nearest_int, splat, store_bytes,
};
use crate::make_q3_quants::{GROUPS, make_q3_quants};
use crate::make_qx_quants::{make_qx_quants, make_qx_quants_of_one};
use crate::weights::{per_block, sum, sum_of_squares, weighted};

/// Elements of a sub-block, and sub-blocks.
const N: usize = 16;
const BYTES: usize = 110;
/// Codes are from `-NMAX` to `NMAX - 1`.
const NMAX: i32 = 4;

#[inline(always)]
pub(crate) fn quantize<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let mut sums = LaneSums::new(simd);
    let mut groups = Group::<N>::all(work.values, work.importance);
    let mut blocks = work.out.as_chunks_mut::<BYTES>().0.iter_mut();
    if work.importance.is_some() {
        for (group, block) in groups.zip(blocks) {
            let columns = group.columns(simd);
            let sigma2 = per_block(simd, &group, QK_K, |x| 2.0 * sum_of_squares(x) / QK_K as f32);
            let importance = group.importance(simd).expect("checked above");
            let weights = weighted(&columns, &importance, sigma2);
            let fit = make_qx_quants(simd, NMAX, &columns, &weights);
            let mut scales = [0; N];
            let totals = sum(simd, &weights);
            let d = make_qx_quants_of_one(32, array(&fit.scale), array(&totals), &mut scales);
            let codes = |lane: usize, out: &mut [u8]| {
                for (out, &x) in out.iter_mut().zip(&columns) {
                    *out = fit.codes(x).as_slice()[lane] as u8;
                }
            };
            finish(simd, group.values(), d, scales, codes, block, &mut sums);
        }
        return sums;
    }
    while let Some(first) = groups.next() {
        let taken: [Option<Group<'_, N>>; GROUPS] =
            std::array::from_fn(|n| if n == 0 { Some(first) } else { groups.next() });
        let fits = simd.vectorize(
            #[inline(always)]
            || make_q3_quants(simd, |g, lane| taken[g].unwrap_or(first).sub_block(lane)),
        );
        for (group, fit) in taken.into_iter().flatten().zip(&fits) {
            let block = blocks.next().expect("as many blocks as values");
            let (d, scales) = plain_scales(array(&fit.scale()));
            let codes = |lane: usize, out: &mut [u8]| fit.codes(lane, out);
            finish(simd, group.values(), d, scales, codes, block, &mut sums);
        }
    }
    sums
}

#[inline(always)]
fn array<S: Simd>(lanes: &Lanes<S>) -> &[f32; LANES] {
    lanes.as_slice().first_chunk().expect("as many lanes")
}

/// The scale of the scales, and their codes from 0 on.
fn plain_scales(scales: &[f32; N]) -> (f32, [u8; N]) {
    let (mut max, mut amax) = (0.0, 0.0);
    for &scale in scales {
        if scale.abs() > amax {
            (max, amax) = (scale, scale.abs());
        }
    }
    if max == 0.0 {
        return (0.0, [0; N]);
    }
    let iscale = -32.0 / max;
    let code = |scale: f32| (nearest_int(iscale * scale) as i8).clamp(-32, 31) + 32;
    (1.0 / iscale, scales.map(|scale| code(scale) as u8))
}

/// Makes the codes anew for scales as they are stored. `fitted` are those of a sub-block whose
/// scale has become zero.
#[inline(always)]
fn finish<S: Simd>(
    simd: S,
    values: &[f32],
    d: f32,
    scales: [u8; N],
    fitted: impl Fn(usize, &mut [u8]),
    block: &mut [u8; BYTES],
    sums: &mut LaneSums<S>,
) {
    let d = put_f16(&mut block[108..], d);
    let packed = &mut block[96..108];
    packed.fill(0);
    for (j, &scale) in scales.iter().enumerate() {
        packed[j % 8] |= (scale & 15) << (j / 8 * 4);
        packed[8 + j % 4] |= scale >> 4 << (j / 4 * 2);
    }
    let mut codes = [0; QK_K];
    for (j, x) in values.chunks_exact(N).enumerate() {
        let d = d * f32::from(scales[j] as i8 - 32);
        let (x, codes) = (load(simd, x), &mut codes[j * N..][..N]);
        if d == 0.0 {
            fitted(j, codes);
            sums.add(x, splat(simd, 0.0));
            continue;
        }
        let code = nearest_clamped_int(x / d, -NMAX, NMAX - 1);
        store_bytes(code + NMAX, codes);
        let code: Lanes<S> = code.to_float();
        sums.add(x, code * d);
    }
    // Of each code its third bit, 32 apart in a byte.
    for (l, high) in block[..32].iter_mut().enumerate() {
        let bit = |n: usize| (codes[l + 32 * n] >> 2 & 1) << n;
        *high = (0..8).map(bit).fold(0, |bits, bit| bits | bit);
    }
    put_pairs_of_bits(&mut block[32..96], &codes);
    sums.carry();
}
