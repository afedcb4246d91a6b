//! A video at a glance: a few of its frames side by side in one PNG image.

use std::path::{Path, PathBuf};

use super::png::write_image;
use super::{Frame, FrameSink, OutputError, part_file};

/// Keeps evenly spaced frames of a video, first and last included, and writes them as one row.
pub struct ContactSheet {
    path: PathBuf,
    /// Indices of the frames to keep, rising.
    wanted: Vec<usize>,
    next: usize,
    kept: Vec<Frame>,
}

impl ContactSheet {
    /// A sheet of `columns` frames out of `frames`, to be written to `path`. A shorter video has
    /// all its frames on the sheet; a single column shows the middle one.
    ///
    /// # Errors
    /// When `path` isn't that of a `.png` file, or the folder that `path` should be in isn't there.
    pub fn create(path: &Path, columns: usize, frames: usize) -> Result<Self, OutputError> {
        if !path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png")) {
            return Err(OutputError::Sheet { path: path.to_owned() });
        }
        part_file::check_folder(path)?;
        let columns = columns.min(frames);
        let wanted = match columns {
            1 => vec![frames / 2],
            _ => (0..columns)
                .map(|i| (i * (frames - 1) + (columns - 1) / 2) / (columns - 1))
                .collect(),
        };
        Ok(Self { path: path.to_owned(), wanted, next: 0, kept: Vec::new() })
    }
}

impl FrameSink for ContactSheet {
    fn push(&mut self, frame: &Frame) -> Result<(), OutputError> {
        if self.wanted.contains(&self.next) {
            if let Some(first) = self.kept.first() {
                assert_eq!((frame.width, frame.height), (first.width, first.height), "the size");
            }
            self.kept.push(frame.clone());
        }
        self.next += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        let Some(first) = self.kept.first() else {
            return Err(OutputError::Empty { path: self.path });
        };
        let (width, height) = (first.width, first.height);
        let mut rgb = Vec::with_capacity(self.kept.len() * first.rgb.len());
        for y in 0..height {
            for frame in &self.kept {
                rgb.extend_from_slice(&frame.rgb[y * width * 3..][..width * 3]);
            }
        }
        write_image(&self.path, &Frame::new(self.kept.len() * width, height, rgb))
    }
}
