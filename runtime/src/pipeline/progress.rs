//! What a run tells about itself while it goes on.

use std::ops::ControlFlow;

/// A part of a run with a length of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Model files are read once, to tell them from others later; ticks are bytes.
    Hash,
    /// Weights are copied to a device that can't use the mapped file; ticks are bytes.
    Load,
    /// One block and one chunk at full size, beside the CPU; nothing is counted.
    Preflight,
    /// The prompts; ticks are blocks of the text encoder.
    Encode,
    /// What the clip begins and ends with.
    EncodeImage,
    /// The steps; ticks are pieces of the transformers' blocks.
    Denoise {
        /// Of the whole run, also if it is resumed.
        steps: usize,
    },
    /// Latents to frames; ticks are stages of the VAE, for each frame that goes into one.
    Decode {
        /// Of the whole clip.
        frames: usize,
    },
}

/// Receives progress, and may end the run between two pieces of work.
pub trait Progress {
    /// `stage` begins, or goes on, with `done` of its `ticks` ticks behind it.
    fn begin(&mut self, stage: Stage, done: u64, ticks: u64);

    /// So many more ticks are done. `Break` interrupts the run.
    fn advance(&mut self, ticks: u64) -> ControlFlow<()>;

    /// Step `step` (from 0) of the denoising has begun.
    fn step(&mut self, step: usize);

    /// Something is odd, but not so odd that the run should end.
    fn warn(&mut self, message: &str);
}

/// `progress` as what a model calls.
pub(super) fn ticker(progress: &mut dyn Progress) -> impl FnMut() -> ControlFlow<()> + '_ {
    || progress.advance(1)
}

/// Nobody looks.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: Stage, _: u64, _: u64) {}

    fn advance(&mut self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn step(&mut self, _: usize) {}

    fn warn(&mut self, _: &str) {}
}
