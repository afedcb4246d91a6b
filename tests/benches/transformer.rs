//! Time of one forward pass of a Wan 2.1 1.3B-shaped transformer on random weights.
//!
//! `cargo bench -p e2e --bench transformer -- 128x128x5 Q8_0 Q4_K F16`, with `--threads N`
//! (default 2) and `--blocks N` (default 30). Prints a line for each type: size, type, threads,
//! seconds of the second forward, compute buffer.

use e2e::synthetic::{self, Transformer, Values};
use gguf::DType;
use gguf_video::ggml::{Device, Executor, HostTensor, Precision, Weights};
use gguf_video::models::Denoiser;
use gguf_video::models::wan::{Config, WanModel};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut clip, mut types, mut threads, mut blocks) = ([128, 128, 5], Vec::new(), 2, 30);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number");
        if argument == "--threads" {
            threads = number();
        } else if argument == "--blocks" {
            blocks = number() as u32;
        } else if let Ok(dtype) = argument.parse::<DType>() {
            types.push(dtype);
        } else {
            let sides: Vec<i64> = argument.split('x').map(|s| s.parse().expect("WxHxF")).collect();
            clip = sides.try_into().expect("WxHxF");
        }
    }
    let [width, height, frames] = clip;
    let shape = [16, (frames - 1) / 4 + 1, height / 8, width / 8];
    let values = (0..shape.iter().product::<i64>()).map(|i| (i as f32 * 0.37).sin());
    let latents = HostTensor::new(shape, values.collect::<Vec<f32>>());
    let prompt = HostTensor::new([77, 4096], vec![0.01; 77 * 4096]);
    println!("clip,type,blocks,threads,seconds,compute_buffer_mb");
    for dtype in types {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(synthetic::transformer(
            &folder.path().join("wan.gguf"),
            Transformer { layers: blocks, ..Transformer::WAN21_1_3B },
            dtype,
            Values::Random,
        ));
        let config = Config::new(&file).unwrap();
        let device = Device::cpu();
        let model = WanModel::new(&Weights::load(file, device).unwrap(), config).unwrap();
        let mut exec = Executor::new(device, Precision::Native, threads).unwrap();
        let text = model.condition(&mut exec, &prompt).unwrap();
        let mut forward = || {
            let begin = Instant::now();
            let go_on = &mut || ControlFlow::Continue(());
            let velocity = model.velocity(&mut exec, &latents, 500, &text, go_on).unwrap();
            assert!(velocity.data.iter().all(|v| v.is_finite()), "{dtype}: not finite");
            begin.elapsed().as_secs_f64()
        };
        // The first touches the weights' pages.
        forward();
        let seconds = forward();
        let buffer = exec.compute_bytes() >> 20;
        println!("{width}x{height}x{frames},{dtype},{blocks},{threads},{seconds:.2},{buffer}");
    }
}
