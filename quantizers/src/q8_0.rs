//! Q8_0: blocks of 32 with a scale. (`quantize_row_q8_0_ref`)

use fearless_simd::prelude::*;
use half::f16;

use crate::Work;
use crate::errors::LaneSums;
use crate::lanes::{LANES, load, splat};

const BLOCK: usize = 32;
const BYTES: usize = 34;

/// Sixteen blocks at a time, so that their scales are made in one vector.
#[inline(always)]
pub(crate) fn quantize<S: Simd>(simd: S, work: Work<'_>, sums: &mut LaneSums<S>) {
    let blocks = work.values.chunks(LANES * BLOCK);
    for (values, out) in blocks.zip(work.out.chunks_mut(LANES * BYTES)) {
        let mut amax = [0.0; LANES];
        for (amax, x) in amax.iter_mut().zip(values.chunks_exact(BLOCK)) {
            let [low, high] = halves(simd, x);
            *amax = low.abs().max(high.abs()).reduce_max();
        }
        let d = load(simd, &amax) / 127.0;
        let zero = splat(simd, 0.0);
        let inverse = splat(simd, 1.0) / d;
        // A scale so small that it has no inverse is zero in F16: all codes are zero then, too.
        let usable = d.simd_ne(zero) & inverse.simd_lt(splat(simd, f32::INFINITY));
        let inverse = usable.select(inverse, zero);
        let (d, inverse) = (d.as_slice(), inverse.as_slice());
        let blocks = values.chunks_exact(BLOCK).zip(out.chunks_exact_mut(BYTES));
        for ((x, out), (&d, &inverse)) in blocks.zip(d.iter().zip(inverse)) {
            let half = f16::from_f32(d);
            let (scale, codes) = out.split_at_mut(2);
            scale.copy_from_slice(&half.to_le_bytes());
            let d = half.to_f32();
            for (x, codes) in halves(simd, x).into_iter().zip(codes.chunks_exact_mut(LANES)) {
                let code = (x * inverse).round();
                let bytes: fearless_simd::i32x16<S> = code.to_int();
                for (out, &code) in codes.iter_mut().zip(bytes.as_slice()) {
                    *out = code as u8;
                }
                sums.add(x, code * d);
            }
        }
        sums.carry();
    }
}

#[inline(always)]
fn halves<S: Simd>(simd: S, x: &[f32]) -> [crate::lanes::Lanes<S>; 2] {
    [load(simd, x), load(simd, &x[LANES..])]
}
