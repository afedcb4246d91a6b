//! Converts checkpoints of video models to GGUF files, and works on such files: the library behind
//! the program `to-gguf`.
//!
//! ```text
//! source/   safetensors, GGUF and JSON: tensor names, bytes as f32
//!    |
//! arch/     what the model must consist of: each tensor's names, shape and role, by the tables
//!    |      of the crate `catalog`; metadata (tokenizer.rs for the text encoder's)
//! lora, imatrix    what is added to weights; what weighs their errors
//!    |
//! recipe/   role, place and --quant -> element type
//!    |
//! plan      a model and all files that are made of one reading
//!    |
//! write     windows of a tensor -> quantize (ggml's blocks) -> gguf::Writer; measure
//!    |
//! report, publish  what was written; model card and hashes
//!
//! tools/    inspect, check, diff, verify, rewrap: on files that exist
//! ```
//!
//! Everything is checked before the first byte is written: every tensor of the source is either
//! known or an error, every expected one is there with its shape, the output files don't exist and
//! the disk has room. Memory is bounded by the window, whatever the model's size. The same input
//! gives the same bytes, whatever the number of threads.

#![warn(missing_docs)]

mod arch;
pub mod cli;
mod digest;
mod imatrix;
mod job;
mod lora;
mod measure;
mod plan;
mod publish;
mod quantize;
mod recipe;
mod report;
mod safetensors_file;
mod shape;
mod source;
mod tokenizer;
pub mod tools;
mod write;

pub use arch::Part;
pub use job::{Interrupted, Job, Progress, Silent, convert};
pub use lora::Lora;
pub use measure::TensorError;
pub use quantize::{QUANTIZED, decode, encode};
pub use recipe::{BadRule, Quant, Recipe, Rule, Types, UnknownQuant};
pub use report::{FileReport, Report, TensorReport};
pub use shape::Layout;
