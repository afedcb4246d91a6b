//! The command line as it is typed, and the checked jobs that come of it.

mod bar;
mod convert;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::borrow::Cow;
use std::fmt;

/// Convert video models to GGUF files, and inspect, compare and rewrap such files.
///
/// Reads checkpoints in diffusers layout, files in original names, GGUF files: Wan transformers, the
/// UMT5 text encoder with its tokenizer, the VAE. Each goes to a file of its own. Pickles aren't read.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    tool: Option<Tool>,

    #[command(flatten)]
    convert: Option<convert::Args>,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Show what a GGUF file holds: metadata, types, tensors
    Inspect(tools::Inspect),
    /// Tell whether programs can load a GGUF file, and if not, why
    Check(tools::Check),
    /// Compare two GGUF files: types, and errors tensor by tensor, the largest first
    Diff(tools::Diff),
    /// Check a published folder: hashes, and the structure of every file
    Verify(tools::Verify),
    /// Write a GGUF file anew with another layout or other metadata; tensors keep their bytes
    Rewrap(tools::Rewrap),
}

/// What a command has to say, and whether all is well.
pub struct Outcome {
    text: String,
    /// Whether what was checked is as it should be.
    pub fine: bool,
}

impl Outcome {
    fn fine(text: impl ToString) -> Self {
        Self { text: text.to_string(), fine: true }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.text))
    }
}

/// `text` as a terminal may have it: names and values come from files that others made, and what
/// would move the cursor or change the title is shown as it is written.
pub fn plain(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !['\n', '\t'].contains(&c);
    if !text.contains(steers) {
        return text.into();
    }
    let shown = |c: char| if steers(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect::<String>().into()
}

/// Does what the command line says.
///
/// # Errors
/// As [`crate::convert`] and the functions in [`crate::tools`], and if an option's value can't be
/// used.
pub fn run(args: Args) -> Result<Outcome> {
    match (args.tool, args.convert) {
        (Some(Tool::Inspect(args)), _) => tools::inspect(args),
        (Some(Tool::Check(args)), _) => tools::check(args),
        (Some(Tool::Diff(args)), _) => tools::diff(args),
        (Some(Tool::Verify(args)), _) => tools::verify(args),
        (Some(Tool::Rewrap(args)), _) => tools::rewrap(args),
        (None, Some(args)) => convert::run(args),
        (None, None) => unreachable!("clap asks for one of them"),
    }
}
