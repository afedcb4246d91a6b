//! `Image.resize` of Pillow 13 for 8-bit RGB, bit for bit (`src/libImaging/Resample.c`): one side, rounded
//! to 8 bits, then the other, both with coefficients of 22 binary places.
//!
//! No crate gives these bytes: fast_image_resize 5 differs by up to 58 of 255, for it always begins with
//! the columns. Pillow up to 12 always begins with the rows.

use super::Image;
use std::f64::consts::PI;

/// A kernel over source pixels, widened by as much as the image shrinks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter {
    /// Three lobes: Pillow's `LANCZOS`.
    Lanczos,
    /// a = -0.5: Pillow's `BICUBIC`.
    Bicubic,
}

/// Binary places of the coefficients: what 32 bits leave beside 8 of the pixel and 2 of room.
const PLACES: i32 = 32 - 8 - 2;

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    fn value(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        match self {
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                match x {
                    ..1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                    ..2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                    _ => 0.0,
                }
            }
        }
    }
}

/// The source pixels that make one of the result, and their share in it.
struct Sum {
    first: usize,
    coefficients: Vec<i32>,
}

/// One sum for each of `to` pixels along a side of `from`.
fn sums(from: usize, to: usize, filter: Filter) -> Vec<Sum> {
    let scale = from as f64 / to as f64;
    let widened = scale.max(1.0);
    let support = filter.support() * widened;
    let sum = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        // Casts cut towards zero, and the first below zero.
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let shares = (first..end).map(|x| {
            let distance = (x - first) as f64 + first as f64 - center + 0.5;
            filter.value(distance * (1.0 / widened))
        });
        let shares: Vec<f64> = shares.collect();
        let total: f64 = shares.iter().sum();
        let whole = |share: &f64| {
            let share = if total == 0.0 { *share } else { share / total };
            (share * f64::from(1 << PLACES) + 0.5f64.copysign(share)) as i32
        };
        Sum { first, coefficients: shares.iter().map(whole).collect() }
    };
    (0..to).map(sum).collect()
}

/// Rounded, and kept within 8 bits.
fn rounded(sum: i32) -> u8 {
    ((sum + (1 << (PLACES - 1))) >> PLACES).clamp(0, 255) as u8
}

impl Image {
    /// Panics for a side of no pixels.
    pub fn resized(&self, [width, height]: [usize; 2], filter: Filter) -> Self {
        assert!(width > 0 && height > 0, "resized to {width}x{height} pixels");
        let columns = (width != self.width).then(|| sums(self.width, width, filter));
        let rows = (height != self.height).then(|| sums(self.height, height, filter));
        match (columns, rows) {
            (None, None) => self.clone(),
            (Some(columns), None) => self.with_width(&columns),
            (None, Some(rows)) => self.with_height(&rows),
            (Some(columns), Some(rows)) => {
                // Where much height is lost, the other pass has fewer rows then.
                let lost = |from: usize, to: usize| from as i64 - to as i64;
                let [w, h] = [lost(self.width, width), lost(self.height, height)];
                if h > 0 && h > 2 * w {
                    self.with_height(&rows).with_width(&columns)
                } else {
                    self.with_width(&columns).with_height(&rows)
                }
            }
        }
    }

    fn with_width(&self, columns: &[Sum]) -> Self {
        let mut rgb = Vec::with_capacity(3 * columns.len() * self.height);
        for row in self.rgb.chunks_exact(3 * self.width) {
            for Sum { first, coefficients } in columns {
                let mut sum = [0; 3];
                for (pixel, k) in row[3 * first..].chunks_exact(3).zip(coefficients) {
                    for (sum, &v) in sum.iter_mut().zip(pixel) {
                        *sum += i32::from(v) * k;
                    }
                }
                rgb.extend(sum.map(rounded));
            }
        }
        Self::new(columns.len(), self.height, rgb)
    }

    fn with_height(&self, rows: &[Sum]) -> Self {
        let stride = 3 * self.width;
        let mut rgb = Vec::with_capacity(stride * rows.len());
        let mut sums = vec![0; stride];
        for Sum { first, coefficients } in rows {
            sums.fill(0);
            for (row, k) in self.rgb[stride * first..].chunks_exact(stride).zip(coefficients) {
                for (sum, &v) in sums.iter_mut().zip(row) {
                    *sum += i32::from(v) * k;
                }
            }
            rgb.extend(sums.iter().map(|&sum| rounded(sum)));
        }
        Self::new(self.width, rows.len(), rgb)
    }
}
