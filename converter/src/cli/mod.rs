//! The command line as it is typed, and the checked jobs that come of it.

mod bar;
mod convert;
mod json;
mod tools;

use anyhow::{Context, Result};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  to-gguf demo/checkpoint -o models/demo --quant Q8_0
  to-gguf demo/checkpoint -o models/small --target-size 4MB --dry-run

Exit codes: 0 done; 1 a tool found something wrong or different; 2 not done, for the reason that \
the error says; 130 interrupted";
const INSPECT: &str = "\
Examples:
  to-gguf inspect models/demo/VAE/demo-VAE-F32.gguf
  to-gguf inspect models/demo/VAE/demo-VAE-F32.gguf --json";
const CHECK: &str = "\
Examples:
  to-gguf check models/demo/HighNoise/demo-HighNoise-Q8_0.gguf
  to-gguf check models/demo/VAE/demo-VAE-F32.gguf --for ours,sdcpp

Exit codes: 0 all of them can; 1 one can't; 2 it couldn't be checked";
const DIFF: &str = "\
Examples:
  to-gguf diff demo-F16.gguf demo-Q8_0.gguf
  to-gguf diff in.gguf out.gguf && echo the same tensors

Exit codes: 0 the same tensors; 1 other ones; 2 they couldn't be compared";
const VERIFY: &str = "\
Examples:
  to-gguf demo/checkpoint -o published --quant Q8_0 --publish
  to-gguf verify published

Exit codes: 0 all is as it should be; 1 something isn't; 2 it couldn't be checked";
const REWRAP: &str = "\
Examples:
  to-gguf rewrap in.gguf -o out.gguf --layout fold4d
  to-gguf rewrap in.gguf -o out.gguf --set general.name=\"my model\"";

/// Convert video models to GGUF files, and inspect, compare and rewrap such files.
///
/// Reads checkpoints in diffusers layout, files in original names, GGUF files: Wan transformers, the
/// UMT5 text encoder with its tokenizer, the VAE. Each goes to a file of its own. Pickles aren't read.
/// Of HunyuanVideo 1.5 in diffusers layout it makes the transformer and the VAE for other programs.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
pub struct Args {
    #[command(subcommand)]
    tool: Option<Tool>,

    #[command(flatten)]
    convert: Option<convert::Args>,

    /// Print nothing but warnings, errors and what --json asks for
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Show what a GGUF file holds: metadata, types, tensors
    #[command(after_help = INSPECT)]
    Inspect(tools::Inspect),
    /// Tell whether programs can load a GGUF file, and if not, why
    #[command(after_help = CHECK)]
    Check(tools::Check),
    /// Compare two GGUF files: types, and errors tensor by tensor, the largest first
    #[command(after_help = DIFF)]
    Diff(tools::Diff),
    /// Check a published folder: hashes, and the structure of every file
    #[command(after_help = VERIFY)]
    Verify(tools::Verify),
    /// Write a GGUF file anew with another layout or other metadata; tensors keep their bytes
    #[command(after_help = REWRAP)]
    Rewrap(tools::Rewrap),
    /// Write man pages and shell completions below a prefix, as `script/install` does
    #[command(hide = true)]
    Pages {
        /// Such as /usr/local
        prefix: PathBuf,
    },
}

impl Args {
    /// What was typed. Ends the program where that can't be understood, or asks for help.
    pub fn typed() -> Self {
        Self::try_parse().unwrap_or_else(|error| explained(error).exit())
    }
}

/// Clap takes the second of two sources for a tool, and the name of no tool for a source.
fn explained(error: clap::Error) -> clap::Error {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(extra)) if error.kind() == ErrorKind::ArgumentConflict => {
            let said = format!(
                "unexpected argument '{extra}': there is one source at a time, and the tools are \
                 inspect, check, diff, verify and rewrap, which stand before all options"
            );
            Args::command().error(ErrorKind::UnknownArgument, said)
        }
        _ => error,
    }
}

/// What a command has to say, and whether all is well.
pub struct Outcome {
    text: String,
    /// Whether it was asked for by --json, and --quiet leaves it.
    wanted: bool,
    /// What of it --quiet leaves otherwise, on standard error.
    warnings: Vec<String>,
    /// Whether what was checked is as it should be.
    pub fine: bool,
}

impl Outcome {
    fn fine(text: impl ToString) -> Self {
        Self { text: text.to_string(), fine: true, wanted: false, warnings: Vec::new() }
    }

    fn json(value: &serde_json::Value, fine: bool) -> Self {
        let escaped = |c: char| match c {
            '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", c as u32),
            _ => c.to_string(),
        };
        // Within strings, the only ones that serde leaves and a terminal obeys.
        let text = format!("{value:#}\n").chars().map(escaped).collect();
        Self { text, fine, wanted: true, warnings: Vec::new() }
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
#[expect(clippy::print_stderr, reason = "this is where the program speaks to its user")]
pub fn run(args: Args) -> Result<Outcome> {
    let quiet = args.quiet;
    let mut outcome = command(args)?;
    if quiet && !outcome.wanted {
        outcome.text.clear();
        outcome.warnings.iter().for_each(|warning| eprintln!("warning: {}", plain(warning)));
    }
    Ok(outcome)
}

fn command(args: Args) -> Result<Outcome> {
    match (args.tool, args.convert) {
        (Some(Tool::Inspect(args)), _) => tools::inspect(args),
        (Some(Tool::Check(args)), _) => tools::check(args),
        (Some(Tool::Diff(args)), _) => tools::diff(args),
        (Some(Tool::Verify(args)), _) => tools::verify(args),
        (Some(Tool::Rewrap(args)), _) => tools::rewrap(args),
        (Some(Tool::Pages { prefix }), _) => {
            manual::write(Args::command(), &prefix)
                .with_context(|| prefix.display().to_string())?;
            Ok(Outcome::fine(""))
        }
        (None, Some(convert)) => convert::run(convert, args.quiet),
        (None, None) => unreachable!("clap asks for one of them"),
    }
}
