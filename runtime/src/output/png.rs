//! Frames as numbered PNG images in a folder, lossless.

use std::fs;
use std::path::{Path, PathBuf};

use ::png::{BitDepth, ColorType, Compression, Encoder, EncodingError, SrgbRenderingIntent};

use super::part_file::PartFile;
use super::{Frame, FrameSink, OutputError, Video};

/// Writes 00000.png, 00001.png, …
pub(super) struct Images {
    folder: PathBuf,
    video: Video,
    next: usize,
}

impl Images {
    pub(super) fn create(folder: &Path, video: Video) -> Result<Self, OutputError> {
        fs::create_dir_all(folder).map_err(OutputError::io(folder))?;
        for entry in fs::read_dir(folder).map_err(OutputError::io(folder))? {
            let path = entry.map_err(OutputError::io(folder))?.path();
            if number(&path).is_some_and(|number| number >= video.frames) {
                return Err(OutputError::LeftOver { path, frames: video.frames });
            }
        }
        Ok(Self { folder: folder.to_owned(), video, next: 0 })
    }
}

/// The frame that a path like `00012.png` is the image of.
fn number(path: &Path) -> Option<usize> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix(".png")?;
    (digits.len() >= 5 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

impl FrameSink for Images {
    fn push(&mut self, frame: &Frame) -> Result<(), OutputError> {
        self.video.assert_has(frame);
        write_image(&self.folder.join(format!("{:05}.png", self.next)), frame)?;
        self.next += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Writes one 8-bit RGB image, marked as sRGB.
pub(super) fn write_image(path: &Path, frame: &Frame) -> Result<(), OutputError> {
    let mut file = PartFile::create(path)?;
    encode(&mut file, frame).map_err(|error| match error {
        EncodingError::IoError(source) => OutputError::Io { path: path.to_owned(), source },
        source => OutputError::Image { path: path.to_owned(), source },
    })?;
    file.keep()
}

fn encode(file: &mut PartFile, frame: &Frame) -> Result<(), EncodingError> {
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut encoder = Encoder::new(file, size(frame.width), size(frame.height));
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&frame.rgb)?;
    writer.finish()
}
