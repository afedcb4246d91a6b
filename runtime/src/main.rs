//! The program; everything is in the library.
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    gguf_video::cli::main(gguf_video::cli::Cli::parse())
}
