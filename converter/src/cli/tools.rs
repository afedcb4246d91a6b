//! The options of the tools.

use anyhow::{Result, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;

use super::convert::layout;
use super::{Outcome, json};
use crate::Layout;
use crate::tools::{self, Consumer};

#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    /// A GGUF file
    file: PathBuf,

    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn inspect(args: Inspect) -> Result<Outcome> {
    let inspection = tools::inspect(&args.file)?;
    if args.json {
        return Ok(Outcome::json(&serde_json::to_value(&inspection)?, true));
    }
    Ok(Outcome::fine(inspection))
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// A GGUF file
    file: PathBuf,

    /// The programs [default: all]
    #[arg(long = "for", value_name = "PROGRAM", value_delimiter = ',', value_parser = consumer())]
    consumers: Vec<Consumer>,

    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

fn consumer() -> impl TypedValueParser<Value = Consumer> {
    PossibleValuesParser::new(["comfyui", "sdcpp", "diffusers", "ours"])
        .map(|name| name.parse::<Consumer>().expect("a name of the list"))
}

pub(super) fn check(args: Check) -> Result<Outcome> {
    let consumers = if args.consumers.is_empty() { Consumer::ALL.to_vec() } else { args.consumers };
    let verdicts = tools::check(&args.file, &consumers)?;
    let fine = verdicts.iter().all(|verdict| verdict.problems.is_empty());
    if args.json {
        return Ok(Outcome::json(&json::verdicts(&verdicts), fine));
    }
    let text: String = verdicts.iter().map(ToString::to_string).collect();
    Ok(Outcome { fine, ..Outcome::fine(text) })
}

#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// A GGUF file
    a: PathBuf,

    /// Another one, whose errors from the first are measured
    b: PathBuf,

    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn diff(args: Diff) -> Result<Outcome> {
    let difference = tools::diff(&args.a, &args.b)?;
    let fine = difference.is_none();
    if args.json {
        return Ok(Outcome::json(&json::difference(&difference), fine));
    }
    Ok(Outcome { fine, ..Outcome::fine(difference) })
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// A folder with SHA256SUMS
    folder: PathBuf,

    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: Verify) -> Result<Outcome> {
    let (files, problems) = tools::verify(&args.folder)?;
    if args.json {
        return Ok(Outcome::json(&json::problems(files, &problems), problems.is_empty()));
    }
    let mut text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    text += &match problems.len() {
        0 => format!("{files} files, all as they should be\n"),
        wrong => format!("{files} files, {wrong} of them wrong\n"),
    };
    Ok(Outcome { fine: problems.is_empty(), ..Outcome::fine(text) })
}

#[derive(Debug, clap::Args)]
pub(super) struct Rewrap {
    /// A GGUF file
    file: PathBuf,

    /// The file to write
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// How kernels of 3-D convolutions are stored: 5d or fold4d [default: as they are]
    #[arg(long, value_parser = layout(), hide_possible_values = true)]
    layout: Option<Layout>,

    /// Put this before every tensor's name
    #[arg(long)]
    prefix: Option<String>,

    /// Take this off tensors' names that begin with it
    #[arg(long, value_name = "PREFIX")]
    strip: Option<String>,

    /// Set a metadata key
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,

    /// Leave a metadata key out
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,

    /// Replace a file that exists
    #[arg(long)]
    force: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn rewrap(args: Rewrap) -> Result<Outcome> {
    let Rewrap { file, output, layout, prefix, strip, set, unset, force } = args;
    let same = output
        .canonicalize()
        .is_ok_and(|output| file.canonicalize().is_ok_and(|file| file == output));
    ensure!(!same, "{}: the file can't be rewrapped into itself", file.display());
    let name = output.display().to_string();
    let options = tools::Rewrap { source: file, output, layout, prefix, strip, set, unset, force };
    let bytes = tools::rewrap(&options)?;
    Ok(Outcome::fine(format!("{name}: {:.2} MB\n", bytes as f64 / 1e6)))
}
