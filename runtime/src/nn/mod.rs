//! Layers shared by models: fields, `new` that checks every shape, `forward` that can't fail.

mod conv;
mod linear;
mod norm;

pub use conv::{CausalConv3d, Conv2d, History};
pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
