//! Damaged and foreign checkpoints: one clear sentence, and nothing written.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use support::{Checkpoint, Tensor, Wan};
use to_gguf::{Interrupted, Job, Progress, Silent, convert};

#[track_caller]
fn refused(checkpoint: &Checkpoint, parts: &[&str]) {
    let error = convert(&checkpoint.job("Q8_0"), &mut Silent).unwrap_err();
    let error = format!("{error:#}");
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert_eq!(checkpoint.written(), [] as [&Path; 0]);
}

#[test]
fn unsupported_configurations() {
    let checkpoint = Checkpoint::tiny();
    let cases: &[(&str, &str, Value, &str)] = &[
        ("transformer/config.json", "cross_attn_norm", json!(false), "supported is true"),
        ("transformer/config.json", "qk_norm", json!("rms_norm"), "rms_norm_across_heads"),
        ("transformer_2/config.json", "in_channels", json!(36), "supported is 16"),
        ("transformer/config.json", "image_dim", json!(1280), "supported is null"),
        ("transformer/config.json", "num_layers", json!(0), "not an integer from 1"),
        ("transformer/config.json", "num_layers", json!(1_000_000_000), "not an integer from 1"),
        ("transformer/config.json", "eps", json!("small"), "not a number"),
        (
            "model_index.json",
            "expand_timesteps",
            json!(true),
            "not false, as it must be with transformer_2",
        ),
        ("model_index.json", "boundary_ratio", json!(null), "not a number"),
        ("model_index.json", "scheduler", json!(["diffusers", "DDIMScheduler"]), "DDIMScheduler"),
        ("model_index.json", "vae", json!(["diffusers", "AutoencoderKL"]), "AutoencoderKLWan"),
        ("model_index.json", "vae", json!(null), "missing"),
        (
            "model_index.json",
            "image_encoder",
            json!(["t", "CLIPVisionModel"]),
            "but Wan2.2 T2V A14B has none",
        ),
        ("scheduler/scheduler_config.json", "prediction_type", json!("epsilon"), "flow_prediction"),
        ("scheduler/scheduler_config.json", "use_flow_sigmas", json!(null), "supported is true"),
        ("vae/config.json", "is_residual", json!(true), "\"patch_size\" is null; supported is 2"),
        ("vae/config.json", "patch_size", json!(2), "supported is null"),
        ("vae/config.json", "latents_mean", json!([1.0]), "16 numbers"),
        ("text_encoder/config.json", "model_type", json!("t5"), "supported is \"umt5\""),
        ("text_encoder/config.json", "eos_token_id", json!(2), "eos_token_id is 2"),
        ("tokenizer/tokenizer.json", "normalizer", json!({ "type": "Lowercase" }), "Lowercase"),
        ("tokenizer/tokenizer.json", "model", json!({ "type": "BPE" }), "BPE"),
        (
            "tokenizer/tokenizer.json",
            "normalizer",
            json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "b" }),
            "Replace of \"a\" by \"b\"",
        ),
        (
            "tokenizer/tokenizer.json",
            "pre_tokenizer",
            json!({ "type": "WhitespaceSplit" }),
            "Metaspace is missing",
        ),
        (
            "tokenizer/tokenizer.json",
            "pre_tokenizer",
            json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first" }),
            "does not always prepend",
        ),
    ];
    for (file, key, value, part) in cases {
        let before = fs::read(checkpoint.file(file)).unwrap();
        checkpoint.edit(file, |config| config[key] = value.clone());
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        refused(&checkpoint, &[name, part]);
        fs::write(checkpoint.file(file), before).unwrap();
    }
}

/// Rewrites the tensors of `transformer_2`.
fn change(checkpoint: &Checkpoint, change: impl FnOnce(&mut Vec<Tensor>)) {
    let mut tensors = Wan::TINY.tensors();
    change(&mut tensors);
    checkpoint.weights("transformer_2", &tensors, 1);
}

#[test]
fn tensors_that_do_not_match_the_model() {
    let checkpoint = Checkpoint::tiny();
    change(&checkpoint, |tensors| {
        tensors.pop();
    });
    let last = Wan::TINY.tensors().pop().unwrap().source;
    refused(&checkpoint, &["transformer_2", "missing", &last]);

    // A part of a known name is no known name.
    for name in
        ["blocks.0.attn1.to_q.weight.extra", "x.blocks.0.attn1.to_q.weight", "blocks.2.norm2.bias"]
    {
        change(&checkpoint, |tensors| {
            let extra = Tensor { source: name.into(), ..tensors[0].clone() };
            tensors.push(extra);
        });
        refused(&checkpoint, &["tensors that the model does not have", name]);
    }

    change(&checkpoint, |tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.source == "blocks.1.ffn.net.2.weight");
        tensor.unwrap().shape = vec![512, 256];
    });
    refused(&checkpoint, &["blocks.1.ffn.net.2.weight", "[512, 256]", "[256, 512]"]);
}

