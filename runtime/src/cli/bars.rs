//! Progress bars on a terminal, a line a stage elsewhere.

use crate::pipeline::{Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shows one bar at a time on stderr, and hears Ctrl-C.
pub(super) struct Bars {
    bar: ProgressBar,
    stage: Stage,
    interrupted: Arc<AtomicBool>,
    terminal: bool,
}

impl Bars {
    pub(super) fn new() -> Result<Self, ctrlc::Error> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
        let terminal = std::io::stderr().is_terminal();
        Ok(Self { bar: ProgressBar::hidden(), stage: Stage::Load, interrupted, terminal })
    }

    fn label(stage: Stage) -> String {
        match stage {
            Stage::Hash => "check files".into(),
            Stage::Load => "load".into(),
            Stage::Preflight => "full size".into(),
            Stage::Encode => "encode".into(),
            Stage::Denoise { steps } => format!("step 1/{steps}"),
            Stage::Decode { .. } => "decode".into(),
        }
    }
}

impl Progress for Bars {
    #[expect(clippy::print_stderr, reason = "progress for people who read a log")]
    fn begin(&mut self, stage: Stage, done: u64, ticks: u64) {
        self.bar.finish_and_clear();
        self.stage = stage;
        if !self.terminal && done == 0 {
            match stage {
                Stage::Hash => eprintln!("reading {:.1} GB of model files", ticks as f64 / 1e9),
                Stage::Load => eprintln!("loading {:.1} GB", ticks as f64 / 1e9),
                Stage::Preflight => eprintln!("comparing with the CPU at full size"),
                Stage::Encode => eprintln!("encoding the prompt"),
                Stage::Denoise { steps } => eprintln!("denoising in {steps} steps"),
                Stage::Decode { frames } => eprintln!("decoding {frames} frames"),
            }
        }
        let style = "{msg:>12} [{bar:32}] {percent:>3}% {elapsed}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a valid template");
        self.bar = ProgressBar::with_draw_target(Some(ticks), ProgressDrawTarget::stderr());
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.set_message(Self::label(stage));
        // Time left is reckoned from here on, not from the work of an earlier bar.
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.bar.tick();
    }

    fn advance(&mut self, ticks: u64) -> ControlFlow<()> {
        self.bar.inc(ticks);
        if self.interrupted.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn step(&mut self, step: usize) {
        if let Stage::Denoise { steps } = self.stage {
            self.bar.set_message(format!("step {}/{steps}", step + 1));
        }
    }

    #[expect(clippy::print_stderr, reason = "warnings are for the user")]
    fn warn(&mut self, message: &str) {
        self.bar.suspend(|| eprintln!("warning: {message}"));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
