//! The command line: what was typed, and what it means. Nothing below this folder knows clap.

mod bars;
mod devices;
mod run;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Makes videos with open models from GGUF files.
#[derive(Parser)]
#[command(name = "gguf-video", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a video from a prompt
    Run(Box<run::Args>),
    /// List the devices that can compute
    Devices(devices::Args),
}

/// Runs the command; errors are printed here and nowhere else.
#[expect(clippy::print_stderr, reason = "this is where the program speaks to its user")]
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Devices(args) => devices::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(error) = &failure.error {
                eprintln!("gguf-video: {error:#}");
            }
            failure.code.into()
        }
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
    /// Ctrl-C, as shells report it.
    const INTERRUPTED: u8 = 130;

    fn request(error: impl Into<anyhow::Error>) -> Self {
        Self { error: Some(error.into()), code: Self::REQUEST }
    }

    fn run(error: impl Into<anyhow::Error>) -> Self {
        Self { error: Some(error.into()), code: Self::RUN }
    }
}
