//! Published folders, and conversions that go on after an interruption.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use support::{Checkpoint, Wan};
use to_gguf::tools::verify;
use to_gguf::{Job, Part, Silent, convert};

#[test]
fn a_published_folder_is_whole_and_verifies() {
    let checkpoint = Checkpoint::tiny();
    fs::write(checkpoint.file("README.md"), "---\nlicense: apache-2.0\n---\n").unwrap();
    let job = Job { publish: true, ..checkpoint.job("Q8_0,Q4_K_M") };
    convert(&job, &mut Silent).unwrap();
    let names: Vec<String> = {
        let mut names: Vec<_> = checkpoint
            .written()
            .iter()
            .map(|path| path.strip_prefix(&job.output).unwrap().display().to_string())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names,
        [
            "HighNoise/Tiny-HighNoise-Q4_K_M.gguf",
            "HighNoise/Tiny-HighNoise-Q8_0.gguf",
            "LowNoise/Tiny-LowNoise-Q4_K_M.gguf",
            "LowNoise/Tiny-LowNoise-Q8_0.gguf",
            "README.md",
            "SHA256SUMS",
            "TextEncoder/Tiny-umt5-Q4_K_M.gguf",
            "TextEncoder/Tiny-umt5-Q8_0.gguf",
            "VAE/Tiny-VAE-F32.gguf",
            "VAE/Tiny-VAE.safetensors",
        ]
    );
    let card = fs::read_to_string(job.output.join("README.md")).unwrap();
    for part in [
        "---\nlicense: apache-2.0\nbase_model: Wan-AI/Wan2.2-T2V-A14B-Diffusers\n",
        "| `HighNoise/Tiny-HighNoise-Q4_K_M.gguf` | 0.00 GB |",
        "--high-noise-diffusion-model HighNoise/Tiny-HighNoise-",
        "config=\"Wan-AI/Wan2.2-T2V-A14B-Diffusers\", subfolder=\"transformer_2\"",
        "--vae VAE/Tiny-VAE.safetensors",
        "gguf-video run --model . \\\n  --high-noise HighNoise/Tiny-HighNoise-",
    ] {
        assert!(card.contains(part), "{part:?} is not in: {card}");
    }
    assert_eq!(verify(&job.output).unwrap(), (8, vec![]));
    let ours =
        Command::new("sha256sum").arg("-c").arg("SHA256SUMS").current_dir(&job.output).output();
    // Not every system has it.
    if let Ok(output) = ours {
        assert!(output.status.success(), "{output:?}");
    }

    // The VAE in original names, in the type of its source.
    let (tensors, bytes) =
        (support::vae_tensors(), fs::read(job.output.join("VAE/Tiny-VAE.safetensors")).unwrap());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), tensors.len());
    for tensor in tensors {
        let found = file.tensor(&tensor.name).unwrap();
        assert_eq!(found.dtype(), safetensors::Dtype::BF16);
        assert_eq!(found.shape().iter().map(|&n| n as u64).collect::<Vec<_>>(), tensor.shape);
        let values = found
            .data()
            .chunks(2)
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16));
        assert!(values.eq(tensor.values("BF16")), "{}", tensor.name);
    }

    let damaged = job.output.join("LowNoise/Tiny-LowNoise-Q8_0.gguf");
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    fs::remove_file(job.output.join("VAE/Tiny-VAE.safetensors")).unwrap();
    fs::write(job.output.join("extra.gguf"), "GGUF").unwrap();
    let (count, problems) = verify(&job.output).unwrap();
    assert_eq!(count, 9);
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(text[0].starts_with("LowNoise/Tiny-LowNoise-Q8_0.gguf: its hash is"), "{text:?}");
    assert!(text[1].starts_with("VAE/Tiny-VAE.safetensors: missing"), "{text:?}");
    assert!(text[2].starts_with("extra.gguf: SHA256SUMS doesn't list it"), "{text:?}");
    fs::write(job.output.join("SHA256SUMS"), format!("{}  ../x\n", "0".repeat(64))).unwrap();
    let error = format!("{:#}", verify(&job.output).unwrap_err());
    assert!(error.contains("not below the folder"), "{error}");
}

