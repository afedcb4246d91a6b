//! The layouts of blocks: scales in F16, and codes of a few bits put together in bytes.

use half::f16;

/// Elements of a block of the K types, and of IQ4_XS.
pub(crate) const QK_K: usize = 256;

/// Writes `value` as F16; returns what it is then.
pub(crate) fn put_f16(out: &mut [u8], value: f32) -> f32 {
    let half = f16::from_f32(value);
    out.copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// Codes of four bits, those of the first half of each `2 * half` in the low ones.
#[inline(always)]
pub(crate) fn put_nibbles(out: &mut [u8], codes: &[u8], half: usize) {
    for (out, codes) in out.chunks_exact_mut(half).zip(codes.chunks_exact(2 * half)) {
        let (low, high) = codes.split_at(half);
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            *out = low & 15 | high << 4;
        }
    }
}

/// Codes of two bits, four of each 128, which are 32 apart, in a byte.
#[inline(always)]
pub(crate) fn put_pairs_of_bits(out: &mut [u8], codes: &[u8; QK_K]) {
    for (out, codes) in out.chunks_exact_mut(32).zip(codes.chunks_exact(128)) {
        for (l, out) in out.iter_mut().enumerate() {
            let code = |quarter: usize| codes[l + 32 * quarter] & 3;
            *out = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
        }
    }
}
