//! From noise to latents: the schedule and the samplers.

pub mod sampler;
pub mod schedule;
