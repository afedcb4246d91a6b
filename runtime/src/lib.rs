//! Makes videos from GGUF model files.

pub mod pipeline;
pub mod text;
