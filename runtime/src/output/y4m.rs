//! Uncompressed video for other programs: YUV4MPEG2, 4:4:4, 8 bits, limited range.
//!
//! Format: `yuv4mpeg(5)` of the mjpegtools. The header can't name the colour matrix, and readers
//! go by the size: BT.709 from 1280 pixels of width or 577 rows on, else BT.601, as here. The range
//! is marked with the header extension that FFmpeg writes and reads.

use std::io::Write;
use std::path::Path;

use super::part_file::PartFile;
use super::yuv::{Matrix, full_chroma};
use super::{Frame, FrameSink, OutputError, Video};

pub(super) struct Y4m {
    file: PartFile,
    video: Video,
    matrix: Matrix,
}

impl Y4m {
    pub(super) fn create(path: &Path, video: Video) -> Result<Self, OutputError> {
        let Video { width, height, fps, .. } = video;
        if fps == 0 {
            let limit = "a video has at least one frame per second";
            return Err(OutputError::Limit { path: path.to_owned(), width, height, fps, limit });
        }
        let mut file = PartFile::create(path)?;
        writeln!(
            file,
            "YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C444 XYSCSS=444 XCOLORRANGE=LIMITED"
        )
        .map_err(OutputError::io(path))?;
        Ok(Self { file, video, matrix: Matrix::of_size(width, height) })
    }
}

impl FrameSink for Y4m {
    fn push(&mut self, frame: &Frame) -> Result<(), OutputError> {
        self.video.assert_has(frame);
        let planes = full_chroma(frame, self.matrix);
        let written = [b"FRAME\n".as_slice(), &planes.y, &planes.cb, &planes.cr]
            .into_iter()
            .try_for_each(|bytes| self.file.write_all(bytes));
        written.map_err(OutputError::io(self.file.path()))
    }

    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        self.file.keep()
    }
}
