//! A clip of an image from beginning to end on random weights of a real size, beside what the plan said:
//! memory and seconds of each part.
//!
//! `cargo bench -p e2e --bench whole -- ti2v-5b 1280x704x121 Q8_0`, with `i2v-a14b` for the other model, and
//!
//! - `--device NAME` (default cpu), `--threads N` (default 2)
//! - `--steps N` (default 1)
//!
//! The text encoder isn't run: prompts are noise. Prints a line a part: planned and measured gigabytes and
//! seconds. `TMPDIR` is where the weights go.

use e2e::synthetic::{self, Transformer, Vae, Values};
use gguf::DType;
use gguf_video::ggml::{Device, HostTensor, Precision, Usage};
use gguf_video::pipeline::noise::Generator;
use gguf_video::pipeline::{
    Calibration, Checkpoint, Conditions, Experts, Machine, ModelFolder, Part, Plan, Request,
    Silent, Timings, choose_device, decode, encode_images,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

fn model(folder: &Path, name: &str, dtype: DType) -> ModelFolder {
    let expert = |name: &str, sizes, values| {
        Arc::new(synthetic::transformer(&folder.join(name), sizes, dtype, values))
    };
    let (transformer, transformer_2, vae) = match name {
        "ti2v-5b" => {
            (expert("5b.gguf", Transformer::WAN22_TI2V_5B, Values::Random), None, Vae::WAN22)
        }
        "i2v-a14b" => {
            let high = Transformer::WAN22_I2V_A14B_HIGH;
            let low = Transformer { expert: "low_noise", ..high };
            // Few steps are the high-noise expert's alone.
            let low = expert("low.gguf", low, Values::Zero);
            (expert("high.gguf", high, Values::Random), Some(low), Vae::WAN21)
        }
        other => panic!("no model {other}"),
    };
    let text = synthetic::umt5_xxl(&folder.join("umt5.gguf"), DType::Q8_0, Values::Zero);
    ModelFolder {
        transformer,
        transformer_2,
        text_encoder: Arc::new(text),
        image_encoder: None,
        vae: Arc::new(synthetic::vae(&folder.join("vae.gguf"), vae, Values::Random)),
        inferred: Vec::new(),
        doubts: Vec::new(),
    }
}

fn write_image(path: PathBuf) -> PathBuf {
    let (width, height) = (1600, 900);
    let file = std::fs::File::create(&path).unwrap();
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let bytes: Vec<u8> = (0..3 * width * height).map(|i| (i * 7 % 251) as u8).collect();
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
    path
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut rest, mut device, mut threads, mut steps) = (Vec::new(), Device::cpu(), 2, 1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--device" => device = choose_device(&value()).unwrap(),
            "--threads" => threads = value().parse().expect("a number"),
            "--steps" => steps = value().parse().expect("a number"),
            _ => rest.push(argument),
        }
    }
    let [name, clip, dtype] = &rest[..] else { panic!("MODEL CLIP TYPE") };
    let sides: Vec<usize> = clip.split('x').map(|s| s.parse().expect("WxHxF")).collect();
    let [width, height, frames] = sides[..] else { panic!("WxHxF") };
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), name, dtype.parse().unwrap());
    let machine = Machine::on(device, Precision::Native, threads);
    let request = Request {
        width,
        height,
        frames,
        steps,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        // Two steps are both the high-noise expert's.
        flow_shift: 12.0,
        image: Some(write_image(folder.path().join("image.png"))),
        ..Request::default()
    };
    request.check(model.latent_grid().unwrap()).unwrap();
    let plan = Plan::new(&machine, &model, &request, Some(&mut Calibration::default())).unwrap();

    println!("model,clip,type,device,part,planned GB,GB,planned s,s");
    let show = |part: &Part, seconds: f64| {
        let gb = |usage: Usage| usage.total() as f64 / 1e9;
        let (planned, used) = (gb(part.usage), gb(device.peak_usage()));
        let name = format!("{name},{clip},{dtype},{}", device.name());
        let promised = part.seconds;
        println!("{name},{},{planned:.2},{used:.2},{promised:.1},{seconds:.1}", part.name);
    };
    device.forget_peak();
    let timings = &mut Timings::default();
    let images = encode_images(&machine, &model, &request, timings, &mut Silent).unwrap();
    show(&plan.images[0], timings.images.as_secs_f64());

    let text = |seed| HostTensor::new([77, 4096], Generator::new(seed).normal(77 * 4096));
    let conditions = Conditions { images, ..Conditions::prompts(text(1), Some(text(2))) };
    let experts = Experts::new(model.transformer.clone(), model.transformer_2.clone()).unwrap();
    let start = Checkpoint::start(&request, model.latent_grid().unwrap());
    device.forget_peak();
    let mut exec = machine.executor(device).unwrap();
    // Loading isn't a step's.
    let mut times = Vec::new();
    let latents = experts
        .denoise(&mut exec, &request, &conditions, start, &mut Silent, &mut |_, _| {
            times.push(Instant::now());
            Ok(())
        })
        .unwrap();
    let between = times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).fold(0.0, f64::max);
    show(&plan.experts[0], between * steps as f64);
    drop(exec);

    device.forget_peak();
    let begin = Instant::now();
    let mut exec = machine.executor(device).unwrap();
    let mut shown = 0;
    decode(&mut exec, &model, latents, frames, &mut Silent, &mut |_| {
        shown += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(shown, frames);
    show(&plan.vae, begin.elapsed().as_secs_f64());
}
