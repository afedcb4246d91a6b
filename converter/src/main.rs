//! The program `to-gguf`: reads the command line, runs, and turns the outcome into an exit code.

use std::io::{ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;
use to_gguf::Interrupted;
use to_gguf::cli::{self, Args};

/// Exit code where what was checked isn't as it should be.
const WRONG: u8 = 1;
/// Exit code after the user's mistake or a failure; clap uses the same one.
const FAILED: u8 = 2;
/// What shells report for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let outcome = cli::run(Args::typed()).and_then(|outcome| {
        match write!(stdout(), "{outcome}") {
            // A reader that has seen enough is no failure.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(outcome.fine),
        }
    });
    let error = match outcome {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(WRONG),
        Err(error) => error,
    };
    let code = if error.is::<Interrupted>() { INTERRUPTED } else { FAILED };
    // If even this can't be written, the exit code is all that is left to say.
    let _ = writeln!(stderr(), "error: {}", cli::plain(&format!("{error:#}")));
    ExitCode::from(code)
}
