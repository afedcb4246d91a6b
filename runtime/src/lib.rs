//! gguf-video: videos of prompts and images with open models, on ggml.
//!
//! Arrows point one way, and a test holds them to it:
//!
//! `cli` → [`pipeline`] → [`models`] → [`nn`] → [`ggml`] → `ggml-sys`, with [`text`],
//! [`image`] and [`judge`] → [`output`] beside the pipeline, and [`doctor`] beside the models.
//!
//! - [`pipeline`]: a request to frames: noise, schedule, sampler, the denoising loop.
//! - [`models`]: text and image encoder, transformer and VAE, after their reference files.
//! - [`nn`]: layers that models share.
//! - [`ggml`]: the safe layer over ggml, and the only `unsafe` code.
//! - [`text`]: prompt cleaning and the tokenizer.
//! - [`image`]: image files as a model sees them.
//! - [`judge`]: whether frames are a video, or noise.
//! - [`output`]: frames to files, and back.
//! - [`doctor`]: what the machine is, and whether it computes right.
//! - `os`: sleep, caches and settings, as each operating system has them.

#![warn(missing_docs)]

pub mod cli;
pub mod doctor;
pub mod ggml;
pub mod image;
pub mod judge;
pub mod models;
pub mod nn;
mod os;
pub mod output;
pub mod pipeline;
pub mod text;
