//! Sources other than diffusers checkpoints: files in original names, GGUF, FP8.

mod support;

use gguf::{DType, File};
use serde_json::json;
use std::fs;
use std::path::Path;
use support::{Checkpoint, Raw, Wan, decoded, job_of_file, originals, write_raw};
use to_gguf::{Job, Layout, Part, Silent, convert};

fn data(path: &Path) -> Vec<(String, DType, Vec<u64>, Vec<u8>)> {
    let file = File::open(path).unwrap();
    let tensor =
        |t: &gguf::Tensor| (t.name.clone(), t.dtype, t.shape.clone(), file.data(t).to_vec());
    file.tensors().iter().map(tensor).collect()
}

#[track_caller]
fn refused(job: &Job, parts: &[&str]) {
    let error = format!("{:#}", convert(job, &mut Silent).unwrap_err());
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(!job.output.exists(), "nothing is written");
}

/// The tensors of `transformer` converted from its diffusers checkpoint.
fn from_checkpoint(quant: &str) -> Vec<(String, DType, Vec<u64>, Vec<u8>)> {
    let checkpoint = Checkpoint::tiny();
    checkpoint.single();
    convert(&checkpoint.job(quant), &mut Silent).unwrap();
    data(&checkpoint.output().join(format!("Tiny-{quant}.gguf")))
}

#[test]
fn files_in_original_names_become_the_same_tensors() {
    let wanted = from_checkpoint("Q4_K");
    for prefix in ["", "model.diffusion_model.", "diffusion_model."] {
        let (_folder, job) = job_of_file("tiny.safetensors", "Q4_K");
        write_raw(&job.source, &originals(Wan::TINY, prefix));
        convert(&job, &mut Silent).unwrap();
        assert!(data(&job.output.join("Tiny-Q4_K.gguf")) == wanted, "{prefix:?}");
    }
}

#[test]
fn a_single_file_of_diffusers_names_will_do() {
    let checkpoint = Checkpoint::tiny();
    checkpoint.transformer("transformer", Wan::TINY, 1);
    let source = checkpoint.file("transformer/diffusion_pytorch_model.safetensors");
    let job = Job { source, part: Some(Part::LowNoise), ..checkpoint.job("Q4_K") };
    convert(&job, &mut Silent).unwrap();
    let path = job.output.join("LowNoise/Tiny-LowNoise-Q4_K.gguf");
    assert!(data(&path) == from_checkpoint("Q4_K"));
    assert_eq!(File::open(path).unwrap().metadata().string("wan.expert"), Ok("low_noise"));
}

#[test]
fn the_original_release_has_a_folder_for_each_expert() {
    let (folder, job) = job_of_file("Wan2.2-T2V-A14B", "Q8_0");
    let tensors = originals(Wan::TINY, "");
    for expert in ["high_noise_model", "low_noise_model"] {
        let path = job.source.join(expert);
        fs::create_dir_all(&path).unwrap();
        // In two shards with an index.
        let (first, second) = tensors.split_at(20);
        let mut map = serde_json::Map::new();
        for (n, part) in [first, second].into_iter().enumerate() {
            let name = format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", n + 1);
            write_raw(&path.join(&name), part);
            map.extend(part.iter().map(|tensor| (tensor.name.clone(), json!(name))));
        }
        let index = json!({ "weight_map": map }).to_string();
        fs::write(path.join("diffusion_pytorch_model.safetensors.index.json"), index).unwrap();
    }
    fs::write(job.source.join("models_t5_umt5-xxl-enc-bf16.pth"), "").unwrap();
    fs::write(job.source.join("README.md"), "---\nlicense: apache-2.0\n---\n# Wan\n").unwrap();
    let report = convert(&job, &mut Silent).unwrap();
    assert_eq!(report.files.len(), 2);
    assert!(report.to_string().contains("models_t5_umt5-xxl-enc-bf16.pth: pickle"), "{report}");
    for (expert, role, guidance) in
        [("HighNoise", "high_noise", 4.0), ("LowNoise", "low_noise", 3.0)]
    {
        let path = folder.path().join(format!("out/{expert}/Tiny-{expert}-Q8_0.gguf"));
        let file = File::open(path).unwrap();
        let m = file.metadata();
        assert_eq!(m.string("wan.expert"), Ok(role));
        assert_eq!(m.string("wan.variant"), Ok("wan2.2-t2v-a14b"));
        assert_eq!(m.f32("wan.guidance_scale"), Ok(guidance));
        assert_eq!(m.f32("wan.boundary_ratio"), Ok(0.875));
        assert_eq!(m.string("general.license"), Ok("apache-2.0"));
        assert_eq!(m.u32("wan.block_count"), Ok(2));
        assert_eq!(m.u32("wan.feed_forward_length"), Ok(512));
    }
}

