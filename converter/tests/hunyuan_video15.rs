//! HunyuanVideo 1.5 from a folder in diffusers layout to what ComfyUI and stable-diffusion.cpp load.

mod support;

use gguf::{DType, File};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use support::hunyuan_video15::{Checkpoint, Line, PUBLISHED, TINY, lines, raw, vae};
use support::write_hole;
use to_gguf::tools::{self, Consumer, Rewrap};
use to_gguf::{Job, Layout, Recipe, Report, Silent, Types, convert};

fn run(job: &Job) -> Report {
    convert(job, &mut Silent).unwrap_or_else(|error| panic!("{error:#}"))
}

fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => names.extend(files(&path).iter().map(|inner| format!("{name}/{inner}"))),
            false => names.push(name),
        }
    }
    names.sort();
    names
}

#[test]
fn every_row_arrives_where_the_original_code_has_it() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("F32,Q8_0");
    let report = run(&job);
    let names = files(&job.output);
    assert_eq!(names, ["Tiny-F32.gguf", "Tiny-Q8_0.gguf", "VAE/Tiny-VAE.safetensors"]);
    let notes = report.notes.join("\n");
    for part in [
        "gguf-video doesn't run HunyuanVideo 1.5",
        "text_encoder (Qwen2_5_VLTextModel)",
        "text_encoder_2 (T5EncoderModel)",
        "image_encoder (SiglipVisionModel)",
    ] {
        assert!(notes.contains(part), "{part:?} is not in: {notes}");
    }

    let file = File::open(job.output.join("Tiny-F32.gguf")).unwrap();
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    let lines = lines(TINY);
    for Line { tensor, row } in &lines {
        let found = file.tensor(&tensor.name).unwrap_or_else(|| panic!("{}", tensor.name));
        assert_eq!((found.dtype, &found.shape[1..]), (DType::F32, &tensor.shape[1..]));
        *rows.entry(&tensor.name).or_default() += tensor.shape[0];
        let all: Vec<[u8; 4]> = file.data(found).as_chunks().0.to_vec();
        let length = tensor.elements() / tensor.shape[0] as usize;
        let values = tensor.values("BF16");
        for (n, values) in values.chunks(length).enumerate() {
            let at = (n + *row as usize) % found.shape[0] as usize * length;
            let same = all[at..at + length].iter().zip(values);
            assert!(
                same.into_iter().all(|(bytes, value)| f32::from_le_bytes(*bytes) == *value),
                "{}: row {n}",
                tensor.source
            );
        }
    }
    // Nothing beside: every row of every tensor came from somewhere.
    assert_eq!(file.tensors().len(), rows.len());
    assert!(file.tensors().iter().all(|tensor| rows[&*tensor.name] == tensor.shape[0]));
    let longest = "txt_in.individual_token_refiner.blocks.1.adaLN_modulation.1.weight";
    assert!(file.tensor(longest).is_some());

    let m = file.metadata();
    for (key, value) in [
        ("general.architecture", "hyvid"),
        ("hyvid.version", "1.5"),
        ("hyvid.task", "i2v"),
        ("hyvid.recipe", "F32"),
    ] {
        assert_eq!(m.string(key), Ok(value), "{key}");
    }
    for (key, value) in [
        ("hyvid.block_count", 2),
        ("hyvid.embedding_length", 128),
        ("hyvid.feed_forward_length", 512),
        ("hyvid.attention.head_count", 1),
        ("hyvid.text_embedding_length", 24),
        ("hyvid.glyph_embedding_length", 1472),
        ("hyvid.image_embedding_length", 16),
        ("hyvid.in_channels", 65),
        ("hyvid.out_channels", 32),
        ("hyvid.target_size", 640),
    ] {
        assert_eq!(m.u32(key), Ok(value), "{key}");
    }
    assert_eq!((m.f32("hyvid.flow_shift"), m.f32("hyvid.guidance_scale")), (Ok(7.0), Ok(1.0)));
    assert_eq!(m.bool("hyvid.mean_flow"), Ok(true));

    let bytes = fs::read(job.output.join("VAE/Tiny-VAE.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 218);
    for tensor in vae() {
        let found = file.tensor(&tensor.name).unwrap();
        assert_eq!(found.dtype(), safetensors::Dtype::F16);
        assert_eq!(found.data(), raw(&tensor, "F16").bytes, "{}", tensor.name);
    }

    // The file itself is a source, too, and gives what the checkpoint gives.
    let again = job.output.join("again");
    run(&Job {
        name: "Again".into(),
        ..Job::new(job.output.join("Tiny-F32.gguf"), &again, &job.quants[1..])
    });
    let (direct, again) = (job.output.join("Tiny-Q8_0.gguf"), again.join("Again-Q8_0.gguf"));
    assert!(tools::diff(&direct, &again).unwrap().is_none());
    let task = File::open(&again).unwrap().metadata().string("hyvid.task").map(str::to_owned);
    assert_eq!(task, Ok("i2v".into()));
    tools_know_it(&direct);

    let whole = fs::metadata(&direct).unwrap().len();
    let job = Job { target_size: Some(whole - 200_000), force: true, ..job };
    let sized = &run(&job).files[0];
    assert!(
        (whole - 240_000..=whole - 200_000).contains(&sized.file_bytes),
        "{}",
        sized.file_bytes
    );
}

/// `inspect`, `check` and `rewrap` of a file.
fn tools_know_it(file: &Path) {
    let inspection = tools::inspect(file).unwrap();
    assert_eq!(inspection.model.as_deref(), Some("HunyuanVideo 1.5 I2V"));
    assert_eq!(inspection.inferred, [] as [&str; 0]);
    checked(file, [true, true, false, false]);

    let to = |name: &str| file.with_file_name(name);
    let rewrap = |source: &Path, output: PathBuf, layout: Option<Layout>, unset: &[&str]| {
        let unset = unset.iter().map(|&key| key.to_owned()).collect();
        let source = source.to_owned();
        tools::rewrap(&Rewrap {
            output: output.clone(),
            source,
            layout,
            prefix: None,
            strip: None,
            set: Vec::new(),
            unset,
            force: false,
        })
        .unwrap();
        output
    };
    let key = "comfy.gguf.orig_shape.img_in.proj.weight";
    let folded = rewrap(file, to("folded.gguf"), Some(Layout::Fold4d), &[]);
    let opened = File::open(&folded).unwrap();
    assert_eq!(opened.tensor("img_in.proj.weight").unwrap().shape, [128 * 65, 1, 1, 1]);
    assert!(opened.metadata().get(key).is_some());
    checked(&folded, [true, true, false, false]);
    assert!(tools::diff(file, &folded).unwrap().is_none());
    // Without the note of its shape, ComfyUI takes the model for another.
    let bare = rewrap(&folded, to("bare.gguf"), None, &[key]);
    checked(&bare, [false, true, false, false]);
    let whole = rewrap(&bare, to("whole.gguf"), Some(Layout::FiveD), &[]);
    assert!(fs::read(whole).unwrap() == fs::read(file).unwrap());
}

/// Whether ComfyUI, stable-diffusion.cpp, diffusers and gguf-video can load it.
#[track_caller]
fn checked(file: &Path, wanted: [bool; 4]) {
    let verdicts = tools::check(file, &Consumer::ALL).unwrap();
    let found: Vec<bool> = verdicts.iter().map(|verdict| verdict.problems.is_empty()).collect();
    assert_eq!(found, wanted, "{verdicts:?}");
    for (consumer, part) in [(2, "HunyuanVideo15Transformer3DModel"), (3, "HunyuanVideo 1.5")] {
        let problems = verdicts[consumer].problems.join("\n");
        assert!(problems.contains(part), "{problems}");
    }
}

/// On the real shapes, of zeros that take no space.
#[test]
fn types_are_mixed_by_the_rules_of_published_files() {
    use DType::*;
    let checkpoint = Checkpoint::new(PUBLISHED);
    assert_eq!(Job::new(checkpoint.file(""), "", &[]).name, "HunyuanVideo-1.5-480p_i2v");
    let shapes: Vec<_> =
        lines(PUBLISHED).into_iter().map(|line| (line.tensor.source, line.tensor.shape)).collect();
    write_hole(&checkpoint.file("transformer/diffusion_pytorch_model.safetensors"), &shapes);
    let quants = "Q2_K,Q3_K_M,Q3_K_L,Q4_0,Q4_K_S,Q4_K_M,Q5_K_M,Q6_K,Q8_0";
    let job = Job { dry_run: true, ..checkpoint.job(quants) };
    let report = run(&job);
    assert_eq!(report.files.len(), 10);
    // 54 blocks of two streams: q, k and v, and four other matrices.
    for (file, (fused, others)) in report.files.iter().zip([
        (Q2_K, Q2_K),
        (Q4_K, Q3_K),
        (Q4_K, Q3_K),
        (Q4_0, Q4_0),
        (Q4_K, Q4_K),
        (Q5_K, Q4_K),
        (Q6_K, Q5_K),
        (Q6_K, Q6_K),
        (Q8_0, Q8_0),
    ]) {
        assert_eq!(file.tensors.len(), 1361);
        for tensor in &file.tensors {
            let block = tensor.name.starts_with("double_blocks.");
            let wanted = match tensor.name.rsplit('.').next().unwrap() {
                "bias" => F32,
                _ if tensor.name.contains("norm") => F32,
                _ if block && tensor.name.contains("_attn_qkv.") => fused,
                _ if block => others,
                _ if tensor.name == "img_in.proj.weight" => F32,
                _ if tensor.name.starts_with("cond_type_embedding.") => F32,
                _ if ["vision_in.proj.0.weight", "vision_in.proj.4.weight"]
                    .contains(&&*tensor.name) =>
                {
                    F32
                }
                _ => F16,
            };
            assert_eq!(tensor.dtype, wanted, "{}: {}", file.quant, tensor.name);
        }
        assert_eq!(file.fallbacks, 0);
    }
    let q8_0 = &report.files[8];
    assert!((q8_0.file_bytes as f64 / 1e9 - 9.0).abs() < 0.2, "{}", q8_0.file_bytes);
}

#[track_caller]
fn refused(job: &Job, parts: &[&str]) {
    let error = format!("{:#}", convert(job, &mut Silent).unwrap_err());
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert_eq!(files(&job.output), [] as [&str; 0]);
}

#[test]
fn what_other_programs_would_compute_otherwise_is_refused() {
    let checkpoint = Checkpoint::tiny();
    let job = checkpoint.job("Q8_0");
    let transformer = "transformer/config.json";
    for (file, key, value, part) in [
        (
            "model_index.json",
            "_class_name",
            json!("HunyuanVideoPipeline"),
            "HunyuanVideo15Pipeline",
        ),
        ("model_index.json", "transformer", json!(["d", "WanTransformer3DModel"]), "supported is"),
        ("model_index.json", "vae", json!(["d", "AutoencoderKLWan"]), "supported is"),
        ("model_index.json", "scheduler", json!(["d", "DDIMScheduler"]), "FlowMatchEuler"),
        ("scheduler/scheduler_config.json", "use_dynamic_shifting", json!(true), "is false"),
        ("guider/guider_config.json", "guidance_scale", json!("much"), "not a number"),
        (transformer, "in_channels", json!(98), "supported is 65"),
        (transformer, "attention_head_dim", json!(64), "supported is 128"),
        (transformer, "num_refiner_layers", json!(3), "supported is 2"),
        (transformer, "patch_size", json!(2), "supported is 1"),
        (transformer, "qk_norm", json!("layer_norm"), "supported is \"rms_norm\""),
        (transformer, "rope_axes_dim", json!([32, 48, 48]), "supported is [16,56,56]"),
        (transformer, "rope_theta", json!(10000.0), "not 256, which is supported"),
        (transformer, "mlp_ratio", json!(2), "not 4, which is supported"),
        (transformer, "num_layers", json!(1), "transformer_blocks.1."),
        (transformer, "num_layers", json!(3), "missing: transformer_blocks.2."),
        (transformer, "use_meanflow", json!(false), "timestep_embedder_r"),
        ("vae/config.json", "scaling_factor", json!(1.0), "supported is 1.03682"),
        ("vae/config.json", "block_out_channels", json!([8, 8, 8, 16]), "multiples of 8"),
        ("vae/config.json", "block_out_channels", json!([8, 8, 8, 16, 12]), "multiples of 8"),
    ] {
        let before = fs::read(checkpoint.file(file)).unwrap();
        checkpoint.edit(file, key, &value);
        refused(&job, &[part]);
        fs::write(checkpoint.file(file), before).unwrap();
    }

    let boundary = Types { recipe: Recipe::Boundary, ..Types::default() };
    refused(&Job { types: boundary, ..job.clone() }, &["--recipe boundary", "measured for Wan"]);
    let lora = "style.safetensors".parse().unwrap();
    refused(&Job { loras: vec![lora], ..job.clone() }, &["--lora", "for Wan"]);

    // Of its own, the transformer's folder doesn't say what is to be known.
    let alone = Job { source: checkpoint.file("transformer"), ..job.clone() };
    refused(&alone, &["HunyuanVideo 1.5 transformer in diffusers' names", "model_index.json"]);

    let key = "transformer_blocks.1.attn.add_k_proj.weight";
    checkpoint.transformer(|tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == key).unwrap();
        (tensor.dtype, tensor.bytes) = ("F32", vec![0; 2 * tensor.bytes.len()]);
    });
    let query = "transformer_blocks.1.attn.add_q_proj.weight";
    refused(&job, &[query, "is BF16, but", key, "is F32", "become one tensor"]);
    checkpoint.transformer(|tensors| tensors.retain(|tensor| tensor.name != key));
    refused(&job, &["missing", key]);
}

