//! Types tensor by tensor against what published files have, on the shapes of the real models.

mod support;

use gguf::DType;
use std::collections::BTreeMap;
use std::path::Path;
use support::{Checkpoint, Wan, job_of_file, umt5_tensors, write_hole};
use to_gguf::{FileReport, Job, Recipe, Silent, Types, convert};

type Shapes = Vec<(String, Vec<u64>)>;

fn shapes(wan: Wan) -> Shapes {
    wan.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
}

const SMALL: Wan = Wan { dim: 1536, ffn_dim: 8960, text_dim: 4096, freq_dim: 256, layers: 30 };

/// VACE's second stack of blocks (`wan/modules/vace_model.py`).
fn with_vace(wan: Wan, blocks: u64) -> Shapes {
    let mut list = shapes(wan);
    let d = wan.dim;
    for n in 0..blocks {
        let block = shapes(Wan { layers: 1, ..wan });
        for (name, shape) in block.iter().filter(|(name, _)| name.starts_with("blocks.0.")) {
            list.push((name.replacen("blocks.0.", &format!("vace_blocks.{n}."), 1), shape.clone()));
        }
        let first = if n == 0 { vec!["before_proj", "after_proj"] } else { vec!["after_proj"] };
        for part in first {
            list.push((format!("vace_blocks.{n}.{part}.weight"), vec![d, d]));
            list.push((format!("vace_blocks.{n}.{part}.bias"), vec![d]));
        }
    }
    list.push(("vace_patch_embedding.weight".into(), vec![d, 96, 1, 2, 2]));
    list.push(("vace_patch_embedding.bias".into(), vec![d]));
    list
}

fn plan(shapes: &Shapes, quants: &str, types: Types) -> Vec<FileReport> {
    let (_folder, job) = job_of_file("wan2.1_model.safetensors", quants);
    write_hole(&job.source, shapes);
    let job = Job { dry_run: true, types, ..job };
    let report = convert(&job, &mut Silent).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!job.output.exists(), "nothing is written");
    report.files
}

/// The quantized types of a file.
fn quantized(file: &FileReport) -> BTreeMap<DType, usize> {
    file.census().into_iter().filter(|(dtype, _)| dtype.is_quantized()).collect()
}

#[test]
fn a_14b_expert_is_mixed_as_published() {
    use DType::*;
    let quants = "Q2_K,Q3_K_S,Q3_K_M,Q3_K_L,Q4_0,Q4_K_S,Q4_K_M,Q5_0,Q5_K_S,Q5_K_M,Q6_K,Q8_0,\
                  Q4_K,Q4_1,Q5_1,IQ4_NL,IQ4_XS";
    let files = plan(&shapes(Wan::A14B), quants, Types::default());
    // 40 blocks with 10 matrices: 2 value projections and 1 second feed-forward matrix each.
    let wanted: &[(&str, &[(DType, usize)])] = &[
        ("Q2_K", &[(Q2_K, 320), (Q3_K, 80)]),
        ("Q3_K_S", &[(Q3_K, 400)]),
        ("Q3_K_M", &[(Q3_K, 280), (Q4_K, 118), (Q5_K, 2)]),
        ("Q3_K_L", &[(Q3_K, 280), (Q5_K, 120)]),
        ("Q4_0", &[(Q4_0, 360), (Q4_1, 40)]),
        ("Q4_K_S", &[(Q4_K, 356), (Q5_K, 44)]),
        ("Q4_K_M", &[(Q4_K, 280), (Q6_K, 120)]),
        ("Q5_0", &[(Q5_0, 360), (Q5_1, 40)]),
        ("Q5_K_S", &[(Q5_K, 400)]),
        ("Q5_K_M", &[(Q5_K, 280), (Q6_K, 120)]),
        ("Q6_K", &[(Q6_K, 400)]),
        ("Q8_0", &[(Q8_0, 400)]),
        ("Q4_K", &[(Q4_K, 400)]),
        ("Q4_1", &[(Q4_1, 400)]),
        ("Q5_1", &[(Q5_1, 400)]),
        ("IQ4_NL", &[(IQ4_NL, 400)]),
        ("IQ4_XS", &[(IQ4_XS, 400)]),
    ];
    assert_eq!(files.len(), wanted.len());
    for (file, (name, census)) in files.iter().zip(wanted) {
        assert_eq!(file.quant.name(), *name);
        assert_eq!(quantized(file), census.iter().copied().collect(), "{name}");
        assert_eq!(file.tensors.len(), 1095);
    }
    // The published sizes in GB, whose files keep F16 where these have F32.
    for (name, gb) in [
        ("Q8_0", 15.40),
        ("Q6_K", 12.00),
        ("Q5_K_M", 10.79),
        ("Q5_K_S", 10.14),
        ("Q4_K_M", 9.65),
        ("Q4_K_S", 8.75),
        ("Q4_0", 8.56),
        ("Q3_K_L", 7.78),
        ("Q3_K_M", 7.17),
        ("Q2_K", 5.30),
    ] {
        let file = files.iter().find(|file| file.quant.name() == name).unwrap();
        let found = file.file_bytes as f64 / 1e9;
        assert!((found - gb).abs() < 0.02, "{name}: {found} GB");
    }
    let q4_k_s = &files[5];
    let of = |name: &str| q4_k_s.tensors.iter().find(|t| t.name == name).unwrap().dtype;
    for (name, dtype) in [
        ("blocks.0.self_attn.v.weight", Q5_K),
        ("blocks.1.cross_attn.v.weight", Q5_K),
        ("blocks.2.self_attn.v.weight", Q4_K),
        ("blocks.39.ffn.2.weight", Q5_K),
        ("blocks.39.ffn.0.weight", Q4_K),
        ("time_projection.1.weight", F16),
        ("head.head.weight", F16),
        ("head.modulation", F32),
        ("patch_embedding.weight", F32),
    ] {
        assert_eq!(of(name), dtype, "{name}");
    }
}

