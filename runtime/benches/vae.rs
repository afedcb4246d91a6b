//! Time of the Wan 2.1 VAE's decoder at its real sizes, on random weights.
//!
//! `cargo bench -p gguf-video --bench vae -- 128x128x5 256x256x9`, with `--threads N` (default 2).
//! Prints a line for each clip: size, threads, seconds, seconds a frame, compute buffer.

use gguf::{DType, File, Metadata, TensorSpec, Writer};
use gguf_video::ggml::{Device, Executor, HostTensor, Precision, Weights};
use gguf_video::models::wan::vae::{Config, WanVae};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const BASE: u64 = 96;
const Z: u64 = 16;

/// Names and shapes of the decoder of Wan 2.1's VAE.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let mut list = Vec::new();
    let mut conv = |name: &str, shape: &[u64]| {
        list.push((format!("{name}.weight"), shape.to_vec()));
        list.push((format!("{name}.bias"), vec![shape[0]]));
    };
    conv("conv2", &[Z, Z, 1, 1, 1]);
    conv("decoder.conv1", &[4 * BASE, Z, 3, 3, 3]);
    conv("decoder.middle.1.to_qkv", &[12 * BASE, 4 * BASE, 1, 1]);
    conv("decoder.middle.1.proj", &[4 * BASE, 4 * BASE, 1, 1]);
    conv("decoder.head.2", &[3, BASE, 3, 3, 3]);
    let mut gammas = vec![("decoder.middle.1.norm".to_owned(), vec![4 * BASE, 1, 1])];
    gammas.push(("decoder.head.0".to_owned(), vec![BASE, 1, 1, 1]));
    let mut residual = |at: String, i: u64, o: u64| {
        conv(&format!("{at}.residual.2"), &[o, i, 3, 3, 3]);
        conv(&format!("{at}.residual.6"), &[o, o, 3, 3, 3]);
        gammas.push((format!("{at}.residual.0"), vec![i, 1, 1, 1]));
        gammas.push((format!("{at}.residual.3"), vec![o, 1, 1, 1]));
        if i != o {
            conv(&format!("{at}.shortcut"), &[o, i, 1, 1, 1]);
        }
    };
    for i in [0, 2] {
        residual(format!("decoder.middle.{i}"), 4 * BASE, 4 * BASE);
    }
    let levels = [(4, 4), (2, 4), (2, 2), (1, 1)];
    for (level, (first, channels)) in levels.into_iter().enumerate() {
        for i in 0..3 {
            let inputs = if i == 0 { first } else { channels };
            residual(
                format!("decoder.upsamples.{}", 4 * level + i),
                inputs * BASE,
                channels * BASE,
            );
        }
    }
    for (index, channels, in_time) in [(3, 4, true), (7, 4, true), (11, 2, false)] {
        let (at, c) = (format!("decoder.upsamples.{index}"), channels * BASE);
        conv(&format!("{at}.resample.1"), &[c / 2, c, 3, 3]);
        if in_time {
            conv(&format!("{at}.time_conv"), &[2 * c, c, 3, 1, 1]);
        }
    }
    list.extend(gammas.into_iter().map(|(name, shape)| (format!("{name}.gamma"), shape)));
    list
}

fn synthetic(path: &Path) -> File {
    let mut m = Metadata::new();
    m.set("general.architecture", "wanvae").set("wanvae.base_dim", BASE as u32);
    m.set("wanvae.z_dim", Z as u32).set("wanvae.num_res_blocks", 2u32);
    m.set("wanvae.dim_mult", "1,2,4,4").set("wanvae.temporal_downsample", "false,true,true");
    m.set("wanvae.latents_mean", vec!["0"; Z as usize].join(","));
    m.set("wanvae.latents_std", vec!["1"; Z as usize].join(","));
    let tensors = tensors();
    let spec = |(name, shape): &(String, Vec<u64>)| TensorSpec {
        name: name.clone(),
        shape: shape.clone(),
        dtype: DType::F32,
    };
    let mut writer = Writer::create(path, &m, tensors.iter().map(spec).collect()).unwrap();
    let mut state = 1u32;
    for (name, shape) in &tensors {
        let (count, fan_in) = (shape.iter().product::<u64>(), shape[1..].iter().product::<u64>());
        let scale = (3.0 / fan_in as f32).sqrt();
        let mut value = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            if name.ends_with("gamma") { 1.0 } else { uniform * scale }
        };
        let bytes: Vec<u8> = (0..count).flat_map(|_| value().to_le_bytes()).collect();
        writer.write(&bytes).unwrap();
    }
    writer.finish().unwrap();
    File::open(path).unwrap()
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut clips, mut threads) = (Vec::new(), 2);
    while let Some(argument) = arguments.next() {
        if argument == "--threads" {
            threads = arguments.next().and_then(|n| n.parse().ok()).expect("--threads N");
            continue;
        }
        let sides: Vec<i64> = argument.split('x').map(|s| s.parse().expect("WxHxF")).collect();
        clips.push(<[i64; 3]>::try_from(sides).expect("WxHxF"));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(synthetic(&folder.path().join("vae.gguf")));
    let device = Device::cpu();
    let config = Config::new(&file).unwrap();
    let vae = WanVae::new(&Weights::load(file, device).unwrap(), config).unwrap();
    println!("clip,threads,seconds,seconds_a_frame,compute_buffer_mb");
    for [width, height, frames] in clips {
        let shape = [Z as i64, (frames - 1) / 4 + 1, height / 8, width / 8];
        let count = shape.iter().product::<i64>();
        let latents = (0..count).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
        let mut exec = Executor::new(device, Precision::Native, threads).unwrap();
        let begin = Instant::now();
        let mut decoding = vae.decode(&exec, HostTensor::new(shape, latents)).unwrap();
        let mut go_on = || ControlFlow::Continue(());
        let mut push = |_: HostTensor| Ok::<(), gguf_video::ggml::ComputeError>(());
        while decoding.next_frames(&mut exec, &mut go_on, &mut push).unwrap() {}
        let seconds = begin.elapsed().as_secs_f64();
        let buffer = exec.compute_bytes() >> 20;
        println!(
            "{width}x{height}x{frames},{threads},{seconds:.2},{:.2},{buffer}",
            seconds / frames as f64
        );
    }
}
