//! Time of the Wan 2.1 VAE's decoder at its real sizes, on random weights.
//!
//! `cargo bench -p e2e --bench vae -- 128x128x5 256x256x9`, with `--threads N` (default 2),
//! `--device NAME` (default cpu) and `--scratch MIB` (default: the device's own).
//! Prints a line for each clip: size, device, threads, seconds, seconds a frame, and memory beside the
//! weights.

use e2e::synthetic::{self, Values};
use gguf_video::ggml::{Device, Executor, HostTensor, Precision, Weights};
use gguf_video::models::wan::vae::{Config, WanVae};
use gguf_video::pipeline::choose_device;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut clips, mut threads, mut scratch) = (Vec::new(), 2, None);
    let mut device = Device::cpu();
    while let Some(argument) = arguments.next() {
        if argument == "--device" {
            device = choose_device(&arguments.next().expect("a name")).unwrap();
            continue;
        }
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number");
        if argument == "--threads" {
            threads = number();
            continue;
        }
        if argument == "--scratch" {
            scratch = Some(number() as i64);
            continue;
        }
        let sides: Vec<i64> = argument.split('x').map(|s| s.parse().expect("WxHxF")).collect();
        clips.push(<[i64; 3]>::try_from(sides).expect("WxHxF"));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(synthetic::vae(&folder.path().join("vae.gguf"), Values::Random));
    let config = Config::new(&file).unwrap();
    let z = config.z_dim;
    let vae = WanVae::new(&Weights::load(file, device).unwrap(), config).unwrap();
    println!("clip,device,threads,seconds,seconds_a_frame,working_gb");
    for [width, height, frames] in clips {
        let shape = [z, (frames - 1) / 4 + 1, height / 8, width / 8];
        let count = shape.iter().product::<i64>();
        let latents = (0..count).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
        let mut exec = Executor::new(device, Precision::Native, threads).unwrap();
        let mut limits = exec.limits();
        limits.scratch = scratch.map_or(limits.scratch, |mib| mib << 20);
        exec.set_limits(limits);
        device.forget_peak();
        let begin = Instant::now();
        let mut decoding = vae.decode(&exec, HostTensor::new(shape, latents)).unwrap();
        let mut go_on = || ControlFlow::Continue(());
        let mut push = |_: HostTensor| Ok::<(), gguf_video::ggml::ComputeError>(());
        while decoding.next_frames(&mut exec, &mut go_on, &mut push).unwrap() {}
        let seconds = begin.elapsed().as_secs_f64();
        let working = device.peak_usage().working() as f64 / 1e9;
        println!(
            "{width}x{height}x{frames},{},{threads},{seconds:.2},{:.2},{working:.2}",
            device.name(),
            seconds / frames as f64
        );
    }
}