#[test]
fn names_of_files_tell_experts() {
    for (file, folder) in [
        ("wan2.2_t2v_high_noise_14B_fp16.safetensors", "HighNoise/Tiny-HighNoise-F16.gguf"),
        ("Wan2.2-T2V-A14B-LowNoise.safetensors", "LowNoise/Tiny-LowNoise-F16.gguf"),
        ("wan2.1_t2v_14B.safetensors", "Tiny-F16.gguf"),
    ] {
        let (_folder, job) = job_of_file(file, "F16");
        write_raw(&job.source, &originals(Wan::TINY, ""));
        convert(&job, &mut Silent).unwrap();
        assert!(job.output.join(folder).is_file(), "{file}");
    }
}

#[test]
fn a_gguf_file_is_quantized_again_with_a_warning() {
    let (folder, job) = job_of_file("Tiny-F32.gguf", "Q4_K_M");
    let source = folder.path().join("tiny.safetensors");
    write_raw(&source, &originals(Wan::TINY, ""));
    let first = Job {
        source,
        output: folder.path().into(),
        quants: vec!["F32".parse().unwrap()],
        ..job.clone()
    };
    convert(&first, &mut Silent).unwrap();

    // From F32 nothing is lost on the way.
    let report = convert(&job, &mut Silent).unwrap();
    assert!(!report.to_string().contains("warning"), "{report}");
    let direct = Job { output: folder.path().join("direct"), quants: job.quants.clone(), ..first };
    convert(&direct, &mut Silent).unwrap();
    let name = "Tiny-Q4_K_M.gguf";
    assert!(data(&job.output.join(name)) == data(&direct.output.join(name)));

    // From Q4_K_M something is, and values are those that its blocks stand for.
    let source = job.output.join(name);
    let again = Job {
        source: source.clone(),
        output: folder.path().join("again"),
        quants: vec!["F32".parse().unwrap()],
        ..job.clone()
    };
    let report = convert(&again, &mut Silent).unwrap();
    assert!(report.to_string().contains("warning: the source was quantized before"), "{report}");
    let (before, after) =
        (File::open(&source).unwrap(), File::open(again.output.join("Tiny-F32.gguf")).unwrap());
    let name = "blocks.1.ffn.2.weight";
    assert_eq!(before.tensor(name).unwrap().dtype, DType::Q6_K);
    assert!(decoded(&before, name) == decoded(&after, name));
    assert_eq!(after.metadata().string("wan.variant"), Ok("wan2.1-t2v-1.3b"));
}

#[test]
fn a_folded_file_is_taken_for_what_it_is() {
    let (folder, job) = job_of_file("tiny.safetensors", "Q8_0");
    write_raw(&job.source, &originals(Wan::TINY, ""));
    convert(&Job { layout: Layout::Fold4d, ..job.clone() }, &mut Silent).unwrap();
    let source = job.output.join("Tiny-Q8_0.gguf");
    let folded = File::open(&source).unwrap();
    assert_eq!(folded.tensor("patch_embedding.weight").unwrap().shape, [256 * 16, 1, 2, 2]);
    let again = Job { source, output: folder.path().join("again"), ..job };
    convert(&again, &mut Silent).unwrap();
    let file = File::open(again.output.join("Tiny-Q8_0.gguf")).unwrap();
    let tensor = file.tensor("patch_embedding.weight").unwrap();
    assert_eq!(tensor.shape, [256, 16, 1, 2, 2]);
    assert!(file.data(tensor) == folded.data(folded.tensor("patch_embedding.weight").unwrap()));
    assert!(file.metadata().iter().all(|(key, _)| !key.contains("orig_shape")));
}

