//! The runtime against diffusers: the tiny random checkpoint of `fixtures/xs`, tap by tap.
//! `reference/README.md` says how checkpoint and golden are made.

use e2e::{Comparison, Golden, Taps, checkpoint, converted, device, fixture};
use gguf::File;
use gguf_video::ggml::{ComputeError, Executor, Family, HostTensor, Precision, Weights};
use gguf_video::image::{Filter, Image};
use gguf_video::models::text::Umt5Encoder;
use gguf_video::models::wan::{Config, WanModel, vae};
use gguf_video::models::{Denoiser, TextEncoder};
use gguf_video::pipeline::{
    Checkpoint, Conditions, Experts, Images, Machine, ModelFolder, Progress, Request, Silent, Step,
    Timings, encode_images,
};
use gguf_video::text::{Tokenizer, clean};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Case {
    golden: Golden,
    request: Request,
    folder: ModelFolder,
    precision: Precision,
    exec: Executor,
    taps: Taps,
    comparison: Comparison,
}

fn go_on() -> impl FnMut() -> ControlFlow<()> {
    || ControlFlow::Continue(())
}

impl Case {
    fn new(
        golden: Golden,
        request: Request,
        folder: ModelFolder,
        precision: Precision,
        tolerance: f64,
    ) -> Self {
        let mut exec = Executor::new(device(), precision, 1).unwrap();
        let taps = Taps::default();
        exec.observe(taps.observer());
        let comparison = Comparison::new(tolerance);
        Self { golden, request, folder, precision, exec, taps, comparison }
    }

    fn check(&mut self, name: &str, got: &[f32]) {
        self.comparison.check(name, got, self.golden.values(name));
    }

