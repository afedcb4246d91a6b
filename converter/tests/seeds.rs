//! Writes seeds for `fuzz/` where `CONVERTER_SEEDS` names its corpus; otherwise only makes them.

mod support;

use gguf::File;
use std::fs;
use support::{Raw, Wan, job_of_file, originals, write_raw};
use to_gguf::{Job, Layout, Silent, convert};

/// One block, as small as blocks of quantized types allow.
const SEED: Wan = Wan { dim: 32, ffn_dim: 32, text_dim: 32, freq_dim: 32, layers: 1 };

/// Safetensors files that are damaged in one way each.
fn damaged(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(whole[8..8 + length].to_vec()).unwrap();
    let with = |header: String| {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &whole[8 + length..]].concat()
    };
    let replaced = |from: &str, to: &str| {
        assert!(header.contains(from), "{from}");
        with(header.replacen(from, to, 1))
    };
    vec![
        ("huge-header", [&u64::MAX.to_le_bytes(), &whole[8..]].concat()),
        ("no-json", with("[".repeat(1000))),
        ("deep-json", with(format!("{{\"a\":{}", "[".repeat(100_000)))),
        ("twice", with(format!("{},{}", &header[..header.len() - 1], &header[1..]))),
        ("overlap", replaced("\"data_offsets\":[0,", "\"data_offsets\":[4,")),
        ("negative", replaced("\"data_offsets\":[0,", "\"data_offsets\":[-1,")),
        ("other-shape", replaced("\"shape\":[32]", "\"shape\":[33]")),
        ("product-wraps", replaced("\"shape\":[32]", "\"shape\":[4294967296,4294967296,32]")),
        ("no-such-type", replaced("\"F32\"", "\"F31\"")),
        ("cut-off", whole[..whole.len() - 1].to_vec()),
        ("metadata-number", with(format!("{{\"__metadata__\":{{\"a\":1}},{}", &header[1..]))),
    ]
}

#[test]
fn damaged_safetensors_are_refused() {
    let (folder, job) = job_of_file("seed.safetensors", "Q8_0");
    write_raw(&job.source, &originals(SEED, ""));
    let whole = fs::read(&job.source).unwrap();
    let mut seeds = vec![("safetensors_reader/whole", whole.clone())];
    convert(&job, &mut Silent).unwrap();
    seeds.push(("requantize/q8_0", fs::read(job.output.join("Tiny-Q8_0.gguf")).unwrap()));
    let fold = Job { layout: Layout::Fold4d, quants: vec!["Q4_0".parse().unwrap()], ..job.clone() };
    convert(&fold, &mut Silent).unwrap();
    seeds.push(("requantize/q4_0-folded", fs::read(job.output.join("Tiny-Q4_0.gguf")).unwrap()));
    assert!(File::open(job.output.join("Tiny-Q4_0.gguf")).is_ok());
    fs::remove_dir_all(&job.output).unwrap();
    for (name, bytes) in damaged(&whole) {
        fs::write(&job.source, &bytes).unwrap();
        let error = convert(&job, &mut Silent).map(|_| "converted").expect_err(name);
        assert!(format!("{error:#}").contains("seed.safetensors"), "{name}: {error:#}");
        assert!(!job.output.exists(), "{name}");
        if bytes.len() < 150_000 {
            seeds.push((Box::leak(format!("safetensors_reader/{name}").into_boxed_str()), bytes));
        }
    }
    write_raw(&job.source, &[Raw::f32("x.lora_up.weight", &[2, 2], &[1.0; 4])]);
    seeds.push(("safetensors_reader/lora", fs::read(&job.source).unwrap()));
    if let Some(corpus) = std::env::var_os("CONVERTER_SEEDS") {
        for (name, bytes) in seeds {
            fs::write(std::path::Path::new(&corpus).join(name), bytes).unwrap();
        }
    }
    drop(folder);
}
