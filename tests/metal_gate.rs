//! Runs one of our real graphs through ggml's Metal encoder, without a GPU, and prints what it saw as
//! JSON: `metal-gate CHIP CASE`. A process a case, for ggml ends the process where a check fails.
//!
//! - CHIP: `m1-max` or `m5-max`
//! - CASE: `t2v-a14b:832x480x81:Q4_K` or another transformer, `vae:1280x720x81`, `vae-encoder:1280x720x81`, `vae22:1280x704x121`,
//!   `vae22-encoder:1280x704x121`, `umt5:Q8_0`, `clip`, `self-test` (of `gguf-video doctor`),
//!   or a planted failure: `unsupported-op`, `bf16-norm`, `attention-of-70000-rows`

#[cfg(target_os = "macos")]
fn main() {}

#[cfg(not(target_os = "macos"))]
fn main() {
    gate::main();
}

#[cfg(not(target_os = "macos"))]
mod gate {
    use e2e::gate::Seen;
    use e2e::synthetic::{self, Transformer, Vae, Values};
    use gguf_video::doctor::SelfTest;
    use gguf_video::ggml::{ComputeError, Device, Executor, HostTensor, Precision, Weights};
    use gguf_video::models::clip::ImageEncoder;
    use gguf_video::models::text::Umt5Encoder;
    use gguf_video::models::wan::{Config, WanModel, vae};
    use gguf_video::models::{Context, Denoiser, TextEncoder, Timesteps};
    use gguf_video::pipeline::choose_device;
    use null_metal::{Planted, run_planted};
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::sync::Arc;

    /// Tokens of the longest prompt.
    const PROMPT: usize = 512;

