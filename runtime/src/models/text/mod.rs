//! Text encoders.

mod umt5;

pub use umt5::Umt5Encoder;
