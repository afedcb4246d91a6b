//! Memory is bounded whatever the model's size. Alone in its program, for the operating system
//! tells only the most that any child took.

mod support;

use nix::sys::resource::{UsageWho, getrusage};
use std::process::Command;
use support::{Checkpoint, Wan};

#[test]
fn a_large_model_takes_little_memory() {
    let checkpoint = Checkpoint::without_transformers();
    checkpoint.single();
    // Matrices of the real size, 3.7 GB of them in all.
    let wan = Wan { layers: 2, ..Wan::A14B };
    checkpoint.sparse_transformer("transformer", wan);
    let output = Command::new(env!("CARGO_BIN_EXE_to-gguf"))
        .arg(checkpoint.path())
        .arg("-o")
        .arg(checkpoint.output())
        .args(["--quant", "Q8_0", "--threads", "16"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // Linux counts kilobytes, macOS bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1 << 10 };
    let megabytes = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() * unit / (1 << 20);
    assert!(megabytes < 500, "{megabytes} MB");
}
