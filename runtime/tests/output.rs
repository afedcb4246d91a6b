//! What the sinks write, read back by decoders.

use std::fs;
use std::path::Path;

use gguf_video::output::{ContactSheet, Frame, FrameSink, OutputError, Target, Video, open};
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use shiguredo_mp4::boxes::{Avc1Box, SampleEntry};
use shiguredo_mp4::demux::{Input, Mp4FileDemuxer};

/// A disc that moves over a gradient, with fine texture.
fn scene(video: Video, index: usize) -> Frame {
    let t = index as f32;
    let pixels =
        (0..video.height).flat_map(|y| (0..video.width).map(move |x| (x as f32, y as f32)));
    let rgb = pixels.flat_map(|(x, y)| {
        let texture = (0.4 * x + t).sin() * (0.3 * y).cos() * 12.0;
        let distance = ((x - 20.0 - 3.0 * t).powi(2) + (y - 30.0).powi(2)).sqrt();
        let base =
            if distance < 14.0 { [210.0, 40.0, 30.0] } else { [60.0 + x, 90.0 + y, 190.0 - x] };
        base.map(|c| (c + texture).clamp(0.0, 255.0) as u8)
    });
    Frame::new(video.width, video.height, rgb.collect())
}

/// Nothing compresses worse.
fn static_noise(video: Video, index: usize) -> Frame {
    let mut state = index as u32 + 1;
    let rgb = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Frame::new(video.width, video.height, rgb.take(video.width * video.height * 3).collect())
}

fn write(path: &Path, video: Video, frame: fn(Video, usize) -> Frame) {
    let mut sink = open(path, video).expect("a sink");
    for index in 0..video.frames {
        sink.push(&frame(video, index)).expect("room on the disk");
    }
    sink.finish().expect("a whole file");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The stream of an MP4 file: its entry, and of each sample the time, key frame flag and data.
struct Stream {
    entry: Avc1Box,
    timescale: u32,
    samples: Vec<(u64, u32, bool, Vec<u8>)>,
}

fn demux(bytes: &[u8]) -> Stream {
    let mut demuxer = Mp4FileDemuxer::new();
    while let Some(required) = demuxer.required_input() {
        let data = &bytes[required.position as usize..];
        demuxer.handle_input(Input { position: required.position, data });
    }
    let timescale = demuxer.tracks().expect("tracks")[0].timescale.get();
    let (mut entry, mut samples) = (None, Vec::new());
    while let Some(sample) = demuxer.next_sample().expect("a sample") {
        if let Some(SampleEntry::Avc1(avc1)) = sample.sample_entry {
            entry = Some(avc1.clone());
        }
        let data = bytes[sample.data_offset as usize..][..sample.data_size].to_vec();
        samples.push((sample.timestamp, sample.duration, sample.keyframe, data));
    }
    Stream { entry: entry.expect("an entry"), timescale, samples }
}

/// Decodes every frame to its three planes.
fn decode(stream: &Stream) -> Vec<[Vec<u8>; 3]> {
    const START: [u8; 4] = [0, 0, 0, 1];
    let mut decoder = Decoder::new().expect("a decoder");
    let mut frames = Vec::new();
    for (i, (_, _, _, data)) in stream.samples.iter().enumerate() {
        let mut annex_b = Vec::new();
        if i == 0 {
            for set in stream.entry.avcc_box.sps_list.iter().chain(&stream.entry.avcc_box.pps_list)
            {
                annex_b.extend_from_slice(&START);
                annex_b.extend_from_slice(set);
            }
        }
        let mut rest = data.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (unit, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            annex_b.extend_from_slice(&START);
            annex_b.extend_from_slice(unit);
            rest = after;
        }
        let picture = decoder.decode(&annex_b).expect("a stream").expect("a frame for a sample");
        let (width, height) = picture.dimensions();
        let (y, u, v) = picture.strides();
        let plane = |data: &[u8], stride: usize, width: usize, height: usize| {
            (0..height).flat_map(|row| data[row * stride..][..width].to_vec()).collect::<Vec<u8>>()
        };
        frames.push([
            plane(picture.y(), y, width, height),
            plane(picture.u(), u, width / 2, height / 2),
            plane(picture.v(), v, width / 2, height / 2),
        ]);
    }
    frames
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares).log10()
}

/// BT.709 luma of a frame, limited range, in float64.
fn luma(frame: &Frame) -> Vec<u8> {
    let of = |p: &[u8]| {
        let [r, g, b] = [p[0], p[1], p[2]].map(|v| f64::from(v) / 255.0);
        (16.0 + 219.0 * (0.2126 * r + 0.7152 * g + 0.0722 * b)).round() as u8
    };
    frame.rgb.chunks_exact(3).map(of).collect()
}

