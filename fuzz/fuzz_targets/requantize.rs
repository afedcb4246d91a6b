//! A GGUF file of any bytes is converted whole, or leaves nothing behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use tempfile::TempDir;
use to_gguf::{Job, Silent, convert};

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let source = FOLDER.path().join("fuzz.gguf");
    fs::write(&source, bytes).unwrap();
    let output = FOLDER.path().join("out");
    let quants = ["Q4_0".parse().unwrap()];
    let job = Job { force: true, ..Job::new(&source, &output, &quants) };
    match convert(&job, &mut Silent) {
        Ok(report) => {
            let before = gguf::File::open(&source).unwrap();
            for written in &report.files {
                let file = gguf::File::open(&written.path).unwrap();
                assert_eq!(file.tensors().len(), before.tensors().len());
                let mut values = Vec::new();
                for tensor in file.tensors() {
                    to_gguf::decode(tensor.dtype, file.data(tensor), &mut values);
                    assert_eq!(values.len() as u64, tensor.elements());
                    assert!(values.iter().all(|value| value.is_finite()), "{}", tensor.name);
                }
                fs::remove_file(&written.path).unwrap();
            }
        }
        Err(_) => assert!(files(&output).is_empty(), "{:?}", files(&output)),
    }
});

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
