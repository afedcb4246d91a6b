//! Adapters that are merged: values, spellings of keys, and what is refused.

mod support;

use gguf::File;
use std::path::PathBuf;
use support::{Checkpoint, Raw, Wan, decoded, job_of_file, originals, write_raw};
use to_gguf::{Job, Lora, Silent, convert};

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.1
    };
    std::iter::repeat_with(next).take(count).collect()
}

const RANK: usize = 32;

/// The two matrices for a module of `outputs x inputs`.
fn pair(seed: u64, outputs: usize, inputs: usize) -> (Vec<f32>, Vec<f32>) {
    (numbers(seed, outputs * RANK), numbers(seed + 1, RANK * inputs))
}

/// In double precision: `W + factor * up @ down`.
fn fused(weight: &[f32], up: &[f32], down: &[f32], factor: f64) -> Vec<f64> {
    let inputs = down.len() / RANK;
    let value = |(at, &w): (usize, &f32)| {
        let (row, column) = (at / inputs, at % inputs);
        let dot: f64 = (0..RANK)
            .map(|r| f64::from(up[row * RANK + r]) * f64::from(down[r * inputs + column]))
            .sum();
        f64::from(w) + factor * dot
    };
    weight.iter().enumerate().map(value).collect()
}

#[track_caller]
fn close(found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    for (at, (&found, &wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((f64::from(found) - wanted).abs() <= 1e-6 * largest, "{at}: {found} and {wanted}");
    }
}

struct Case {
    _folder: tempfile::TempDir,
    job: Job,
    lora: PathBuf,
}

fn case(adapter: &[Raw]) -> Case {
    let (folder, job) = job_of_file("tiny.safetensors", "F32");
    write_raw(&job.source, &originals(Wan::TINY, ""));
    let lora = folder.path().join("lora.safetensors");
    write_raw(&lora, adapter);
    let loras = vec![Lora { path: lora.clone(), strength: 0.5 }];
    Case { _folder: folder, job: Job { loras, ..job }, lora }
}

fn converted(case: &Case) -> File {
    convert(&case.job, &mut Silent).unwrap_or_else(|error| panic!("{error:#}"));
    File::open(case.job.output.join("Tiny-F32.gguf")).unwrap()
}

fn original(name: &str) -> Vec<f32> {
    let tensors = Wan::TINY.tensors();
    tensors.iter().find(|tensor| tensor.name == name).unwrap().values("F32")
}

fn matrix(name: String, shape: [usize; 2], values: &[f32]) -> Raw {
    Raw::f32(&name, &shape.map(|n| n as u64), values)
}

#[test]
fn every_spelling_of_keys_is_merged_alike() {
    // What it is called in which tool, with the parts of the two matrices.
    let spellings = [
        ("diffusion_model.blocks.1.ffn.2", "lora_up.weight", "lora_down.weight"),
        ("blocks.1.ffn.2", "lora_B.weight", "lora_A.weight"),
        ("transformer.blocks.1.ffn.net.2", "lora_B.weight", "lora_A.weight"),
        ("base_model.model.blocks.1.ffn.net.2", "lora_B.default.weight", "lora_A.default.weight"),
        ("lora_unet_blocks_1_ffn_2", "lora_up.weight", "lora_down.weight"),
        ("blocks.1.ffn.net.2", "lora.up.weight", "lora.down.weight"),
    ];
    let (up, down) = pair(3, 256, 512);
    let wanted = fused(&original("blocks.1.ffn.2.weight"), &up, &down, 0.5);
    for (module, up_name, down_name) in spellings {
        let case = case(&[
            matrix(format!("{module}.{up_name}"), [256, RANK], &up),
            matrix(format!("{module}.{down_name}"), [RANK, 512], &down),
        ]);
        let file = converted(&case);
        close(&decoded(&file, "blocks.1.ffn.2.weight"), &wanted);
        let name = "blocks.0.ffn.2.weight";
        assert!(decoded(&file, name) == original(name), "nothing else changes");
        let m = file.metadata();
        assert_eq!(m.string("wan.lora.0.name"), Ok("lora.safetensors"));
        assert_eq!(m.f32("wan.lora.0.strength"), Ok(0.5));
        assert_eq!(m.string("wan.lora.0.sha256").unwrap().len(), 64);
    }
}

#[test]
fn alpha_may_be_a_number_of_any_type() {
    let (up, down) = pair(5, 256, 256);
    let module = "blocks.0.cross_attn.k";
    let wanted = fused(&original(&format!("{module}.weight")), &up, &down, 0.5 * 8.0 / 32.0);
    for (dtype, bytes) in [
        ("F32", 8f32.to_le_bytes().to_vec()),
        ("F16", 0x4800u16.to_le_bytes().to_vec()),
        ("BF16", 0x4100u16.to_le_bytes().to_vec()),
        ("F64", 8f64.to_le_bytes().to_vec()),
        ("I64", 8i64.to_le_bytes().to_vec()),
        ("I32", 8i32.to_le_bytes().to_vec()),
        ("U8", vec![8]),
    ] {
        let alpha = Raw { name: format!("{module}.alpha"), dtype, shape: vec![], bytes };
        let case = case(&[
            matrix(format!("{module}.lora_up.weight"), [256, RANK], &up),
            matrix(format!("{module}.lora_down.weight"), [RANK, 256], &down),
            alpha,
        ]);
        close(&decoded(&converted(&case), &format!("{module}.weight")), &wanted);
    }
}

#[test]
fn whole_differences_are_added() {
    let case = case(&[
        Raw::f32("diffusion_model.blocks.0.norm3.diff", &[256], &numbers(1, 256)),
        Raw::f32("diffusion_model.blocks.0.norm3.diff_b", &[256], &numbers(2, 256)),
        Raw::f32("diffusion_model.blocks.1.diff_m", &[1, 6, 256], &numbers(3, 6 * 256)),
        Raw::f32("diffusion_model.head.diff_m", &[1, 2, 256], &numbers(4, 2 * 256)),
        Raw::f32(
            "diffusion_model.patch_embedding.diff",
            &[256, 16, 1, 2, 2],
            &numbers(5, 256 * 64),
        ),
    ]);
    let file = converted(&case);
    for (name, seed) in [
        ("blocks.0.norm3.weight", 1),
        ("blocks.0.norm3.bias", 2),
        ("blocks.1.modulation", 3),
        ("head.modulation", 4),
        ("patch_embedding.weight", 5),
    ] {
        let before = original(name);
        let difference = numbers(seed, before.len());
        let wanted: Vec<f64> =
            before.iter().zip(&difference).map(|(w, d)| f64::from(w + 0.5 * d)).collect();
        close(&decoded(&file, name), &wanted);
    }
}

#[test]
fn adapters_add_up_in_quantized_files_too() {
    let (up, down) = pair(9, 256, 256);
    let module = "blocks.1.self_attn.o";
    let mut case = case(&[
        matrix(format!("{module}.lora_up.weight"), [256, RANK], &up),
        matrix(format!("{module}.lora_down.weight"), [RANK, 256], &down),
    ]);
    let twice = Lora { path: case.lora.clone(), strength: 1.5 };
    case.job.loras.push(twice);
    case.job.quants = vec!["Q8_0".parse().unwrap()];
    convert(&case.job, &mut Silent).unwrap();
    let file = File::open(case.job.output.join("Tiny-Q8_0.gguf")).unwrap();
    let name = format!("{module}.weight");
    let wanted = fused(&original(&name), &up, &down, 2.0);
    let found = decoded(&file, &name);
    let [error, size] = [true, false].map(|difference| {
        let square = |(found, wanted): (&f32, &f64)| {
            let value = if difference { f64::from(*found) - wanted } else { *wanted };
            value * value
        };
        found.iter().zip(&wanted).map(square).sum::<f64>().sqrt()
    });
    assert!(error / size < 0.01, "{}", error / size);
    assert_eq!(file.metadata().f32("wan.lora.1.strength"), Ok(1.5));
}

#[test]
fn experts_take_adapters_of_their_own() {
    let checkpoint = Checkpoint::tiny();
    let name = "blocks.0.norm3.weight";
    let lora = |file: &str, seed| {
        let path = checkpoint.file(file);
        write_raw(&path, &[Raw::f32("blocks.0.norm3.diff", &[256], &numbers(seed, 256))]);
        vec![Lora { path, strength: 1.0 }]
    };
    let job = Job {
        loras_high: lora("high.safetensors", 1),
        loras_low: lora("low.safetensors", 2),
        ..checkpoint.job("F32")
    };
    convert(&job, &mut Silent).unwrap();
    let values = |file: &str| decoded(&File::open(job.output.join(file)).unwrap(), name);
    let tensors = Wan::TINY.tensors();
    let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap();
    for (file, dtype, seed) in [
        ("HighNoise/Tiny-HighNoise-F32.gguf", "F32", 1),
        ("LowNoise/Tiny-LowNoise-F32.gguf", "BF16", 2),
    ] {
        let wanted: Vec<f32> =
            tensor.values(dtype).iter().zip(numbers(seed, 256)).map(|(w, d)| w + d).collect();
        assert!(values(file) == wanted, "{file}");
    }
}

#[test]
fn what_would_change_nothing_or_something_else_is_refused() {
    let (up, down) = pair(3, 256, 256);
    let module = "blocks.0.self_attn.q";
    let up_of = |name: &str| matrix(format!("{name}.lora_up.weight"), [256, RANK], &up);
    let down_of = |name: &str| matrix(format!("{name}.lora_down.weight"), [RANK, 256], &down);
    let cases: Vec<(Vec<Raw>, &str)> = vec![
        (
            vec![up_of("blocks.7.self_attn.q"), down_of("blocks.7.self_attn.q")],
            "2 of 2 keys change no tensor",
        ),
        (
            vec![
                up_of(module),
                down_of(module),
                Raw::f32(&format!("{module}.dora_scale"), &[256], &[1.0; 256]),
            ],
            "blocks.0.self_attn.q.dora_scale",
        ),
        (vec![up_of(module)], "the down (A) matrix is missing"),
        (vec![down_of(module)], "the up (B) matrix is missing"),
        (
            vec![up_of("blocks.0.ffn.2"), down_of("blocks.0.ffn.2")],
            "do not make a 256 x 512 matrix",
        ),
        (
            vec![Raw::f32("blocks.0.norm3.diff", &[255], &[0.0; 255])],
            "the difference is [255], the tensor [256]",
        ),
        (vec![Raw::f32(&format!("{module}.alpha"), &[], &[4.0])], "alpha, but no matrix"),
        (
            vec![up_of(module), down_of(module), up_of(&format!("diffusion_model.{module}"))],
            "under two names",
        ),
    ];
    for (adapter, part) in cases {
        let case = case(&adapter);
        let error = format!("{:#}", convert(&case.job, &mut Silent).unwrap_err());
        assert!(error.contains("lora.safetensors") && error.contains(part), "{part:?}: {error}");
        assert!(!case.job.output.exists());
    }
}

#[test]
fn strengths_follow_the_name() {
    let lora = |text: &str| text.parse::<Lora>().map(|lora| (lora.path, lora.strength));
    assert_eq!(lora("a.safetensors"), Ok((PathBuf::from("a.safetensors"), 1.0)));
    assert_eq!(lora("a:b.safetensors:-0.5"), Ok((PathBuf::from("a:b.safetensors"), -0.5)));
    assert!(lora(":1").is_err());
    assert!(lora("a:inf").is_err());
}

#[test]
fn a_product_may_change_a_vector() {
    let name = "blocks.0.norm3.weight";
    let before = original(name);
    let (up, down) = pair(7, before.len(), 1);
    let case = case(&[
        matrix("diffusion_model.blocks.0.norm3.lora_B.weight".into(), [before.len(), RANK], &up),
        matrix("diffusion_model.blocks.0.norm3.lora_A.weight".into(), [RANK, 1], &down),
    ]);
    let file = converted(&case);
    let tensor = file.tensor(name).unwrap();
    let found: Vec<f32> =
        file.data(tensor).as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
    close(&found, &fused(&before, &up, &down, 0.5));
}
