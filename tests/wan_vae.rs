//! Both Wan VAEs, both ways, against diffusers: `reference/README.md` says how the goldens are made.

use e2e::synthetic::{self, Vae, Values};
use e2e::{Comparison, Golden, Taps, channels_first, converted_part, device, fixture};
use gguf::File;
use gguf_video::ggml::{ComputeError, Device, Executor, Family, HostTensor, Precision};
use gguf_video::models::wan::vae::{Config, WanVae, WanVaeEncoder};
use std::ops::ControlFlow;
use std::sync::Arc;
use tempfile::TempDir;

fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A model, and what is said of it.
struct Case {
    file: Arc<File>,
    config: Config,
    exec: Executor,
    taps: Taps,
    comparison: Comparison,
    _folder: TempDir,
}

impl Case {
    fn new((folder, file): (TempDir, Arc<File>), precision: Precision, tolerance: f64) -> Self {
        // GPUs round the operands of matrix products to F16.
        let tolerance = if device().family() == Family::Cpu { tolerance } else { 1e-2 };
        let mut exec = Executor::new(device(), precision, 1).unwrap();
        let taps = Taps::default();
        exec.observe(taps.observer());
        let config = Config::new(&file).unwrap();
        let comparison = Comparison::new(tolerance);
        Self { file, config, exec, taps, comparison, _folder: folder }
    }

    fn encode(&mut self, clip: Vec<HostTensor>) -> HostTensor {
        let encoder = WanVaeEncoder::open(&self.file, device()).unwrap();
        let (frames, mut ticks) = (clip.len() as u64, 0);
        let tick = &mut || {
            ticks += 1;
            ControlFlow::Continue(())
        };
        let latents = encoder.encode(&mut self.exec, clip, tick).unwrap();
        assert_eq!(ticks, encoder.ticks(frames));
        latents
    }

    /// An image and frames of zeros after it, to the latents of the `condition`, whose last channels
    /// they are.
    fn check_image(&mut self, golden: &Golden, frames: usize) {
        let image = golden.values("image.resized").iter().map(|v| (v / 127.5 - 1.0) as f32);
        let image = HostTensor::new([64, 96, 3], image.collect::<Vec<_>>());
        let mut clip = vec![HostTensor::zeros([64, 96, 3]); frames];
        clip[0] = image;
        let latents = self.encode(clip);
        self.check_taps(golden);
        let condition = golden.values("condition");
        let expected = &condition[condition.len() - latents.data.len()..];
        self.comparison.check("condition", &latents.data, expected);
    }

    /// A clip in which every frame is another: `clip` of `reference/vae.py`.
    fn check_moving(&mut self, name: &str) {
        let value = |i: usize| (0.7 * i as f64 + ((i / 96) * (i / 96)) as f64 / 50.0).sin() as f32;
        let size = 64 * 96 * 3;
        let frame = |t: usize| (t * size..(t + 1) * size).map(value).collect::<Vec<_>>();
        let clip = (0..9).map(|t| HostTensor::new([64, 96, 3], frame(t))).collect();
        let latents = self.encode(clip);
        self.taps.take();
        let golden = Golden::named(&fixture("vae"), "moving");
        self.comparison.check(name, &latents.data, golden.values(name));
    }

    /// Frames `[T, H, W, 3]`.
    fn decode(&mut self, latents: HostTensor) -> HostTensor {
        let decoder = WanVae::open(&self.file, device()).unwrap();
        let [_, count, ..] = latents.shape.full();
        let mut decoding = decoder.decode(&self.exec, latents).unwrap();
        let (mut frames, mut ticks) = (Vec::new(), 0);
        let mut push = |frame: HostTensor| {
            frames.push(frame);
            Ok::<(), ComputeError>(())
        };
        let tick = &mut || {
            ticks += 1;
            ControlFlow::Continue(())
        };
        while decoding.next_frames(&mut self.exec, tick, &mut push).unwrap() {}
        assert_eq!(ticks, decoder.ticks(count as u64));
        let [h, w, c] = frames[0].shape.dims();
        let values: Vec<f32> = frames.iter().flat_map(|f| f.data.iter().copied()).collect();
        HostTensor::new([frames.len() as i64, h, w, c], values)
    }

