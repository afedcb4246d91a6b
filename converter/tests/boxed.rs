//! Hostile files in a box: the seeds of `fuzz/`, each opened by the program with little memory and
//! little time. Whatever they claim, the program ends with one sentence.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Kilobytes of address space; the program itself takes most of it.
const MEMORY: u64 = 512 << 10;
const TIME: Duration = Duration::from_secs(10);

fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Runs the program with a limit that Linux knows.
fn boxed(args: &[&str]) -> Output {
    let limit =
        if cfg!(target_os = "linux") { format!("ulimit -v {MEMORY}; ") } else { String::new() };
    let begun = Instant::now();
    let output = Command::new("sh")
        .args(["-c", &format!("{limit}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_to-gguf")])
        .args(args)
        .output()
        .unwrap();
    assert!(begun.elapsed() < TIME, "{args:?} took {:?}", begun.elapsed());
    let message = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        Some(2) => {
            assert!(message.starts_with("error: ") && !message.contains("panicked"), "{message}")
        }
        other => panic!("{args:?}: {other:?}: {message}"),
    }
    output
}

#[test]
fn hostile_headers_end_in_a_sentence() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in seeds("gguf_reader") {
        let output = boxed(&["inspect", seed.to_str().unwrap()]);
        *(if output.status.success() { &mut accepted } else { &mut refused }) += 1;
    }
    assert!(accepted > 5 && refused > 100, "{accepted} accepted, {refused} refused");
}

#[test]
fn hostile_sources_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (out, mut refused) = (folder.path().join("out"), 0);
    for (target, extension) in
        [("gguf_reader", "gguf"), ("safetensors_reader", "safetensors"), ("requantize", "gguf")]
    {
        for seed in seeds(target) {
            let source = folder.path().join(format!("source.{extension}"));
            fs::copy(&seed, &source).unwrap();
            let output = boxed(&[
                source.to_str().unwrap(),
                "-o",
                out.to_str().unwrap(),
                "-q",
                "Q8_0",
                "--threads",
                "1",
            ]);
            if output.status.success() {
                fs::remove_dir_all(&out).unwrap();
            } else {
                refused += 1;
                assert!(!out.exists(), "{}", seed.display());
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