const SCALED: &str = "blocks.0.self_attn.q.weight";

/// The model with one matrix in FP8, and what else the file holds.
fn fp8(extra: Vec<Raw>) -> Vec<Raw> {
    let mut tensors = originals(Wan::TINY, "");
    let tensor = tensors.iter_mut().find(|tensor| tensor.name == SCALED).unwrap();
    tensor.dtype = "F8_E4M3";
    // Every value but the two NaN, again and again.
    tensor.bytes = (0..256 * 256).map(|i| (i % 127 + 128 * (i / 127 % 2)) as u8).collect();
    tensors.extend(extra);
    tensors
}

#[test]
fn fp8_is_multiplied_by_its_factor() {
    let factor = |name: &str, value: f32| Raw::f32(&SCALED.replace("weight", name), &[], &[value]);
    let mark =
        || Raw { name: "scaled_fp8".into(), dtype: "F8_E4M3", shape: vec![2], bytes: vec![0; 2] };
    let cases = [
        (vec![], 1.0),
        (vec![factor("scale_weight", 0.25), mark()], 0.25),
        (vec![factor("weight_scale", 0.5), factor("input_scale", 3.0)], 0.5),
    ];
    for (extra, factor) in cases {
        let (_folder, job) = job_of_file("fp8.safetensors", "F32");
        write_raw(&job.source, &fp8(extra));
        convert(&job, &mut Silent).unwrap();
        let file = File::open(job.output.join("Tiny-F32.gguf")).unwrap();
        let values = decoded(&file, SCALED);
        // 0x01 is 2^-9, 0x38 one, 0x7e 448; the second round is negative.
        for (index, value) in [(0x01, 0.001953125), (0x38, 1.0), (0x7e, 448.0), (127 + 0x38, -1.0)]
        {
            assert_eq!(values[index], value * factor, "{index}");
        }
    }
}

#[test]
fn fp8_that_cannot_be_right_is_refused() {
    let (_folder, job) = job_of_file("fp8.safetensors", "F32");
    let mark =
        Raw { name: "scaled_fp8".into(), dtype: "F8_E4M3", shape: vec![2], bytes: vec![0; 2] };
    write_raw(&job.source, &fp8(vec![mark]));
    refused(&job, &[SCALED, "F8_E4M3 without its factor"]);
    let rows = Raw::f32(&SCALED.replace("weight", "scale_weight"), &[256, 1], &[1.0; 256]);
    write_raw(&job.source, &fp8(vec![rows]));
    refused(&job, &["scale_weight", "[256, 1]", "one number"]);
    write_raw(&job.source, &fp8(vec![Raw::f32("blocks.9.self_attn.q.scale_weight", &[], &[1.0])]));
    refused(&job, &["blocks.9.self_attn.q.weight", "is missing"]);
    write_raw(
        &job.source,
        &fp8(vec![Raw::f32(&SCALED.replace("weight", "scale_weight"), &[], &[f32::NAN])]),
    );
    refused(&job, &["is NaN"]);
    let packed = Raw {
        name: SCALED.replace("weight", "comfy_quant"),
        dtype: "U8",
        shape: vec![4],
        bytes: b"{ } ".to_vec(),
    };
    write_raw(&job.source, &fp8(vec![packed]));
    refused(&job, &["comfy_quant", "BF16 or F16 release"]);
}

