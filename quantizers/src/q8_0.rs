//! Q8_0: blocks of 32 with a scale. (`quantize_row_q8_0_ref`)

use fearless_simd::i32x16;
use fearless_simd::prelude::*;

use crate::Work;
use crate::block_scales::{BlockScales, N, halves, of_each};
use crate::errors::LaneSums;
use crate::lanes::{LANES, splat};

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
            let codes = block[2..].as_chunks_mut::<LANES>().0;
            for (x, codes) in halves(simd, x).into_iter().zip(codes) {
                let code: i32x16<S> = (x * inverse).round().to_int();
                for (out, &code) in codes.iter_mut().zip(code.as_slice()) {
                    *out = code as u8;
                }
                let code: fearless_simd::f32x16<S> = code.to_float();
                sums.add(x, code * d);
            }
        }
        sums.carry();
    }
    sums
}
