//! What is in the files: every tensor, its name, type and values, and the metadata.

mod support;

use gguf::{DType, File, Metadata};
use half::f16;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use support::{Checkpoint, DTYPES, Tensor, VOCAB, Wan, umt5_tensors, vae_tensors};
use to_gguf::{Job, Report, Silent, convert};

fn run(job: &Job) -> Report {
    convert(job, &mut Silent).unwrap_or_else(|error| panic!("{error:#}"))
}

fn open(job: &Job, file: &str) -> File {
    File::open(job.output.join(file)).unwrap()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

#[test]
fn every_tensor_arrives_with_its_values() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("F32");
    run(&job);
    let files = [
        ("transformer", "HighNoise/Tiny-HighNoise-F32.gguf", Wan::TINY.tensors()),
        ("transformer_2", "LowNoise/Tiny-LowNoise-F32.gguf", Wan::TINY.tensors()),
        ("text_encoder", "TextEncoder/Tiny-umt5-F32.gguf", umt5_tensors()),
        ("vae", "VAE/Tiny-VAE-F32.gguf", vae_tensors()),
    ];
    for ((component, path, tensors), (also, dtype)) in files.into_iter().zip(DTYPES) {
        assert_eq!(component, also);
        let file = open(&job, path);
        assert_eq!(file.tensors().len(), tensors.len(), "{path}");
        for tensor in tensors {
            let found = file.tensor(&tensor.name).unwrap_or_else(|| panic!("{}", tensor.name));
            assert_eq!(found.shape, tensor.shape, "{}", tensor.name);
            assert_eq!(found.dtype, DType::F32, "{}", tensor.name);
            // assert_eq would print millions of numbers.
            assert!(f32s(file.data(found)) == tensor.values(dtype), "{}", tensor.name);
        }
    }
    assert_eq!(checkpoint.written().len(), 4);
}

/// The rules of the files in circulation, by name and shape.
fn circulating(name: &str, shape: &[u64], block: DType) -> DType {
    let skipped = [
        "modulation",
        "patch_embedding.",
        "text_embedding.",
        "time_projection.",
        "time_embedding.",
        "head.",
    ];
    match shape {
        [_, _] if skipped.iter().any(|part| name.contains(part)) => DType::F16,
        [_, _] => block,
        _ => DType::F32,
    }
}

#[test]
fn only_block_matrices_are_quantized() {
    let checkpoint = Checkpoint::tiny();
    for (quant, dtype) in [("Q4_K", DType::Q4_K), ("BF16", DType::BF16)] {
        // The VAE is there already the second time.
        let job = Job { force: true, ..checkpoint.job(quant) };
        let report = run(&job);
        let file = open(&job, &format!("HighNoise/Tiny-HighNoise-{quant}.gguf"));
        for tensor in file.tensors() {
            let wanted = circulating(&tensor.name, &tensor.shape, dtype);
            assert_eq!(tensor.dtype, wanted, "{}", tensor.name);
        }
        let census = |n: usize| report.files[n].census();
        // 6 linears outside the blocks; 10 matrices in each of 2 blocks.
        let wan = BTreeMap::from([(DType::F32, 43), (DType::F16, 6), (dtype, 20)]);
        assert_eq!([census(0), census(1)], [wan.clone(), wan]);
        // 2 norms and the bias of each block, the last norm; 7 matrices a block, the embeddings.
        assert_eq!(census(2), BTreeMap::from([(DType::F32, 7), (dtype, 15)]));
        assert_eq!(census(3), BTreeMap::from([(DType::F32, 194)]));
        assert!(report.files.iter().all(|file| file.fallbacks == 0));
    }
}

