//! `gguf-video preflight`: whether this device computes this model right, at this size.

use super::args::{Asked, DeviceArgs, ModelArgs, VideoArgs, open};
use super::bars::Bars;
use super::{Failure, print};
use crate::judge::{Expectations, Judge, Motion};
use crate::output::Frame;
use crate::pipeline::preflight::{Preflight, Report, Reports};
use crate::pipeline::{Home, Machine, ModelFile, ModelFolder, Request, model_files};
use anyhow::anyhow;

const EXAMPLES: &str = "\
Examples:
  gguf-video preflight --model models/demo --size 64x64 --frames 5
  gguf-video preflight --model models/demo --size 64x64 --frames 5 --again --json

Exit codes: 0 right; 1 failed on the way; 2 the request can't be fulfilled; 3 wrong; 130 interrupted";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What the tiny video should show
    #[arg(long, short, default_value = "a red ball rolls over green grass in the sun")]
    prompt: String,
    /// Look again, even if the same was looked at before
    #[arg(long)]
    again: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    video: VideoArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Asked { folder, request, .. } = open(&args.model, &args.video, Some(0))?;
    let request = Request { prompt: args.prompt.clone(), ..request };
    request.check_prompts().map_err(Failure::request)?;
    let machine = args.device.machine().map_err(Failure::request)?;
    let home = Home::find();
    let mut bars = Bars::new(false).map_err(Failure::run)?;
    let files = model_files(&folder, &request, &home, &mut bars).map_err(Failure::hashing)?;
    let reports = Reports::of(&home, &machine, &request, &files);
    let report = match reports.known().filter(|_| !args.again) {
        Some(report) => report,
        None => look(&machine, &folder, &request, &files, &reports, &mut bars)?,
    };
    drop(bars);
    if args.json {
        print(&format!("{:#}", serde_json::to_value(&report).expect("plain data")))?;
    } else {
        print(&text(&report))?;
    }
    verdict(&report)
}

/// A report that fails is a failure.
pub(super) fn verdict(report: &Report) -> Result<(), Failure> {
    if report.passed {
        return Ok(());
    }
    let faults = report.faults().join("\n  ");
    let error = anyhow!(
        "the preflight failed:\n  {faults}\n{} computes this model wrong at {}x{}; a video made there would be worthless. Try another device (--device cpu is slow and right), update the system and this program, and report it with `gguf-video preflight --json`",
        report.device,
        report.width,
        report.height
    );
    Err(Failure { error: Some(error), code: Failure::JUDGED })
}

/// Does the work, and keeps the report.
pub(super) fn look(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    files: &[ModelFile],
    reports: &Reports,
    bars: &mut Bars,
) -> Result<Report, Failure> {
    let preflight = Preflight {
        machine,
        folder,
        request,
        model: files.iter().map(|f| (f.part.clone(), f.blake3.clone())).collect(),
        judge: &mut judge,
        prepare: &mut |_| {},
    };
    let report = preflight.run(bars).map_err(Failure::generation)?;
    reports.keep(&report);
    Ok(report)
}

/// What is wrong with the tiny video. It stands still for what it is: five frames.
fn judge(frames: &[Frame]) -> Vec<String> {
    let mut judge = Judge::new(Expectations { motion: Motion::Still });
    frames.iter().for_each(|frame| judge.push(frame));
    let verdict = judge.finish();
    let failures = verdict.findings.iter().filter(|finding| finding.failure);
    failures.map(ToString::to_string).collect()
}

/// A few lines for people.
fn text(report: &Report) -> String {
    let mut lines = vec![format!(
        "{} at {}x{}, {} frames, {:.0} s:",
        report.device, report.width, report.height, report.frames, report.seconds
    )];
    let tiny = if report.tiny.is_empty() { "ok" } else { "FAILED" };
    lines.push(format!("  {tiny:<8}a tiny video, judged by its frames"));
    let width = report.comparisons.iter().map(|c| c.what.chars().count()).max().unwrap_or(0);
    for c in &report.comparisons {
        let state = if c.passed { "ok" } else { "FAILED" };
        lines.push(format!(
            "  {state:<8}{:<width$}  error {:.1e}, rounding explains {:.1e}",
            c.what, c.error, c.explained
        ));
    }
    if let Some(most) = report.activations.iter().max_by(|a, b| a.largest.total_cmp(&b.largest)) {
        lines.push(format!(
            "  largest activation: {:.0} at `{}` of {} (F16 ends at 65504)",
            most.largest, most.place, most.block
        ));
    }
    lines.extend(report.warnings().iter().map(|w| format!("  warning: {w}")));
    lines.join("\n")
}
