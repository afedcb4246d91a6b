//! Raw bindings to ggml, generated from the headers of the source that `build.rs` compiles.
//! Everything safe stands in the crates above.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, reason = "C's names")]
#![allow(unsafe_code, clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated code")]
include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// The package that ggml's source came from, with its version, or `GGML_SOURCE_DIR`.
pub const SOURCE: &str = env!("GGML_SOURCE");