#[test]
fn smaller_and_larger_models_are_mixed_as_published() {
    use DType::{Q4_K, Q6_K};
    let census = |shapes: Shapes| quantized(&plan(&shapes, "Q4_K_M", Types::default())[0]);
    assert_eq!(census(shapes(SMALL)), BTreeMap::from([(Q4_K, 210), (Q6_K, 90)]));
    // Blocks of the second stack have the name's main type alone.
    let vace = with_vace(Wan::A14B, 8);
    assert_eq!(census(vace), BTreeMap::from([(Q4_K, 360), (Q6_K, 120)]));
}

#[test]
fn the_text_encoder_is_mixed_as_llama_cpp_does() {
    let checkpoint = Checkpoint::tiny();
    // The rule needs many blocks to show; the sizes of matrices don't matter to it.
    let (_folder, job) = job_of_file("umt5.safetensors", "Q5_K_M,Q4_K_S,Q2_K,Q8_0,Q4_K");
    let mut list = Shapes::new();
    for tensor in umt5_tensors() {
        match tensor.source.split_once("block.0.") {
            None if !tensor.source.contains("block.1.") => list.push((tensor.source, tensor.shape)),
            None => {}
            Some((stem, rest)) => list
                .extend((0..24).map(|n| (format!("{stem}block.{n}.{rest}"), tensor.shape.clone()))),
        }
    }
    write_hole(&job.source, &list);
    let tokenizer = Some(checkpoint.file("tokenizer"));
    let job = Job { dry_run: true, tokenizer, ..job };
    let files = convert(&job, &mut Silent).unwrap().files;
    let of = |file: usize, name: &str| {
        files[file].tensors.iter().find(|tensor| tensor.name == name).unwrap().dtype
    };
    // 24 blocks: the first three, the last three, and every third between them.
    let higher: Vec<usize> =
        (0..24).filter(|n| of(0, &format!("enc.blk.{n}.ffn_down.weight")) == DType::Q6_K).collect();
    assert_eq!(higher, [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
    for n in 0..24 {
        let pair = ["attn_v", "ffn_down"].map(|part| of(0, &format!("enc.blk.{n}.{part}.weight")));
        assert_eq!(pair[0], pair[1], "block {n}");
    }
    assert_eq!(of(0, "token_embd.weight"), DType::Q6_K);
    assert_eq!(of(0, "enc.blk.7.attn_q.weight"), DType::Q5_K);
    assert_eq!(of(1, "enc.blk.3.attn_v.weight"), DType::Q5_K);
    assert_eq!(of(1, "enc.blk.4.attn_v.weight"), DType::Q4_K);
    assert_eq!(of(1, "enc.blk.3.ffn_down.weight"), DType::Q4_K);
    assert_eq!(of(2, "enc.blk.9.ffn_down.weight"), DType::Q3_K);
    assert_eq!(of(3, "token_embd.weight"), DType::Q8_0);
    assert_eq!(quantized(&files[4]), BTreeMap::from([(DType::Q4_K, 24 * 7 + 1)]));
}

#[test]
fn the_ends_are_two_grades_higher() {
    let types = Types { recipe: Recipe::Boundary, ..Types::default() };
    let files = plan(&shapes(Wan::A14B), "Q4_K,Q8_0", types);
    assert!(files[0].path.ends_with(Path::new("Tiny-boundary-Q4_K.gguf")), "{:?}", files[0].path);
    let higher = files[0].tensors.iter().filter(|tensor| tensor.dtype == DType::Q6_K);
    let mut blocks: Vec<&str> =
        higher.map(|tensor| tensor.name.split('.').nth(1).unwrap()).collect();
    assert_eq!(blocks.len(), 5 * 10);
    blocks.dedup();
    assert_eq!(blocks, ["0", "1", "37", "38", "39"]);
    assert_eq!(quantized(&files[1]), BTreeMap::from([(DType::Q8_0, 400)]));
}

#[test]
fn rules_decide_before_recipes() {
    let rules = [r"cross_attn\.[kv]\.=Q8_0", r"^blocks\.1\.=Q6_K", "time_projection=F32"];
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let files = plan(&shapes(SMALL), "Q4_K", Types { rules, ..Types::default() });
    let census = quantized(&files[0]);
    let wanted = [(DType::Q8_0, 60), (DType::Q6_K, 8), (DType::Q4_K, 300 - 68)];
    assert_eq!(census, BTreeMap::from(wanted));
    let of = |name: &str| files[0].tensors.iter().find(|t| t.name == name).unwrap().dtype;
    assert_eq!(of("time_projection.1.weight"), DType::F32);
    assert_eq!(of("blocks.1.norm3.weight"), DType::F32, "no rule touches what must be exact");

    let (_folder, job) = job_of_file("wan2.1_model.safetensors", "Q4_K");
    write_hole(&job.source, &shapes(SMALL));
    let rules = vec![r"modulation=Q8_0".parse().unwrap()];
    let job = Job { dry_run: true, types: Types { rules, ..Types::default() }, ..job };
    let error = convert(&job, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("modulation=Q8_0: no matrix has such a name"), "{error}");
}

#[test]
fn experts_may_have_types_of_their_own() {
    let checkpoint = Checkpoint::tiny();
    let job = Job {
        quants_high: Some(vec!["Q2_K".parse().unwrap()]),
        quants_low: Some(vec!["Q4_K_M".parse().unwrap(), "Q6_K".parse().unwrap()]),
        ..checkpoint.job("Q8_0")
    };
    let files = convert(&job, &mut Silent).unwrap().files;
    let names: Vec<_> =
        files.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "Tiny-HighNoise-Q2_K.gguf",
            "Tiny-LowNoise-Q4_K_M.gguf",
            "Tiny-LowNoise-Q6_K.gguf",
            "Tiny-umt5-Q8_0.gguf",
            "Tiny-VAE-F32.gguf",
        ]
    );
    checkpoint.single();
    let error = convert(&Job { force: true, ..job }, &mut Silent).unwrap_err().to_string();
    assert!(error.ends_with("has no high-noise expert"), "{error}");
}