    /// Compares every tap since the last call.
    fn check_taps(&mut self, prefix: &str) {
        // A pass that is cut has several pieces of the same name.
        let mut taps: Vec<(String, Vec<f32>)> = Vec::new();
        for (name, value) in self.taps.take() {
            let name = format!("{prefix}{name}");
            if !self.golden.has(&name) {
                continue;
            }
            let values = self.golden.kept(&name, &value);
            match taps.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => known.extend(values),
                None => taps.push((name, values)),
            }
        }
        for (name, got) in taps {
            let expected = self.golden.values(&name);
            if !name.contains(".time_") || expected.len() <= got.len() {
                self.comparison.check(&name, &got, expected);
                continue;
            }
            // The reference embeds each token's timestep; we the clip's, which the last tokens have, and
            // after it that of a given frame, which the first ones have.
            let one = got.len() / if self.request.image.is_some() { 2 } else { 1 };
            self.comparison.check(&name, &got[..one], &expected[expected.len() - one..]);
            self.comparison.check(&name, &got[one..], &expected[..got.len() - one]);
        }
    }

    /// The same for the VAE.
    fn check_frames(&mut self) {
        for (name, value) in self.taps.take_frames() {
            if let Some(frame) = name.strip_prefix("vae.post_quant_conv.") {
                if !self.golden.has("vae.post_quant_conv") {
                    continue;
                }
                let expected = self.golden.frame("vae.post_quant_conv", frame.parse().unwrap());
                self.comparison.check(&name, &value.data, &expected);
            } else if self.golden.has(&name) {
                self.check(&name, &self.golden.kept(&name, &value));
            }
        }
    }

    fn text(&mut self) -> Conditions {
        let file = self.folder.text_encoder.clone();
        let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
        let encoder =
            Umt5Encoder::new(&Weights::load(file.clone(), device()).unwrap(), &file).unwrap();
        let request = self.request.clone();
        let mut embed = |prompt: &str, which: &str| {
            let ids = tokenizer.encode(&clean(prompt));
            let expected = self.golden.integers(&format!("{which}.input_ids"));
            assert!(ids.iter().map(|&i| i64::from(i)).eq(expected), "{which} ids: {ids:?}");
            let states = encoder.encode(&mut self.exec, &ids, &mut go_on()).unwrap();
            if which == "prompt" {
                self.check_taps("");
            } else {
                self.taps.take();
            }
            self.check(&format!("{which}.embeds"), &states.data);
            states
        };
        let positive = embed(&request.prompt, "prompt");
        let negative = Some(embed(&request.negative_prompt, "negative"));
        Conditions::prompts(positive, negative)
    }

    /// What the model takes of the images, as the reference had it.
    fn images(&mut self) -> Images {
        let named = [("image", &self.request.image), ("last_image", &self.request.last_image)];
        for (name, path) in named {
            let Some(path) = path else { continue };
            let sides = [self.request.width, self.request.height];
            let resized = Image::read(path).unwrap().resized(sides, Filter::Lanczos);
            let expected = self.golden.values(&format!("{name}.resized"));
            assert!(
                resized.rgb.iter().map(|&v| f64::from(v)).eq(expected.iter().copied()),
                "{name}"
            );
        }
        let machine = Machine::on(device(), self.precision, 1);
        let timings = &mut Timings::default();
        let images = encode_images(&machine, &self.folder, &self.request, timings, &mut Silent);
        let images = images.unwrap();
        for condition in images.channels.iter().chain(&images.first_frame) {
            self.check("condition", &condition.data);
        }
        if let Some(features) = &images.features {
            self.check("image_encoder.features", &features.data);
        }
        images
    }

    /// The first call of each expert, from the reference's own inputs.
    fn first_calls(&mut self, prompts: &Conditions) {
        let high = (self.folder.transformer.clone(), ["single", "high"]);
        let low = self.folder.transformer_2.clone().map(|file| (file, ["low"; 2]));
        let two = usize::from(low.is_some());
        for (file, names) in std::iter::once(high).chain(low) {
            let name = names[two];
            let (latents, timestep) = self.first_input(&file);
            let images = &prompts.images;
            let latents = images.input(&images.keep_frame(latents));
            let config = Config::new(&file).unwrap();
            let model = WanModel::new(&Weights::load(file, device()).unwrap(), config).unwrap();
            let text = model.condition(&mut self.exec, prompts.context()).unwrap();
            let velocity = model
                .velocity(&mut self.exec, &latents, images.timesteps(timestep), &text, &mut go_on())
                .unwrap();
            self.check_taps(&format!("{name}."));
            self.check(&format!("{name}.noise"), &velocity.data);
        }
    }

    fn first_input(&self, file: &Arc<File>) -> (HostTensor, f32) {
        let boundary = file.metadata().f32("wan.boundary_ratio").unwrap_or(0.0) * 1000.0;
        let low = file.metadata().string("wan.expert").unwrap() == "low_noise";
        let timesteps = self.golden.integers("timesteps");
        let step = timesteps.iter().position(|&t| low == ((t as f32) < boundary)).unwrap();
        let input = match step {
            0 => self.golden.tensor::<4>("latents.init"),
            _ => self.golden.tensor::<4>(&format!("step.{}.latents", step - 1)),
        };
        (input, timesteps[step] as f32)
    }

    fn denoise(&mut self, prompts: &Conditions) -> HostTensor {
        let start = Checkpoint::start(&self.request, self.folder.latent_grid().unwrap());
        self.check("latents.init", &start.latents.data);
        let schedule = self.request.schedule().unwrap();
        let timesteps = self.golden.integers("timesteps");
        assert!(schedule.timesteps.iter().map(|&t| t as i64).eq(timesteps));
        self.comparison.check("sigmas", &schedule.sigmas, self.golden.values("sigmas"));
        let experts =
            Experts::new(self.folder.transformer.clone(), self.folder.transformer_2.clone())
                .unwrap();
        let (golden, comparison) = (&self.golden, &mut self.comparison);
        let mut observe = |step: &Step<'_>, _: &mut dyn Progress| {
            let values = [("velocity", step.guided_velocity), ("latents", step.latents)];
            for (what, value) in values {
                let name = format!("step.{}.{what}", step.index);
                // The reference lets a given frame drift, and never looks at it.
                let given = usize::from(prompts.images.first_frame.is_some());
                let [c, f, h, w] = value.shape.full().map(|d| d as usize);
                let rest = |i: &usize| i / (h * w) % f >= given;
                let rest: Vec<usize> = (0..c * f * h * w).filter(rest).collect();
                let got: Vec<f32> = rest.iter().map(|&i| value.data[i]).collect();
                let expected: Vec<f64> = rest.iter().map(|&i| golden.values(&name)[i]).collect();
                comparison.check(&name, &got, &expected);
            }
            Ok(())
        };
        let latents = experts
            .denoise(&mut self.exec, &self.request, prompts, start, &mut Silent, &mut observe)
            .unwrap();
        self.taps.take();
        latents
    }

    fn decode(&mut self, latents: HostTensor) {
        let file = self.folder.vae.clone();
        let config = vae::Config::new(&file).unwrap();
        let model = vae::WanVae::new(&Weights::load(file, device()).unwrap(), config).unwrap();
        let mut decoding = model.decode(&self.exec, latents).unwrap();
        let mut video = Vec::new();
        let mut push = |frame: HostTensor| {
            let planes = (0..3).flat_map(|c| frame.data.iter().skip(c).step_by(3));
            video.extend(planes.map(|v| (v / 2.0 + 0.5).clamp(0.0, 1.0)));
            Ok::<(), ComputeError>(())
        };
        while decoding.next_frames(&mut self.exec, &mut go_on(), &mut push).unwrap() {
            self.check_frames();
        }
        let Request { width, height, frames, .. } = self.request;
        let shape = [frames as i64, 3, height as i64, width as i64];
        let video = HostTensor::new(shape, video);
        self.check("video", &self.golden.kept("video", &video));
    }

    /// `taps`: how many are compared.
    fn run(mut self, what: &str, taps: usize) {
        let mut conditions = self.text();
        conditions.images = self.images();
        self.first_calls(&conditions);
        let latents = self.denoise(&conditions);
        self.decode(latents);
        let compared = self.comparison.finish(what);
        assert_eq!(compared, taps, "taps of {what} that were compared");
    }
}

