//! The demo checkpoint makes what it is asked for: the frames are looked at.

use e2e::frames::{look, motion};
use e2e::{converted, device, repository};
use gguf_video::ggml::{Device, Family, Precision};
use gguf_video::output::Frame;
use gguf_video::pipeline::{Machine, ModelFolder, Request, Silent, generate};
use rayon::prelude::*;

/// A prompt in words that the checkpoint knows, the colour, motion and background that the frames
/// must show, and a seed.
const PROMPTS: [(&str, &str, &str, &str, u64); 6] = [
    ("the small red ball moving left over a brown background", "red", "moving left", "brown", 4),
    (
        "black background, the big orange triangle moving right",
        "orange",
        "moving right",
        "black",
        14,
    ),
    ("a big blue ring moving up on a black background", "blue", "moving up", "black", 16),
    ("brown background, a big cyan triangle growing", "cyan", "growing", "brown", 10),
    ("a big yellow triangle shrinking on a brown background", "yellow", "shrinking", "brown", 20),
    (
        "the small yellow square standing still on a gray background",
        "yellow",
        "standing still",
        "gray",
        22,
    ),
];

const FRAMES: usize = 17;
const SAMPLES: usize = 5;

/// A clip of `frames`, made in so many steps.
fn clip(
    machine: &Machine,
    folder: &ModelFolder,
    (prompt, seed): (&str, u64),
    (count, steps): (usize, usize),
) -> Vec<Frame> {
    let request = Request {
        prompt: prompt.into(),
        negative_prompt: String::new(),
        width: 128,
        height: 128,
        frames: count,
        steps,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        flow_shift: 3.0,
        seed,
        ..Request::default()
    };
    let mut frames = Vec::new();
    let mut push = |frame: &Frame| {
        frames.push(frame.clone());
        Ok(())
    };
    generate(machine, folder, &request, false, None, &mut Silent, &mut push).unwrap();
    assert_eq!(frames.len(), count);
    frames
}

fn check(quant: &str) {
    let output = tempfile::tempdir().unwrap();
    let folder = converted(&repository("demo/checkpoint"), output.path(), quant);
    let wrong = PROMPTS.par_iter().filter_map(|&(prompt, colour, moving, background, seed)| {
        // Clips are made side by side: ggml's threads wait busily for each other.
        let machine = Machine::on(Device::cpu(), Precision::Native, 1);
        let frames = clip(&machine, &folder, (prompt, seed), (FRAMES, 20));
        let sampled = (0..SAMPLES).map(|i| &frames[i * (FRAMES - 1) / (SAMPLES - 1)]);
        let seen: Option<Vec<_>> = sampled.map(look).collect();
        let right = seen.as_ref().is_some_and(|seen| {
            seen.iter().all(|s| s.colour == colour && s.background == background)
                && motion(seen) == moving
        });
        (!right).then(|| format!("{prompt}, seed {seed}: {seen:#?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{quant}: {}", wrong.join("\n"));
}

#[test]
fn f32_shows_what_was_asked() {
    check("F32");
}

#[test]
fn q8_0_shows_what_was_asked() {
    check("Q8_0");
}

#[test]
fn q4_k_shows_what_was_asked() {
    check("Q4_K");
}

/// The mean difference of a clip's values that rounding to F16 may make, of 255.
const DRIFT: f64 = 2.5;

/// `TEST_DEVICE=vulkan`: the clip is short enough for a GPU that a CPU imitates.
#[test]
#[expect(clippy::print_stderr, reason = "how near it is, and whether anything was done")]
fn a_gpu_makes_the_clip_of_the_cpu() {
    if device().family() == Family::Cpu {
        eprintln!("skipped: TEST_DEVICE names no GPU");
        return;
    }
    let output = tempfile::tempdir().unwrap();
    let folder = converted(&repository("demo/checkpoint"), output.path(), "Q8_0");
    // One whose colour is there after a few steps.
    let (prompt, colour, _, background, seed) = PROMPTS[2];
    let made_on = |device| {
        let machine = Machine::on(device, Precision::Native, 1);
        clip(&machine, &folder, (prompt, seed), (5, 6))
    };
    let (cpu, gpu) = (made_on(Device::cpu()), made_on(device()));
    for (i, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
        let off = |(&a, &b): (&u8, &u8)| f64::from(a.abs_diff(b));
        let drift = cpu.rgb.iter().zip(&gpu.rgb).map(off).sum::<f64>() / cpu.rgb.len() as f64;
        eprintln!("frame {i}: {drift:.3} of 255 away from the CPU's");
        assert!(drift < DRIFT, "frame {i} is {drift} of 255 away from the CPU's");
        let seen = look(gpu);
        let right = seen.as_ref().is_some_and(|s| s.colour == colour && s.background == background);
        assert!(right, "frame {i} of `{prompt}`: {seen:#?}");
    }
}