    #[expect(clippy::print_stdout, reason = "the result")]
    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [chip, case] = arguments.as_slice() else { panic!("metal-gate CHIP CASE") };
        null_metal::register(match chip.as_str() {
            "m1-max" => null_metal::M1_MAX,
            "m5-max" => null_metal::M5_MAX,
            other => panic!("no chip {other}"),
        });
        let device = choose_device("metal").unwrap();
        device.forget_peak();
        let folder = tempfile::tempdir().unwrap();
        let steps = match *case.split(':').collect::<Vec<_>>() {
            ["vae", clip] => decoder(device, folder.path(), Vae::WAN21, size(clip)),
            ["vae-encoder", clip] => encoder(device, folder.path(), Vae::WAN21, size(clip)),
            ["vae22", clip] => decoder(device, folder.path(), Vae::WAN22, size(clip)),
            ["vae22-encoder", clip] => encoder(device, folder.path(), Vae::WAN22, size(clip)),
            ["umt5", dtype] => text(device, folder.path(), dtype),
            ["clip"] => image(device, folder.path()),
            ["self-test"] => self_test(device),
            ["unsupported-op"] => plant(Planted::UnsupportedOp),
            ["bf16-norm"] => plant(Planted::Bf16Norm),
            ["attention-of-70000-rows"] => plant(Planted::AttentionOf70000Rows),
            [model, clip, dtype] => {
                let sizes = sizes(model).unwrap_or_else(|| panic!("no case {case}"));
                transformer(device, folder.path(), sizes, size(clip), dtype)
            }
            _ => panic!("no case {case}"),
        };
        let usage = device.peak_usage();
        let (weights, working) = (usage.weights, usage.working());
        let seen = Seen { report: null_metal::take_report(), seconds: steps, weights, working };
        println!("{}", serde_json::to_string(&seen).unwrap());
    }

    fn size(clip: &str) -> [i64; 3] {
        let sides: Vec<i64> = clip.split('x').map(|s| s.parse().unwrap()).collect();
        sides.try_into().unwrap()
    }

    fn executor(device: Device) -> Executor {
        Executor::new(device, Precision::Native, 1).unwrap()
    }

    fn go_on() -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn plant(planted: Planted) -> f64 {
        run_planted(planted);
        0.0
    }

    fn sizes(model: &str) -> Option<Transformer> {
        Some(match model {
            "t2v-a14b" => Transformer::A14B_HIGH,
            "i2v-a14b" => Transformer::WAN22_I2V_A14B_HIGH,
            "ti2v-5b" => Transformer::WAN22_TI2V_5B,
            "t2v-1.3b" => Transformer::WAN21_1_3B,
            "i2v-14b" => Transformer::WAN21_I2V_14B,
            "flf2v-14b" => Transformer::WAN21_FLF2V_14B,
            _ => return None,
        })
    }

    /// Seconds of one forward pass.
    fn transformer(
        device: Device,
        folder: &Path,
        sizes: Transformer,
        [width, height, frames]: [i64; 3],
        dtype: &str,
    ) -> f64 {
        let path = folder.join("wan.gguf");
        let dtype = dtype.parse().unwrap();
        let file = Arc::new(synthetic::transformer(&path, sizes, dtype, Values::Zero));
        let config = Config::new(&file).unwrap();
        let model = WanModel::new(&Weights::load(file, device).unwrap(), config).unwrap();
        let mut exec = executor(device);
        let prompt = HostTensor::zeros([PROMPT as i64, model.config().text_dim]);
        let features = sizes.image.map(|(rows, _)| HostTensor::zeros([rows as i64, 1280]));
        let context = Context { text: &prompt, image: features.as_ref() };
        let conditioning = model.condition(&mut exec, context).unwrap();
        // Guided runs keep the keys and values of two prompts.
        let _negative = model.condition(&mut exec, context).unwrap();
        let before = exec.done();
        let (side, frames) = (if sizes.expand_timesteps { 16 } else { 8 }, (frames - 1) / 4 + 1);
        let channels = sizes.channels[0] as i64;
        let latents = HostTensor::zeros([channels, frames, height / side, width / side]);
        // A given first frame cuts the pieces once more.
        let first_frame = if sizes.expand_timesteps { 0.0 } else { 500.0 };
        let timesteps = Timesteps { clip: 500.0, first_frame };
        model.velocity(&mut exec, &latents, timesteps, &conditioning, &mut go_on).unwrap();
        exec.limits().rates.seconds(exec.done().work + before.work * -1.0)
    }

    /// Seconds of the whole clip; its first two latent frames hold every graph that there is.
    fn decoder(device: Device, folder: &Path, sizes: Vae, clip: [i64; 3]) -> f64 {
        let file = Arc::new(synthetic::vae(&folder.join("vae.gguf"), sizes, Values::Zero));
        let config = vae::Config::new(&file).unwrap();
        let latents = HostTensor::zeros(config.latents(clip[0], clip[1], clip[2]));
        let vae = vae::WanVae::open(&file, device).unwrap();
        let mut exec = executor(device);
        let mut decoding = vae.decode(&exec, latents).unwrap();
        let mut frame = || {
            let before = exec.done();
            let mut push = |_| Ok::<(), ComputeError>(());
            decoding.next_frames(&mut exec, &mut go_on, &mut push).unwrap();
            exec.limits().rates.seconds(exec.done().work + before.work * -1.0)
        };
        let (first, second) = (frame(), frame());
        first + second * ((clip[2] - 1) / 4) as f64
    }

    /// Seconds of the whole clip; its first five frames hold every graph that there is.
    fn encoder(device: Device, folder: &Path, sizes: Vae, [w, h, frames]: [i64; 3]) -> f64 {
        let file = Arc::new(synthetic::vae(&folder.join("vae.gguf"), sizes, Values::Zero));
        let vae = vae::WanVaeEncoder::open(&file, device).unwrap();
        let mut exec = executor(device);
        let mut seconds = |frames| {
            let (clip, before) = (vec![HostTensor::zeros([h, w, 3]); frames], exec.done());
            vae.encode(&mut exec, clip, &mut go_on).unwrap();
            exec.limits().rates.seconds(exec.done().work + before.work * -1.0)
        };
        let (first, five) = (seconds(1), seconds(5));
        first + (five - first) * ((frames - 1) / 4) as f64
    }

    /// Seconds of one prompt.
    fn text(device: Device, folder: &Path, dtype: &str) -> f64 {
        let dtype = dtype.parse().unwrap();
        let path = folder.join("umt5.gguf");
        let file = Arc::new(synthetic::umt5_xxl(&path, dtype, Values::Zero));
        let weights = Weights::load(file.clone(), device).unwrap();
        let encoder = Umt5Encoder::new(&weights, &file).unwrap();
        let mut exec = executor(device);
        encoder.encode(&mut exec, &[0; PROMPT], &mut go_on).unwrap();
        exec.limits().rates.seconds(exec.done().work)
    }

    /// Seconds of one image.
    fn image(device: Device, folder: &Path) -> f64 {
        let file = Arc::new(synthetic::clip_vision_h(&folder.join("clip.gguf"), Values::Zero));
        let weights = Weights::load(file.clone(), device).unwrap();
        let encoder = ImageEncoder::new(&weights, &file).unwrap();
        let side = encoder.image_size();
        let mut exec = executor(device);
        encoder.encode(&mut exec, &HostTensor::zeros([side, side, 3]), &mut go_on).unwrap();
        exec.limits().rates.seconds(exec.done().work)
    }

    /// All of it runs, and no result is right: a device that computes nothing must not pass.
    fn self_test(device: Device) -> f64 {
        let test = SelfTest::run(device, 1, &mut |_| ());
        assert!(test.error.is_none() && !test.passed, "{test:?}");
        assert!(test.refused().is_empty(), "{:?}", test.refused());
        for op in test.ops.iter().filter(|op| op.tolerance > 0.0) {
            assert!(test.failed().contains(&op.name.as_str()), "{op:?}");
        }
        0.0
    }
}