/// GPUs round the operands of matrix products to F16.
const GPU_TOLERANCE: f64 = 1e-2;
/// With its flow shift of 16, the last of three steps begins at a noise level of 0.89: a guided velocity's
/// error goes into the clip almost whole, and CUDA rounds more than others.
const CUDA_TOLERANCE_FLF2V: f64 = 2e-2;

/// An image of the golden as a file.
fn write_image(golden: &Golden, name: &str, folder: &Path) -> Option<PathBuf> {
    let name = format!("{name}.uint8");
    if !golden.has(&name) {
        return None;
    }
    let [height, width, _] = golden.shape(&name)[..] else { panic!("{name} is no image") };
    let path = folder.join(format!("{name}.png"));
    let file = std::fs::File::create(&path).unwrap();
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let bytes: Vec<u8> = golden.values(&name).iter().map(|&v| v as u8).collect();
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
    Some(path)
}

fn run((row, golden): (&str, &str), taps: usize, precision: Precision, tolerance: f64) {
    let tolerance = match (device().family(), row) {
        (Family::Cpu, _) => tolerance,
        (Family::Cuda, "wan2.1-flf2v-14b") => CUDA_TOLERANCE_FLF2V,
        _ => GPU_TOLERANCE,
    };
    let checkpoint = checkpoint(row);
    let golden = Golden::named(&fixture(row), golden);
    let output = tempfile::tempdir().unwrap();
    let folder = converted(checkpoint.path(), output.path(), "F32");
    let info = &golden.info;
    let number = |key: &str| info[key].as_f64().unwrap_or_else(|| panic!("golden.json: {key}"));
    let low = info["guidance_scale_2"].as_f64().unwrap_or_else(|| number("guidance_scale"));
    let request = Request {
        prompt: info["prompt"].as_str().unwrap().into(),
        negative_prompt: info["negative_prompt"].as_str().unwrap().into(),
        width: number("width") as usize,
        height: number("height") as usize,
        frames: number("num_frames") as usize,
        steps: number("num_inference_steps") as usize,
        guidance_scale: number("guidance_scale") as f32,
        guidance_scale_low: low as f32,
        flow_shift: number("flow_shift"),
        seed: number("seed") as u64,
        image: write_image(&golden, "image", output.path()),
        last_image: write_image(&golden, "last_image", output.path()),
        ..Request::default()
    };
    let what = format!("{row}, {precision:?}");
    Case::new(golden, request, folder, precision, tolerance).run(&what, taps);
}

/// F32 files: every op in F32; then what users run, where ggml's CPU backend takes GELU from an F16 table.
fn both(row: &str, golden: &str, taps: usize) {
    run((row, golden), taps, Precision::Strict, 5e-5);
    run((row, golden), taps, Precision::Native, 3e-3);
}

#[test]
fn wan22_t2v_a14b() {
    both("xs", "golden", 65);
}

#[test]
fn wan22_i2v_a14b() {
    both("wan2.2-i2v-a14b", "golden", 43);
}

#[test]
fn wan22_ti2v_5b_of_text() {
    both("wan2.2-ti2v-5b", "golden", 50);
}

#[test]
fn wan22_ti2v_5b_of_an_image() {
    both("wan2.2-ti2v-5b", "golden-image", 30);
}

#[test]
fn wan21_t2v_1_3b() {
    both("wan2.1-t2v-1.3b", "golden", 24);
}

#[test]
fn wan21_i2v_14b() {
    both("wan2.1-i2v-14b", "golden", 27);
}

#[test]
fn wan21_flf2v_14b() {
    both("wan2.1-flf2v-14b", "golden", 27);
}
