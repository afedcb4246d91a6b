//! Image files of any kind that people have: what a camera turned is turned back, and what is left is RGB.

use super::Image;
use image::error::ImageError as Cause;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// Longest side that is read: a picture of a good camera has 12,000 pixels.
const LONGEST_SIDE: u32 = 20_000;
/// Bytes that decoding may take: 100 million pixels of 8-bit RGB.
const MOST_BYTES: u64 = 300_000_000;

/// A file that is no image of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum ImageError {
    #[error("{path}: {cause}", path = path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("{path}: this is no PNG, JPEG or WebP image", path = path.display())]
    Kind { path: PathBuf },
    #[error(
        "{path}: {width}x{height} pixels are too many; make the image smaller first",
        path = path.display()
    )]
    TooLarge { path: PathBuf, width: u32, height: u32 },
    #[error(
        "{path}: the image takes more than {MOST_BYTES} bytes to decode; make it smaller first",
        path = path.display()
    )]
    Memory { path: PathBuf },
    #[error("{path}: {bytes} bytes are too many for an image", path = path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    #[error("{path}: the image is damaged: {cause}", path = path.display())]
    Damaged { path: PathBuf, cause: String },
}

impl Image {
    /// Reads a PNG, JPEG or WebP file, told by its content, of any color type and depth. The EXIF
    /// orientation is applied, color profiles aren't; of an animation it is the first frame. What is
    /// transparent is laid on black.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let io = |cause| ImageError::Io { path: path.to_owned(), cause };
        // Opening a pipe waits for somebody who writes to it.
        let kind = fs::metadata(path).map_err(io)?;
        if !kind.is_file() && !kind.is_dir() {
            return Err(ImageError::Kind { path: path.to_owned() });
        }
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        if bytes > MOST_BYTES {
            return Err(ImageError::TooLong { path: path.to_owned(), bytes });
        }
        let file = BufReader::new(file);
        let mut reader = ImageReader::new(file).with_guessed_format().map_err(io)?;
        let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
        if !reader.format().is_some_and(|format| known.contains(&format)) {
            return Err(ImageError::Kind { path: path.to_owned() });
        }
        let mut limits = Limits::default();
        (limits.max_image_width, limits.max_image_height) = (None, None);
        limits.max_alloc = Some(MOST_BYTES);
        reader.limits(limits);
        let damaged = |cause: Cause| match cause {
            Cause::IoError(source) if source.kind() != io::ErrorKind::UnexpectedEof => io(source),
            Cause::Limits(_) => ImageError::Memory { path: path.to_owned() },
            cause => ImageError::Damaged { path: path.to_owned(), cause: cause.to_string() },
        };
        let mut decoder = reader.into_decoder().map_err(damaged)?;
        let (width, height) = decoder.dimensions();
        if width.max(height) > LONGEST_SIDE || decoder.total_bytes() > MOST_BYTES {
            return Err(ImageError::TooLarge { path: path.to_owned(), width, height });
        }
        if width.min(height) == 0 {
            let cause = format!("it has {width}x{height} pixels");
            return Err(ImageError::Damaged { path: path.to_owned(), cause });
        }
        // Orientation is metadata: an image with broken metadata is still an image.
        let orientation = decoder.orientation().ok();
        let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
        if let Some(orientation) = orientation {
            image.apply_orientation(orientation);
        }
        Ok(on_black(image))
    }
}

fn on_black(image: DynamicImage) -> Image {
    let (width, height) = (image.width() as usize, image.height() as usize);
    if !image.color().has_alpha() {
        return Image::new(width, height, image.into_rgb8().into_raw());
    }
    let rgba = image.into_rgba8().into_raw();
    let blend = |v: u8, alpha: u8| ((u32::from(v) * u32::from(alpha) + 127) / 255) as u8;
    let pixel = |p: &[u8]| [0, 1, 2].map(|i| blend(p[i], p[3]));
    Image::new(width, height, rgba.chunks_exact(4).flat_map(pixel).collect())
}
