//! From a prompt to token ids: the cleaning the reference pipelines apply, then the tokenizer.

mod charsmap;
mod clean;
mod html;
mod tokenizer;

pub use clean::clean;
pub use tokenizer::{Tokenizer, TokenizerError};
