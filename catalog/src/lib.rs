//! The models of the Wan family, in one place: what each is called and sampled with ([`VARIANTS`]),
//! which tensors it consists of ([`wan`], [`wan_vae`], [`umt5`], [`clip`]), and what a file is that
//! does not say it itself ([`recognize`]). And HunyuanVideo 1.5, which is converted for other programs
//! ([`hunyuan_video15`], [`hunyuan_video15_vae`]).
//!
//! The same weights are shared under two sets of names: those of the original code, which GGUF files
//! have, and those of diffusers and transformers. A table names every tensor whole, in both, with its
//! shape. So nothing is renamed by accident, and what a file holds beyond its table is an error.
//!
//! ```
//! use catalog::{Given, recognize};
//! use std::path::Path;
//!
//! // Two tensors are no model, and the error says which.
//! let shapes = [("decoder.conv1.weight", vec![384, 16, 3, 3, 3]), ("conv2.weight", vec![16, 16, 1, 1, 1])];
//! let tensors = shapes.iter().map(|(name, shape)| (*name, shape.as_slice()));
//! let given = Given::new(Path::new("wan_2.1_vae.safetensors"), tensors);
//! let error = recognize(&given, None).unwrap_err();
//! assert!(error.to_string().contains("\"encoder.conv1.weight\" is missing"));
//! ```

#![warn(missing_docs)]

mod adapter_metadata;
pub mod clip;
mod error;
mod given;
pub mod hunyuan_video15;
pub mod hunyuan_video15_vae;
pub mod lora;
mod recognize;
mod table;
pub mod umt5;
mod variant;
pub mod wan;
pub mod wan_vae;

pub use error::Error;
pub use given::{Given, Matched, ShapesFrom};
pub use recognize::{Recognized, expert_named, recognize};
pub use table::{Family, Naming, Part, Role, Wanted, joined};
pub use variant::{Images, VARIANTS, Variant};