#[test]
fn an_mp4_holds_every_frame_at_its_time() {
    let folder = folder();
    // Not a multiple of 16, so that the encoder has to crop.
    let video = Video { width: 98, height: 70, fps: 16, frames: 33 };
    let path = folder.path().join("a.mp4");
    write(&path, video, scene);
    assert_eq!(names(folder.path()), ["a.mp4"]);

    let bytes = fs::read(&path).expect("the file");
    let mut boxes = Vec::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= 16 {
        let (head, kind) = (&rest[..4], String::from_utf8_lossy(&rest[4..8]).into_owned());
        let size = match u32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
            1 => u64::from_be_bytes(rest[8..16].try_into().expect("eight bytes")) as usize,
            size => size as usize,
        };
        boxes.push(kind);
        rest = &rest[size..];
    }
    assert_eq!(boxes, ["ftyp", "moov", "free", "mdat"], "the index is first");
    assert!(rest.is_empty());

    let stream = demux(&bytes);
    assert_eq!((stream.entry.visual.width, stream.entry.visual.height), (98, 70));
    assert_eq!(stream.entry.unknown_boxes[0].payload, *b"nclx\0\x01\0\x01\0\x01\0");
    assert_eq!((stream.timescale, stream.samples.len()), (16, 33));
    for (i, (time, duration, keyframe, _)) in stream.samples.iter().enumerate() {
        assert_eq!((*time, *duration), (i as u64, 1));
        assert!(*keyframe || i % 16 != 0, "a key frame every second, not at {i}");
    }
    for (i, [y, _, _]) in decode(&stream).iter().enumerate() {
        let psnr = psnr(y, &luma(&scene(video, i)));
        assert!(psnr > 44.0, "frame {i}: {psnr:.2} dB");
    }
}

#[test]
fn an_mp4_has_bt709_colours() {
    let folder = folder();
    let video = Video { width: 32, height: 16, fps: 24, frames: 1 };
    let path = folder.path().join("red.mp4");
    write(&path, video, |video, _| {
        Frame::new(video.width, video.height, [255, 0, 0].repeat(video.width * video.height))
    });
    let frames = decode(&demux(&fs::read(&path).expect("the file")));
    let near = |plane: &[u8], code: u8| plane.iter().all(|&v| v.abs_diff(code) <= 1);
    let [y, cb, cr] = &frames[0];
    assert!(near(y, 63) && near(cb, 102) && near(cr, 240), "{} {} {}", y[0], cb[0], cr[0]);
}

#[test]
fn an_mp4_skips_no_frame_of_the_hardest_video() {
    let folder = folder();
    let video = Video { width: 64, height: 64, fps: 8, frames: 24 };
    let path = folder.path().join("noise.mp4");
    write(&path, video, static_noise);
    let frames = decode(&demux(&fs::read(&path).expect("the file")));
    assert_eq!(frames.len(), video.frames);
    for (i, [y, _, _]) in frames.iter().enumerate() {
        let psnr = psnr(y, &luma(&static_noise(video, i)));
        assert!(psnr > 40.0, "frame {i}: {psnr:.2} dB");
    }
}

#[test]
fn a_sink_that_is_dropped_leaves_nothing() {
    let folder = folder();
    let video = Video { width: 32, height: 32, fps: 16, frames: 2 };
    for name in ["a.mp4", "a.y4m"] {
        let path = folder.path().join(name);
        fs::write(&path, "an older video").expect("a file");
        let mut sink = open(&path, video).expect("a sink");
        sink.push(&scene(video, 0)).expect("room on the disk");
        assert!(folder.path().join(format!("{name}.part")).exists());
        drop(sink);
        assert_eq!(fs::read(&path).expect("the file"), b"an older video");
    }
    assert_eq!(names(folder.path()), ["a.mp4", "a.y4m"]);
}

#[test]
fn a_y4m_is_a_header_and_planes() {
    let folder = folder();
    let video = Video { width: 5, height: 3, fps: 24, frames: 2 };
    let path = folder.path().join("a.Y4M");
    write(&path, video, |video, _| {
        Frame::new(video.width, video.height, [0, 255, 0].repeat(video.width * video.height))
    });
    let header = "YUV4MPEG2 W5 H3 F24:1 Ip A1:1 C444 XYSCSS=444 XCOLORRANGE=LIMITED\n";
    // Green in BT.601, the matrix of small pictures.
    let frame = [b"FRAME\n".as_slice(), &[145; 15], &[54; 15], &[34; 15]].concat();
    assert_eq!(fs::read(&path).expect("the file"), [header.as_bytes(), &frame, &frame].concat());

    let wide = Video { width: 1280, height: 2, fps: 24, frames: 1 };
    write(&path, wide, |video, _| {
        Frame::new(video.width, video.height, [0, 255, 0].repeat(video.width * video.height))
    });
    assert_eq!(fs::read(&path).expect("the file").last(), Some(&26), "green in BT.709");
}

