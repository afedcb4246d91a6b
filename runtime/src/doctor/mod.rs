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
    pub program: Program,
    pub system: System,
    #[serde(flatten)]
    pub backends: Backends,
    /// Where a video or a model would lie; nothing, with `disk_error`, if it couldn't be tested.
    pub disk: Option<Disk>,
    pub disk_error: Option<String>,
    pub self_test: SelfTest,
}
