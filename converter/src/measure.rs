//! How far two sets of values are apart.

use quantizers::Errors;
use std::iter::Sum;
use std::ops::Add;

/// Sums over pairs of a value and what became of it. Those of parts add up, and in the same order
/// they add up to the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    squares: f64,
    other_squares: f64,
    products: f64,
    error_squares: f64,
    largest: f32,
}

/// Sums that are built side by side, which processors do at once.
const LANES: usize = 16;
/// Terms that a lane adds in f32 before the sum goes on in f64.
const RUN: usize = 64;

impl Sums {
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn of(values: &[f32], others: &[f32]) -> Self {
        assert_eq!(values.len(), others.len(), "pairs");
        let mut sums = Sums::default();
        let step = LANES * RUN;
        for (values, others) in values.chunks(step).zip(others.chunks(step)) {
            sums = sums + Sums::of_few(values, others);
        }
        sums
    }

    fn of_few(values: &[f32], others: &[f32]) -> Self {
        let ((head, tail), (other_head, other_tail)) =
            (values.as_chunks::<LANES>(), others.as_chunks::<LANES>());
        let mut lanes = [[0f32; LANES]; 5];
        for (x, y) in head.iter().zip(other_head) {
            for i in 0..LANES {
                let error = (x[i] - y[i]).abs();
                lanes[0][i] += x[i] * x[i];
                lanes[1][i] += y[i] * y[i];
                lanes[2][i] += x[i] * y[i];
                lanes[3][i] += error * error;
                lanes[4][i] = if error > lanes[4][i] { error } else { lanes[4][i] };
            }
        }
        let sum = |lanes: &[f32; LANES]| lanes.iter().copied().map(f64::from).sum::<f64>();
        let mut sums = Sums {
            squares: sum(&lanes[0]),
            other_squares: sum(&lanes[1]),
            products: sum(&lanes[2]),
            error_squares: sum(&lanes[3]),
            largest: lanes[4].iter().fold(0.0, |largest, &error| largest.max(error)),
        };
        for (&x, &y) in tail.iter().zip(other_tail) {
            let ([x, y], error) = ([x, y].map(f64::from), (x - y).abs());
            sums.squares += x * x;
            sums.other_squares += y * y;
            sums.products += x * y;
            sums.error_squares += f64::from(error) * f64::from(error);
            sums.largest = sums.largest.max(error);
        }
        sums
    }

    /// Whether nothing that was summed is infinite or no number.
    pub(crate) fn is_finite(&self) -> bool {
        self.error_squares.is_finite()
    }

    pub(crate) fn error(&self) -> TensorError {
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let same = self.error_squares == 0.0;
        TensorError {
            relative_rmse: match same {
                true => 0.0,
                // What was nothing but zeros and isn't any more is infinitely far away.
                false if self.squares == 0.0 => f64::INFINITY,
                false => (self.error_squares / self.squares).sqrt(),
            },
            largest: self.largest,
            cosine: match same {
                true => 1.0,
                // Rounding may take it beyond.
                false => ratio(self.products, (self.squares * self.other_squares).sqrt())
                    .clamp(-1.0, 1.0),
            },
        }
    }
}

impl From<Errors> for Sums {
    fn from(errors: Errors) -> Self {
        let Errors { squares, decoded_squares, error_squares, largest } = errors;
        Self {
            squares,
            other_squares: decoded_squares,
            // For (x - y)^2 = x^2 + y^2 - 2xy.
            products: (squares + decoded_squares - error_squares) / 2.0,
            error_squares,
            largest,
        }
    }
}

impl Add for Sums {
    type Output = Sums;

    fn add(self, other: Sums) -> Sums {
        Sums {
            squares: self.squares + other.squares,
            other_squares: self.other_squares + other.other_squares,
            products: self.products + other.products,
            error_squares: self.error_squares + other.error_squares,
            largest: self.largest.max(other.largest),
        }
    }
}

impl Sum for Sums {
    fn sum<I: Iterator<Item = Sums>>(parts: I) -> Sums {
        parts.fold(Sums::default(), Add::add)
    }
}

/// The distance of a tensor from what it was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorError {
    /// The root of the mean squared error, over that of the mean squared value.
    pub relative_rmse: f64,
    /// The largest absolute error.
    pub largest: f32,
    /// Of the angle between the two.
    pub cosine: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_what_their_names_say() {
        // More than a step, and a rest that fills no lane.
        let values: Vec<f32> = (0..3001).map(|i| (i % 7) as f32 - 3.0).collect();
        let others: Vec<f32> =
            (0..3001).map(|i| values[i] + if i == 2999 { 0.5 } else { 0.25 }).collect();
        let error = Sums::of(&values, &others).error();
        let (mut squares, mut errors, mut products, mut norm) = (0.0, 0.0, 0.0, 0.0);
        for (&x, &y) in values.iter().zip(&others) {
            let [x, y] = [x, y].map(f64::from);
            squares += x * x;
            errors += (x - y) * (x - y);
            products += x * y;
            norm += y * y;
        }
        assert!((error.relative_rmse - (errors / squares).sqrt()).abs() < 1e-9, "{error:?}");
        assert!((error.cosine - products / (squares * norm).sqrt()).abs() < 1e-9, "{error:?}");
        assert_eq!(error.largest, 0.5);
    }

    #[test]
    fn nothing_is_no_distance() {
        let zeros = Sums::of(&[0.0; 20], &[0.0; 20]).error();
        assert_eq!(zeros, TensorError { relative_rmse: 0.0, largest: 0.0, cosine: 1.0 });
        assert_eq!(Sums::of(&[0.0; 20], &[1.0; 20]).error().relative_rmse, f64::INFINITY);
    }
}