fn read_image(path: &Path) -> Frame {
    let file = std::io::BufReader::new(fs::File::open(path).expect("the image"));
    let mut reader = png::Decoder::new(file).read_info().expect("a header");
    assert!(reader.info().srgb.is_some(), "marked as sRGB");
    let mut rgb = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut rgb).expect("an image");
    Frame::new(info.width as usize, info.height as usize, rgb)
}

#[test]
fn images_are_numbered_and_lossless() {
    let folder = folder();
    let video = Video { width: 33, height: 17, fps: 16, frames: 3 };
    let path = folder.path().join("new/frames/");
    write(&path, video, scene);
    assert_eq!(names(&path), ["00000.png", "00001.png", "00002.png"]);
    for index in 0..video.frames {
        assert_eq!(read_image(&path.join(format!("{index:05}.png"))), scene(video, index));
    }
    // The same video again replaces it; a shorter one would leave frames of this one behind.
    write(&path, video, scene);
    let shorter = open(&path, Video { frames: 2, ..video }).err().expect("an error");
    assert_eq!(
        shorter.to_string(),
        format!(
            "{} is left from a video of more than 2 frames; remove it or name another folder",
            path.join("00002.png").display()
        )
    );
}

#[test]
fn a_contact_sheet_spans_the_video() {
    let folder = folder();
    let video = Video { width: 4, height: 2, fps: 16, frames: 9 };
    let grey = |index: usize| Frame::new(4, 2, vec![index as u8; 24]);
    for (columns, expected) in [
        (1, vec![4]),
        (2, vec![0, 8]),
        (3, vec![0, 4, 8]),
        (4, vec![0, 3, 5, 8]),
        (20, (0..9).collect()),
    ] {
        let path = folder.path().join("sheet.png");
        let mut sheet: Box<dyn FrameSink> =
            Box::new(ContactSheet::create(&path, columns, video.frames).expect("a sheet"));
        for index in 0..video.frames {
            sheet.push(&grey(index)).expect("no writing yet");
        }
        sheet.finish().expect("a whole file");
        let image = read_image(&path);
        let row: Vec<u8> = expected.iter().flat_map(|&value| [value; 12]).collect();
        assert_eq!((image.width, image.height), (4 * expected.len(), 2));
        assert_eq!(image.rgb, [row.clone(), row].concat(), "{columns} columns");
    }
}

#[test]
fn the_path_decides() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(Target::parse(&at("a.mp4")).expect("a target"), Target::Mp4(at("a.mp4")));
    assert_eq!(Target::parse(&at("a.MP4")).expect("a target"), Target::Mp4(at("a.MP4")));
    assert_eq!(Target::parse(&at("a.y4m")).expect("a target"), Target::Y4m(at("a.y4m")));
    assert_eq!(Target::parse(&at("new/")).expect("a target"), Target::Images(at("new/")));
    let existing = folder.path();
    assert_eq!(Target::parse(existing).expect("a target"), Target::Images(existing.to_owned()));
    assert_eq!(Target::parse(Path::new("a.mp4")).expect("a target"), Target::Mp4("a.mp4".into()));
    assert_eq!(
        Target::parse(Path::new("a.gif")).expect_err("unknown").to_string(),
        "a.gif: the output must be a .mp4 file, a .y4m file, or a folder for .png images \
         (an existing one, or a path that ends in /)"
    );
    assert!(matches!(Target::parse(Path::new("frames")), Err(OutputError::Unknown { .. })));
    assert!(matches!(Target::parse(&at("no/a.mp4")), Err(OutputError::NoFolder { .. })));
    assert_eq!(names(folder.path()), Vec::<String>::new(), "parsing writes nothing");
}

#[test]
fn impossible_videos_are_refused() {
    let folder = folder();
    let video = Video { width: 64, height: 64, fps: 16, frames: 1 };
    for (name, video) in [
        ("a.mp4", Video { width: 63, ..video }),
        ("a.mp4", Video { height: 65, ..video }),
        ("a.mp4", Video { height: 8, ..video }),
        ("a.mp4", Video { width: 4096, ..video }),
        ("a.mp4", Video { fps: 0, ..video }),
        ("a.y4m", Video { fps: 0, ..video }),
    ] {
        let error = open(&folder.path().join(name), video).err().expect("an error");
        assert!(matches!(error, OutputError::Limit { .. }), "{error}");
    }
    let empty = open(&folder.path().join("a.mp4"), video).expect("a sink").finish();
    assert!(matches!(empty, Err(OutputError::Empty { .. })));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn two_writers_of_one_file_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.y4m");
    let video = Video { width: 64, height: 48, fps: 16, frames: 1 };
    let mut first = open(&path, video).unwrap();
    let second = open(&path, video).map(|_| ()).unwrap_err();
    assert!(matches!(second, OutputError::Busy { .. }), "{second}");
    first.push(&scene(video, 0)).unwrap();
    first.finish().unwrap();
    assert!(path.exists());
    open(&path, video).unwrap();
}
