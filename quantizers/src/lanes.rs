//! Sixteen values side by side, and the arithmetic of ggml's scalar code on them.
//!
//! Minima and maxima of floats are spelled as comparisons and choices: what the instructions for
//! them do with NaN and zeros of either sign differs between processors.

use fearless_simd::prelude::*;
use fearless_simd::{f32x16, i32x16, mask32x16, u16x8, u16x16};

pub(crate) const LANES: usize = 16;

pub(crate) type Lanes<S> = f32x16<S>;
pub(crate) type Mask<S> = mask32x16<S>;

/// 1.5 * 2^23: a float of up to 2^22 in magnitude added to it is rounded to an integer, ties to even,
/// which is then in the lowest bits.
const MAGIC: f32 = 12_582_912.0;
const MAGIC_BITS: i32 = 0x7f_ffff;
const MAGIC_ZERO: i32 = 0x40_0000;

/// `nearest_int` of one float. Of what is out of its range, it makes the same as ggml.
pub(crate) fn nearest_int(value: f32) -> i32 {
    ((value + MAGIC).to_bits() as i32 & MAGIC_BITS) - MAGIC_ZERO
}

/// `nearest_int`, then the nearest in `low..=high`.
#[inline(always)]
pub(crate) fn nearest_clamped_int<S: Simd>(value: Lanes<S>, low: i32, high: i32) -> i32x16<S> {
    let bits: i32x16<S> = (value + MAGIC).bitcast();
    (bits & MAGIC_BITS).max(low + MAGIC_ZERO).min(high + MAGIC_ZERO) - MAGIC_ZERO
}

/// [`nearest_clamped_int`] as floats.
#[inline(always)]
pub(crate) fn nearest_clamped<S: Simd>(value: Lanes<S>, low: i32, high: i32) -> Lanes<S> {
    nearest_clamped_int(value, low, high).to_float()
}

/// `nearest_int` of values that are in its range, as floats.
#[inline(always)]
pub(crate) fn nearest_small<S: Simd>(value: Lanes<S>) -> Lanes<S> {
    value + MAGIC - MAGIC
}

#[inline(always)]
pub(crate) fn splat<S: Simd>(simd: S, value: f32) -> Lanes<S> {
    f32x16::splat(simd, value)
}

/// The sixteen values that `values` begins with.
#[inline(always)]
pub(crate) fn load<S: Simd>(simd: S, values: &[f32]) -> Lanes<S> {
    f32x16::from_slice(simd, &values[..LANES])
}

/// The lowest bytes of thirty-two integers.
#[inline(always)]
pub(crate) fn store_bytes_of_two<S: Simd>(low: i32x16<S>, high: i32x16<S>, out: &mut [u8]) {
    let (low, high) = (low & 0xff).saturating_narrow(high & 0xff).split();
    let (low, high): (u16x16<S>, u16x16<S>) = (low.bitcast(), high.bitcast());
    low.relaxed_narrow(high).store_slice(&mut out[..2 * LANES]);
}

/// The lowest bytes of sixteen integers.
#[inline(always)]
pub(crate) fn store_bytes<S: Simd>(values: i32x16<S>, out: &mut [u8]) {
    let (low, high) = (values & 0xff).split();
    let (low, high) = low.saturating_narrow(high).split();
    let (low, high): (u16x8<S>, u16x8<S>) = (low.bitcast(), high.bitcast());
    low.relaxed_narrow(high).store_slice(&mut out[..LANES]);
}

/// Values that are small non-negative integers, as bytes.
#[inline(always)]
pub(crate) fn store_codes<S: Simd>(codes: Lanes<S>, out: &mut [u8]) {
    store_bytes(codes.to_int(), out);
}

/// The bits of the nearest F16, ties to even.
#[inline(always)]
pub(crate) fn to_f16<S: Simd>(value: Lanes<S>) -> i32x16<S> {
    /// What the exponents' zeros differ by.
    const BIAS: i32 = (127 - 15) << 23;
    let bits: i32x16<S> = value.bitcast();
    let magnitude = bits & 0x7fff_ffff;
    let odd = (magnitude >> 13) & 1;
    let normal = ((magnitude + odd + (0xfff - BIAS)) >> 13).min(0x7c00);
    // The lowest bit of what is added to 0.5 is that of the smallest F16.
    let shifted: i32x16<S> = (value.abs() + 0.5).bitcast();
    let small = shifted - 0.5f32.to_bits() as i32;
    let smallest_normal = i32x16::splat(value.simd, BIAS + (1 << 23));
    let half = magnitude.simd_lt(smallest_normal).select(small, normal);
    let infinity = i32x16::splat(value.simd, 0x7f80_0000);
    let nan = i32x16::splat(value.simd, 0x7e00);
    magnitude.simd_gt(infinity).select(nan, half) | ((bits >> 16) & 0x8000)
}

/// What the lower sixteen bits are as F16.
#[inline(always)]
pub(crate) fn from_f16<S: Simd>(bits: i32x16<S>) -> Lanes<S> {
    let magnitude = bits & 0x7fff;
    let normal = (magnitude << 13) + ((127 - 15) << 23);
    let shifted: Lanes<S> = (magnitude | 0.5f32.to_bits() as i32).bitcast();
    let small: i32x16<S> = (shifted - 0.5).bitcast();
    let value = magnitude.simd_lt(i32x16::splat(bits.simd, 0x400)).select(small, normal);
    let special = (magnitude << 13) | 0x7f80_0000;
    let value = magnitude.simd_lt(i32x16::splat(bits.simd, 0x7c00)).select(value, special);
    (value | ((bits & 0x8000) << 16)).bitcast()
}

