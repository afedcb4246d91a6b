//! Where finished frames go: a video file, a raw video for other programs, or a folder of images;
//! [`read`] gets them back.
//!
//! The path decides. Nothing that is half written ever has the name that was asked for: files are
//! written beside it as `NAME.part` and renamed when they are whole.

mod contact_sheet;
mod error;
mod mp4;
mod part_file;
mod png;
mod read;
mod y4m;
mod yuv;

use std::path::{Path, PathBuf};

pub use contact_sheet::ContactSheet;
pub use error::OutputError;
pub use read::{Contents, ReadError, read};

/// One picture of a video.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue (sRGB, 8 bits each) of every pixel, row by row from the top:
    /// `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl Frame {
    /// A frame of `height`×`width` pixels.
    ///
    /// # Panics
    /// When `rgb` isn't `height * width * 3` long.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), width * height * 3, "a frame of {width}×{height}");
        Self { width, height, rgb }
    }
}

/// What a sink must know before the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Video {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Frames per second.
    pub fps: u32,
    /// How many frames there will be.
    pub frames: usize,
}

impl Video {
    /// A sink was given a frame that isn't one of its video.
    #[track_caller]
    fn assert_has(&self, frame: &Frame) {
        assert_eq!((frame.width, frame.height), (self.width, self.height), "the frame's size");
        assert_eq!(frame.rgb.len(), self.width * self.height * 3, "the frame's pixels");
    }
}

/// Takes the frames of one video in order.
pub trait FrameSink {
    /// Adds the next frame.
    ///
    /// # Panics
    /// When the frame's size isn't the video's.
    fn push(&mut self, frame: &Frame) -> Result<(), OutputError>;

    /// Completes the output. A sink that is dropped instead leaves no file behind (but a folder
    /// keeps its finished images).
    fn finish(self: Box<Self>) -> Result<(), OutputError>;
}

/// A path understood, before there is anything to write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// H.264 in MP4.
    Mp4(PathBuf),
    /// Uncompressed YUV4MPEG2.
    Y4m(PathBuf),
    /// Images 00000.png, 00001.png, … in this folder.
    Images(PathBuf),
}

impl Target {
    /// Decides by what `path` names: an existing folder or a trailing slash means images, else the
    /// extension counts. Cheap, so that a typing mistake is found before a long run.
    ///
    /// # Errors
    /// When the path names none of the three, or the folder that a file should be in isn't there.
    pub fn parse(path: &Path) -> Result<Self, OutputError> {
        let target = Self::of(path).ok_or(OutputError::Unknown { path: path.to_owned() })?;
        if !matches!(target, Self::Images(_)) {
            part_file::check_folder(path)?;
        }
        Ok(target)
    }

    /// The kind that `path` names, if it is one of the three.
    fn of(path: &Path) -> Option<Self> {
        if path.is_dir() || path.to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]) {
            return Some(Self::Images(path.to_owned()));
        }
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("mp4") => Some(Self::Mp4(path.to_owned())),
            Some("y4m") => Some(Self::Y4m(path.to_owned())),
            _ => None,
        }
    }

    /// Starts writing `video`.
    ///
    /// # Errors
    /// When the format can't hold such a video, or the file can't be created.
    pub fn open(&self, video: Video) -> Result<Box<dyn FrameSink>, OutputError> {
        Ok(match self {
            Self::Mp4(path) => Box::new(mp4::Mp4::create(path, video)?),
            Self::Y4m(path) => Box::new(y4m::Y4m::create(path, video)?),
            Self::Images(folder) => Box::new(png::Images::create(folder, video)?),
        })
    }
}

/// Starts writing `video` to what `path` names; see [`Target::parse`].
///
/// # Errors
/// Those of [`Target::parse`] and [`Target::open`].
pub fn open(path: &Path, video: Video) -> Result<Box<dyn FrameSink>, OutputError> {
    Target::parse(path)?.open(video)
}
