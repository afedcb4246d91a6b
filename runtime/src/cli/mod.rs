//! The command line: what was typed, and what it means. Nothing below this folder knows clap.

mod args;
mod awake;
mod bars;
mod devices;
mod doctor;
mod imatrix;
mod make;
mod models;
mod plan;
mod preflight;
mod resume;
mod run;
mod runs;
mod verify;

use crate::pipeline::{GenerateError, HashError};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes videos with open models from GGUF files.
#[derive(Parser)]
#[command(
    name = "gguf-video",
    version,
    long_version = version(),
    arg_required_else_help = true,
    after_help = run::EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print warnings, errors and results, but nothing on the way to them
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a video from a prompt
    Run(Box<run::Args>),
    /// Say what a run would take: memory, disk and time
    Plan(Box<plan::Args>),
    /// Check that the device computes the model right, at the size of the video
    Preflight(Box<preflight::Args>),
    /// Go on with a run that was interrupted, killed, or failed
    Resume(resume::Args),
    /// List the runs whose steps are kept, or remove them
    Runs(runs::Args),
    /// Judge a finished video: is it one, or noise?
    Verify(verify::Args),
    /// List the models that there are, and what each is made with
    Models(models::Args),
    /// List the devices that can compute
    Devices(devices::Args),
    /// Describe this machine and test whether it computes right, for a report of a failure
    Doctor(doctor::Args),
    /// Write man pages and shell completions below a prefix, as `script/install` does
    #[command(hide = true)]
    Pages {
        /// Such as /usr/local
        prefix: PathBuf,
    },
}

/// What a report should say: the program's version, ggml's, and the backends that need no library.
fn version() -> String {
    let (ggml, source) = crate::ggml::version();
    let metal = cfg!(all(target_os = "macos", feature = "metal"));
    format!(
        "{}\nggml {ggml} ({source})\nbackends built in: {}",
        env!("CARGO_PKG_VERSION"),
        if metal { "CPU, Metal" } else { "CPU" }
    )
}

/// What a user is told whose model file shrinks while it is in use.
#[cfg(unix)]
const CUT_SHORT: &str = "gguf-video: a model file was cut short, or its disk failed, while it was in use. \
    Every step so far is kept: put the file back, then `gguf-video resume`";

/// Runs the command; errors are printed here and nowhere else.
pub fn main(cli: Cli) -> ExitCode {
    #[cfg(unix)]
    if let Err(e) = gguf::say_when_cut_short(CUT_SHORT) {
        warn(&format!("warning: no message if a model file is cut short: {e}"));
    }
    QUIET.store(cli.quiet, Ordering::Relaxed);
    let done = match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Plan(args) => plan::run(&args),
        Command::Preflight(args) => preflight::run(&args),
        Command::Resume(args) => resume::run(args),
        Command::Runs(args) => runs::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Pages { prefix } => manual::write(Cli::command(), &prefix)
            .with_context(|| prefix.display().to_string())
            .map_err(Failure::run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(error) = &failure.error {
                warn(&format!("gguf-video: {error:#}"));
            }
            failure.code.into()
        }
    }
}

/// `text` as a terminal may have it: names, prompts and values come from files that others made, and
/// what would move the cursor or change the title is shown as it is written.
fn plain(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !['\n', '\t'].contains(&c);
    if !text.contains(steers) {
        return text.into();
    }
    let shown = |c: char| if steers(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect::<String>().into()
}

/// Whether `--quiet` was given, which holds for all that the program does.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Tells on stderr what happens: people want to know, scripts don't.
#[expect(clippy::print_stderr, reason = "this is where the program speaks to its user")]
fn say(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        eprintln!("{}", plain(text));
    }
}

/// Tells on stderr what a user has to know.
#[expect(clippy::print_stderr, reason = "this is where the program speaks to its user")]
fn warn(text: &str) {
    eprintln!("{}", plain(text));
}

/// Prints a command's result, and a newline. A reader that has seen enough is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(plain(text).as_bytes()).and_then(|()| out.write_all(b"\n")) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output").map_err(Failure::run),
    }
}

/// Why the program ends without having done what it was asked for.
struct Failure {
    error: Option<anyhow::Error>,
    code: u8,
}

impl Failure {
    /// The request can't be fulfilled as it is: nothing has been computed.
    const REQUEST: u8 = 2;
    /// Something failed on the way.
    const RUN: u8 = 1;
    /// What was computed is wrong: a preflight, or a video, failed.
    const JUDGED: u8 = 3;
    /// Ctrl-C, as shells report it.
    const INTERRUPTED: u8 = 130;

    fn request(error: impl Into<anyhow::Error>) -> Self {
        Self { error: Some(error.into()), code: Self::REQUEST }
    }

    fn hashing(error: HashError) -> Self {
        match error {
            HashError::Interrupted => Self { error: None, code: Self::INTERRUPTED },
            error => Self::request(error),
        }
    }

    fn generation(error: GenerateError) -> Self {
        match error {
            error if error.is_interruption() => Self { error: None, code: Self::INTERRUPTED },
            error => Self::run(error),
        }
    }

    fn run(error: impl Into<anyhow::Error>) -> Self {
        Self { error: Some(error.into()), code: Self::RUN }
    }
}
