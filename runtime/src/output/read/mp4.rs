//! H.264 in MP4, by the same libraries that write it.

use super::{Contents, ReadError};
use crate::output::Frame;
use crate::output::yuv::{Matrix, frame_of_planes};
use openh264::decoder::{DecodedYUV, Decoder};
use openh264::formats::YUVSource;
use shiguredo_mp4::boxes::{Avc1Box, SampleEntry};
use shiguredo_mp4::demux::{Input, Mp4FileDemuxer};
use shiguredo_mp4::{BaseBox, TrackKind};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Where a unit begins in the stream that the decoder takes.
const START: [u8; 4] = [0, 0, 0, 1];

struct Source<'a> {
    path: &'a Path,
    file: File,
    length: u64,
}

impl Source<'_> {
    /// `size` bytes at `position`, or those that the file has of them.
    fn bytes(&mut self, position: u64, size: u64) -> Result<Vec<u8>, ReadError> {
        let size = size.min(self.length.saturating_sub(position));
        let mut bytes = vec![0; size as usize];
        self.file.seek(SeekFrom::Start(position)).map_err(ReadError::io(self.path))?;
        self.file.read_exact(&mut bytes).map_err(ReadError::io(self.path))?;
        Ok(bytes)
    }
}

pub(super) fn read(
    path: &Path,
    file: File,
    push: &mut dyn FnMut(&Frame),
) -> Result<Contents, ReadError> {
    let length = file.metadata().map_err(ReadError::io(path))?.len();
    let mut source = Source { path, file, length };
    let container = |cause| ReadError::Container { path: path.to_owned(), source: cause };
    let codec = |what: String| ReadError::Codec { path: path.to_owned(), what };

    if source.bytes(4, 4)? != *b"ftyp" {
        return Err(ReadError::malformed(path, "it doesn't begin as an MP4 file does"));
    }
    let mut demuxer = Mp4FileDemuxer::new();
    while let Some(required) = demuxer.required_input() {
        if required.position >= length {
            return Err(ReadError::malformed(path, "cut off before its index"));
        }
        let size = required.size.map_or(length, |size| size as u64);
        let data = source.bytes(required.position, size)?;
        if required.size.is_some_and(|size| data.len() < size) && demuxer.tracks().is_ok() {
            return Err(ReadError::malformed(path, "cut off in its index"));
        }
        demuxer.handle_input(Input { position: required.position, data: &data });
    }
    demuxer.tracks().map_err(container)?;

    let mut decoder = Decoder::new().map_err(|e| codec(format!("no H.264 decoder: {e}")))?;
    let (mut contents, mut samples, mut prefix) = (Contents::default(), 0, 4);
    let mut show = |picture: &DecodedYUV<'_>| {
        let frame = frame(picture);
        contents.add(&frame, path)?;
        push(&frame);
        Ok(())
    };
    let mut largest = 0;
    while let Some(sample) = demuxer.next_sample().map_err(container)? {
        if sample.track.kind != TrackKind::Video {
            continue;
        }
        let mut stream = Vec::new();
        match sample.sample_entry {
            None => {}
            Some(SampleEntry::Avc1(entry)) => {
                prefix = usize::from(entry.avcc_box.length_size_minus_one.get()) + 1;
                parameter_sets(entry, &mut stream);
            }
            Some(other) => {
                let name = String::from_utf8_lossy(other.box_type().as_bytes()).into_owned();
                return Err(codec(format!("its video is {name}, only H.264 can be decoded here")));
            }
        }
        let (at, size) = (sample.data_offset, sample.data_size as u64);
        let end = at.saturating_add(size);
        if end > length {
            let missing = end - length;
            return Err(ReadError::CutOff { path: path.to_owned(), frame: samples, missing });
        }
        let data = source.bytes(at, size)?;
        annex_b(&data, prefix, &mut stream)
            .ok_or_else(|| ReadError::malformed(path, format!("frame {samples} is damaged")))?;
        let decoded = decoder.decode(&stream);
        let decoded =
            decoded.map_err(|e| codec(format!("frame {samples} can't be decoded: {e}")))?;
        if let Some(picture) = decoded {
            show(&picture)?;
        }
        (samples, largest) = (samples + 1, largest.max(size));
    }
    let late = decoder.flush_remaining();
    for picture in late.map_err(|e| codec(format!("the last frames can't be decoded: {e}")))? {
        show(&picture)?;
    }
    if contents.frames != samples {
        let frames = contents.frames;
        return Err(codec(format!("only {frames} of its {samples} frames can be decoded")));
    }
    contents.largest_coded = Some(largest);
    Ok(contents)
}

/// What the decoder must know before the first frame.
fn parameter_sets(entry: &Avc1Box, stream: &mut Vec<u8>) {
    for set in entry.avcc_box.sps_list.iter().chain(&entry.avcc_box.pps_list) {
        stream.extend_from_slice(&START);
        stream.extend_from_slice(set);
    }
}

/// Units after start codes instead of after their lengths of `prefix` bytes; `None` if a length is
/// beyond the data.
fn annex_b(mut data: &[u8], prefix: usize, stream: &mut Vec<u8>) -> Option<()> {
    while !data.is_empty() {
        let (length, rest) = data.split_at_checked(prefix)?;
        let length = length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        let (unit, rest) = rest.split_at_checked(length)?;
        stream.extend_from_slice(&START);
        stream.extend_from_slice(unit);
        data = rest;
    }
    Some(())
}

fn frame(picture: &DecodedYUV<'_>) -> Frame {
    let (width, height) = picture.dimensions();
    let (y, u, v) = picture.strides();
    let planes = [(picture.y(), y), (picture.u(), u), (picture.v(), v)];
    frame_of_planes((width, height), planes, (2, 2), Matrix::BT709, false)
}
