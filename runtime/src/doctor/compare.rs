//! How far a device's result is from the reference.

use serde::Serialize;

/// The largest difference that passes, in tolerances. Rounding of operands is spread evenly, so no
/// value of some ten thousand is off by even five times the root mean square; a tile that a kernel
/// left out, or one wrong value, is off by far more.
const MAX: f64 = 20.0;

/// Both in units of the reference's root mean square.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Difference {
    /// Root mean square of the differences.
    pub rms: f64,
    /// The largest difference of one value.
    pub max: f64,
}

impl Difference {
    /// Fails if `got` has another length, or holds anything but numbers.
    pub fn between(got: &[f32], expected: &[f32]) -> Result<Self, String> {
        if got.len() != expected.len() {
            return Err(format!("{} values instead of {}", got.len(), expected.len()));
        }
        let wrong = got.iter().filter(|value| !value.is_finite()).count();
        if wrong > 0 {
            return Err(format!("{wrong} of {} values are no numbers", got.len()));
        }
        let squares = |values: &mut dyn Iterator<Item = f64>| -> f64 {
            (values.map(|v| v * v).sum::<f64>() / expected.len() as f64).sqrt()
        };
        let apart = || got.iter().zip(expected).map(|(&g, &e)| (f64::from(g) - f64::from(e)).abs());
        let size = squares(&mut expected.iter().map(|&e| f64::from(e)));
        // A reference of zeros has no size: then differences count as they are.
        let size = if size > 0.0 { size } else { 1.0 };
        Ok(Self { rms: squares(&mut apart()) / size, max: apart().fold(0.0, f64::max) / size })
    }

    /// Whether `rms` is at most `tolerance`, and `max` at most twenty times as much.
    pub fn within(self, tolerance: f64) -> bool {
        self.rms <= tolerance && self.max <= MAX * tolerance
    }

    /// The larger of each.
    pub(super) fn or_worse(self, other: Self) -> Self {
        Self { rms: self.rms.max(other.rms), max: self.max.max(other.max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave() -> Vec<f32> {
        (0..10_000).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    #[track_caller]
    fn refused(change: impl Fn(&mut Vec<f32>)) {
        let expected = wave();
        let mut got = expected.clone();
        change(&mut got);
        let passes = Difference::between(&got, &expected).is_ok_and(|d| d.within(1e-3));
        assert!(!passes, "{:?}", Difference::between(&got, &expected));
    }

    #[test]
    fn rounding_passes() {
        let expected = wave();
        let got: Vec<_> = expected.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect();
        let difference = Difference::between(&got, &expected).unwrap();
        assert!(difference.within(1e-3) && !difference.within(1e-4), "{difference:?}");
        assert!(Difference::between(&expected, &expected).unwrap().within(0.0));
    }

    #[test]
    fn what_a_broken_kernel_leaves_behind_does_not() {
        refused(|got| got.fill(0.0));
        refused(|got| got.iter_mut().for_each(|v| *v *= 1.01));
        refused(|got| got.rotate_left(1));
        refused(|got| got[9_999] = 0.3);
        refused(|got| got[17] = f32::NAN);
        refused(|got| got[17] = f32::INFINITY);
        refused(|got| got[5_000..5_032].fill(0.0));
        refused(|got| got.truncate(9_999));
    }

    #[test]
    fn zeros_have_no_size() {
        assert!(Difference::between(&[0.0; 4], &[0.0; 4]).unwrap().within(0.0));
        assert_eq!(Difference::between(&[0.5; 4], &[0.0; 4]).unwrap().max, 0.5);
    }
}