#[test]
fn the_card_of_one_transformer_names_it_as_such() {
    let checkpoint = Checkpoint::without_transformers();
    checkpoint.single();
    checkpoint.transformer("transformer", Wan::TINY, 1);
    let job = Job { publish: true, ..checkpoint.job("Q8_0,Q4_K_M") };
    convert(&job, &mut Silent).unwrap();
    let card = fs::read_to_string(job.output.join("README.md")).unwrap();
    assert!(card.contains("gguf-video run --model . \\\n  --transformer Tiny-"), "{card}");
}

#[test]
fn the_card_after_an_interruption_is_whole() {
    let checkpoint = Checkpoint::tiny();
    let job = Job { resume: true, publish: true, ..checkpoint.job("Q8_0") };
    convert(&job, &mut Silent).unwrap();
    let report = convert(&job, &mut Silent).unwrap();
    assert_eq!(report.continued.len(), 4);
    let card = fs::read_to_string(job.output.join("README.md")).unwrap();
    for part in [
        "base_model: Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "--high-noise-diffusion-model HighNoise/Tiny-HighNoise-Q8_0.gguf",
        "--vae VAE/Tiny-VAE.safetensors",
    ] {
        assert!(card.contains(part), "{part:?} is not in: {card}");
    }
}

#[test]
fn a_licence_that_is_given_is_the_only_one() {
    let checkpoint = Checkpoint::tiny();
    let front = "---\nlicense: other\nlicense_name: mine\nlicense_link: https://x.org\n---\n";
    fs::write(checkpoint.file("README.md"), front).unwrap();
    let job = checkpoint.job("Q8_0");
    convert(&job, &mut Silent).unwrap();
    let source = job.output.join("HighNoise/Tiny-HighNoise-Q8_0.gguf");
    let license = |job: &Job| {
        let report = convert(job, &mut Silent).unwrap();
        let file = gguf::File::open(&report.files[0].path).unwrap();
        let license = file.metadata().iter().filter(|(key, _)| key.starts_with("general.license"));
        license.map(|(key, _)| key.to_owned()).collect::<Vec<_>>()
    };
    let output = checkpoint.path().join("again");
    let again = Job::new(&source, &output, &["Q4_0".parse().unwrap()]);
    assert_eq!(license(&again).len(), 3);
    let again = Job { license: Some("mit".into()), force: true, ..again };
    assert_eq!(license(&again).len(), 1);
}

#[test]
fn a_conversion_continues_at_the_first_missing_file() {
    let checkpoint = Checkpoint::tiny();
    let job = Job { resume: true, ..checkpoint.job("Q8_0") };
    convert(&job, &mut Silent).unwrap();
    let high = job.output.join("HighNoise/Tiny-HighNoise-Q8_0.gguf");
    let low = job.output.join("LowNoise/Tiny-LowNoise-Q8_0.gguf");
    let before = fs::read(&low).unwrap();
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let stamp = time(&high);
    // One is gone, one is another's, one is cut off.
    fs::remove_file(&low).unwrap();
    fs::copy(&high, job.output.join("TextEncoder/Tiny-umt5-Q8_0.gguf")).unwrap();
    let vae = job.output.join("VAE/Tiny-VAE-F32.gguf");
    let bytes = fs::read(&vae).unwrap();
    fs::write(&vae, &bytes[..bytes.len() - 100]).unwrap();
    let report = convert(&job, &mut Silent).unwrap();
    assert_eq!(report.continued, [(Part::HighNoise, high.clone())]);
    assert_eq!(report.files.len(), 3);
    assert_eq!(time(&high), stamp);
    assert!(fs::read(&low).unwrap() == before);
    assert!(fs::read(&vae).unwrap() == bytes);
}
