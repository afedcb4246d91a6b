//! Time of one forward pass of a Wan 2.1 1.3B-shaped transformer on random weights.
//!
//! `cargo bench -p gguf-video --bench transformer -- 128x128x5 Q8_0 Q4_K F16`, with `--threads N`
//! (default 2) and `--blocks N` (default 30). Prints a line for each type: size, type, threads,
//! seconds of the second forward, compute buffer.

use gguf::{DType, File, Metadata, TensorSpec, Writer};
use gguf_video::ggml::{Device, Executor, HostTensor, Precision, Weights};
use gguf_video::models::Denoiser;
use gguf_video::models::wan::{Config, WanModel};
use half::f16;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const DIM: u64 = 1536;
const FFN: u64 = 8960;
const HEADS: u32 = 12;
const TEXT: u64 = 4096;
const FREQUENCY: u64 = 256;

/// Names, shapes, and whether the recipe quantizes them.
fn tensors(blocks: u32) -> Vec<(String, Vec<u64>, bool)> {
    let mut list = Vec::new();
    let mut linear = |name: &str, inputs: u64, outputs: u64, quantized: bool| {
        list.push((format!("{name}.weight"), vec![outputs, inputs], quantized));
        list.push((format!("{name}.bias"), vec![outputs], false));
    };
    linear("text_embedding.0", TEXT, DIM, false);
    linear("text_embedding.2", DIM, DIM, false);
    linear("time_embedding.0", FREQUENCY, DIM, false);
    linear("time_embedding.2", DIM, DIM, false);
    linear("time_projection.1", DIM, 6 * DIM, false);
    linear("head.head", DIM, 64, false);
    for block in 0..blocks {
        for attention in ["self_attn", "cross_attn"] {
            for part in ["q", "k", "v", "o"] {
                linear(&format!("blocks.{block}.{attention}.{part}"), DIM, DIM, true);
            }
        }
        linear(&format!("blocks.{block}.ffn.0"), DIM, FFN, true);
        linear(&format!("blocks.{block}.ffn.2"), FFN, DIM, true);
    }
    let mut plain = |name: String, shape: Vec<u64>| list.push((name, shape, false));
    plain("patch_embedding.weight".into(), vec![DIM, 16, 1, 2, 2]);
    plain("patch_embedding.bias".into(), vec![DIM]);
    plain("head.modulation".into(), vec![1, 2, DIM]);
    for block in 0..blocks {
        plain(format!("blocks.{block}.modulation"), vec![1, 6, DIM]);
        plain(format!("blocks.{block}.norm3.weight"), vec![DIM]);
        plain(format!("blocks.{block}.norm3.bias"), vec![DIM]);
        for attention in ["self_attn", "cross_attn"] {
            plain(format!("blocks.{block}.{attention}.norm_q.weight"), vec![DIM]);
            plain(format!("blocks.{block}.{attention}.norm_k.weight"), vec![DIM]);
        }
    }
    list
}

/// Bytes of random weights of about the size that a trained matrix has: only scales need care.
fn random(dtype: DType, elements: u64, state: &mut u32) -> Vec<u8> {
    let mut next = || {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 24) as u8
    };
    let blocks = elements / dtype.block_len();
    let mut bytes = Vec::with_capacity((blocks * dtype.block_bytes()) as usize);
    for _ in 0..blocks {
        match dtype {
            DType::F32 => bytes.extend((f32::from(next()) / 6400.0 - 0.02).to_le_bytes()),
            DType::F16 => {
                bytes.extend(f16::from_f32(f32::from(next()) / 6400.0 - 0.02).to_le_bytes());
            }
            DType::Q8_0 => {
                bytes.extend(f16::from_f32(0.02 / 127.0).to_le_bytes());
                bytes.extend((0..32).map(|_| next()));
            }
            DType::Q4_K => {
                bytes.extend(f16::from_f32(1e-4).to_le_bytes());
                bytes.extend(f16::from_f32(5e-4).to_le_bytes());
                bytes.extend((0..140).map(|_| next()));
            }
            other => panic!("no random {other} here: F32, F16, Q8_0 and Q4_K are"),
        }
    }
    bytes
}

fn synthetic(path: &Path, blocks: u32, dtype: DType) -> File {
    let mut m = Metadata::new();
    m.set("general.architecture", "wan").set("wan.variant", "wan2.1-t2v");
    m.set("wan.expert", "single").set("wan.flow_shift", 3f32).set("wan.guidance_scale", 1f32);
    m.set("wan.steps", 1u32).set("wan.attention.head_count", HEADS);
    m.set("wan.attention.layer_norm_epsilon", 1e-6f32).set("wan.block_count", blocks);
    m.set("wan.embedding_length", DIM as u32).set("wan.feed_forward_length", FFN as u32);
    m.set("wan.text_length", 512u32).set("wan.text_embedding_length", TEXT as u32);
    m.set("wan.frequency_length", FREQUENCY as u32);
    let list = tensors(blocks);
    let of = |quantized: bool| if quantized { dtype } else { DType::F32 };
    let spec = |(name, shape, quantized): &(String, Vec<u64>, bool)| TensorSpec {
        name: name.clone(),
        shape: shape.clone(),
        dtype: of(*quantized),
    };
    let mut writer = Writer::create(path, &m, list.iter().map(spec).collect()).unwrap();
    let mut state = 1;
    for (_, shape, quantized) in &list {
        let elements = shape.iter().product::<u64>();
        writer.write(&random(of(*quantized), elements, &mut state)).unwrap();
    }
    writer.finish().unwrap();
    File::open(path).unwrap()
}

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
    let prompt = HostTensor::new([77, TEXT as i64], vec![0.01; 77 * TEXT as usize]);
    println!("clip,type,blocks,threads,seconds,compute_buffer_mb");
    for dtype in types {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(synthetic(&folder.path().join("wan.gguf"), blocks, dtype));
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
