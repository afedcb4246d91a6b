//! Time and memory of forward passes of Wan-shaped transformers on random weights, beside what the plan
//! says.
//!
//! `cargo bench -p e2e --bench transformer -- 128x128x5 Q8_0 Q4_K F16`, with
//!
//! - `--model 1.3b|a14b` (default 1.3b), `--blocks N` (default: the model's)
//! - `--device NAME` (default cpu), `--threads N` (default 2)
//! - `--forwards N`: how many are timed, after one that isn't (default 1); the fastest counts, for other
//!   work on the machine only makes them slower
//! - `--intermediate MIB`: of the largest intermediate (default: the device's own)
//! - `--steps N`: times guided denoising steps instead, all but the first, which loads the weights
//! - `--kept DIR`: with `--steps`, how long watching and keeping a step takes, beside the step
//! - `--check`: instead of timing, compares one forward with the CPU's strict one
//!
//! Prints a line for each clip and type. `TMPDIR` is where the weights go.

use e2e::synthetic::{self, Transformer, Values};
use gguf::{DType, File};
use gguf_video::ggml::{Device, Executor, Family, HostTensor, Precision, Rates, Weights};
use gguf_video::models::wan::{Config, WanModel};
use gguf_video::models::{Context, Denoiser};
use gguf_video::pipeline::run_folder::{OutputRecord, Record, RunFolder};
use gguf_video::pipeline::{
    Checkpoint, Conditions, Experts, LatentGrid, Machine, Progress, Request, Silent, Step, Vitals,
    choose_device,
};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

struct Options {
    clips: Vec<[i64; 3]>,
    types: Vec<DType>,
    sizes: Transformer,
    blocks: Option<u32>,
    device: Device,
    threads: usize,
    forwards: u32,
    intermediate: Option<i64>,
    steps: usize,
    kept: Option<PathBuf>,
    check: bool,
}

impl Options {
    fn parse() -> Self {
        let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
        let mut options = Self {
            clips: Vec::new(),
            types: Vec::new(),
            sizes: Transformer::WAN21_1_3B,
            blocks: None,
            device: Device::cpu(),
            threads: 2,
            forwards: 1,
            intermediate: None,
            steps: 0,
            kept: None,
            check: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().expect("a value");
            match argument.as_str() {
                "--threads" => options.threads = value().parse().expect("a number"),
                "--blocks" => options.blocks = Some(value().parse().expect("a number")),
                "--forwards" => options.forwards = value().parse().expect("a number"),
                "--intermediate" => {
                    options.intermediate = Some(value().parse::<i64>().expect("a number") << 20)
                }
                "--steps" => options.steps = value().parse().expect("a number"),
                "--device" => options.device = choose_device(&value()).unwrap(),
                "--kept" => options.kept = Some(value().into()),
                "--check" => options.check = true,
                "--model" => {
                    options.sizes = match value().as_str() {
                        "1.3b" => Transformer::WAN21_1_3B,
                        "a14b" => Transformer::A14B_HIGH,
                        other => panic!("no model {other}"),
                    }
                }
                other => match other.parse::<DType>() {
                    Ok(dtype) => options.types.push(dtype),
                    Err(_) => options.clips.push(clip(other)),
                },
            }
        }
        if let Some(blocks) = options.blocks {
            options.sizes.layers = blocks;
        }
        options
    }

    fn executor(&self, device: Device, precision: Precision) -> Executor {
        let mut exec = Executor::new(device, precision, self.threads).unwrap();
        let mut limits = exec.limits();
        limits.intermediate = self.intermediate.unwrap_or(limits.intermediate);
        exec.set_limits(limits);
        exec
    }
}

fn clip(text: &str) -> [i64; 3] {
    let sides: Vec<i64> = text.split('x').map(|s| s.parse().expect("WxHxF")).collect();
    sides.try_into().expect("WxHxF")
}