#[test]
fn values_that_no_model_has() {
    let checkpoint = Checkpoint::tiny();
    // The first file is finished by then; here it isn't wanted.
    checkpoint.single();
    for (value, part) in [(f32::NAN, "is no weight"), (1e6, "beyond the range of Q8_0")] {
        let mut tensors = Wan::TINY.tensors();
        let name = "blocks.1.attn2.to_v.weight";
        let tensor = tensors.iter_mut().find(|tensor| tensor.source == name).unwrap();
        tensor.poke = Some((65_000, value));
        checkpoint.weights("transformer", &tensors, 3);
        refused(&checkpoint, &["blocks.1.cross_attn.v.weight", "element 65000", part]);
    }
}

#[test]
fn damaged_files() {
    let checkpoint = Checkpoint::tiny();
    let shard = checkpoint.file("transformer/diffusion_pytorch_model-00002-of-00003.safetensors");
    let whole = fs::read(&shard).unwrap();

    fs::write(&shard, &whole[..whole.len() - 1]).unwrap();
    refused(&checkpoint, &["00002-of-00003", "download it again"]);
    let mut header = whole.clone();
    header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&shard, &header).unwrap();
    refused(&checkpoint, &["00002-of-00003", "a header of 18446744073709551615 bytes"]);
    fs::write(&shard, b"\x02\0\0\0\0\0\0\0[]").unwrap();
    refused(&checkpoint, &["00002-of-00003", "bad safetensors header"]);
    fs::write(&shard, "").unwrap();
    refused(&checkpoint, &["00002-of-00003", "too short"]);
    fs::remove_file(&shard).unwrap();
    refused(&checkpoint, &["index.json", "00002-of-00003.safetensors is missing"]);
}

#[test]
fn an_index_that_lies() {
    let checkpoint = Checkpoint::tiny();
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    let before = fs::read(checkpoint.file(index)).unwrap();
    let name = "proj_out.bias";
    let shards = ["00001-of-00003", "00003-of-00003"];
    let file = |shard| format!("diffusion_pytorch_model-{shard}.safetensors");
    let map = |file: &str| checkpoint.edit(index, |index| index["weight_map"][name] = file.into());

    map("../vae/diffusion_pytorch_model.safetensors");
    refused(&checkpoint, &["../vae", "not the name of a file in the same folder"]);
    map(&file(shards[0]));
    refused(&checkpoint, &[name, shards[0]]);
    fs::write(checkpoint.file(index), before).unwrap();
    checkpoint.edit(index, |index| {
        index["weight_map"].as_object_mut().unwrap().remove(name);
    });
    refused(&checkpoint, &[name, shards[1], "does not list"]);
}

#[test]
fn a_disk_that_is_too_small() {
    let checkpoint = Checkpoint::without_transformers();
    checkpoint.single();
    // 5 TB, of which the checkpoint itself takes nothing.
    let wan = Wan { dim: 16384, ffn_dim: 8192, layers: 500, ..Wan::TINY };
    checkpoint.sparse_transformer("transformer", wan);
    let job = checkpoint.job("F32");
    let error = format!("{:#}", convert(&job, &mut Silent).unwrap_err());
    assert!(error.contains("the files need 48") && error.contains("GB free"), "{error}");
    assert_eq!(checkpoint.written(), [] as [&Path; 0]);
}

#[test]
fn pickles() {
    let checkpoint = Checkpoint::tiny();
    fs::remove_file(checkpoint.file("vae/diffusion_pytorch_model.safetensors")).unwrap();
    refused(&checkpoint, &["vae/diffusion_pytorch_model.safetensors"]);
    fs::write(checkpoint.file("vae/diffusion_pytorch_model.bin"), "").unwrap();
    refused(&checkpoint, &["diffusion_pytorch_model.bin", "run code when they are opened"]);
}

#[test]
fn files_that_exist() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("Q8_0");
    let existing = checkpoint.output().join("VAE/Tiny-VAE-F32.gguf");
    fs::create_dir_all(existing.parent().unwrap()).unwrap();
    fs::write(&existing, "precious").unwrap();
    let error = convert(&job, &mut Silent).unwrap_err().to_string();
    assert!(error.ends_with("VAE/Tiny-VAE-F32.gguf exists; --force replaces it"), "{error}");
    assert_eq!(checkpoint.written(), [&*existing]);
    assert_eq!(fs::read(&existing).unwrap(), b"precious");

    convert(&Job { force: true, ..job }, &mut Silent).unwrap();
    assert_eq!(fs::read(&existing).unwrap()[..4], *b"GGUF");
}

/// Ends the conversion at the `left`th window.
struct Impatient {
    left: usize,
}

impl Progress for Impatient {
    fn begin(&mut self, _: &Path, _: u64) {}

    fn advance(&mut self, _: u64) -> ControlFlow<()> {
        self.left -= 1;
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn an_interrupted_conversion_leaves_whole_files_only() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("Q8_0");
    let error = convert(&job, &mut Impatient { left: 30 }).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
    assert_eq!(checkpoint.written(), [] as [&Path; 0]);

    let first = Wan::TINY.tensors().len();
    let error = convert(&job, &mut Impatient { left: first + 1 }).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
    assert_eq!(checkpoint.written(), [job.output.join("HighNoise/Tiny-HighNoise-Q8_0.gguf")]);
}
