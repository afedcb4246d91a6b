//! `gguf-video runs`: what is kept of runs, and how to be rid of it.

use super::{Failure, print};
use crate::pipeline::Home;
use crate::pipeline::run_folder::{Listed, RunError, RunFolder, list};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  gguf-video runs
  gguf-video runs clean --unfinished --older-than 7";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print a JSON array instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Remove runs that ended with a video; videos themselves stay
    Clean {
        /// Unfinished runs as well
        #[arg(long)]
        unfinished: bool,
        /// Only those begun so many days ago, or more
        #[arg(long, value_name = "DAYS", default_value_t = 0, value_parser = days)]
        older_than: u32,
    },
}

fn days(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected a whole number of days".into())
}

fn state(run: &Listed) -> &'static str {
    match &run.outcome {
        _ if run.running => "running",
        Some(outcome) if outcome.passed => "finished",
        Some(_) => "failed the judge",
        None => "unfinished",
    }
}

/// Whether a run is old enough; one from the future, by a clock that jumped, is new, but not newer than
/// none.
fn older(run: &Listed, days: u32) -> bool {
    let begun = Timestamp::from_second(run.record.created as i64).unwrap_or(Timestamp::MIN);
    days == 0
        || Timestamp::now().duration_since(begun)
            >= SignedDuration::from_hours(24 * i64::from(days))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let home = Home::find();
    let runs = list(&home.runs()).map_err(Failure::run)?;
    if let Some(Command::Clean { unfinished, older_than }) = args.command {
        let doomed = |run: &&Listed| {
            !run.running && (unfinished || run.outcome.is_some()) && older(run, older_than)
        };
        let (mut count, mut bytes) = (0, 0);
        for run in runs.iter().filter(doomed) {
            match RunFolder::open(&run.path).and_then(RunFolder::remove) {
                // Somebody went on with it a moment ago.
                Err(RunError::Locked(_)) => continue,
                removed => removed.map_err(Failure::run)?,
            }
            (count, bytes) = (count + 1, bytes + run.bytes);
        }
        return print(&format!(
            "removed {count} of {} runs, {:.1} MB",
            runs.len(),
            bytes as f64 / 1e6
        ));
    }
    if args.json {
        let all: Vec<_> = runs
            .iter()
            .map(|run| {
                json!({
                    "path": run.path.display().to_string(),
                    "state": state(run),
                    "step": run.step,
                    "steps": run.record.request.steps,
                    "created": run.record.created,
                    "bytes": run.bytes,
                    "prompt": run.record.request.prompt,
                    "output": run.record.output.path.display().to_string(),
                })
            })
            .collect();
        return print(&format!("{:#}", serde_json::Value::from(all)));
    }
    if runs.is_empty() {
        return print(&format!("no runs in {}", home.runs().display()));
    }
    for run in &runs {
        let request = &run.record.request;
        let begun = Timestamp::from_second(run.record.created as i64).unwrap_or(Timestamp::MIN);
        print(&format!(
            "{}\n  {}, {}, step {} of {}, {}x{}, {} frames, {:.1} MB\n  {}",
            run.path.display(),
            begun.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M"),
            state(run),
            run.step,
            request.steps,
            request.width,
            request.height,
            request.frames,
            run.bytes as f64 / 1e6,
            request.prompt
        ))?;
    }
    Ok(())
}