/// Smooth values between -1 and 1.
fn wave(shape: [i64; 4]) -> HostTensor {
    let count = shape.iter().product::<i64>();
    HostTensor::new(shape, (0..count).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>())
}

fn model(file: &Arc<File>, device: Device) -> WanModel {
    let config = Config::new(file).unwrap();
    WanModel::new(&Weights::load(file.clone(), device).unwrap(), config).unwrap()
}

fn prompt() -> HostTensor {
    HostTensor::new([77, 4096], vec![0.01; 77 * 4096])
}

fn main() {
    let options = Options::parse();
    if options.kept.is_some() {
        println_line("clip,type,blocks,device,threads,seconds_a_step,watching,keeping");
    } else if options.steps > 0 {
        println_line("clip,type,blocks,device,threads,seconds_a_step");
    } else if options.check {
        println_line("clip,type,blocks,device,relative_rms_error,largest_error");
    } else {
        println_line(
            "clip,type,blocks,device,threads,seconds,planned_seconds,memory_gb,planned_memory_gb",
        );
    }
    for &dtype in &options.types {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wan.gguf");
        let file = Arc::new(synthetic::transformer(&path, options.sizes, dtype, Values::Random));
        let before = taken(options.device);
        for &[width, height, frames] in &options.clips {
            let latents = wave([16, (frames - 1) / 4 + 1, height / 8, width / 8]);
            let clip = format!("{width}x{height}x{frames}");
            if options.steps > 0 {
                steps(&options, &file, [width, height, frames], &clip, dtype);
            } else if options.check {
                check(&options, &file, &latents, &clip, dtype);
            } else {
                measure(&options, &file, &latents, (&clip, dtype), before);
            }
        }
    }
}

/// Seconds of a forward pass and the most memory that it took beyond what was taken `before`, and what
/// was planned.
fn measure(
    options: &Options,
    file: &Arc<File>,
    latents: &HostTensor,
    (clip, dtype): (&str, DType),
    before: u64,
) {
    let (device, threads) = (options.device, options.threads);
    let mut most = before;
    let model_on_device = model(file, device);
    let mut exec = options.executor(device, Precision::Native);
    let text = model_on_device.condition(&mut exec, Context::text(&prompt())).unwrap();
    let mut seconds = f64::INFINITY;
    for pass in 0..=options.forwards {
        let begin = Instant::now();
        let tick = &mut || {
            // The first pass touches the weights' pages, and asks what it takes.
            if pass == 0 {
                most = most.max(taken(device));
            }
            ControlFlow::Continue(())
        };
        let velocity =
            model_on_device.velocity(&mut exec, latents, 500.0.into(), &text, tick).unwrap();
        assert!(velocity.data.iter().all(|v| v.is_finite()), "{dtype}: not finite");
        if pass > 0 {
            seconds = seconds.min(begin.elapsed().as_secs_f64());
        }
    }

    let planned = device.dry();
    planned.forget_peak();
    let mut dry = options.executor(planned, Precision::Native);
    let model = model(file, planned);
    let text = model.condition(&mut dry, Context::text(&prompt())).unwrap();
    let prepared = dry.done().work;
    model
        .velocity(&mut dry, latents, 500.0.into(), &text, &mut || ControlFlow::Continue(()))
        .unwrap();
    let rates = Rates::measure(device, Precision::Native, threads, dtype, None).unwrap();
    let planned_seconds = rates.seconds(dry.done().work + prepared * -1.0);
    println_line(&format!(
        "{clip},{dtype},{},{},{threads},{seconds:.3},{planned_seconds:.3},{:.2},{:.2}",
        options.sizes.layers,
        device.name(),
        (most - before) as f64 / 1e9,
        planned.peak_usage().total() as f64 / 1e9,
    ));
}

