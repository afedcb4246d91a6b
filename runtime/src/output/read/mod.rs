//! Frames back from where [`Target`](super::Target) puts them, for judging a finished video.

mod error;
mod images;
mod mp4;
mod y4m;

use super::{Frame, Target};
use std::fs::File;
use std::path::Path;

pub use error::ReadError;

/// Longer sides are no video.
const LONGEST_SIDE: usize = 16_384;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Contents {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// How many frames there were.
    pub frames: usize,
    /// Bytes of the largest coded frame, if frames are coded with loss.
    pub largest_coded: Option<u64>,
}

impl Contents {
    /// Bits a pixel of the largest coded frame, if frames are coded with loss.
    pub fn bits_per_pixel(&self) -> Option<f64> {
        Some(self.largest_coded? as f64 * 8.0 / (self.width * self.height) as f64)
    }

    /// One more frame, which must be as large as those before it.
    fn add(&mut self, frame: &Frame, path: &Path) -> Result<(), ReadError> {
        if self.frames > 0 && (frame.width, frame.height) != (self.width, self.height) {
            return Err(ReadError::Sizes {
                path: path.to_owned(),
                frame: self.frames,
                size: (frame.width, frame.height),
                first: (self.width, self.height),
            });
        }
        (self.width, self.height) = (frame.width, frame.height);
        self.frames += 1;
        Ok(())
    }
}

/// Hands every frame of `path` to `push`, in order: H.264 in MP4, YUV4MPEG2, or a folder of PNG
/// images. One frame at a time is in memory.
///
/// # Errors
/// When the file isn't there, is of another kind, is damaged or cut off, or holds no frame.
pub fn read(path: &Path, push: &mut dyn FnMut(&Frame)) -> Result<Contents, ReadError> {
    path.metadata().map_err(ReadError::io(path))?;
    let file = || File::open(path).map_err(ReadError::io(path));
    let contents = match Target::of(path).ok_or(ReadError::Unknown { path: path.to_owned() })? {
        Target::Mp4(_) => mp4::read(path, file()?, push)?,
        Target::Y4m(_) => y4m::read(path, file()?, push)?,
        Target::Images(_) => images::read(path, push)?,
    };
    if contents.frames == 0 {
        return Err(ReadError::Empty { path: path.to_owned() });
    }
    Ok(contents)
}
