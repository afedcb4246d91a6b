//! `make_qp_quants`: codes of values that aren't negative, and their scale.

use crate::lanes::nearest_int;
use crate::make_qx_quants::GROUP_MAX_EPS;

/// Steps of the search for better codes.
const ITERATIONS: usize = 5;

/// Fills `codes`, of up to `nmax`; returns the scale.
pub(crate) fn make_qp_quants<const N: usize>(
    nmax: i32,
    x: &[f32; N],
    weights: &[f32; N],
    codes: &mut [u8; N],
) -> f32 {
    let max = x.iter().fold(0.0, |max, &x| if max > x { max } else { x });
    if max < GROUP_MAX_EPS {
        codes.fill(0);
        return 0.0;
    }
    let mut iscale = nmax as f32 / max;
    let scale = 1.0 / iscale;
    let mut best_mse = 0f32;
    for (&x, &w) in x.iter().zip(weights) {
        let diff = x - scale * f32::from(nearest_int(iscale * x) as u8);
        best_mse += w * diff * diff;
    }
    for step in (-4..=4).filter(|&step| step != 0) {
        let this_iscale = (0.1 * step as f32 + nmax as f32) / max;
        let this_scale = 1.0 / this_iscale;
        let mut mse = 0f32;
        for (&x, &w) in x.iter().zip(weights) {
            let code = nearest_int(this_iscale * x).min(nmax);
            let diff = x - this_scale * code as f32;
            mse += w * diff * diff;
        }
        if mse < best_mse {
            best_mse = mse;
            iscale = this_iscale;
        }
    }
    let (mut sumlx, mut suml2) = (0f32, 0f32);
    for ((&x, &w), out) in x.iter().zip(weights).zip(codes.iter_mut()) {
        let code = nearest_int(iscale * x).min(nmax);
        *out = code as u8;
        sumlx += w * x * code as f32;
        suml2 += w * code as f32 * code as f32;
    }
    for _ in 0..ITERATIONS {
        let mut changed = false;
        for ((&x, &w), code) in x.iter().zip(weights).zip(codes.iter_mut()) {
            let old = f32::from(*code);
            let mut slx = sumlx - w * x * old;
            let mut sl2 = suml2 - w * old * old;
            if slx > 0.0 && sl2 > 0.0 {
                let new = nearest_int(x * sl2 / slx).min(nmax);
                if new != i32::from(*code) {
                    slx += w * x * new as f32;
                    sl2 += w * new as f32 * new as f32;
                    if slx * slx * suml2 > sumlx * sumlx * sl2 {
                        *code = new as u8;
                        (sumlx, suml2) = (slx, sl2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if suml2 > 0.0 { sumlx / suml2 } else { 0.0 }
}
