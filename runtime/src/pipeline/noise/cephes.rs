//! The `float32` logarithm, sine and cosine of PyTorch's vectorized noise, bit for bit.
//!
//! Reference: PyTorch 2, `aten/src/ATen/native/cpu/avx_mathfun.h` (`log256_ps`, `sincos256_ps`),
//! after the Cephes library. PyTorch's AVX2 build fuses multiplications with the additions that
//! follow; so does [`f32::mul_add`], on every machine.

/// Horner's rule, fused.
fn polynomial(x: f32, first: f32, rest: &[f32]) -> f32 {
    rest.iter().fold(first, |sum, &coefficient| sum.mul_add(x, coefficient))
}

/// The natural logarithm of a positive number.
pub(super) fn ln(x: f32) -> f32 {
    // x = m·2ᵉ with m in [½, 1), then in [√½, √2).
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    let mut exponent = ((bits >> 23) as i32 - 0x7f) as f32 + 1.0;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    let mut x = mantissa - 1.0;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        x += mantissa;
    }
    let z = x * x;
    let coefficients = [
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let y = polynomial(x, 7.037_683_6e-2, &coefficients) * x;
    // ln 2 in two parts: the larger one times any exponent is exact.
    let y = y.mul_add(z, exponent * -2.121_944_4e-4) - z * 0.5;
    x + y + exponent * 0.693_359_4
}

/// Sine and cosine of an angle in [0, 2π].
pub(super) fn sin_cos(angle: f32) -> (f32, f32) {
    // The angle is j quarters of π, j even, and a rest in [−π/4, π/4]. π/4 in three parts.
    let j = ((angle * (4.0 / std::f32::consts::PI)) as i32 + 1) & !1;
    let quarters = j as f32;
    let mut x = angle;
    for part in [0.785_156_25, 2.418_756_5e-4, 3.774_895e-8] {
        x -= quarters * part;
    }
    let z = x * x;
    let cosine = polynomial(z, 2.443_315_7e-5, &[-1.388_731_6e-3, 4.166_664_6e-2]) * z;
    let cosine = cosine.mul_add(z, -(z * 0.5)) + 1.0;
    let sine = polynomial(z, -1.951_529_6e-4, &[8.332_161e-3, -1.666_665_5e-1]) * z;
    let sine = sine.mul_add(x, x);
    match j & 6 {
        0 => (sine, cosine),
        2 => (cosine, -sine),
        4 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}
