//! `CLIPImageProcessor` of transformers.

use super::{Filter, Image};

/// Pixels along a side of what CLIP ViT-H/14 sees.
pub const CLIP_SIDE: usize = 224;

/// Of the data that CLIP was trained on, by color.
const MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// `[side, side, 3]`: the shorter side resized to `side` pixels, the middle cropped, each color
/// normalized.
pub fn clip_pixels(image: &Image, side: usize) -> Vec<f32> {
    let normalize =
        |(i, &v): (usize, &u8)| ((f64::from(v) / 255.0 - MEAN[i % 3]) / STD[i % 3]) as f32;
    middle(image, side).rgb.iter().enumerate().map(normalize).collect()
}

fn middle(image: &Image, side: usize) -> Image {
    let (width, height) = (image.width, image.height);
    let longer = |long: usize, short: usize| (side as u64 * long as u64 / short as u64) as usize;
    let resized = if width <= height {
        image.resized([side, longer(height, width)], Filter::Bicubic)
    } else {
        image.resized([longer(width, height), side], Filter::Bicubic)
    };
    resized.cropped([(resized.width - side) / 2, (resized.height - side) / 2], [side, side])
}
