//! Cutting a forward pass along its tokens, and a frame along its rows, changes no result.

use e2e::{converted, device, fixture};
use gguf_video::ggml::{ComputeError, Executor, Family, HostTensor, Limits, Precision, Weights};
use gguf_video::models::wan::{Config, WanModel, vae};
use gguf_video::models::{Context, Denoiser};
use std::ops::ControlFlow;

fn noise(shape: [i64; 4]) -> HostTensor {
    let count = shape.iter().product::<i64>();
    HostTensor::new(shape, (0..count).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>())
}

/// The result with the device's own limits, and with `cut`; and how many graphs each took.
fn both(
    cut: impl Fn(&mut Limits),
    run: impl Fn(&mut Executor) -> Vec<f32>,
) -> [(Vec<f32>, u64); 2] {
    [false, true].map(|small| {
        let mut exec = Executor::new(device(), Precision::Strict, 1).unwrap();
        let mut limits = exec.limits();
        if small {
            cut(&mut limits);
        }
        exec.set_limits(limits);
        let result = run(&mut exec);
        (result, exec.done().graphs)
    })
}

fn assert_same(whole: &[f32], pieces: &[f32]) {
    assert_eq!(whole.len(), pieces.len());
    let most = whole.iter().zip(pieces).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // GPUs round operands to F16, and choose other kernels for other numbers of rows.
    let tolerance = if device().family() == Family::Cpu { 1e-5 } else { 1e-2 };
    assert!(most <= tolerance, "{most} apart");
}

#[test]
fn of_tokens() {
    let output = tempfile::tempdir().unwrap();
    let folder = converted(&fixture("xs"), output.path(), "F32");
    let file = folder.transformer.clone();
    let config = Config::new(&file).unwrap();
    let model = WanModel::new(&Weights::load(file, device()).unwrap(), config).unwrap();
    let text = model.config().text_dim;
    let latents = noise([16, 3, 8, 12]);
    let run = |exec: &mut Executor| {
        let prompt = HostTensor::new([7, text], vec![0.3; 7 * text as usize]);
        let conditioning = model.condition(exec, Context::text(&prompt)).unwrap();
        let mut ticks = 0;
        let tick = &mut || {
            ticks += 1;
            ControlFlow::Continue(())
        };
        let velocity = model.velocity(exec, &latents, 700.0.into(), &conditioning, tick).unwrap();
        assert_eq!(ticks, model.ticks(&exec.limits(), latents.shape, 700.0.into()));
        velocity.data.to_vec()
    };
    // 72 tokens, at most 11 in a graph.
    let cut = |limits: &mut Limits| limits.intermediate = 11 * 4 * model.config().ffn_dim;
    let [(whole, few), (pieces, many)] = both(cut, run);
    assert!(many > 3 * few, "{many} graphs instead of {few}");
    assert_same(&whole, &pieces);
}

#[test]
fn of_rows() {
    let output = tempfile::tempdir().unwrap();
    let folder = converted(&fixture("xs"), output.path(), "F32");
    let config = vae::Config::new(&folder.vae).unwrap();
    let weights = Weights::load(folder.vae.clone(), device()).unwrap();
    let vae = vae::WanVae::new(&weights, config).unwrap();
    let run = |exec: &mut Executor| {
        let mut video = Vec::new();
        let mut decoding = vae.decode(exec, noise([16, 2, 6, 7])).unwrap();
        let mut push = |frame: HostTensor| {
            video.extend_from_slice(&frame.data);
            Ok::<(), ComputeError>(())
        };
        while decoding.next_frames(exec, &mut || ControlFlow::Continue(()), &mut push).unwrap() {}
        assert!(exec.done().nodes > 0);
        video
    };
    // One row of patches, and one row of the middle attention's scores at a time.
    let [(whole, _), (pieces, _)] = both(|limits| limits.scratch = 1, run);
    assert_eq!(whole.len(), 5 * 48 * 56 * 3);
    assert_same(&whole, &pieces);
}
