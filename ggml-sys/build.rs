//! Builds ggml once into a cache, links it statically and binds its headers.
//!
//! Environment: `GGML_SOURCE_DIR` builds another ggml (a folder with `include/` and `src/`);
//! `GGML_CACHE_DIR` moves the cache; `GGML_NATIVE=OFF` builds for any machine of the target;
//! `GGML_BUILD=OFF` binds the headers and builds nothing, for `cargo check`, which never links.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, panic};

/// The crate whose package carries ggml's source; its version is pinned in Cargo.toml.
const CARRIER: &str = "llama-cpp-sys-2";

/// Apple's name for the oldest macOS that a build runs on; `.cargo/config.toml` gives the value.
const MINIMUM_MACOS: &str = "MACOSX_DEPLOYMENT_TARGET";

fn main() {
    for name in ["GGML_SOURCE_DIR", "GGML_CACHE_DIR", "GGML_NATIVE", "GGML_BUILD", "CC", "CXX"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-env-changed={MINIMUM_MACOS}");
    for file in ["build.rs", "CMakeLists.txt", "wrapper.h"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let (name, source) = source();
    // What this ggml is called in reports: a package of a registry knows no commit.
    println!("cargo:rustc-env=GGML_SOURCE={name}");
    let linked = env::var("GGML_BUILD").map_or(true, |value| value != "OFF");
    println!("cargo:source={}", source.display());
    bind(&source, linked);
    if linked {
        link(&build(&source));
    }
}

/// Where ggml's source comes from, and its folder.
fn source() -> (String, PathBuf) {
    if let Some(folder) = env::var_os("GGML_SOURCE_DIR") {
        return ("GGML_SOURCE_DIR".into(), folder.into());
    }
    let metadata = cargo_metadata::MetadataCommand::new()
        .exec()
        .unwrap_or_else(|e| stop(&format!("`cargo metadata` can't find ggml's source: {e}")));
    let package = metadata.packages.iter().find(|p| p.name == CARRIER);
    let package = package.unwrap_or_else(|| stop(&format!("no package {CARRIER}")));
    let folder = package.manifest_path.parent().expect("a manifest has a folder");
    (format!("{CARRIER} {}", package.version), folder.join("llama.cpp/ggml").into())
}

/// Builds ggml, or finds the build that an earlier run left; returns the folder of its libraries.
fn build(source: &Path) -> PathBuf {
    let target = env::var("TARGET").expect("set by cargo");
    let metal = metal();
    let minimum_macos = env::var(MINIMUM_MACOS).unwrap_or_default();
    let on = |yes: bool| if yes { "ON" } else { "OFF" };
    let native = env::var("GGML_NATIVE").unwrap_or_else(|_| on(target == host()).into());
    let mut flags = vec![
        ("GGML_SOURCE_DIR", source.to_str().expect("a UTF-8 path")),
        ("CMAKE_POSITION_INDEPENDENT_CODE", "ON"),
        ("BUILD_SHARED_LIBS", "OFF"),
        ("GGML_NATIVE", &native),
        ("GGML_LLAMAFILE", "ON"),
        ("GGML_OPENMP", "OFF"),
        ("GGML_BLAS", "OFF"),
        ("GGML_CCACHE", "OFF"),
        ("GGML_METAL", on(metal)),
        ("GGML_METAL_EMBED_LIBRARY", on(metal)),
    ];
    if macos() && !minimum_macos.is_empty() {
        flags.push(("CMAKE_OSX_DEPLOYMENT_TARGET", &minimum_macos));
    }
    if target.starts_with("aarch64") {
        // Its processors multiply and add in one step, without rounding between, and C compilers
        // use that where they like: the quantizers' bytes would differ from those of x86-64. The CPU
        // backend's own steps say in their code what they want.
        flags.push(("GGML_C_FLAGS", "-ffp-contract=off"));
    }
    let compilers = [version("CC", "cc"), version("CXX", "c++")];
    if compilers.iter().any(String::is_empty) {
        stop(
            "no C++ compiler: install one (Debian: `apt-get install g++`; macOS: `xcode-select --install`)",
        );
    }
    if version("CMAKE", "cmake").is_empty() {
        stop(
            "cmake is missing: install it (Debian: `apt-get install cmake`; macOS: `brew install cmake`)",
        );
    }

    let mut key = DefaultHasher::new();
    (&flags, &compilers, &target, include_str!("CMakeLists.txt")).hash(&mut key);
    let folder = cache().join(format!("ggml-{:016x}", key.finish()));
    fs::create_dir_all(&folder)
        .unwrap_or_else(|e| stop(&format!("{}: {e}; set GGML_CACHE_DIR", folder.display())));
    // Two cargo processes may come here at once; the second waits, and finds the work done.
    let lock = fs::File::create(folder.join("lock")).expect("the folder is ours");
    lock.lock().expect("a file lock");
    let (lib, done) = (folder.join("lib"), folder.join("done"));
    if !done.exists() {
        let mut cmake = cmake::Config::new(env!("CARGO_MANIFEST_DIR"));
        // Release in every cargo profile: an unoptimized ggml is of no use to anybody.
        cmake.profile("Release").out_dir(&folder).build_target("ggml");
        cmake.define("CMAKE_ARCHIVE_OUTPUT_DIRECTORY", &lib);
        for (name, value) in flags {
            match name {
                "GGML_C_FLAGS" => cmake.cflag(value),
                _ => cmake.define(name, value),
            };
        }
        cmake.build();
        fs::write(&done, "").expect("the folder is ours");
    }
    lib
}

fn link(lib: &Path) {
    let library = |kind: &str, name: &str| println!("cargo:rustc-link-lib={kind}={name}");
    println!("cargo:rustc-link-search=native={}", lib.display());
    // On Linux backends may come as libraries, and find all of ggml in the program that loads them.
    let all = if macos() { "static" } else { "static:+whole-archive" };
    library(all, "ggml");
    if metal() {
        library("static", "ggml-metal");
        for name in ["Foundation", "Metal", "MetalKit"] {
            library("framework", name);
        }
    }
    library("static", "ggml-cpu");
    library(all, "ggml-base");
    if macos() {
        // Not for BLAS, which is off: ggml-cpu adds and scales vectors with vDSP.
        library("framework", "Accelerate");
        library("dylib", "c++");
    } else {
        library("dylib", "stdc++");
        library("dylib", "m");
    }
}

/// Only what this project calls, so that an upgrade of ggml shows what it touches.
fn bind(source: &Path, linked: bool) {
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_arg(format!("-I{}", source.join("include").display()))
        // Backend interfaces: what ggml's own scheduler calls, and nothing public does.
        .clang_arg(format!("-I{}", source.join("src").display()))
        .allowlist_type("ggml_backend|ggml_backend_(buffer|buffer_type|graph_optimize_params)")
        .allowlist_function("ggml_(backend|gallocr|graph|build_forward|quantize|get|set|new)_.*")
        .allowlist_function(
            "ggml_(init|free|version|commit|nbytes|nelements|row_size|blck_size|type_size)",
        )
        .allowlist_function("ggml_(is_contiguous|is_contiguous_rows|can_repeat|tensor_overhead)")
        .allowlist_function("ggml_(used_mem|log_set|op_desc|op_name|type_name|get_mem_size)")
        .allowlist_function("ggml_(add|mul|scale_bias|sqr|sin|tanh|silu|gelu|gelu_erf)")
        .allowlist_function("ggml_(norm|rms_norm|soft_max_ext|sum_rows|mul_mat|get_rows|im2col_3d)")
        .allowlist_function("ggml_(flash_attn_ext|prec_set_acc|rope_ext|rope_set_offset)")
        .allowlist_function(
            "ggml_(reshape_4d|view_4d|permute|cont|cast|cpy|concat|pad_ext|repeat_4d)",
        )
        .allowlist_type("ggml_(type_traits|tensor_flag|backend_dev_caps|backend_dev_props)")
        .allowlist_type("ggml_backend_(feature|get_features_t)")
        .allowlist_var("GGML_(TYPE|STATUS|OP|PREC|BACKEND|LOG|MAX|ROPE_TYPE)_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(false);
    if !linked {
        // The target's C headers may be missing too: the host's stand in. What is bound here is the
        // same on every 64-bit target of Linux and macOS.
        builder = builder.clang_arg(format!("--target={}", host()));
    }
    // bindgen panics when libclang is missing.
    let bindings = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate())).unwrap_or_else(|_| {
        stop("libclang is missing: install it (Debian: `apt-get install libclang-dev`; macOS: `xcode-select --install`)")
    });
    let bindings = bindings.unwrap_or_else(|e| stop(&format!("binding ggml's headers: {e}")));
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("bindings.rs");
    bindings.write_to_file(out).expect("OUT_DIR is writable");
}

fn macos() -> bool {
    env::var("CARGO_CFG_TARGET_OS").expect("set by cargo") == "macos"
}

fn metal() -> bool {
    env::var_os("CARGO_FEATURE_METAL").is_some() && macos()
}

fn host() -> String {
    env::var("HOST").expect("set by cargo")
}

/// What a tool says of its version, empty if it can't be run.
fn version(variable: &str, default: &str) -> String {
    let tool = env::var(variable).unwrap_or_else(|_| default.into());
    let output = Command::new(tool).arg("--version").output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

fn cache() -> PathBuf {
    let home = || env::var_os("HOME").map(PathBuf::from);
    env::var_os("GGML_CACHE_DIR")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("XDG_CACHE_HOME")?).join("gguf-video")))
        .or_else(|| Some(home()?.join(".cache/gguf-video")))
        .unwrap_or_else(|| env::var_os("OUT_DIR").expect("set by cargo").into())
}

/// Ends the build with one sentence for the person who reads it.
#[expect(clippy::print_stderr, reason = "a build script speaks to a person there")]
fn stop(sentence: &str) -> ! {
    eprintln!("\nggml-sys: {sentence}\n");
    std::process::exit(1)
}
