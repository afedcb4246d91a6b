//! RGB to the Y'CbCr that video formats hold: 8 bits, limited range (luma 16…235, chroma 16…240).
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

    /// Luma in 0…1 and the two colour differences in −½…½ of a pixel.
    fn apply(self, pixel: &[u8]) -> [f32; 3] {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(|v| f32::from(v) / 255.0);
        let y = self.red * r + (1.0 - self.red - self.blue) * g + self.blue * b;
        [y, (b - y) / (2.0 - 2.0 * self.blue), (r - y) / (2.0 - 2.0 * self.red)]
    }
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
