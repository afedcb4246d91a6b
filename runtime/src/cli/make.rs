//! What `run` and `resume` have in common: a planned video is made, judged and written, and its run
//! folder always says how far it came.

use super::bars::Bars;
use super::verify;
use super::{Failure, say, warn};
use crate::ggml::Family;
use crate::judge::Judge;
use crate::output::{ContactSheet, Frame, FrameSink, OutputError, Target, Video};
use crate::pipeline::run_folder::{Outcome, OutputRecord, RunFolder};
use crate::pipeline::{
    Calibration, Experts, Kept, Machine, ModelFile, ModelFolder, Plan, Progress, Request,
    free_space, generate, proposals,
};
use anyhow::{anyhow, bail, ensure};
use serde_json::json;
use std::path::Path;

/// Frames on a contact sheet.
const SHEET_COLUMNS: usize = 6;
/// Previews of a run that asked for no others.
const PREVIEWS: usize = 4;

/// A video that can be made.
pub(super) struct Job {
    pub(super) machine: Machine,
    pub(super) folder: ModelFolder,
    pub(super) request: Request,
    /// Steps, from 1.
    pub(super) previews: Vec<usize>,
    pub(super) plan: Plan,
}

impl Job {
    /// Says what will be done and what it takes; refuses what doesn't fit.
    pub(super) fn plan(
        machine: Machine,
        folder: ModelFolder,
        request: Request,
        calibration: &mut Calibration,
    ) -> anyhow::Result<Self> {
        let plan = Plan::new(&machine, &folder, &request, Some(calibration))?;
        let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone())?;
        let Request { width, height, frames, seed, .. } = request;
        say(&format!(
            "{}, {width}x{height}, {frames} frames, {}, seed {seed}",
            experts.config().variant,
            request.sampling()
        ));
        check_fit(&plan, &machine, &folder, &request)?;
        say(&plan.to_string());
        Ok(Self { machine, folder, request, previews: Vec::new(), plan })
    }
}

/// Refuses what a device has no room for, with the numbers, and says what would fit.
pub(super) fn check_fit(
    plan: &Plan,
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
) -> anyhow::Result<()> {
    let Some(part) = plan.too_large() else { return Ok(()) };
    let (gb, capacity) = (|bytes: u64| bytes as f64 / 1e9, part.device.capacity().total);
    let mut said = format!(
        "{} has {:.1} GB, the {} needs {:.1} GB:\n{plan}\n",
        part.device.name(),
        gb(capacity),
        part.name,
        gb(part.usage.total())
    );
    let proposals = proposals(machine, folder, request, plan)?;
    for (i, proposal) in proposals.iter().enumerate() {
        said += if i == 0 { "what would fit: " } else { ", or " };
        said += &proposal.to_string();
    }
    if proposals.is_empty() {
        said += "no smaller clip would fit";
    }
    if part.device.family() == Family::Metal {
        said += &format!(
            "\nmacOS lets the GPU use {:.1} GB of this Mac's memory; until the next start it may use more after `sudo sysctl iogpu.wired_limit_mb={}`, if there is so much",
            gb(capacity),
            part.usage.total().div_ceil(1 << 20)
        );
    }
    bail!(said)
}

/// Refuses to begin what the disk has no room to keep.
pub(super) fn check_disk(plan: &Plan, run: &Path) -> anyhow::Result<()> {
    let free = free_space(run).unwrap_or(u64::MAX);
    let mb = |bytes: u64| bytes.div_ceil(1_000_000);
    ensure!(
        free >= plan.kept,
        "{}: the disk has {} MB left, keeping the steps of this run takes {} MB; make room, or name another disk with --run-folder",
        run.display(),
        mb(free),
        mb(plan.kept)
    );
    Ok(())
}

/// `text` is `all`, `none` or numbers of steps with commas between them.
pub(super) fn parse_previews(text: Option<&str>, steps: usize) -> anyhow::Result<Vec<usize>> {
    match text {
        None => Ok((1..PREVIEWS + 1).map(|i| i * steps / (PREVIEWS + 1)).filter(|s| *s > 0).collect()),
        Some("all") => Ok((1..=steps).collect()),
        Some("none") => Ok(Vec::new()),
        Some(list) => list.split(',').map(|step| {
            let number = step.trim().parse().ok().filter(|n| (1..=steps).contains(n));
            number.ok_or_else(|| anyhow!(
                "--preview: `{step}` is none of the steps 1 to {steps}; expected such as 5,10,15, or all, or none"
            ))
        }).collect(),
    }
}

