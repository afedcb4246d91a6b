//! Compiles ggml's Metal encoder, which is plain C++, with our null device beneath it.
//!
//! Of the Objective-C half only the table of chips and the functions that say which operations a
//! device supports are wanted: they are plain C, and are cut out of their file.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// ggml's files as they are.
const ENCODER: [&str; 6] = [
    "ggml-metal.cpp",
    "ggml-metal-ops.cpp",
    "ggml-metal-device.cpp",
    "ggml-metal-common.cpp",
    "ggml-metal-fusion.cpp",
    "ggml-metal-tuning.cpp",
];

/// First lines of what is cut out of `ggml-metal-device.m`, each up to the next line that begins
/// with a closing brace.
const PLAIN_C: [&str; 5] = [
    "k_metal_devices[] = {",
    "static enum ggml_metal_device_id ggml_metal_device_id_parse(",
    "const char * ggml_metal_device_id_token(",
    "static bool ggml_metal_supports_mul_mat_op(",
    "bool ggml_metal_device_supports_op(",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/null.cpp");
    if env::var("CARGO_CFG_TARGET_OS").expect("set by cargo") == "macos" {
        return;
    }
    let source = PathBuf::from(env::var("DEP_GGML_SOURCE").expect("ggml-sys tells it")).join("src");
    let (metal, out) =
        (source.join("ggml-metal"), PathBuf::from(env::var("OUT_DIR").expect("cargo")));

    let device = fs::read_to_string(metal.join("ggml-metal-device.m")).expect("ggml's source");
    let cut: Vec<String> = PLAIN_C.iter().map(|first| piece(&device, first)).collect();
    fs::write(out.join("plain-c.inc"), cut.join("\n")).expect("OUT_DIR is writable");
    fs::write(out.join("kernels.txt"), kernels(&metal.join("kernels")))
        .expect("OUT_DIR is writable");
    // What ggml's own build would write.
    let version = "#define GGML_VERSION \"\"\n#define GGML_COMMIT \"\"\n";
    fs::write(out.join("ggml-version.h"), version).expect("OUT_DIR is writable");

    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).opt_level(1).define("_GNU_SOURCE", None);
    // One of the files relies on an include that only Apple's library makes for it.
    build.flag("-include").flag("memory");
    for folder in [&out, &source.join("../include"), &source, &metal] {
        build.include(folder);
    }
    build.files(ENCODER.iter().map(|file| metal.join(file))).file("src/null.cpp");
    build.compile("null-metal");
}

/// The definition in `text` that begins with the line that contains `first`.
fn piece(text: &str, first: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.iter().position(|line| line.contains(first) && !line.ends_with(';'));
    let end = found.expect(first);
    // A table's type stands on the lines before it.
    let begin = (0..=end).rev().find(|&i| !lines[i].starts_with([' ', '}'])).expect("a first line");
    let rest = lines[end + 1..].iter().position(|line| line.starts_with('}')).expect("a last line");
    lines[begin..=end + 1 + rest].join("\n") + "\n"
}

/// Names of all kernels in ggml's Metal sources, a line each.
fn kernels(folder: &Path) -> String {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("ggml's kernels") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
        for part in text.split("host_name(\"").skip(1) {
            names.extend(part.split('"').next().map(str::to_owned));
        }
        for part in text.split("kernel void ").skip(1) {
            let end =
                part.find(|c: char| !c.is_alphanumeric() && c != '_').expect("an argument list");
            names.push(part[..end].to_owned());
        }
    }
    names.sort();
    names.dedup();
    assert!(names.len() > 500, "only {} kernels were found", names.len());
    names.join("\n")
}
