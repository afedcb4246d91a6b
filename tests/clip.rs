//! From an image file's pixels to CLIP's features, against transformers.

use e2e::{Comparison, Golden, Taps, converted_part, device, fixture};
use gguf_video::ggml::{Executor, Family, HostTensor, Precision, Weights};
use gguf_video::image::{CLIP_SIDE, Image, clip_pixels};
use gguf_video::models::clip::ImageEncoder;
use std::ops::ControlFlow;

const SIDE: i64 = CLIP_SIDE as i64;

/// An image of the goldens, as it was before anything was done to it.
fn image(golden: &Golden, name: &str) -> Image {
    let [height, width, _] = golden.tensor::<3>(name).shape.dims();
    let bytes = golden.values(name).iter().map(|&v| v as u8).collect();
    Image::new(width as usize, height as usize, bytes)
}

fn check(precision: Precision, tolerance: f64, what: &str) {
    // GPUs round the operands of matrix products to F16.
    let tolerance = if device().family() == Family::Cpu { tolerance } else { 1e-2 };
    let (_output, file) = converted_part("wan2.1-i2v-14b", "ImageEncoder");
    let encoder =
        ImageEncoder::new(&Weights::load(file.clone(), device()).unwrap(), &file).unwrap();
    assert_eq!(encoder.image_size(), SIDE);
    let mut exec = Executor::new(device(), precision, 1).unwrap();
    let taps = Taps::default();
    exec.observe(taps.observer());
    let mut comparison = Comparison::new(tolerance);
    for (model, names) in [
        ("wan2.1-i2v-14b", ["image.uint8"].as_slice()),
        ("wan2.1-flf2v-14b", &["image.uint8", "last_image.uint8"]),
    ] {
        let golden = Golden::open(&fixture(model));
        for (number, name) in names.iter().enumerate() {
            let of_image = |name: &str| -> Vec<f64> {
                let values = golden.values(name);
                let each = values.len() / names.len();
                values[number * each..(number + 1) * each].to_vec()
            };
            let pixels = clip_pixels(&image(&golden, name), CLIP_SIDE);
            let pixels = HostTensor::new([SIDE, SIDE, 3], pixels);
            let planes = e2e::channels_first(std::slice::from_ref(&pixels));
            let planes = HostTensor::new([1, 3, SIDE, SIDE], planes.data);
            let kept = golden.kept("image_encoder.pixels", &planes);
            comparison.check("image_encoder.pixels", &kept, &of_image("image_encoder.pixels"));
            let mut ticks = 0;
            let tick = &mut || {
                ticks += 1;
                ControlFlow::Continue(())
            };
            let features = encoder.encode(&mut exec, &pixels, tick).unwrap();
            assert_eq!(ticks, encoder.ticks());
            for (tap, value) in taps.take() {
                comparison.check(&tap, &golden.kept(&tap, &value), &of_image(&tap));
            }
            let expected = of_image("image_encoder.features");
            comparison.check("image_encoder.features", &features.data, &expected);
        }
    }
    // Pixels, embeddings, two of three layers, features.
    assert_eq!(comparison.finish(what), 3 * 5, "taps were compared");
}

#[test]
fn strict_mode_is_the_reference() {
    check(Precision::Strict, 5e-5, "strict");
}

#[test]
fn native_mode_is_near() {
    check(Precision::Native, 3e-3, "native");
}

/// What the VAE sees of an image: Pillow's bytes.
#[test]
fn images_are_resized_as_the_pipeline_does() {
    use gguf_video::image::Filter;
    for (model, names) in
        [("wan2.1-i2v-14b", ["image"].as_slice()), ("wan2.1-flf2v-14b", &["image", "last_image"])]
    {
        let golden = Golden::open(&fixture(model));
        for name in names {
            let expected = image(&golden, &format!("{name}.resized"));
            let whole = image(&golden, &format!("{name}.uint8"));
            let got = whole.resized([expected.width, expected.height], Filter::Lanczos);
            assert!(got == expected, "{model}: {name}");
        }
    }
}
