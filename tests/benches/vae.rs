//! Time of the Wan 2.1 VAE's decoder at its real sizes, on random weights.
//!
//! `cargo bench -p e2e --bench vae -- 128x128x5 256x256x9`, with `--threads N` (default 2),
//! `--device NAME` (default cpu) and `--scratch MIB` (default: the device's own).
//! Prints a line for each clip: size, device, threads, seconds, seconds a frame, and memory beside the
//! weights. With `--check`, how far its values are from the CPU's in F32 instead.

use e2e::distance;
use e2e::synthetic::{self, Vae, Values};
use gguf::File;
use gguf_video::ggml::{ComputeError, Device, Executor, HostTensor, Precision, Weights};
use gguf_video::models::wan::vae::{Config, WanVae};
use gguf_video::pipeline::choose_device;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut clips, mut threads, mut scratch) = (Vec::new(), 2, None);
    let (mut device, mut check) = (Device::cpu(), false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--device" => device = choose_device(&value()).unwrap(),
            "--threads" => threads = value().parse().expect("a number"),
            "--scratch" => scratch = Some(value().parse::<i64>().expect("a number") << 20),
            "--check" => check = true,
            clip => {
                let sides: Vec<i64> = clip.split('x').map(|s| s.parse().expect("WxHxF")).collect();
                clips.push(<[i64; 3]>::try_from(sides).expect("WxHxF"));
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file =
        Arc::new(synthetic::vae(&folder.path().join("vae.gguf"), Vae::WAN21, Values::Random));
    let executor = |device, precision| {
        let mut exec = Executor::new(device, precision, threads).unwrap();
        let mut limits = exec.limits();
        limits.scratch = scratch.unwrap_or(limits.scratch);
        exec.set_limits(limits);
        exec
    };
    let model = load(&file, device);
    println!("{}", if check { CHECKED } else { TIMED });
    for [width, height, frames] in clips {
        let clip = format!("{width}x{height}x{frames},{}", device.name());
        let mut exec = executor(device, Precision::Native);
        device.forget_peak();
        let begin = Instant::now();
        let video = decode(&model, &mut exec, [width, height, frames]);
        let seconds = begin.elapsed().as_secs_f64();
        if check {
            let mut exec = executor(Device::cpu(), Precision::Strict);
            let expected = decode(&load(&file, Device::cpu()), &mut exec, [width, height, frames]);
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            let distance = distance(&video, &expected);
            println!("{clip},{:.2e},{:.7}", distance.relative, distance.cosine);
            assert!(distance.relative < 1e-2, "the device computes something else");
            continue;
        }
        let working = device.peak_usage().working() as f64 / 1e9;
        println!("{clip},{threads},{seconds:.2},{:.2},{working:.2}", seconds / frames as f64);
    }
}

const TIMED: &str = "clip,device,threads,seconds,seconds_a_frame,working_gb";
const CHECKED: &str = "clip,device,largest_error,cosine";

fn load(file: &Arc<File>, device: Device) -> WanVae {
    let config = Config::new(file).unwrap();
    WanVae::new(&Weights::load(file.clone(), device).unwrap(), config).unwrap()
}

fn decode(vae: &WanVae, exec: &mut Executor, [width, height, frames]: [i64; 3]) -> Vec<f32> {
    let shape = [16, (frames - 1) / 4 + 1, height / 8, width / 8];
    let count = shape.iter().product::<i64>();
    let latents = (0..count).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let mut decoding = vae.decode(exec, HostTensor::new(shape, latents)).unwrap();
    let mut video = Vec::new();
    let mut push = |frame: HostTensor| {
        video.extend_from_slice(&frame.data);
        Ok::<(), ComputeError>(())
    };
    while decoding.next_frames(exec, &mut || ControlFlow::Continue(()), &mut push).unwrap() {}
    video
}