    /// The last step's latents to a video.
    fn check_decoder(&mut self, golden: &Golden) {
        let steps = golden.info["num_inference_steps"].as_i64().unwrap();
        let latents = golden.tensor::<4>(&format!("step.{}.latents", steps - 1));
        let video = self.decode(latents);
        self.check_taps(golden);
        let frames = video.data.chunks_exact(3 * 64 * 96);
        let frames = frames.map(|f| HostTensor::new([64, 96, 3], f)).collect::<Vec<_>>();
        // [T, C, H, W] in [0, 1].
        let planes = frames.iter().map(|f| channels_first(std::slice::from_ref(f)).data);
        let values = planes.flat_map(|f| f.iter().map(|v| v / 2.0 + 0.5).collect::<Vec<_>>());
        let video = HostTensor::new([9, 3, 64, 96], values.collect::<Vec<_>>());
        self.comparison.check("video", &golden.kept("video", &video), golden.values("video"));
    }

    /// Compares every tap since the last call.
    fn check_taps(&mut self, golden: &Golden) {
        for (name, value) in self.taps.take_frames() {
            let whole = ["vae.quant_conv.", "vae.post_quant_conv."];
            match whole.iter().find_map(|tap| Some((tap, name.strip_prefix(tap)?))) {
                Some((tap, frame)) => {
                    let expected = golden.frame(&tap[..tap.len() - 1], frame.parse().unwrap());
                    self.comparison.check(&name, &value.data, &expected);
                }
                None => {
                    let expected = golden.values(&name);
                    self.comparison.check(&name, &golden.kept(&name, &value), expected);
                }
            }
        }
    }
}

fn wan21() -> (TempDir, Arc<File>) {
    converted_part("xs", "VAE")
}

fn wan22() -> (TempDir, Arc<File>) {
    converted_part("wan2.2-ti2v-5b", "VAE")
}

fn check_wan21(precision: Precision, tolerance: f64, what: &str) {
    let mut case = Case::new(wan21(), precision, tolerance);
    // The decoder's stages are compared by the parity test.
    case.check_image(&Golden::open(&fixture("wan2.2-i2v-a14b")), 9);
    case.check_moving("wan2.1");
    let compared = case.comparison.finish(what);
    assert_eq!(compared, 3 * 14 + 3 + 2, "taps were compared");
}

fn check_wan22(precision: Precision, tolerance: f64, what: &str) {
    let mut case = Case::new(wan22(), precision, tolerance);
    case.check_image(&Golden::named(&fixture("wan2.2-ti2v-5b"), "golden-image"), 1);
    case.check_moving("wan2.2");
    case.check_decoder(&Golden::open(&fixture("wan2.2-ti2v-5b")));
    let compared = case.comparison.finish(what);
    assert_eq!(compared, 8 + 1 + 1 + 3 * 8 + 1, "taps were compared");
}

#[test]
fn wan21_encodes_as_the_reference() {
    check_wan21(Precision::Strict, 5e-5, "strict");
    check_wan21(Precision::Native, 3e-3, "native");
}

#[test]
fn wan22_is_the_reference_both_ways() {
    check_wan22(Precision::Strict, 5e-5, "strict");
    check_wan22(Precision::Native, 3e-3, "native");
}

/// One row of patches, and one row of the middle attention's scores at a time.
#[test]
fn bands_of_rows_change_nothing() {
    for model in [wan21(), wan22()] {
        let mut case = Case::new(model, Precision::Strict, 1e-5);
        let clip = || (0..5).map(|t| noise([64, 96, 3], t)).collect::<Vec<_>>();
        let whole = case.encode(clip());
        let video = case.decode(whole.clone());
        let mut limits = case.exec.limits();
        limits.scratch = 1;
        case.exec.set_limits(limits);
        for (what, got, expected) in [
            ("latents", case.encode(clip()), &whole),
            ("video", case.decode(whole.clone()), &video),
        ] {
            let expected: Vec<f64> = expected.data.iter().map(|&v| v.into()).collect();
            case.comparison.check(what, &got.data, &expected);
        }
    }
}

