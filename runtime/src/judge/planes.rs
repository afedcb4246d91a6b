//! A frame as three planes of numbers, and the same at half, a quarter, … of its size.

use crate::output::Frame;

/// One channel, in levels of 0 to 255, row by row.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) data: Vec<f32>,
}

impl Plane {
    pub(super) fn at(&self, x: usize, y: usize) -> f32 {
        self.data[y * self.width + x]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.width)
    }

    pub(super) fn mean(&self) -> f64 {
        self.data.iter().map(|&v| f64::from(v)).sum::<f64>() / self.data.len() as f64
    }

    pub(super) fn variance(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.data.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
        squares / self.data.len() as f64
    }

    /// Means of 2×2 pixels; an odd row or column at the end is left out.
    pub(super) fn halved(&self) -> Self {
        let (width, height) = (self.width / 2, self.height / 2);
        let mut data = Vec::with_capacity(width * height);
        for rows in self.data.chunks_exact(2 * self.width) {
            let (upper, lower) = rows.split_at(self.width);
            let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
            data.extend(pairs.map(|(u, l)| (u[0] + u[1] + l[0] + l[1]) / 4.0));
        }
        Self { width, height, data }
    }
}

/// Luma and the two colour differences, so that noise in colour alone counts too.
pub(super) type Planes = [Plane; 3];

/// Y, Cb and Cr after ITU-R BT.601, centred on 0 where they are differences.
pub(super) fn planes(frame: &Frame) -> Planes {
    let (width, height) = (frame.width, frame.height);
    let [mut y, mut cb, mut cr] = [(); 3].map(|()| Vec::with_capacity(width * height));
    for pixel in frame.rgb.chunks_exact(3) {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
        let luma = 0.299 * r + 0.587 * g + 0.114 * b;
        y.push(luma);
        cb.push((b - luma) * 0.564);
        cr.push((r - luma) * 0.713);
    }
    [y, cb, cr].map(|data| Plane { width, height, data })
}

pub(super) fn halved(planes: &Planes) -> Planes {
    planes.each_ref().map(Plane::halved)
}
