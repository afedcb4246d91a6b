//! Image files as a video's first or last frame, and as an image encoder sees them: read, resized and
//! normalized as the reference does it with Pillow.

mod processor;
mod read;
mod resize;

pub use processor::{CLIP_SIDE, clip_pixels};
pub use read::ImageError;
pub use resize::Filter;

/// 8-bit RGB, row by row.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue of every pixel, from the top left on: `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl Image {
    /// Panics unless there are three bytes for each pixel, and a pixel.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert!(width > 0 && height > 0, "an image of {width}x{height} pixels");
        assert_eq!(rgb.len(), 3 * width * height, "bytes of an image of {width}x{height} pixels");
        Self { width, height, rgb }
    }

    /// The `width`x`height` pixels whose first is in column `left` of row `top`. Panics where the image
    /// ends before.
    pub fn cropped(&self, [left, top]: [usize; 2], [width, height]: [usize; 2]) -> Self {
        assert!(left + width <= self.width && top + height <= self.height, "cropped: {self:?}");
        let row = |y: usize| &self.rgb[3 * (y * self.width + left)..][..3 * width];
        Self::new(width, height, (top..top + height).flat_map(row).copied().collect())
    }

    /// `[H, W, 3]` in [-1, 1], as the VAE sees frames (`VaeImageProcessor.preprocess`).
    pub fn normalized(&self) -> Vec<f32> {
        self.rgb.iter().map(|&v| 2.0 * (f32::from(v) / 255.0) - 1.0).collect()
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{})", self.width, self.height)
    }
}
