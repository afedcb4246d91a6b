//! Makes videos from GGUF model files.

pub mod text;