#[test]
fn rows_that_are_no_whole_blocks_are_f16() {
    let checkpoint = Checkpoint::without_transformers();
    checkpoint.single();
    let wan = Wan { dim: 64, ffn_dim: 128, ..Wan::TINY };
    checkpoint.transformer("transformer", wan, 1);
    let job = checkpoint.job("Q6_K");
    let report = run(&job);
    assert_eq!(report.files[0].fallbacks, 20);
    assert!(report.to_string().contains("(20 kept F16: rows are no whole blocks)"), "{report}");
    let file = open(&job, "Tiny-Q6_K.gguf");
    let tensor = file.tensor("blocks.1.ffn.2.weight").unwrap();
    assert_eq!(tensor.dtype, DType::F16);
    let list = wan.tensors();
    let values = list.iter().find(|tensor| tensor.source == "blocks.1.ffn.net.2.weight").unwrap();
    let values = values.values("F32").into_iter().map(f16::from_f32);
    let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
    assert!(file.data(tensor) == bytes, "rounded to nearest");
}

#[test]
fn a_linear_beyond_f16_is_bf16() {
    let checkpoint = Checkpoint::tiny();
    let mut tensors = Wan::TINY.tensors();
    let name = "condition_embedder.time_embedder.linear_1.weight";
    let tensor = tensors.iter_mut().find(|tensor| tensor.source == name).unwrap();
    tensor.poke = Some((tensor.elements() - 1, -70_000.0));
    checkpoint.weights("transformer_2", &tensors, 1);
    let job = checkpoint.job("Q8_0");
    run(&job);
    let file = open(&job, "LowNoise/Tiny-LowNoise-Q8_0.gguf");
    let dtype = |name| file.tensor(name).unwrap().dtype;
    assert_eq!(dtype("time_embedding.0.weight"), DType::BF16);
    assert_eq!(dtype("time_embedding.2.weight"), DType::F16);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let checkpoint = Checkpoint::tiny();
    let files = |threads| {
        let output = checkpoint.output().join(format!("{threads}"));
        let job = Job { threads, output, ..checkpoint.job("Q4_K") };
        run(&job).files.iter().map(|file| fs::read(&file.path).unwrap()).collect::<Vec<_>>()
    };
    let one = files(1);
    for threads in [2, 5] {
        for (n, file) in files(threads).iter().enumerate() {
            assert!(*file == one[n], "file {n} with {threads} threads");
        }
    }
}

#[test]
fn transformers_say_what_they_are() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("Q8_0");
    run(&job);
    for (expert, role, guidance) in
        [("HighNoise", "high_noise", 4.0), ("LowNoise", "low_noise", 3.0)]
    {
        let file = open(&job, &format!("{expert}/Tiny-{expert}-Q8_0.gguf"));
        let m = file.metadata();
        assert_eq!(m.string("general.architecture"), Ok("wan"));
        assert_eq!(m.string("general.name"), Ok(&*format!("Tiny-{expert}")));
        assert_eq!(m.string("general.source.name"), Ok("Tiny-Diffusers"));
        assert_eq!(m.u32("general.quantization_version"), Ok(2));
        assert_eq!(m.u32("general.file_type"), Ok(7));
        assert_eq!(m.string("wan.variant"), Ok("wan2.2-t2v-a14b"));
        assert_eq!(m.string("wan.expert"), Ok(role));
        assert_eq!(m.string("wan.recipe"), Ok("Q8_0"));
        assert_eq!(m.string("wan.patch_size"), Ok("1,2,2"));
        assert_eq!(m.f32("wan.boundary_ratio"), Ok(0.875));
        assert_eq!(m.f32("wan.flow_shift"), Ok(3.0));
        assert_eq!(m.f32("wan.guidance_scale"), Ok(guidance));
        assert_eq!(m.f32("wan.attention.layer_norm_epsilon"), Ok(1e-6));
        let size = |key: &str| m.u32(&format!("wan.{key}")).unwrap();
        assert_eq!(size("steps"), 40);
        assert_eq!(size("block_count"), 2);
        assert_eq!(size("embedding_length"), 256);
        assert_eq!(size("feed_forward_length"), 512);
        assert_eq!(size("attention.head_count"), 4);
        assert_eq!(size("text_length"), 512);
        assert_eq!(size("text_embedding_length"), 32);
        assert_eq!(size("frequency_length"), 64);
    }
}

