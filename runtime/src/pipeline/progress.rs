//! What a run tells about itself while it goes on.

use std::ops::ControlFlow;

/// A part of a run with a length of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Load,
    Encode,
    Denoise { steps: usize },
    Decode { frames: usize },
}

/// Receives progress, and may end the run between two pieces of work.
pub trait Progress {
    /// `stage` begins, and will take `ticks` ticks.
    fn begin(&mut self, stage: Stage, ticks: u64);

    /// One more piece of work is done. `Break` interrupts the run.
    fn tick(&mut self) -> ControlFlow<()>;

    /// Step `step` (from 0) of the denoising has begun.
    fn step(&mut self, step: usize);
}

/// `progress` as what a model calls.
pub(super) fn ticker(progress: &mut dyn Progress) -> impl FnMut() -> ControlFlow<()> + '_ {
    || progress.tick()
}

/// Nobody looks.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: Stage, _: u64) {}

    fn tick(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn step(&mut self, _: usize) {}
}