#[test]
fn a_text_encoder_in_a_file_needs_its_tokenizer() {
    let checkpoint = Checkpoint::tiny();
    checkpoint.weights("text_encoder", &support::umt5_tensors(), 1);
    let source = checkpoint.file("text_encoder/model.safetensors");
    let job = Job { source, ..checkpoint.job("Q8_0") };
    refused(&job, &["no use without its tokenizer", "--tokenizer"]);
    let job = Job { tokenizer: Some(checkpoint.file("tokenizer/tokenizer.json")), ..job };
    convert(&job, &mut Silent).unwrap();
    let loose = job.output.join("TextEncoder/Tiny-umt5-Q8_0.gguf");
    let whole = Job { output: checkpoint.output().join("whole"), ..checkpoint.job("Q8_0") };
    convert(&whole, &mut Silent).unwrap();
    let whole = whole.output.join("TextEncoder/Tiny-umt5-Q8_0.gguf");
    assert!(data(&loose) == data(&whole));
    let metadata = |path: &Path| File::open(path).unwrap().metadata().clone();
    let (loose, whole) = (metadata(&loose), metadata(&whole));
    let differing = loose.iter().filter(|(key, value)| whole.get(key) != Some(value));
    assert_eq!(differing.map(|(key, _)| key).collect::<Vec<_>>(), ["general.source.name"]);
}

#[test]
fn what_is_no_model_is_refused() {
    let (folder, job) = job_of_file("other.safetensors", "Q8_0");
    write_raw(&job.source, &[Raw::f32("x", &[2], &[0.0; 2])]);
    refused(&job, &["not a Wan transformer", "its tensors are x"]);
    for (name, part) in [("model.pth", "run code"), ("model.txt", "neither .safetensors nor .gguf")]
    {
        let source = folder.path().join(name);
        fs::write(&source, "").unwrap();
        refused(&Job { source, ..job.clone() }, &[name, part]);
    }
    let two = folder.path().join("two");
    fs::create_dir(&two).unwrap();
    refused(&Job { source: two.clone(), ..job.clone() }, &["neither a diffusers checkpoint"]);
    for name in ["a.safetensors", "b.safetensors"] {
        fs::copy(&job.source, two.join(name)).unwrap();
    }
    refused(&Job { source: two, ..job.clone() }, &["several files without an index"]);

    let mut tensors = originals(Wan::TINY, "");
    tensors.retain(|tensor| tensor.name != "blocks.1.ffn.0.bias");
    tensors.push(Raw::f32("first_stage_model.x", &[1], &[0.0]));
    write_raw(&job.source, &tensors);
    refused(&job, &["missing: blocks.1.ffn.0.bias", "does not have: first_stage_model.x"]);
}

/// What Ollama's CVE-2026-7482 was about: a header that promises more than there is must never end
/// in an output file that holds something else.
#[test]
fn a_source_that_lies_about_its_data_yields_no_file() {
    let (folder, job) = job_of_file("Tiny-F16.gguf", "Q8_0");
    let source = folder.path().join("tiny.safetensors");
    write_raw(&source, &originals(Wan::TINY, ""));
    let make = Job {
        source,
        output: folder.path().into(),
        quants: vec!["F16".parse().unwrap()],
        ..job.clone()
    };
    convert(&make, &mut Silent).unwrap();
    let whole = fs::read(&job.source).unwrap();
    for cut in [1, 100, 4096, whole.len() / 2, whole.len() - 40] {
        fs::write(&job.source, &whole[..whole.len() - cut]).unwrap();
        refused(&job, &["Tiny-F16.gguf"]);
    }
    // A shape of twice as many rows: offsets don't fit, and neither would the data.
    let name = b"blocks.1.ffn.2.weight";
    let at =
        whole.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 8;
    let mut lying = whole.clone();
    lying[at..at + 8].copy_from_slice(&512u64.to_le_bytes());
    fs::write(&job.source, &lying).unwrap();
    refused(&job, &["Tiny-F16.gguf"]);
    // Another type in the same bytes.
    let mut lying = whole.clone();
    lying[at + 8..at + 12].copy_from_slice(&0u32.to_le_bytes());
    fs::write(&job.source, &lying).unwrap();
    refused(&job, &["Tiny-F16.gguf"]);
}
