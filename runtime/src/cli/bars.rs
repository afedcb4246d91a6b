//! Progress: bars on a terminal, a line a stage elsewhere, and lines of JSON for programs.

use super::{Failure, QUIET, print, say, warn};
use crate::pipeline::{Progress, Stage};
use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Shows one bar at a time on stderr, and hears Ctrl-C.
pub(super) struct Bars {
    bar: ProgressBar,
    stage: Stage,
    interrupted: Arc<AtomicBool>,
    terminal: bool,
    /// When the last event about progress was printed, if there are events.
    events: Option<Instant>,
}

/// Seconds between two events about progress.
const EVENTS: f64 = 1.0;

impl Bars {
    /// `json`: also prints an object a line on standard output, for each thing that happens.
    pub(super) fn new(json: bool) -> Result<Self, ctrlc::Error> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        ctrlc::set_handler(move || interrupt(&flag))?;
        let terminal = std::io::stderr().is_terminal();
        let (bar, stage, events) = (ProgressBar::hidden(), Stage::Load, json.then(Instant::now));
        Ok(Self { bar, stage, interrupted, terminal, events })
    }

    /// What happened, for programs.
    pub(super) fn event(&self, event: serde_json::Value) {
        if self.events.is_some() {
            // Whoever doesn't listen any more still gets a video.
            let _ = print(&event.to_string());
        }
    }

    /// There is nothing more to wait for.
    pub(super) fn hide(&mut self) {
        self.bar.finish_and_clear();
    }

    fn name(stage: Stage) -> &'static str {
        match stage {
            Stage::Hash => "hash",
            Stage::Load => "load",
            Stage::Preflight => "preflight",
            Stage::Encode => "encode",
            Stage::EncodeImage => "encode_image",
            Stage::Denoise { .. } => "denoise",
            Stage::Decode { .. } => "decode",
        }
    }

    fn label(stage: Stage) -> String {
        match stage {
            Stage::Hash => "check files".into(),
            Stage::Load => "load".into(),
            Stage::Preflight => "full size".into(),
            Stage::Encode => "encode".into(),
            Stage::EncodeImage => "image".into(),
            Stage::Denoise { steps } => format!("step 1/{steps}"),
            Stage::Decode { .. } => "decode".into(),
        }
    }
}

/// The first Ctrl-C lets the device finish the piece that it is at. Who can't wait for that says so once
/// more: what is kept of a run is whole at any moment. It is a kill, for an exit would run ggml's handlers
/// while its threads compute.
#[expect(clippy::print_stderr, reason = "this is where the program speaks to its user")]
fn interrupt(interrupted: &AtomicBool) {
    if !interrupted.swap(true, Ordering::Relaxed) {
        eprintln!("\ngguf-video: stopping after this piece of work; Ctrl-C again stops at once");
        return;
    }
    #[cfg(unix)]
    if rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .is_ok()
    {
        return;
    }
    std::process::exit(Failure::INTERRUPTED.into());
}

impl Progress for Bars {
    fn begin(&mut self, stage: Stage, done: u64, ticks: u64) {
        self.bar.finish_and_clear();
        self.stage = stage;
        self.event(
            json!({ "event": "stage", "stage": Self::name(stage), "done": done, "of": ticks }),
        );
        if !self.terminal && done == 0 {
            match stage {
                Stage::Hash => say(&format!("reading {} of model files", DecimalBytes(ticks))),
                Stage::Load => say(&format!("loading {}", DecimalBytes(ticks))),
                Stage::Preflight => say("comparing with the CPU at full size"),
                Stage::Encode => say("encoding the prompt"),
                Stage::EncodeImage => say("encoding the image"),
                Stage::Denoise { steps } => say(&format!("denoising in {steps} steps")),
                Stage::Decode { frames } => say(&format!("decoding {frames} frames")),
            }
        }
        let style = "{msg:>12} [{bar:32}] {percent:>3}% {elapsed}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a valid template");
        let quiet = QUIET.load(Ordering::Relaxed);
        let draw = if quiet { ProgressDrawTarget::hidden } else { ProgressDrawTarget::stderr };
        self.bar = ProgressBar::with_draw_target(Some(ticks), draw());
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.set_message(Self::label(stage));
        // Time left is reckoned from here on, not from the work of an earlier bar.
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.bar.tick();
    }

    fn advance(&mut self, ticks: u64) -> ControlFlow<()> {
        self.bar.inc(ticks);
        if let Some(last) = self.events
            && last.elapsed().as_secs_f64() >= EVENTS
        {
            let (done, of) = (self.bar.position(), self.bar.length());
            let stage = Self::name(self.stage);
            let left = self.bar.eta().as_secs();
            self.event(json!({
                "event": "progress", "stage": stage, "done": done, "of": of, "seconds_left": left,
            }));
            self.events = Some(Instant::now());
        }
        if self.interrupted.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn step(&mut self, step: usize) {
        if let Stage::Denoise { steps } = self.stage {
            self.event(json!({ "event": "step", "step": step + 1, "of": steps }));
            self.bar.set_message(format!("step {}/{steps}", step + 1));
        }
    }

    fn warn(&mut self, message: &str) {
        self.event(json!({ "event": "warning", "message": message }));
        self.bar.suspend(|| warn(&format!("warning: {message}")));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.hide();
    }
}