#[test]
fn a_published_folder_says_who_can_use_it() {
    let checkpoint = Checkpoint::tiny();
    let front = "license: other\nlicense_name: tencent-hunyuan-community\nlicense_link: \"https://x.org/LICENSE\"\n";
    fs::write(checkpoint.file("README.md"), format!("---\n{front}---\n")).unwrap();
    let job = Job { publish: true, ..checkpoint.job("Q8_0") };
    run(&job);
    let card = fs::read_to_string(job.output.join("README.md")).unwrap();
    let begins = format!(
        "---\n{front}base_model: tencent/HunyuanVideo-1.5\nbase_model_relation: quantized\n\
         pipeline_tag: image-to-video\nlibrary_name: gguf\ntags:\n- gguf\n- hunyuanvideo\n---\n"
    );
    assert!(card.starts_with(&begins), "{card}");
    for part in [
        "| `Tiny-Q8_0.gguf` | `unet` | Unet Loader (GGUF) |",
        "DualCLIPLoader, type `hunyuan_video_15`",
        "| `sigclip_vision_patch14_384.safetensors` | `clip_vision` |",
        "| `VAE/Tiny-VAE.safetensors` | `vae` | Load VAE |",
        "gguf-video doesn't run this model",
    ] {
        assert!(card.contains(part), "{part:?} is not in: {card}");
    }
    let file = File::open(job.output.join("Tiny-Q8_0.gguf")).unwrap();
    let name = file.metadata().string("general.license.name");
    assert_eq!(name, Ok("tencent-hunyuan-community"));
    assert_eq!(file.metadata().string("general.license.link"), Ok("https://x.org/LICENSE"));
    assert_eq!(tools::verify(&job.output).unwrap(), (2, vec![]));

    checkpoint.edit("model_index.json", "_class_name", &json!("HunyuanVideo15Pipeline"));
    // A file beside the card, which isn't copied.
    fs::write(checkpoint.file("README.md"), "---\nlicense: other\nlicense_link: LICENSE\n---\n")
        .unwrap();
    let job = Job { force: true, ..job };
    run(&job);
    let card = fs::read_to_string(job.output.join("README.md")).unwrap();
    assert!(card.starts_with("---\nlicense: other\nbase_model:"), "{card}");
    for part in [
        "pipeline_tag: text-to-video",
        "sd-cli -M vid_gen --diffusion-model Tiny-Q8_0.gguf",
        "--t5xxl byt5_small_glyphxl_fp16.safetensors --vae VAE/Tiny-VAE.safetensors",
        "--cfg-scale 1 --flow-shift 7",
    ] {
        assert!(card.contains(part), "{part:?} is not in: {card}");
    }
}