#[test]
fn a_model_of_one_expert_is_single() {
    let checkpoint = Checkpoint::tiny();
    checkpoint.single();
    let job = checkpoint.job("F16");
    run(&job);
    let file = open(&job, "Tiny-F16.gguf");
    let m = file.metadata();
    // What the README of the 1.3B advises.
    assert_eq!(m.string("wan.variant"), Ok("wan2.1-t2v-1.3b"));
    assert_eq!(m.string("wan.expert"), Ok("single"));
    assert_eq!(m.f32("wan.guidance_scale"), Ok(6.0));
    assert_eq!(m.u32("wan.steps"), Ok(50));
    assert_eq!(Metadata::optional(m.f32("wan.boundary_ratio")), Ok(None));
    assert_eq!(Metadata::optional(m.u32("general.quantization_version")), Ok(None));
    assert_eq!(checkpoint.written().len(), 3);
}

#[test]
fn the_text_encoder_carries_its_tokenizer() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("Q8_0");
    run(&job);
    let file = open(&job, "TextEncoder/Tiny-umt5-Q8_0.gguf");
    let m = file.metadata();
    assert_eq!(m.string("general.architecture"), Ok("t5encoder"));
    assert!(m.string("general.name").unwrap().contains("umt5"));
    for (key, value) in [
        ("context_length", 512),
        ("vocab_size", VOCAB as u32),
        ("embedding_length", 256),
        ("feed_forward_length", 512),
        ("block_count", 2),
        ("attention.head_count", 4),
        ("attention.key_length", 64),
        ("attention.value_length", 64),
        ("attention.relative_buckets_count", 32),
        ("attention.relative_max_distance", 128),
    ] {
        assert_eq!(m.u32(&format!("t5encoder.{key}")), Ok(value));
    }
    assert_eq!(m.f32("t5encoder.attention.layer_norm_rms_epsilon"), Ok(1e-6));

    let tokens = m.strings("tokenizer.ggml.tokens").unwrap();
    let scores = m.f32s("tokenizer.ggml.scores").unwrap();
    let kinds = m.i32s("tokenizer.ggml.token_type").unwrap();
    assert_eq!([tokens.len(), scores.len(), kinds.len()], [VOCAB as usize; 3]);
    let found: Vec<_> = (0..11).map(|id| (&*tokens[id], scores[id], kinds[id])).collect();
    let (normal, unknown, control, unused, byte) = (1, 2, 3, 5, 6);
    assert_eq!(
        found,
        [
            ("<pad>", 0.0, control),
            ("</s>", 0.0, control),
            ("<s>", 0.0, control),
            ("<unk>", 0.0, unknown),
            ("<0x0A>", 0.0, byte),
            ("\u{2581}ball", -2.5, normal),
            ("<0xZZ>", -3.25, normal),
            ("[PAD7]", -10_000.0, unused),
            ("[PAD8]", -10_000.0, unused),
            ("<extra_id_0>", 0.0, control),
            ("[PAD10]", -10_000.0, unused),
        ]
    );
    assert_eq!(m.string("tokenizer.ggml.model"), Ok("t5"));
    assert_eq!(m.bytes("tokenizer.ggml.precompiled_charsmap"), Ok(vec![1, 2, 3]));
    assert_eq!(m.u32("tokenizer.ggml.unknown_token_id"), Ok(3));
    assert_eq!(m.u32("tokenizer.ggml.eos_token_id"), Ok(1));
    assert_eq!(m.u32("tokenizer.ggml.padding_token_id"), Ok(0));
    assert_eq!(m.bool("tokenizer.ggml.add_bos_token"), Ok(false));
    assert_eq!(m.bool("tokenizer.ggml.add_eos_token"), Ok(true));
    assert_eq!(m.bool("tokenizer.ggml.remove_extra_whitespaces"), Ok(true));
    assert!(m.get("tokenizer.ggml.strip_whitespace").is_none());
    assert!(m.get("tokenizer.ggml.byte_fallback").is_none());
}

