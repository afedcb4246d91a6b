//! How far blocks are from the values that they were made of.

use fearless_simd::prelude::*;
use fearless_simd::{f32x16, f64x8};

/// Sums over all values of a piece, and what its blocks stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Of the values.
    pub squares: f64,
    /// Of what the blocks stand for.
    pub decoded_squares: f64,
    /// Of the differences.
    pub error_squares: f64,
    /// The largest difference.
    pub largest: f32,
}

/// [`Errors`] on their way: sums that are built side by side, in an order that doesn't depend on the
/// processor.
pub(crate) struct LaneSums<S: Simd> {
    /// Of squares, squares of the decoded and squares of errors.
    terms: [f32x16<S>; 3],
    carried: [[f64x8<S>; 2]; 3],
    largest: f32x16<S>,
}

impl<S: Simd> LaneSums<S> {
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self {
            terms: [f32x16::splat(simd, 0.0); 3],
            carried: [[f64x8::splat(simd, 0.0); 2]; 3],
            largest: f32x16::splat(simd, 0.0),
        }
    }

    /// Counts values `x` whose blocks stand for `y`.
    #[inline(always)]
    pub(crate) fn add(&mut self, x: f32x16<S>, y: f32x16<S>) {
        let error = x - y;
        self.terms[0] += x * x;
        self.terms[1] += y * y;
        self.terms[2] += error * error;
        self.largest = self.largest.max(error.abs());
    }

    /// Goes on in f64, as is due about every 64 terms.
    #[inline(always)]
    pub(crate) fn carry(&mut self) {
        for (terms, carried) in self.terms.iter_mut().zip(&mut self.carried) {
            let (low, high) = terms.widen();
            carried[0] += low;
            carried[1] += high;
            *terms = f32x16::splat(terms.simd, 0.0);
        }
    }

    #[inline(always)]
    pub(crate) fn finish(mut self) -> Errors {
        self.carry();
        let [squares, decoded_squares, error_squares] = self.carried.map(
            #[inline(always)]
            |[low, high]| low.as_slice().iter().chain(high.as_slice()).sum::<f64>(),
        );
        let largest = self.largest.as_slice().iter();
        Errors {
            squares,
            decoded_squares,
            error_squares,
            largest: largest.fold(0.0, |largest, &error| largest.max(error)),
        }
    }
}
