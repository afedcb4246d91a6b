//! A device beside the CPU at full size, as `gguf-video preflight` compares them, on random weights.
//!
//! `cargo bench -p e2e --bench full_size -- 832x480x81 Q8_0`, with `--model 1.3b|a14b` (default 1.3b),
//! `--device NAME` (default cpu) and `--threads N` (default 2, of the CPU).
//! Prints a line a comparison: what, the device's error, the error that rounding explains, and at the
//! end of each part its seconds. `TMPDIR` is where the weights go.

use e2e::synthetic::{self, Transformer, Vae, Values};
use gguf::DType;
use gguf_video::ggml::{Device, HostTensor, Precision};
use gguf_video::models::Context;
use gguf_video::pipeline::noise::Generator;
use gguf_video::pipeline::{Comparison, FullSize, Machine, Silent, choose_device};
use std::sync::Arc;
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut clips, mut types, mut sizes) = (Vec::new(), Vec::new(), Transformer::WAN21_1_3B);
    let (mut device, mut threads) = (Device::cpu(), 2);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--device" => device = choose_device(&value()).unwrap(),
            "--threads" => threads = value().parse().expect("a number"),
            "--model" if value() == "a14b" => sizes = Transformer::A14B_HIGH,
            "--model" => {}
            other => match other.parse::<DType>() {
                Ok(dtype) => types.push(dtype),
                Err(_) => {
                    let sides = other.split('x').map(|s| s.parse().expect("WxHxF"));
                    clips.push(<[i64; 3]>::try_from(sides.collect::<Vec<_>>()).expect("WxHxF"));
                }
            },
        }
    }
    let machine = Machine::on(device, Precision::Native, threads);
    let mut beside = FullSize { machine: &machine, prepare: &mut |_| {} };
    let folder = tempfile::tempdir().unwrap();
    // One block of the model's width: what it has beyond is the same again.
    sizes.layers = 1;
    let vae = Arc::new(synthetic::vae(&folder.path().join("vae.gguf"), Vae::WAN21, Values::Random));
    println!("clip,type,what,error,explained,passed");
    for [width, height, frames] in clips {
        let clip = format!("{width}x{height}x{frames}");
        let shape = [16, (frames - 1) / 4 + 1, height / 8, width / 8];
        let count = shape.iter().product::<i64>() as usize;
        let latents = HostTensor::new(shape, Generator::new(1).normal(count));
        let show = |dtype: &str, found: Vec<Comparison>, begin: Instant| {
            for Comparison { what, error, explained, passed } in found {
                println!("{clip},{dtype},{what},{error:.2e},{explained:.2e},{passed}");
            }
            println!("{clip},{dtype},seconds,{:.1},,", begin.elapsed().as_secs_f64());
        };
        for &dtype in &types {
            let path = folder.path().join(format!("{dtype}.gguf"));
            let file = Arc::new(synthetic::transformer(&path, sizes, dtype, Values::Random));
            let text = HostTensor::new([77, 4096], Generator::new(2).normal(77 * 4096));
            let begin = Instant::now();
            let found = beside.block(&file, &latents, Context::text(&text), &mut Silent).unwrap();
            show(&dtype.to_string(), found, begin);
        }
        let begin = Instant::now();
        let found = beside.chunk(&vae, &latents, &mut Silent).unwrap();
        show("F32", found, begin);
    }
}
