//! ggml's Metal backend without a GPU.
//!
//! ggml's encoder for Metal is plain C++: which kernel an operation gets, what it demands of its
//! operands, how large the grid is. Here it runs unchanged on any machine, above a device that
//! computes nothing ([`register`]); graphs run on it as on a Mac, and [`take_report`] says what
//! would have been dispatched, how long that would take about, and what is wrong with it.
//!
//! It proves that every operation is supported, that no check of the encoder fails (ggml ends the
//! process there), that the kernels exist, and that no dispatch and no submission is long. It
//! proves nothing about numbers, for no kernel runs, nor about the Objective-C half of the backend.
#![cfg(not(target_os = "macos"))]
#![warn(missing_docs)]
#![allow(unsafe_code, reason = "calls ggml and is called by it")]

mod chip;
mod cost;
mod planted;
mod recorder;

pub use chip::{Chip, M1_MAX, M5_MAX};
pub use planted::{Planted, run_planted};
pub use recorder::{Longest, Report, Violation, register, take_report};
