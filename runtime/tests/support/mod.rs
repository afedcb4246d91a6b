//! The demo model, for tests that damage a model or a run of it.

use std::ops::ControlFlow;
use std::path::Path;
use tempfile::TempDir;

struct Quiet;

impl to_gguf::Progress for Quiet {
    fn begin(&mut self, _: &Path, _: u64) {}

    fn advance(&mut self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A folder with its files in Q8_0.
pub(crate) fn demo() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint");
    let quants = &["Q8_0".parse().unwrap()];
    let job = to_gguf::Job {
        name: "demo".into(),
        threads: 2,
        ..to_gguf::Job::new(&checkpoint, folder.path(), quants)
    };
    to_gguf::convert(&job, &mut Quiet).unwrap_or_else(|e| panic!("{e:#}"));
    folder
}
