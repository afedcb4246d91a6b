//! The runtime against diffusers: the tiny random checkpoint of `fixtures/xs`, tap by tap.
//! `reference/README.md` says how checkpoint and golden are made.

use e2e::{Comparison, Golden, Taps, converted, device, fixture};
use gguf::File;
use gguf_video::ggml::{ComputeError, Executor, Family, HostTensor, Precision, Weights};
use gguf_video::models::text::Umt5Encoder;
use gguf_video::models::wan::{Config, WanModel, vae};
use gguf_video::models::{Denoiser, TextEncoder};
use gguf_video::pipeline::{
    Checkpoint, Conditions, Experts, ModelFolder, Progress, Request, Silent, Step,
};
use gguf_video::text::{Tokenizer, clean};
use std::ops::ControlFlow;
use std::sync::Arc;

struct Case {
    golden: Golden,
    request: Request,
    folder: ModelFolder,
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
        Self { golden, request, folder, exec, taps, comparison: Comparison::new(tolerance) }
    }

    fn check(&mut self, name: &str, got: &[f32]) {
        self.comparison.check(name, got, self.golden.values(name));
    }

    /// Compares every tap since the last call.
    fn check_taps(&mut self, prefix: &str) {
        for (name, value) in self.taps.take() {
            let name = format!("{prefix}{name}");
            if self.golden.has(&name) {
                self.check(&name, &self.golden.kept(&name, &value));
            }
        }
    }

    /// The same for the VAE.
    fn check_frames(&mut self) {
        for (name, value) in self.taps.take_frames() {
            if let Some(frame) = name.strip_prefix("vae.post_quant_conv.") {
                let expected = self.golden.frame("vae.post_quant_conv", frame.parse().unwrap());
                self.comparison.check(&name, &value.data, &expected);
            } else {
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

    /// The first call of each expert, from the reference's own inputs.
    fn first_calls(&mut self, prompts: &Conditions) {
        let experts = [
            ("high", self.folder.transformer.clone()),
            ("low", self.folder.transformer_2.clone().unwrap()),
        ];
        for (name, file) in experts {
            let (latents, timestep) = self.first_input(&file);
            let config = Config::new(&file).unwrap();
            let model = WanModel::new(&Weights::load(file, device()).unwrap(), config).unwrap();
            let text = model.condition(&mut self.exec, prompts.context()).unwrap();
            let velocity = model
                .velocity(&mut self.exec, &latents, timestep.into(), &text, &mut go_on())
                .unwrap();
            self.check_taps(&format!("{name}."));
            self.check(&format!("{name}.noise"), &velocity.data);
        }
    }

    fn first_input(&self, file: &Arc<File>) -> (HostTensor, f32) {
        let boundary = file.metadata().f32("wan.boundary_ratio").unwrap() * 1000.0;
        let high = file.metadata().string("wan.expert").unwrap() == "high_noise";
        let timesteps = self.golden.integers("timesteps");
        let step = timesteps.iter().position(|&t| high == (t as f32 >= boundary)).unwrap();
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
                comparison.check(&name, &value.data, golden.values(&name));
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
        self.check("video", &video);
    }

    fn run(mut self, what: &str) {
        let prompts = self.text();
        self.first_calls(&prompts);
        let latents = self.denoise(&prompts);
        self.decode(latents);
        let compared = self.comparison.finish(what);
        assert!(compared > 50, "only {compared} taps were compared");
    }
}

/// GPUs round the operands of matrix products to F16.
const GPU_TOLERANCE: f64 = 1e-2;

fn run(precision: Precision, tolerance: f64, what: &str) {
    let tolerance = if device().family() == Family::Cpu { tolerance } else { GPU_TOLERANCE };
    let checkpoint = fixture("xs");
    let golden = Golden::open(&checkpoint);
    let output = tempfile::tempdir().unwrap();
    let folder = converted(&checkpoint, output.path(), "F32");
    let info = &golden.info;
    let number = |key: &str| info[key].as_f64().unwrap_or_else(|| panic!("golden.json: {key}"));
    let request = Request {
        prompt: info["prompt"].as_str().unwrap().into(),
        negative_prompt: info["negative_prompt"].as_str().unwrap().into(),
        width: number("width") as usize,
        height: number("height") as usize,
        frames: number("num_frames") as usize,
        steps: number("num_inference_steps") as usize,
        guidance_scale: number("guidance_scale") as f32,
        guidance_scale_low: number("guidance_scale_2") as f32,
        flow_shift: number("flow_shift"),
        seed: number("seed") as u64,
        ..Request::default()
    };
    Case::new(golden, request, folder, precision, tolerance).run(what);
}

/// F32 files, every op in F32.
#[test]
fn strict_mode_is_the_reference() {
    run(Precision::Strict, 5e-5, "strict");
}

/// What users run: ggml's CPU backend takes GELU from an F16 table.
#[test]
fn native_mode_is_near() {
    run(Precision::Native, 3e-3, "native");
}
