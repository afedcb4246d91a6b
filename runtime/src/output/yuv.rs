//! RGB to the Y'CbCr that video formats hold, and back: 8 bits, limited range (luma 16…235, chroma 16…240).
//!
//! Source: ITU-R BT.601-7 and BT.709-6, which differ in the weights of red and blue alone.

use super::Frame;

/// The weights of red and blue in luma.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Matrix {
    red: f32,
    blue: f32,
}

impl Matrix {
    /// Standard definition television.
    pub(super) const BT601: Self = Self { red: 0.299, blue: 0.114 };
    /// High definition television, and the sRGB primaries.
    pub(super) const BT709: Self = Self { red: 0.2126, blue: 0.0722 };

    /// What readers take for a picture whose file doesn't say: high definition from 1280 pixels of
    /// width or 577 rows on.
    pub(super) fn of_size(width: usize, height: usize) -> Self {
        if width >= 1280 || height > 576 { Self::BT709 } else { Self::BT601 }
    }

    /// Luma in 0…1 and the two colour differences in −½…½ of a pixel.
    fn apply(self, pixel: &[u8]) -> [f32; 3] {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(|v| f32::from(v) / 255.0);
        let y = self.red * r + (1.0 - self.red - self.blue) * g + self.blue * b;
        [y, (b - y) / (2.0 - 2.0 * self.blue), (r - y) / (2.0 - 2.0 * self.red)]
    }
}

/// A frame out of its three planes and the lengths of their rows. A chroma sample is that of
/// `shared` pixels, across and down; without samples the frame is grey.
pub(super) fn frame_of_planes(
    (width, height): (usize, usize),
    [(y, y_stride), (cb, cb_stride), (cr, cr_stride)]: [(&[u8], usize); 3],
    shared: (usize, usize),
    matrix: Matrix,
    full_range: bool,
) -> Frame {
    let (foot, luma, chroma) = if full_range { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
    let Matrix { red, blue } = matrix;
    let green = 1.0 - red - blue;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        for column in 0..width {
            let colour = |plane: &[u8], stride: usize| {
                let sample = plane.get(row / shared.1 * stride + column / shared.0);
                (f32::from(sample.copied().unwrap_or(128)) - 128.0) / chroma
            };
            let light = (f32::from(y[row * y_stride + column]) - foot) / luma;
            let b = light + (2.0 - 2.0 * blue) * colour(cb, cb_stride);
            let r = light + (2.0 - 2.0 * red) * colour(cr, cr_stride);
            let g = (light - red * r - blue * b) / green;
            rgb.extend([r, g, b].map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8));
        }
    }
    Frame::new(width, height, rgb)
}

/// The three planes of a frame, one after the other.
#[derive(Debug, PartialEq)]
pub(super) struct Planes {
    pub(super) y: Vec<u8>,
    pub(super) cb: Vec<u8>,
    pub(super) cr: Vec<u8>,
}

fn luma(y: f32) -> u8 {
    (16.0 + 219.0 * y).round() as u8
}

fn chroma(c: f32) -> u8 {
    (128.0 + 224.0 * c).round() as u8
}

/// All planes as large as the frame (4:4:4).
pub(super) fn full_chroma(frame: &Frame, matrix: Matrix) -> Planes {
    let pixels = frame.width * frame.height;
    let [mut y, mut cb, mut cr] = [(); 3].map(|()| Vec::with_capacity(pixels));
    for pixel in frame.rgb.chunks_exact(3) {
        let [luminance, blue, red] = matrix.apply(pixel);
        y.push(luma(luminance));
        cb.push(chroma(blue));
        cr.push(chroma(red));
    }
    Planes { y, cb, cr }
}

/// Chroma at half the width and height (4:2:0), both even. A chroma sample lies on an even column,
/// between two rows: where H.264 and MPEG-2 decoders expect it if nothing else is said.
pub(super) fn half_chroma(frame: &Frame, matrix: Matrix) -> Planes {
    let (width, height) = (frame.width, frame.height);
    let mut y = Vec::with_capacity(width * height);
    let [mut cb, mut cr] = [(); 2].map(|()| Vec::with_capacity(width * height / 4));
    let mut sums = vec![[0.0_f32; 2]; width];
    for rows in frame.rgb.chunks_exact(2 * width * 3) {
        sums.fill([0.0; 2]);
        for row in rows.chunks_exact(width * 3) {
            for (pixel, sum) in row.chunks_exact(3).zip(&mut sums) {
                let [luminance, blue, red] = matrix.apply(pixel);
                y.push(luma(luminance));
                *sum = [sum[0] + blue, sum[1] + red];
            }
        }
        for x in (0..width).step_by(2) {
            let [left, middle, right] = [sums[x.saturating_sub(1)], sums[x], sums[x + 1]];
            // Two rows, weights 1 2 1.
            let filtered = |i: usize| (left[i] + 2.0 * middle[i] + right[i]) / 8.0;
            cb.push(chroma(filtered(0)));
            cr.push(chroma(filtered(1)));
        }
    }
    Planes { y, cb, cr }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_have_the_published_codes() {
        // BT.709-6 and BT.601-7, 8-bit codes of the 100 % colour bars.
        let bars = [
            [255, 255, 255],
            [255, 255, 0],
            [0, 255, 255],
            [0, 255, 0],
            [255, 0, 255],
            [255, 0, 0],
            [0, 0, 255],
            [0, 0, 0],
        ];
        let frame = Frame::new(8, 1, bars.concat());
        let hd = full_chroma(&frame, Matrix::BT709);
        assert_eq!(hd.y, [235, 219, 188, 173, 78, 63, 32, 16]);
        assert_eq!(hd.cb, [128, 16, 154, 42, 214, 102, 240, 128]);
        assert_eq!(hd.cr, [128, 138, 16, 26, 230, 240, 118, 128]);
        let sd = full_chroma(&frame, Matrix::BT601);
        assert_eq!(sd.y, [235, 210, 170, 145, 106, 81, 41, 16]);
        assert_eq!(sd.cb, [128, 16, 166, 54, 202, 90, 240, 128]);
        assert_eq!(sd.cr, [128, 146, 16, 34, 222, 240, 110, 128]);
    }

    #[test]
    fn chroma_is_halved_around_even_columns() {
        // A blue right half, from column 3 of 4: the sample on column 2 has a quarter of it.
        let row = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 255]].concat();
        let planes = half_chroma(&Frame::new(4, 2, row.repeat(2)), Matrix::BT709);
        assert_eq!(planes.y, [16, 16, 16, 32, 16, 16, 16, 32]);
        assert_eq!(planes.cb, [128, 128 + 28]);
        assert_eq!(planes.cr.len(), 2);
    }
}
