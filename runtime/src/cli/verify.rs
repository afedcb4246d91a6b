//! `gguf-video verify`: judges a finished video.

use super::{Failure, print};
use crate::judge::{Expectations, Judge, Motion, Verdict, rounded};
use crate::output::{Contents, ReadError, read};
use serde_json::json;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  gguf-video verify ball.mp4
  gguf-video verify frames/ --still --json

Exit codes: 0 a video; 2 it can't be read; 3 the judge says that it is none";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The video: FILE.mp4 (H.264), FILE.y4m, or a folder of PNG images
    #[arg(value_name = "FILE|FRAMES")]
    path: PathBuf,
    /// A video that stands still is bad
    #[arg(long, conflicts_with = "still")]
    motion: bool,
    /// A video that stands still is what was wanted
    #[arg(long)]
    still: bool,
    /// Print JSON, with every metric of every frame
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let motion = match (args.motion, args.still) {
        (true, _) => Motion::Expected,
        (_, true) => Motion::Still,
        _ => Motion::Unknown,
    };
    let (contents, verdict) = judge(args, motion).map_err(Failure::request)?;
    let Contents { width, height, frames, .. } = contents;
    if args.json {
        let mut report = verdict.to_json();
        report["path"] = json!(args.path.display().to_string());
        report["width"] = json!(width);
        report["height"] = json!(height);
        print(&format!("{report:#}"))?;
    } else {
        let (path, name) = (args.path.display(), verdict.name());
        let mut said = vec![format!("{path}: {width}x{height}, {frames} frames: {name}")];
        said.extend(findings(&verdict));
        said.extend(table(&verdict));
        print(&said.join("\n"))?;
    }
    if verdict.passed() {
        return Ok(());
    }
    Err(Failure { error: None, code: Failure::JUDGED })
}

fn judge(args: &Args, motion: Motion) -> Result<(Contents, Verdict), ReadError> {
    let mut judge = Judge::new(Expectations { motion });
    let contents = read(&args.path, &mut |frame| judge.push(frame))?;
    judge.compressed(contents.bits_per_pixel());
    Ok((contents, judge.finish()))
}

/// A line for each finding, the word first that matters most.
pub(super) fn findings(verdict: &Verdict) -> impl Iterator<Item = String> + '_ {
    verdict
        .findings
        .iter()
        .map(|finding| format!("{}: {finding}", if finding.failure { "failed" } else { "warning" }))
}

/// Every metric: of the frames, then of the clip.
fn table(verdict: &Verdict) -> Vec<String> {
    let mut lines =
        vec![format!("\n{:<18}{:>10}{:>10}{:>10}", "of frames", "least", "mean", "most")];
    lines.extend(verdict.table().map(|(metric, values)| {
        let [low, mean, high] = values.map(rounded);
        format!("{metric:<18}{low:>10}{mean:>10}{high:>10}")
    }));
    lines.push("\nof the clip".into());
    let of_clip = |(metric, value)| format!("{metric:<18}{:>10}", rounded(value));
    lines.extend(verdict.clip.iter().map(of_clip));
    lines
}
