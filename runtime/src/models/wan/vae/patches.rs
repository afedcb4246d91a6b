//! Wan 2.2's VAE sees 2x2 pixels as one of four times the channels.

use crate::ggml::HostTensor;

/// `[H, W, C]` to `[H / p, W / p, C · p · p]`: channels outermost, then columns, then rows.
pub(super) fn patchify(frame: &HostTensor, p: i64) -> HostTensor {
    let [h, w, c] = frame.shape.dims();
    let shape = [h / p, w / p, c * p * p];
    moved(frame, shape, [h, w, c], p, |patched, pixel| (pixel, patched))
}

/// The inverse of [`patchify`]: `[H, W, C · p · p]` to `[H · p, W · p, C]`.
pub(super) fn unpatchify(frame: &HostTensor, p: i64) -> HostTensor {
    let [h, w, c] = frame.shape.dims();
    let shape = [h * p, w * p, c / (p * p)];
    moved(frame, shape, shape, p, |patched, pixel| (patched, pixel))
}

/// `from` in `shape`; `which` of two places, in patches and among `pixels` `[H, W, C]`, is read and
/// which is written.
fn moved(
    from: &HostTensor,
    shape: [i64; 3],
    pixels: [i64; 3],
    p: i64,
    which: impl Fn(usize, usize) -> (usize, usize),
) -> HostTensor {
    if p == 1 {
        return from.clone();
    }
    let [h, w, c, p] = [pixels[0], pixels[1], pixels[2], p].map(|n| n as usize);
    let mut values = vec![0.0; h * w * c];
    for y in 0..h {
        for x in 0..w {
            for channel in 0..c {
                let inside = (channel * p + x % p) * p + y % p;
                let patched = ((y / p) * (w / p) + x / p) * c * p * p + inside;
                let (read, written) = which(patched, (y * w + x) * c + channel);
                values[written] = from.data[read];
            }
        }
    }
    HostTensor::new(shape, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `patchify` of `wan/modules/vae2_2.py`: "b c f (h q) (w r) -> b (c r q) f h w".
    #[test]
    fn columns_come_before_rows() {
        let frame = HostTensor::new([2, 4, 2], (0..16).map(|i| i as f32).collect::<Vec<_>>());
        let patched = patchify(&frame, 2);
        assert_eq!(patched.shape.dims(), [1, 2, 8]);
        assert_eq!(patched.data[..8], [0.0, 8.0, 2.0, 10.0, 1.0, 9.0, 3.0, 11.0]);
        assert_eq!(unpatchify(&patched, 2).data, frame.data);
    }
}
