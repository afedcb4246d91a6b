//! H.264 video in an MP4 file, which every player and browser shows.
//!
//! Encoder: OpenH264, built from source with the program. Container: ISO/IEC 14496-12 and -15 by
//! `shiguredo_mp4`, index first, so that a browser starts while it still loads. Colour: BT.709,
//! limited range, said so in the stream and in the container.

use std::io::{Seek, SeekFrom, Write};
use std::num::NonZeroU32;
use std::path::Path;

use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, QpRange,
    RateControlMode, VuiConfig,
};
use openh264::formats::YUVSource;
use shiguredo_mp4::bitstream::h264::LengthSize;
use shiguredo_mp4::bitstream::h264::{
    H264NalUnitType, H264SampleEntryConfig, build_avc1_box_from_annexb, parse_annexb_nal_units,
};
use shiguredo_mp4::boxes::{SampleEntry, UnknownBox};
use shiguredo_mp4::mux::{
    Mp4FileMuxer, Mp4FileMuxerOptions, MuxError, Sample, estimate_maximum_moov_box_size,
};
use shiguredo_mp4::{BoxSize, BoxType, TrackKind};

use super::part_file::PartFile;
use super::yuv::{Matrix, Planes, half_chroma};
use super::{Frame, FrameSink, OutputError, Video};

/// The quantizer of every frame, 0 (finest) to 51. At 16 fine texture keeps a luma PSNR of 44 dB,
/// where no difference to the source can be seen.
const QUANTIZER: u8 = 16;

/// The quantizer after a frame that is too much: the encoder's buffer holds what the picture has
/// uncompressed, and white noise at full contrast needs more.
const COARSE_QUANTIZER: u8 = 32;

/// An index entry for at least every second of video, for seeking.
const SECONDS_PER_KEY_FRAME: u32 = 1;

/// How often in a row the encoder may skip a frame.
const MOST_SKIPS: usize = 1000;

pub(super) struct Mp4 {
    file: PartFile,
    video: Video,
    timescale: NonZeroU32,
    encoder: Encoder,
    coarse: bool,
    muxer: Mp4FileMuxer,
    position: u64,
    pushed: usize,
}

impl Mp4 {
    pub(super) fn create(path: &Path, video: Video) -> Result<Self, OutputError> {
        let timescale = check(path, video)?;
        let encoder = encoder(video, QUANTIZER).map_err(|source| OutputError::Encode {
            path: path.to_owned(),
            frame: 0,
            source,
        })?;
        let muxer = Mp4FileMuxer::with_options(Mp4FileMuxerOptions {
            reserved_moov_box_size: estimate_maximum_moov_box_size(&[video.frames]),
            ..Default::default()
        })
        .map_err(container(path))?;
        let mut file = PartFile::create(path)?;
        let head = muxer.initial_boxes_bytes();
        file.write_all(head).map_err(OutputError::io(path))?;
        let position = head.len() as u64;
        Ok(Self { file, video, timescale, encoder, coarse: false, muxer, position, pushed: 0 })
    }
}

impl Mp4 {
    /// The frame as an Annex B byte stream, and whether decoding can start at it.
    fn encode(&mut self, picture: &Picture, path: &Path) -> Result<(Vec<u8>, bool), OutputError> {
        // OpenH264 skips frames while it thinks that its stream is over the bit rate; every skip
        // pays some of that back. (Told never to skip, it prints a warning that can't be silenced.)
        for _ in 0..MOST_SKIPS {
            let failed =
                |source| OutputError::Encode { path: path.to_owned(), frame: self.pushed, source };
            let encoded = match self.encoder.encode(picture) {
                Ok(encoded) => encoded,
                Err(_) if !self.coarse => {
                    // A new encoder begins with a key frame and the same parameter sets.
                    self.encoder = encoder(self.video, COARSE_QUANTIZER).map_err(failed)?;
                    self.coarse = true;
                    continue;
                }
                Err(cause) => return Err(failed(cause)),
            };
            let stream = encoded.to_vec();
            if !stream.is_empty() {
                return Ok((stream, matches!(encoded.frame_type(), FrameType::IDR)));
            }
        }
        Err(OutputError::Skipped { path: path.to_owned(), frame: self.pushed })
    }
}

fn encoder(video: Video, quantizer: u8) -> Result<Encoder, openh264::Error> {
    let config = EncoderConfig::new()
        .rate_control_mode(RateControlMode::Quality)
        .qp(QpRange::new(quantizer, quantizer))
        .bitrate(BitRate::from_bps(bit_rate(video)))
        .max_frame_rate(FrameRate::from_hz(video.fps as f32))
        .intra_frame_period(IntraFramePeriod::from_num_frames(SECONDS_PER_KEY_FRAME * video.fps))
        .background_detection(false)
        .adaptive_quantization(false)
        .num_threads(1)
        .vui(VuiConfig::bt709());
    Encoder::with_api_config(OpenH264API::from_source(), config)
}

