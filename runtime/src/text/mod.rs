//! From a prompt to token ids: the cleaning the reference pipelines apply, then the tokenizer.
mod clean;
mod html;

pub use clean::clean;
