//! What can go wrong while reading frames.

use shiguredo_mp4::demux::DemuxError;
use std::io;
use std::path::{Path, PathBuf};

/// A video or image that can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The path says nothing about the format.
    #[error("{path}: expected a .mp4 file, a .y4m file, or a folder of .png images", path = path.display())]
    Unknown {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: can't be read", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no picture.
    #[error("{path}: there is no frame in it", path = path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// The file isn't what its name says.
    #[error("{path}: {what}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file ends too early.
    #[error("{path}: cut off in frame {frame}: {missing} bytes are missing at its end", path = path.display())]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Index of the frame, from 0.
        frame: usize,
        /// How much more there should be.
        missing: u64,
    },
    /// Not every MP4 file holds what the decoder knows.
    #[error(
        "{path}: {what}; make a folder of PNG images of it with another program and give that instead",
        path = path.display()
    )]
    Codec {
        /// The file.
        path: PathBuf,
        /// What the decoder can't do.
        what: String,
    },
    /// The MP4 container is damaged.
    #[error("{path}: the MP4 container can't be read", path = path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// The container library's reason.
        source: DemuxError,
    },
    /// The image can't be decoded.
    #[error("{path}: the image can't be decoded", path = path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The image library's reason.
        source: png::DecodingError,
    },
    /// A video has one size.
    #[error(
        "{path}: frame {frame} has {}x{} pixels, the first one {}x{}", size.0, size.1, first.0, first.1,
        path = path.display()
    )]
    Sizes {
        /// The file.
        path: PathBuf,
        /// Index of the frame, from 0.
        frame: usize,
        /// Its width and height.
        size: (usize, usize),
        /// Width and height of the first frame.
        first: (usize, usize),
    },
}

impl ReadError {
    /// For `map_err`: an I/O error of the file at `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into() }
    }
}