/// Several files from one reading are those that conversions one by one make.
#[test]
fn one_reading_makes_the_same_files() {
    let checkpoint = Checkpoint::tiny();
    checkpoint.single();
    let together =
        Job { output: checkpoint.output().join("all"), ..checkpoint.job("Q8_0,Q4_K_M,Q4_K_S") };
    let files = convert(&together, &mut Silent).unwrap().files;
    for (n, quant) in ["Q8_0", "Q4_K_M", "Q4_K_S"].into_iter().enumerate() {
        let job = Job { output: checkpoint.output().join(quant), ..checkpoint.job(quant) };
        let alone = convert(&job, &mut Silent).unwrap().files;
        for (one, many) in [(&alone[0], &files[n]), (&alone[1], &files[3 + n])] {
            assert_eq!(one.path.file_name(), many.path.file_name());
            assert!(std::fs::read(&one.path).unwrap() == std::fs::read(&many.path).unwrap());
            assert_eq!(one.relative_rmse, many.relative_rmse);
        }
    }
}

#[test]
fn a_size_is_filled_with_the_least_error() {
    let (_folder, job) = job_of_file("tiny.safetensors", "Q8_0");
    support::write_raw(&job.source, &support::originals(Wan::TINY, ""));
    let uniform =
        convert(&Job { quants: vec!["Q4_K".parse().unwrap()], ..job.clone() }, &mut Silent);
    let uniform = &uniform.unwrap().files[0];
    // Room for what a file may take beside its tensors, and a bit more.
    let size = uniform.file_bytes + (40 << 10);
    let job = Job { target_size: Some(size), ..job };
    let files = convert(&job, &mut Silent).unwrap().files;
    assert_eq!(files.len(), 1);
    assert!(files[0].file_bytes <= size && files[0].file_bytes > size - (64 << 10));
    let census = quantized(&files[0]);
    assert!(census.len() > 1, "{census:?}");
    assert!(files[0].relative_rmse < uniform.relative_rmse);
    let error = convert(&Job { target_size: Some(400_000), ..job }, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("at least"), "{error}");
}
