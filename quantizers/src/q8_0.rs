//! Q8_0: blocks of 32 with a scale. (`quantize_row_q8_0_ref`)

use fearless_simd::i32x16;
use fearless_simd::prelude::*;

use crate::Work;
use crate::block_scales::{BlockScales, N, halves, of_each};
use crate::errors::LaneSums;
use crate::lanes::{LANES, Lanes, splat, store_bytes_of_two};

const BYTES: usize = 34;

#[inline(always)]
pub(crate) fn quantize<S: Simd>(simd: S, work: Work<'_>) -> LaneSums<S> {
    let mut sums = LaneSums::new(simd);
    let blocks = work.out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES);
    for (values, blocks) in work.values.chunks(LANES * N).zip(blocks) {
        let amax = of_each(
            simd,
            values,
            #[inline(always)]
            |_, [low, high]| low.abs().max(high.abs()).reduce_max(),
        );
        let scales = BlockScales::new(amax / splat(simd, 127.0));
        for (lane, (x, block)) in values.chunks_exact(N).zip(blocks).enumerate() {
            let half = scales.halves.as_slice()[lane] as u16;
            let (d, inverse) = (scales.stored.as_slice()[lane], scales.inverse.as_slice()[lane]);
            block[..2].copy_from_slice(&half.to_le_bytes());
            let x = halves(simd, x);
            let codes = [rounded(x[0] * inverse), rounded(x[1] * inverse)];
            store_bytes_of_two(codes[0], codes[1], &mut block[2..]);
            for (x, code) in x.into_iter().zip(codes) {
                let code: Lanes<S> = code.to_float();
                sums.add(x, code * d);
            }
        }
        sums.carry();
    }
    sums
}

/// The nearest integers, half-way ones away from zero, as `roundf` has them. What is added is a little
/// less than a half, so that what is a little less than half-way isn't rounded up to the next.
#[inline(always)]
fn rounded<S: Simd>(value: Lanes<S>) -> i32x16<S> {
    let half = splat(value.simd, 0.5f32.next_down());
    (value + half.copysign(value)).to_int()
}
