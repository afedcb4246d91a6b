//! `gguf-video doctor`: what a report of a failure needs to say about the machine, and whether the
//! machine computes right.
//!
//! [`Report`] is what `--json` prints: its fields are the keys. Nothing in it names a user or a
//! folder.

mod cases;
mod compare;
mod devices;
mod disk;
mod ops;
mod private;
mod system;
mod text;

pub use compare::Difference;
pub use devices::{Backend, Backends, Device, Features, Memory, Rates};
pub use disk::{Disk, DiskError};
pub use ops::{Op, Outcome, SelfTest};
pub use system::{Program, System};

use serde::Serialize;

/// Everything that `doctor` finds out. Keys stay as they are; new ones may come.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was built, and of which ggml.
    pub program: Program,
    /// What it runs on.
    pub system: System,
    /// What can compute here. In JSON, its keys stand among those of the report.
    #[serde(flatten)]
    pub backends: Backends,
    /// Where a video or a model would lie; nothing, with `disk_error`, if it couldn't be tested.
    pub disk: Option<Disk>,
    /// What couldn't be done there, and the system's reason.
    pub disk_error: Option<String>,
    /// Whether the device that was asked for computes right.
    pub self_test: SelfTest,
}
