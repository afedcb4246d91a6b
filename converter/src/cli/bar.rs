//! Shows how far a conversion is, and carries Ctrl-C into it.

use indicatif::{ProgressBar, ProgressStyle};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Progress;

/// A progress bar on standard error, for each file anew. Nothing is drawn if that is no terminal, or if
/// the bar is to be quiet.
pub(super) struct Bar {
    stop: Arc<AtomicBool>,
    quiet: bool,
    bar: ProgressBar,
}

impl Bar {
    /// Once `stop` is true, the conversion ends.
    pub(super) fn new(stop: Arc<AtomicBool>, quiet: bool) -> Self {
        Self { stop, quiet, bar: ProgressBar::hidden() }
    }
}

impl Progress for Bar {
    fn begin(&mut self, file: &Path, bytes: u64) {
        let template = "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template).expect("a valid template");
        self.bar.finish_and_clear();
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(bytes) };
        self.bar = bar.with_style(style).with_message(name(file));
    }

    fn advance(&mut self, bytes: u64) -> ControlFlow<()> {
        self.bar.inc(bytes);
        if self.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}