/// Checks what the encoder can do; the frame rate comes back as the container's clock.
fn check(path: &Path, video: Video) -> Result<NonZeroU32, OutputError> {
    let Video { width, height, fps, .. } = video;
    let refuse = |limit| OutputError::Limit { path: path.to_owned(), width, height, fps, limit };
    if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
        return Err(refuse("H.264 needs an even width and height"));
    }
    let (long, short) = (width.max(height), width.min(height));
    if short < 16 || long > 3840 || short > 2160 {
        return Err(refuse("the H.264 encoder takes 16x16 to 3840x2160 pixels"));
    }
    match NonZeroU32::new(fps) {
        Some(timescale) if fps <= 240 => Ok(timescale),
        _ => Err(refuse("the H.264 encoder takes 1 to 240 frames per second")),
    }
}

/// What the stream may need, for the level that it states. It doesn't steer the encoder: the fixed
/// quantizer does.
fn bit_rate(video: Video) -> u32 {
    // Fine noise came to 1.4 bits a pixel.
    let rate = (video.width * video.height) as f64 * f64::from(video.fps) * 1.5;
    rate.clamp(1e5, 2e8) as u32
}

fn container(path: &Path) -> impl Fn(MuxError) -> OutputError {
    move |source| OutputError::Container { path: path.to_owned(), source }
}

impl FrameSink for Mp4 {
    fn push(&mut self, frame: &Frame) -> Result<(), OutputError> {
        self.video.assert_has(frame);
        let picture = Picture {
            size: (frame.width, frame.height),
            planes: half_chroma(frame, Matrix::BT709),
        };
        let path = self.file.path().to_owned();
        let (stream, keyframe) = self.encode(&picture, &path)?;
        let failed = container(&path);
        let entry =
            if self.pushed == 0 { Some(sample_entry(&stream).map_err(&failed)?) } else { None };
        let data = sample_data(&stream).map_err(&failed)?;
        self.file.write_all(&data).map_err(OutputError::io(&path))?;
        self.muxer
            .append_sample(&Sample {
                track_kind: TrackKind::Video,
                sample_entry: entry,
                keyframe,
                timescale: self.timescale,
                duration: 1,
                composition_time_offset: None,
                data_offset: self.position,
                data_size: data.len(),
            })
            .map_err(&failed)?;
        self.position += data.len() as u64;
        self.pushed += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), OutputError> {
        if self.pushed == 0 {
            return Err(OutputError::Empty { path: self.file.path().to_owned() });
        }
        let boxes = self.muxer.finalize().map_err(container(self.file.path()))?;
        let written = boxes.offset_and_bytes_pairs().try_for_each(|(offset, bytes)| {
            self.file.seek(SeekFrom::Start(offset))?;
            self.file.write_all(bytes)
        });
        written.map_err(OutputError::io(self.file.path()))?;
        self.file.keep()
    }
}

/// The decoder's settings: parameter sets, and the colour again where players look first.
fn sample_entry(stream: &[u8]) -> Result<SampleEntry, MuxError> {
    let config = H264SampleEntryConfig { length_size: LengthSize::FourBytes };
    let mut entry = build_avc1_box_from_annexb(stream, &config).map_err(MuxError::EncodeError)?;
    // ISO/IEC 14496-12, 12.1.5: BT.709 primaries, transfer function and matrix; limited range.
    let payload = [b"nclx".as_slice(), &[0, 1, 0, 1, 0, 1, 0]].concat();
    let box_type = BoxType::Normal(*b"colr");
    entry.unknown_boxes.push(UnknownBox {
        box_type,
        box_size: BoxSize::with_payload_size(box_type, payload.len() as u64),
        payload,
    });
    Ok(SampleEntry::Avc1(entry))
}

/// One frame as MP4 holds it: each unit after its length, parameter sets left to the entry.
fn sample_data(stream: &[u8]) -> Result<Vec<u8>, MuxError> {
    let mut data = Vec::with_capacity(stream.len());
    for unit in parse_annexb_nal_units(stream).map_err(MuxError::EncodeError)? {
        if !matches!(unit.nal_unit_type, H264NalUnitType::Sps | H264NalUnitType::Pps) {
            let length = u32::try_from(unit.data.len()).map_err(|_| MuxError::Overflow)?;
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(unit.data);
        }
    }
    Ok(data)
}

/// A converted frame as the encoder takes it.
struct Picture {
    size: (usize, usize),
    planes: Planes,
}

impl YUVSource for Picture {
    fn dimensions(&self) -> (usize, usize) {
        self.size
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.size.0, self.size.0 / 2, self.size.0 / 2)
    }

    fn y(&self) -> &[u8] {
        &self.planes.y
    }

    fn u(&self) -> &[u8] {
        &self.planes.cb
    }

    fn v(&self) -> &[u8] {
        &self.planes.cr
    }
}
