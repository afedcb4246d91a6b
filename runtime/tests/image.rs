//! Images as Pillow reads and resizes them (made by tests/reference/image.py), and files that are none.

use gguf_video::image::{Filter, Image, ImageError, clip_pixels};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(serde::Deserialize)]
struct Table {
    read: Vec<Read>,
    resized: Vec<Resized>,
}

#[derive(serde::Deserialize)]
struct Read {
    file: String,
    expected: String,
    tolerance: u8,
}

#[derive(serde::Deserialize)]
struct Resized {
    source: String,
    filter: String,
    result: String,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)
}

fn table() -> Table {
    serde_json::from_slice(&fs::read(golden("expected.json")).unwrap()).unwrap()
}

fn read(name: &str) -> Image {
    Image::read(&golden(name)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn resizes_as_pillow_bit_for_bit() {
    let cases = table().resized;
    assert!(cases.len() > 30);
    for Resized { source, filter, result } in cases {
        let filter = match &*filter {
            "lanczos" => Filter::Lanczos,
            "bicubic" => Filter::Bicubic,
            other => panic!("{other}"),
        };
        let expected = read(&result);
        let got = read(&source).resized([expected.width, expected.height], filter);
        assert!(got == expected, "{result}");
    }
}

#[test]
fn reads_every_kind_of_file() {
    for Read { file, expected, tolerance } in table().read {
        let (got, expected) = (read(&file), read(&expected));
        assert_eq!((got.width, got.height), (expected.width, expected.height), "{file}");
        let off = got.rgb.iter().zip(&expected.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(off <= tolerance, "{file} is off by {off}");
    }
}

#[test]
fn refuses_what_is_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Image::read(&path).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
        error
    };
    assert!(matches!(refused("empty.png", b""), ImageError::Kind { .. }));
    assert!(matches!(refused("text.jpg", b"no image, but long enough"), ImageError::Kind { .. }));
    let gif = b"GIF89a\x01\0\x01\0\0\0\0;";
    assert!(matches!(refused("small.gif", gif), ImageError::Kind { .. }));
    assert!(matches!(Image::read(&golden("missing.png")), Err(ImageError::Io { .. })));
    assert!(matches!(Image::read(folder.path()), Err(ImageError::Io { .. })));

    let mut huge = fs::read(golden("rgb.png")).unwrap();
    for side in [[0x7f, 0xff, 0xff, 0xff], [0, 0, 0x9c, 0x40]] {
        huge[16..20].copy_from_slice(&side);
        huge[20..24].copy_from_slice(&side);
        let sum = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&sum.to_be_bytes());
        let error = refused("huge.png", &huge);
        let large = matches!(error, ImageError::TooLarge { .. } | ImageError::Memory { .. });
        assert!(large, "{error}");
    }
    let mut none = huge;
    none[16..24].fill(0);
    let sum = crc32(&none[12..29]);
    none[29..33].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(refused("none.png", &none), ImageError::Damaged { .. }));
}

/// Cut anywhere, a file is an image or an error. Of some kinds of damage decoders make gray pixels.
#[test]
fn cut_files_are_errors_or_images() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["rgb.png", "photo.jpg", "progressive.jpg", "cmyk.jpg", "lossy.webp", "alpha.webp"];
    for name in names {
        let (bytes, path) = (fs::read(golden(name)).unwrap(), folder.path().join(name));
        let mut refused = 0;
        for length in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            fs::write(&path, &bytes[..length]).unwrap();
            refused += usize::from(Image::read(&path).is_err());
        }
        assert!(refused > 5, "{name}: {refused} cut files were refused");
        // A flipped bit anywhere is no reason to panic, either.
        for at in (0..bytes.len()).step_by(bytes.len() / 80 + 1) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            let _ = Image::read(&path);
        }
    }
}

#[test]
fn normalizes_as_the_reference() {
    let image = Image::new(2, 1, vec![0, 128, 255, 51, 204, 1]);
    let expected = [-1.0, 2.0 * (128.0 / 255.0) - 1.0, 1.0, -0.6, 0.6, 2.0 / 255.0 - 1.0];
    for (got, expected) in image.normalized().iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6, "{got} instead of {expected}");
    }
    // A gray image stays gray, and is what CLIP's mean and deviation make of it, at any size.
    for [width, height] in [[224, 224], [300, 7], [5, 333]] {
        let gray = Image::new(width, height, vec![100; 3 * width * height]);
        let pixels = clip_pixels(&gray, 224);
        assert_eq!(pixels.len(), 3 * 224 * 224);
        let first = (100.0 / 255.0 - 0.481_454_66) / 0.268_629_54;
        assert!(pixels.iter().step_by(3).all(|v| (v - first).abs() < 1e-6));
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 },
        )
    })
}
