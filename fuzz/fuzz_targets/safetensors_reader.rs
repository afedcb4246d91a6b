//! Any bytes are a source or an error. What is planned for a source fits what it holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::sync::LazyLock;
use tempfile::TempDir;
use to_gguf::{Job, Silent, convert};

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let source = FOLDER.path().join("fuzz.safetensors");
    fs::write(&source, bytes).unwrap();
    let quants = ["Q8_0".parse().unwrap()];
    let job = Job { dry_run: true, ..Job::new(source, FOLDER.path().join("out"), &quants) };
    let Ok(report) = convert(&job, &mut Silent) else { return };
    for file in report.files {
        let elements: u64 = file.tensors.iter().map(|tensor| tensor.elements).sum();
        assert!(elements <= bytes.len() as u64, "more weights than bytes");
    }
});