/// Where the frames will go, opened before anything is computed: a wrong path should not end hours.
pub(super) fn open_sinks(
    target: &Target,
    request: &Request,
    output: &OutputRecord,
) -> Result<Vec<Box<dyn FrameSink>>, OutputError> {
    let Request { width, height, frames, .. } = *request;
    let mut sinks = Vec::new();
    if let Some(path) = &output.contact_sheet {
        let sheet = ContactSheet::create(path, SHEET_COLUMNS, frames)?;
        sinks.push(Box::new(sheet) as Box<dyn FrameSink>);
    }
    sinks.push(target.open(Video { width, height, fps: output.fps, frames })?);
    Ok(sinks)
}

/// Makes the video of `run`, from where it stands.
pub(super) fn make(
    job: &Job,
    run: &RunFolder,
    mut sinks: Vec<Box<dyn FrameSink>>,
    calibration: &mut Calibration,
    mut bars: Bars,
) -> Result<(), Failure> {
    let (steps, output) = (job.request.steps, &run.record().output);
    let mut judge = Judge::default();
    let mut push = |frame: &Frame| {
        judge.push(frame);
        sinks.iter_mut().try_for_each(|sink| sink.push(frame))
    };
    let kept = Kept { run, previews: &job.previews };
    let keep_both = job.plan.keep_both;
    let (machine, folder, request) = (&job.machine, &job.folder, &job.request);
    let done = generate(machine, folder, request, keep_both, Some(&kept), &mut bars, &mut push);
    bars.hide();
    let resume = || format!("gguf-video resume {}", run.path().display());
    let timings = match done {
        Ok(timings) => timings,
        Err(e) if e.is_interruption() => {
            warn(&format!("gguf-video: interrupted; go on with: {}", resume()));
            return Err(Failure { error: None, code: Failure::INTERRUPTED });
        }
        Err(e) => {
            let error =
                anyhow!(e).context(format!("every step so far is in {}", run.path().display()));
            return Err(Failure::run(error));
        }
    };
    for sink in sinks {
        let kept = |e: OutputError| {
            anyhow!(e).context(format!("the latents are kept; try again with: {}", resume()))
        };
        FrameSink::finish(sink).map_err(|e| Failure::run(kept(e)))?;
    }
    let encode = timings.encode + timings.images + timings.image_encoder;
    let [encode, denoise, decode] =
        [encode, timings.denoise, timings.decode].map(|t| t.as_secs_f64());
    let mut step = String::new();
    // What was resumed did only a part of the work.
    if timings.whole {
        job.plan.teach(machine, &timings, calibration);
        step = format!(" ({:.2} s a step)", denoise / steps as f64);
    }
    say(&format!("encode {encode:.1} s, denoise {denoise:.1} s{step}, decode {decode:.1} s"));
    let verdict = judge.finish();
    let (passed, findings) = (verdict.passed(), verify::findings(&verdict).collect::<Vec<_>>());
    // A video that is none, or may be none, is never quiet.
    let tell = if verdict.findings.is_empty() { say } else { warn };
    findings.iter().for_each(|line| tell(line));
    let path = &output.path;
    bars.event(json!({ "event": "done", "output": path.display().to_string(), "passed": passed, "findings": findings }));
    let outcome = Outcome { passed, findings, output: path.clone() };
    if let Err(e) = run.finish(&outcome) {
        bars.warn(&e.to_string());
    }
    tell(&format!("wrote {}; the judge says: {}", path.display(), verdict.name()));
    if passed { Ok(()) } else { Err(Failure { error: None, code: Failure::JUDGED }) }
}

/// The files that a run was begun with are still the same.
pub(super) fn check_files(before: &[ModelFile], now: &[ModelFile]) -> anyhow::Result<()> {
    for (old, new) in before.iter().zip(now) {
        ensure!(
            (old.bytes, &old.blake3) == (new.bytes, &new.blake3),
            "{} isn't the file that the run was begun with: {} bytes with BLAKE3 {}, it was {} bytes with {}. Put the old file back, or begin a new run",
            new.path.display(),
            new.bytes,
            new.blake3,
            old.bytes,
            old.blake3
        );
    }
    Ok(())
}
