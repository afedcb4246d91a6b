//! gguf-video: text to video with open models on ggml.
pub mod ggml;
pub mod models;
pub mod nn;
