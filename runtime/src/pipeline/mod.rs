//! From noise to latents: the schedule, the samplers and the noise they start from.

pub mod noise;
pub mod sampler;
pub mod schedule;
