//! The table of what fits which Mac: its bytes are those of the converter's files and of the graphs that go
//! through ggml's Metal encoder, and the README has it as the program prints it.
#![cfg(not(target_os = "macos"))]

use e2e::gate;
use e2e::repository;
use e2e::synthetic::{self, Transformer};
use gguf_video::pipeline::{MACS, Mac};
use std::fs;
use std::path::Path;
use to_gguf::{Job, Part, Quant};

fn seen(case: &str) -> gate::Seen {
    gate::run(Path::new(env!("CARGO_BIN_EXE_metal-gate")), "m1-max", case).unwrap()
}

/// Bytes of the file that `to-gguf --quant` makes of a model of these sizes.
fn file_bytes(name: &str, sizes: Transformer, quant: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join(format!("{name}.safetensors"));
    synthetic::originals(&source, sizes);
    let quants = [quant.parse().unwrap()];
    let job = Job { dry_run: true, ..Job::new(source, folder.path().join("out"), &quants) };
    let report = to_gguf::convert(&job, &mut to_gguf::Silent).unwrap_or_else(|e| panic!("{e:#}"));
    let [file] = &report.files[..] else { panic!("{:?}", report.files) };
    assert!(matches!(file.part, Part::HighNoise | Part::Single), "{:?}", file.part);
    file.file_bytes
}

fn most(mac: &Mac) -> (u64, bool) {
    let (name, case, vae, sizes) = match mac.variant {
        "wan2.2-t2v-a14b" => {
            ("wan2.2_t2v_high_noise_14B", "t2v-a14b", "vae", Transformer::A14B_HIGH)
        }
        "wan2.2-ti2v-5b" => ("wan2.2_ti2v_5B", "ti2v-5b", "vae22", Transformer::WAN22_TI2V_5B),
        other => panic!("{other}"),
    };
    let clip = format!("{}x{}x{}", mac.width, mac.height, mac.frames);
    // What lies beside the weights doesn't depend on their type.
    let expert = file_bytes(name, sizes, mac.quant) + seen(&format!("{case}:{clip}:Q8_0")).working;
    let vae = seen(&format!("{vae}:{clip}"));
    let quant: Quant = mac.quant.parse().unwrap();
    let text = seen(&format!("umt5:{}", quant.dtype()));
    let one = [expert, vae.weights + vae.working, text.weights + text.working];
    let one = one.into_iter().max().unwrap();
    let both = case == "t2v-a14b" && 2 * expert <= mac.gpu_bytes();
    (if both { one.max(2 * expert) } else { one }, both)
}

#[test]
fn every_mac_holds_what_the_table_says() {
    let mut wrong = Vec::new();
    for mac in &MACS {
        let (bytes, both) = most(mac);
        // Something is left for what isn't counted.
        let fits = bytes as f64 <= 0.95 * mac.gpu_bytes() as f64;
        if mac.most.abs_diff(bytes) > 50_000_000 || both != mac.both || !fits {
            wrong.push(format!("{mac}: {:.2} GB, both experts: {both}", bytes as f64 / 1e9));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_readme_has_the_table() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    for mac in &MACS {
        assert!(readme.contains(&mac.to_string()), "README.md lacks: {mac}");
    }
}