/// What a preflight computes anew: pieces of frames from the middle block's features around them. The frame is
/// so large that the pieces don't see all of it.
#[test]
fn pieces_are_those_of_whole_frames() {
    for model in [wan21(), wan22()] {
        let mut case = Case::new(model, Precision::Strict, 1e-5);
        let latents = noise([case.config.z_dim, 2, 31, 30], 0);
        let decoder = WanVae::open(&case.file, device()).unwrap();
        let answer = decoder.chunk_at_full_size(&mut case.exec, &latents, &mut go_on).unwrap();
        let pieces = decoder.pieces(&mut case.exec, &answer.features).unwrap();
        // Of five frames, in the middle and at the corner.
        assert_eq!((pieces.len(), answer.pieces().len()), (10, 10));
        for (got, expected) in pieces.iter().zip(answer.pieces()) {
            let expected: Vec<f64> = expected.data.iter().map(|&v| v.into()).collect();
            case.comparison.check("a piece", &got.data, &expected);
        }
    }
}

fn noise<const N: usize>(shape: [i64; N], seed: i64) -> HostTensor {
    let values = (0..shape.iter().product()).map(|i: i64| ((i + 1000 * seed) as f32 * 0.7).sin());
    HostTensor::new(shape, values.collect::<Vec<_>>())
}

/// A run that begins with text has the decoder in memory alone, and a plan counts no more.
#[test]
fn each_half_is_loaded_alone() {
    let (_folder, file) = converted_part("wan2.2-ti2v-5b", "VAE");
    let of = |half: &str| {
        let tensors = file.tensors().iter().filter(|t| t.name.starts_with(half));
        tensors.map(|t| t.bytes).sum::<u64>()
    };
    let (encoder, decoder) = (of("encoder"), of("decoder"));
    let device = Device::cpu().dry();
    let loaded = |open: &dyn Fn()| {
        device.forget_peak();
        let before = device.peak_usage().weights;
        open();
        device.peak_usage().weights - before
    };
    let of_decoder = loaded(&|| drop(WanVae::open(&file, device).unwrap()));
    let of_encoder = loaded(&|| drop(WanVaeEncoder::open(&file, device).unwrap()));
    // Small tensors are padded.
    assert!((decoder..decoder + encoder / 2).contains(&of_decoder), "{of_decoder} of {decoder}");
    assert!((encoder..encoder + decoder / 4).contains(&of_encoder), "{of_encoder} of {encoder}");
}

/// A dry run of the real sizes counts the floating-point operations that torch's `FlopCounterMode` counts
/// in diffusers' (in units of 10¹²).
#[test]
fn dry_runs_count_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::cpu().dry();
    let executor = || {
        let mut exec = Executor::new(device, Precision::Native, 1).unwrap();
        let mut limits = exec.limits();
        limits.scratch = 1 << 30;
        exec.set_limits(limits);
        exec
    };
    let file = |name: &str, sizes| {
        Arc::new(synthetic::vae(&folder.path().join(name), sizes, Values::Zero))
    };
    let (wan21, wan22) = (file("2.1.gguf", Vae::WAN21), file("2.2.gguf", Vae::WAN22));
    let work = |exec: &Executor| exec.done().work.matmul / 1e12;

    let encode = |file, [w, h]: [i64; 2], frames: usize| {
        let mut exec = executor();
        let clip = vec![HostTensor::zeros([h, w, 3]); frames];
        WanVaeEncoder::open(file, device).unwrap().encode(&mut exec, clip, &mut go_on).unwrap();
        work(&exec)
    };
    let (first, five) = (encode(&wan21, [832, 480], 1), encode(&wan21, [832, 480], 5));
    let decoded = {
        let (mut exec, vae) = (executor(), WanVae::open(&wan22, device).unwrap());
        let latents = HostTensor::zeros(vae.config().latents(1280, 704, 121));
        let mut decoding = vae.decode(&exec, latents).unwrap();
        let push = &mut |_| Ok::<(), ComputeError>(());
        decoding.next_frames(&mut exec, &mut go_on, push).unwrap();
        let first = work(&exec);
        decoding.next_frames(&mut exec, &mut go_on, push).unwrap();
        first + 30.0 * (work(&exec) - first)
    };
    for (what, got, expected) in [
        ("2.1 encodes 832x480x81", first + 20.0 * (five - first), 163.8),
        ("2.2 encodes 1280x704", encode(&wan22, [1280, 704], 1), 4.2),
        ("2.2 decodes 1280x704x121", decoded, 2011.2),
    ] {
        assert!((got / expected - 1.0).abs() < 0.015, "{what} with {got:.1}, not {expected}");
    }
}
