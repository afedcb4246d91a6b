//! Lets backends that are loaded as libraries find ggml in this program, instead of a second one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").expect("set by cargo") == "linux" {
        println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=ggml_*");
        println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=gguf_*");
    }
}