/// Seconds of a step of the denoising loop itself, guidance and sampler included.
fn steps(options: &Options, file: &Arc<File>, sides: [i64; 3], clip: &str, dtype: DType) {
    let [width, height, frames] = sides.map(|side| side as usize);
    let request = Request {
        prompt: String::new(),
        negative_prompt: String::new(),
        width,
        height,
        frames,
        steps: options.steps,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        flow_shift: 12.0,
        seed: 0,
        ..Request::default()
    };
    let prompts = Conditions::prompts(prompt(), Some(prompt()));
    let mut exec = options.executor(options.device, Precision::Native);
    let run = options.kept.as_ref().map(|folder| {
        let machine = Machine::on(options.device, Precision::Native, options.threads);
        let output = OutputRecord { path: folder.join("none.mp4"), fps: 16, contact_sheet: None };
        let record = Record::new(request.clone(), machine.record(), Vec::new(), output);
        RunFolder::create(&folder.join(clip), record).unwrap()
    });
    let (mut times, mut watching, mut keeping) = (Vec::new(), 0.0, 0.0);
    let mut observe = |step: &Step<'_>, _: &mut dyn Progress| {
        times.push(Instant::now());
        if let Some(run) = &run {
            let begin = Instant::now();
            let vitals = Vitals::of(step);
            run.log(&vitals).unwrap();
            watching += begin.elapsed().as_secs_f64();
            let begin = Instant::now();
            run.save_step(step).unwrap();
            keeping += begin.elapsed().as_secs_f64();
        }
        Ok(())
    };
    let experts = Experts::new(file.clone(), None).unwrap();
    let start = Checkpoint::start(&request, LatentGrid { channels: 16, pixels: 8 });
    experts.denoise(&mut exec, &request, &prompts, start, &mut Silent, &mut observe).unwrap();
    let timed = times.len() - 1;
    let seconds = (times[timed] - times[0]).as_secs_f64() / timed as f64;
    let kept = match run {
        Some(_) => {
            let [watching, keeping] = [watching, keeping].map(|s: f64| s / times.len() as f64);
            format!(",{watching:.4},{keeping:.4}")
        }
        None => String::new(),
    };
    println_line(&format!(
        "{clip},{dtype},{},{},{},{seconds:.3}{kept}",
        options.sizes.layers,
        options.device.name(),
        options.threads
    ));
}

/// Bytes that are in use: on the CPU by this process, with the pages of its mapped files; elsewhere by
/// everybody.
fn taken(device: Device) -> u64 {
    if device.family() != Family::Cpu {
        let capacity = device.capacity();
        return capacity.total - capacity.free;
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a line");
    line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

/// How far the device's forward is from the CPU's in F32.
fn check(options: &Options, file: &Arc<File>, latents: &HostTensor, clip: &str, dtype: DType) {
    let forward = |device, precision| {
        let model = model(file, device);
        let mut exec = options.executor(device, precision);
        let text = model.condition(&mut exec, Context::text(&prompt())).unwrap();
        let go_on = &mut || ControlFlow::Continue(());
        model.velocity(&mut exec, latents, 500.0.into(), &text, go_on).unwrap()
    };
    let expected = forward(Device::cpu(), Precision::Strict);
    let got = forward(options.device, Precision::Native);
    let pairs =
        || got.data.iter().zip(&*expected.data).map(|(&g, &e)| (f64::from(g), f64::from(e)));
    let power = pairs().map(|(_, e)| e * e).sum::<f64>();
    let error = pairs().map(|(g, e)| (g - e) * (g - e)).sum::<f64>();
    let largest = pairs().map(|(_, e)| e.abs()).fold(0.0, f64::max);
    let worst = pairs().map(|(g, e)| (g - e).abs()).fold(0.0, f64::max);
    println_line(&format!(
        "{clip},{dtype},{},{},{:.2e},{:.2e}",
        options.sizes.layers,
        options.device.name(),
        (error / power).sqrt(),
        worst / largest
    ));
    let near = error.is_finite() && (error / power).sqrt() < 1e-2;
    assert!(near, "the device computes something else");
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn println_line(line: &str) {
    println!("{line}");
}
