//! What can go wrong while writing frames.

use std::io;
use std::path::{Path, PathBuf};

use shiguredo_mp4::mux::MuxError;

/// A video or image that can't be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The path says nothing about the format.
    #[error(
        "{path}: the output must be a .mp4 file, a .y4m file, or a folder for .png images \
         (an existing one, or a path that ends in /)",
        path = path.display()
    )]
    Unknown {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A contact sheet replaces what has its name, which should be no model.
    #[error("{path}: a contact sheet is a .png file", path = path.display())]
    Sheet {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The folder around a file must exist.
    #[error("{path}: there is no folder {folder}", path = path.display(), folder = folder.display())]
    NoFolder {
        /// The file to write.
        path: PathBuf,
        /// The folder it would be in.
        folder: PathBuf,
    },
    /// Two runs would write over each other.
    #[error("{path}: another process is writing this file", path = path.display())]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
    /// The format has limits.
    #[error("{path}: {width}x{height} at {fps} frames per second can't be written: {limit}", path = path.display())]
    Limit {
        /// The file to write.
        path: PathBuf,
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Frames per second.
        fps: u32,
        /// What the format allows.
        limit: &'static str,
    },
    /// Images of another, longer video would be taken for this one's.
    #[error(
        "{path} is left from a video of more than {frames} frames; remove it or name another folder",
        path = path.display()
    )]
    LeftOver {
        /// The image that is in the way.
        path: PathBuf,
        /// Frames of the video to write.
        frames: usize,
    },
    /// Reading or writing failed.
    #[error("{path}: can't be written", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The H.264 encoder gave up.
    #[error("{path}: frame {frame} can't be encoded", path = path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Index of the frame, from 0.
        frame: usize,
        /// The encoder's reason.
        source: openh264::Error,
    },
    /// The H.264 encoder gave nothing, however often it was asked.
    #[error("{path}: the encoder skips frame {frame}", path = path.display())]
    Skipped {
        /// The file.
        path: PathBuf,
        /// Index of the frame, from 0.
        frame: usize,
    },
    /// The MP4 container can't be made.
    #[error("{path}: the MP4 container can't be made", path = path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// The container library's reason.
        source: MuxError,
    },
    /// The PNG image can't be made.
    #[error("{path}: the image can't be made", path = path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The image library's reason.
        source: png::EncodingError,
    },
    /// There is nothing to write.
    #[error("{path}: not written, because there was no frame", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl OutputError {
    /// For `map_err`: an I/O error of the file at `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
