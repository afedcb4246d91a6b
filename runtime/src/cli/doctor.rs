//! `gguf-video doctor`: what to send with a report of a failure.

use super::{Failure, print};
use crate::doctor::{Backends, Disk, Program, Report, SelfTest, System};
use crate::pipeline::choose_device;
use anyhow::anyhow;
use std::fmt::Display;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  gguf-video doctor
  gguf-video doctor --device cpu --disk models --json

Exit codes: 0 every op computes right; 1 one doesn't; 2 there is no such device";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The device to test: auto, cpu, metal, cuda, vulkan, or a name that `gguf-video devices` prints
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The folder whose disk is measured, such as the model's [default: the current one]
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    disk: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let device = choose_device(&args.device).map_err(Failure::request)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    // Each part is shown when it is known: what comes later may end the process.
    let show = |part: &dyn Display| {
        if args.json { Ok(()) } else { print(part.to_string().trim_end()) }
    };
    let (program, system) = (Program::read(), System::read());
    show(&program)?;
    show(&system)?;
    let backends = Backends::examine(threads);
    show(&backends)?;
    let disk = Disk::examine(&args.disk);
    match &disk {
        Ok(disk) => show(disk)?,
        Err(error) => show(&format!("disk      can't be measured: {error}"))?,
    }
    show(&SelfTest::heading(&device.name()))?;
    let mut shown = Ok(());
    let self_test = SelfTest::run(device, threads, &mut |op| {
        if shown.is_ok() {
            shown = show(op);
        }
    });
    shown?;
    show(&self_test)?;
    // Text has the verdict as its last line; beside JSON it is said where errors are.
    let failure = (!self_test.passed)
        .then(|| Failure { error: args.json.then(|| anyhow!("{self_test}")), code: Failure::RUN });
    let (disk, disk_error) = match disk {
        Ok(disk) => (Some(disk), None),
        Err(error) => (None, Some(error.to_string())),
    };
    if args.json {
        let report = Report { program, system, backends, disk, disk_error, self_test };
        print(&serde_json::to_string_pretty(&report).expect("names and numbers"))?;
    }
    failure.map_or(Ok(()), Err)
}