/// Layouts of `tokenizer.json` that older and newer tools write for the same tokenizer.
#[test]
fn whitespace_rules_become_flags() {
    let checkpoint = Checkpoint::tiny();
    checkpoint.edit("tokenizer/tokenizer.json", |json| {
        json["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "AQID" });
        json["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
            { "type": "WhitespaceSplit" },
            { "type": "Metaspace", "replacement": "\u{2581}", "add_prefix_space": true },
        ]});
        json["model"]["byte_fallback"] = true.into();
    });
    let job = Job { force: true, ..checkpoint.job("Q8_0") };
    let flags = || {
        run(&job);
        let file = open(&job, "TextEncoder/Tiny-umt5-Q8_0.gguf");
        ["remove_extra_whitespaces", "strip_whitespace", "byte_fallback"].map(|flag| {
            let flag = file.metadata().bool(&format!("tokenizer.ggml.{flag}"));
            Metadata::optional(flag).unwrap()
        })
    };
    assert_eq!(flags(), [Some(false), Some(true), Some(true)]);

    checkpoint.edit("tokenizer/tokenizer.json", |json| {
        json["normalizer"] = json!({ "type": "Sequence", "normalizers": [
            { "type": "Precompiled", "precompiled_charsmap": "AQID" },
            { "type": "Strip", "strip_left": false, "strip_right": true },
            { "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": "\u{2581}" },
        ]});
        json["pre_tokenizer"] = json["pre_tokenizer"]["pretokenizers"][1].clone();
        json["model"]["byte_fallback"] = false.into();
    });
    assert_eq!(flags(), [Some(true), Some(true), None]);
}

#[test]
fn the_vae_carries_its_latents_statistics() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("Q8_0");
    run(&job);
    let file = open(&job, "VAE/Tiny-VAE-F32.gguf");
    let m = file.metadata();
    assert_eq!(m.string("general.architecture"), Ok("wanvae"));
    assert_eq!(m.u32("general.file_type"), Ok(0));
    assert_eq!(m.u32("wanvae.base_dim"), Ok(4));
    assert_eq!(m.u32("wanvae.z_dim"), Ok(16));
    assert_eq!(m.u32("wanvae.num_res_blocks"), Ok(2));
    assert_eq!(m.string("wanvae.dim_mult"), Ok("1,2,4,4"));
    assert_eq!(m.string("wanvae.temporal_downsample"), Ok("false,true,true"));
    assert!(m.string("wanvae.latents_mean").unwrap().starts_with("-0.75,-0.6875,-0.625,"));
    let first = m.string("wanvae.latents_std").unwrap().split(',').next();
    assert_eq!(first, Some("2.8184"));
}

#[test]
fn the_embeddings_may_have_their_other_name() {
    let checkpoint = Checkpoint::tiny();
    checkpoint.single();
    let mut tensors = umt5_tensors();
    assert_eq!(tensors[0].source, "shared.weight");
    let values = tensors[0].values("F16");
    tensors[0].source = "encoder.embed_tokens.weight".into();
    // The values are made of the name; poke what the comparison looks at.
    tensors[0].poke = Some((0, values[0]));
    checkpoint.weights("text_encoder", &tensors, 2);
    let job = checkpoint.job("F32");
    run(&job);
    let file = open(&job, "TextEncoder/Tiny-umt5-F32.gguf");
    let found = f32s(file.data(file.tensor("token_embd.weight").unwrap()));
    assert!(found == tensors[0].values("F16"));

    // Both names with different values can't be the same tensor.
    tensors.push(Tensor { source: "shared.weight".into(), ..tensors[0].clone() });
    checkpoint.weights("text_encoder", &tensors, 2);
    let job = Job { force: true, ..job };
    let error = format!("{:#}", convert(&job, &mut Silent).unwrap_err());
    assert!(error.contains("must be the same tensor, but differ"), "{error}");
}
