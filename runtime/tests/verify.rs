//! `gguf-video verify`: what it says, and how it ends.

use gguf_video::output::{Frame, ReadError, Video, open, read};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SIZE: usize = 96;

/// A disc that moves over a gradient.
fn scene(index: usize) -> Frame {
    let pixels = (0..SIZE * SIZE).map(|i| ((i % SIZE) as f32, (i / SIZE) as f32));
    let rgb = pixels.flat_map(|(x, y)| {
        let distance = (x - 20.0 - 5.0 * index as f32).hypot(y - 40.0);
        if distance < 16.0 { [210, 40, 30] } else { [60 + x as u8, 90 + y as u8, 190 - x as u8] }
    });
    Frame::new(SIZE, SIZE, rgb.collect())
}

fn noise(index: usize) -> Frame {
    let mut state = index as u32 + 1;
    let values = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Frame::new(SIZE, SIZE, values.take(SIZE * SIZE * 3).collect())
}

fn write(path: &Path, frame: fn(usize) -> Frame) {
    let video = Video { width: SIZE, height: SIZE, fps: 16, frames: 9 };
    let mut sink = open(path, video).unwrap();
    (0..video.frames).for_each(|i| sink.push(&frame(i)).unwrap());
    sink.finish().unwrap();
}

fn verify(path: &Path, options: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_gguf-video"))
        .arg("verify")
        .arg(path)
        .args(options)
        .output()
        .unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn every_format_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for (name, most) in [("a.mp4", 40), ("a.y4m", 2), ("frames/", 0)] {
        let path = folder.path().join(name);
        write(&path, scene);
        let (mut count, mut worst, mut total) = (0, 0, 0_u64);
        let contents = read(&path, &mut |frame| {
            let wanted = scene(count).rgb;
            let off = frame.rgb.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b));
            let off: Vec<u8> = off.collect();
            worst = worst.max(*off.iter().max().unwrap());
            total += off.iter().map(|&v| u64::from(v)).sum::<u64>();
            count += 1;
        })
        .unwrap();
        assert_eq!((contents.width, contents.height, contents.frames, count), (SIZE, SIZE, 9, 9));
        let mean = total as f64 / (9 * SIZE * SIZE * 3) as f64;
        // At the disc's edge, chroma of half the resolution is far off, but only there.
        assert!(mean < 2.5, "{name}: {mean} levels off");
        assert!(worst <= most || name == "a.mp4", "{name}: {worst} levels off");
    }
}

#[test]
fn a_video_passes_and_noise_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "a.y4m", "frames/"] {
        let path = folder.path().join(name);
        write(&path, scene);
        let (code, said) = verify(&path, &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("96x96, 9 frames: passed\n"), "{said}");
        assert!(said.contains("correlation_8"), "{said}");
        write(&path, noise);
        let (code, said) = verify(&path, &[]);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("9 frames: failed\nfailed: noise in frames 0-8: "), "{said}");
        assert!(path.exists());
    }
}

#[test]
fn programs_get_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.y4m");
    write(&path, noise);
    let (code, said) = verify(&path, &["--json"]);
    assert_eq!(code, Some(3), "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["passed"], false);
    assert_eq!(report["findings"][0]["kind"], "noise");
    assert_eq!(report["findings"][0]["frames"][0], serde_json::json!([0, 8]));
    assert_eq!(report["frames"].as_array().unwrap().len(), 9);
    assert!(report["frames"][0]["correlation_1"].as_f64().unwrap().abs() < 0.1);
}

#[test]
fn whether_a_still_is_bad_is_the_askers_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.y4m");
    write(&path, |_| scene(3));
    for (options, code, word) in [
        (&[][..], 0, "warning: frozen in frames 0-8"),
        (&["--still"], 0, ": passed\n"),
        (&["--motion"], 3, "failed: frozen"),
    ] {
        let (got, said) = verify(&path, options);
        assert_eq!(got, Some(code), "{said}");
        assert!(said.contains(word), "{said}");
    }
}

/// Exit code 2 and the reason.
#[track_caller]
fn refused(path: &Path, why: &str) {
    let (code, said) = verify(path, &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn what_is_no_video_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    refused(&at("missing.mp4"), "missing.mp4: can't be read");
    refused(&at("a.gif"), "a.gif: can't be read");
    fs::write(at("a.gif"), "GIF89a").unwrap();
    refused(&at("a.gif"), "a folder of .png images");
    refused(folder.path(), "there is no frame in it");

    fs::write(at("text.mp4"), "this is no container at all").unwrap();
    refused(&at("text.mp4"), "text.mp4: it doesn't begin as an MP4 file does");
    fs::write(at("text.y4m"), "this is no header\n").unwrap();
    refused(&at("text.y4m"), "doesn't begin as YUV4MPEG2 does");
    fs::write(at("deep.y4m"), "YUV4MPEG2 W8 H8 C420p10\n").unwrap();
    refused(&at("deep.y4m"), "C420p10");

    for name in ["a.mp4", "a.y4m"] {
        write(&at(name), scene);
        let whole = fs::read(at(name)).unwrap();
        fs::write(at(name), &whole[..whole.len() - 100]).unwrap();
        let error = read(&at(name), &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, ReadError::CutOff { frame: 8, missing: 100, .. }),
            "{name}: {error:?}"
        );
        refused(&at(name), "cut off in frame 8: 100 bytes are missing");
    }
    write(&at("frames/"), scene);
    let wide = Frame::new(2, 1, vec![0; 6]);
    let video = Video { width: 2, height: 1, fps: 16, frames: 1 };
    let mut sink = open(&at("other/"), video).unwrap();
    sink.push(&wide).unwrap();
    fs::rename(at("other/00000.png"), at("frames/00009.png")).unwrap();
    refused(&at("frames"), "frame 9 has 2x1 pixels, the first one 96x96");
}

#[test]
fn another_codec_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write(&path, scene);
    let bytes = fs::read(&path).unwrap();
    // The first is one of the brands.
    let at = bytes.windows(4).rposition(|w| w == b"avc1").unwrap();
    let entry = [&bytes[..at], b"mjpg", &bytes[at + 4..]].concat();
    fs::write(&path, entry).unwrap();
    refused(&path, "a.mp4: its video is mjpg, only H.264 can be decoded here");
}
