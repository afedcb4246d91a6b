//! Makes videos from GGUF model files.

pub mod output;
pub mod pipeline;
pub mod text;