/// Rows become columns.
#[inline(always)]
fn transpose<S: Simd>(mut rows: [Lanes<S>; LANES]) -> [Lanes<S>; LANES] {
    // Shuffling both halves into one another moves each index's highest bit to its lowest place;
    // four times, and the row's index has changed places with the lane's.
    for _ in 0..4 {
        let mut next = rows;
        for i in 0..LANES / 2 {
            next[2 * i] = rows[i].zip_low(rows[i + LANES / 2]);
            next[2 * i + 1] = rows[i].zip_high(rows[i + LANES / 2]);
        }
        rows = next;
    }
    rows
}

/// The elements of sixteen sub-blocks of `N`: in place `i` those that are `i`-th in theirs.
#[inline(always)]
pub(crate) fn columns<'a, S: Simd, const N: usize>(
    simd: S,
    sub_block: impl Fn(usize) -> &'a [f32],
) -> [Lanes<S>; N] {
    let mut columns = [splat(simd, 0.0); N];
    for (part, columns) in columns.chunks_exact_mut(LANES).enumerate() {
        let mut rows = [splat(simd, 0.0); LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            *row = load(simd, &sub_block(lane)[part * LANES..]);
        }
        columns.copy_from_slice(&transpose(rows));
    }
    columns
}

/// Sixteen sub-blocks of `N` elements in a row, or as many as there are left: beyond the last
/// one the last is there again, so that all lanes have something to do.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a, const N: usize> {
    values: &'a [f32],
    importance: Option<&'a [f32]>,
    first: usize,
}

impl<'a, const N: usize> Group<'a, N> {
    /// All groups of `values`.
    pub(crate) fn all(
        values: &'a [f32],
        importance: Option<&'a [f32]>,
    ) -> impl Iterator<Item = Self> {
        (0..values.len() / N).step_by(LANES).map(move |first| Self { values, importance, first })
    }

    fn start(&self, lane: usize) -> usize {
        (self.first + lane).min(self.values.len() / N - 1) * N
    }

    /// The values of those that are there.
    pub(crate) fn values(&self) -> &'a [f32] {
        let values = &self.values[self.first * N..];
        &values[..values.len().min(LANES * N)]
    }

    pub(crate) fn sub_block(&self, lane: usize) -> &'a [f32] {
        &self.values[self.start(lane)..][..N]
    }

    /// What the row of each lane's sub-block has in `rows`.
    #[inline(always)]
    pub(crate) fn per_row<S: Simd>(&self, simd: S, rows: &[f32]) -> Lanes<S> {
        let row = self.values.len() / rows.len();
        f32x16::from_fn(simd, |lane| rows[self.start(lane) / row])
    }

    #[inline(always)]
    pub(crate) fn columns<S: Simd>(&self, simd: S) -> [Lanes<S>; N] {
        columns(simd, |lane| self.sub_block(lane))
    }

    /// The importance of the columns that the elements are in, laid out as they are.
    #[inline(always)]
    pub(crate) fn importance<S: Simd>(&self, simd: S) -> Option<[Lanes<S>; N]> {
        let weights = self.importance?;
        Some(columns(simd, |lane| &weights[self.start(lane) % weights.len()..][..N]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstructionSet;
    use crate::instruction_set::run;

    fn check<S: Simd>(simd: S) {
        let values: Vec<f32> = (0..24 * 32).map(|i| i as f32).collect();
        for (n, group) in Group::<32>::all(&values, Some(&values[..64])).enumerate() {
            let columns = group.columns(simd);
            let importance = group.importance(simd).unwrap();
            for (i, (column, weights)) in columns.iter().zip(importance).enumerate() {
                for lane in 0..LANES {
                    let start = (16 * n + lane).min(23) * 32 + i;
                    assert_eq!(column.as_slice()[lane], start as f32);
                    assert_eq!(weights.as_slice()[lane], (start % 64) as f32);
                }
            }
            assert_eq!(group.values().len(), if n == 0 { 512 } else { 256 });
        }
        for bits in [0, 1, 0x3f80_0000, 0xbf00_0000, 0x4a80_0001, 0x7f7f_ffff, 0xff80_0000u32] {
            let value = f32::from_bits(bits);
            let nearest = nearest_clamped(splat(simd, value), -32, 31);
            let wanted = nearest_int(value).clamp(-32, 31) as f32;
            assert_eq!(nearest.as_slice(), [wanted; LANES], "{value}");
        }
    }

    fn check_halves<S: Simd>(simd: S) {
        for high in (0..=u16::MAX).step_by(LANES) {
            let bits: [i32; LANES] = std::array::from_fn(|i| i32::from(high) + i as i32);
            let values = from_f16(bits.simd_into(simd));
            // In the middle of two, a little below and above, and the same with another last bit.
            for nudge in [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff] {
                let near = values.as_slice().iter().map(|value| value.to_bits() + nudge);
                let near: Vec<f32> = near.map(f32::from_bits).collect();
                let halves = to_f16(load(simd, &near));
                for (lane, &near) in near.iter().enumerate() {
                    let value = half::f16::from_bits(bits[lane] as u16).to_f32();
                    let found = values.as_slice()[lane];
                    assert!(found == value || found.is_nan() && value.is_nan(), "{found} {value}");
                    let wanted = half::f16::from_f32(near);
                    let wanted = if near.is_nan() {
                        0x7e00 | (near.to_bits() >> 16) as i32 & 0x8000
                    } else {
                        i32::from(wanted.to_bits())
                    };
                    assert_eq!(halves.as_slice()[lane], wanted, "{near}");
                }
            }
        }
    }

    #[test]
    fn halves_are_the_nearest() {
        for set in InstructionSet::available() {
            run!(set, simd => check_halves(simd));
        }
    }

    #[test]
    fn lanes_are_sub_blocks() {
        for set in InstructionSet::available() {
            run!(set, simd => check(simd));
        }
    }
}
