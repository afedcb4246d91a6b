//! gguf-video: text to video with open models on ggml.
pub mod ggml;
