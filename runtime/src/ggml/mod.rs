//! The safe layer over ggml, and the only folder of this crate with `unsafe`.
//!
//! | type             | owns                                    | lives                        |
//! |------------------|-----------------------------------------|------------------------------|
//! | [`Device`]       | nothing: a handle into ggml's registry  | the program (`Copy`)         |
//! | [`Weights`]      | the mapped file, derived layouts        | until the last [`Param`]     |
//! | [`DeviceTensor`] | one buffer on the device                | until its last clone         |
//! | [`Executor`]     | one backend, its compute buffer         | the pipeline                 |
//! | [`Graph`]        | one computation's nodes                 | one [`Executor`] call        |
//! | [`Tensor`]       | nothing: a node of a [`Graph`]          | `'g` (`Copy`)                |
//!
//! One executor owns one backend: a node that it can't run is an error that names the model's
//! line, never a quiet move to another device. After each graph it waits, and asks again whether
//! all went well: a backend may report success for what then failed. What has to survive from one graph to the next
//! (residual stream, cross-attention keys, the VAE's cache) is a [`DeviceTensor`], written with
//! [`Graph::write`].
//!
//! A tensor can't leave the run that made it:
//! ```compile_fail
//! # use gguf_video::ggml::*;
//! # fn f(exec: &mut Executor, x: &HostTensor) {
//! let mut stolen = None;
//! exec.compute(|g| { let y = g.input(x); stolen = Some(y); y });
//! # }
//! ```
//! The result of an op can't be dropped in silence:
//! ```compile_fail
//! # #![deny(unused_must_use)]
//! # use gguf_video::ggml::*;
//! # fn f(exec: &mut Executor, x: &HostTensor) {
//! exec.compute(|g| { let y = g.input(x); y.silu(); y }).unwrap();
//! # }
//! ```
//! Two runs can't share an executor at once:
//! ```compile_fail
//! # use gguf_video::ggml::*;
//! # fn f(exec: &mut Executor, x: &HostTensor) {
//! exec.compute(|g| { let _ = exec.compute(|h| h.input(x)); g.input(x) });
//! # }
//! ```
#![allow(unsafe_code, reason = "the one folder that calls ggml")]

mod adapter;
mod backends;
mod calibrate;
mod device;
mod dry;
mod executor;
#[cfg(feature = "faults")]
mod fault;
mod graph;
mod host;
mod log;
mod ops;
mod optimize;
mod plugins;
mod probe;
mod shape;
mod state;
mod table;
mod usage;
mod weights;
mod work;

pub use adapter::{Adapter, Adapters, Change, Matrix, Source};
pub use backends::{Backend, commit, version};
pub use device::{Capacity, Device, Family};
pub use executor::{ComputeError, Done, Executor};
#[cfg(feature = "faults")]
pub use fault::{Fault, Planted};
pub use graph::{Graph, Operand, Precision, Tensor};
pub use host::HostTensor;
pub use log::notes;
pub use ops::{Kernel, conv3d, patch_order};
pub use plugins::refused_backends;
pub use shape::Shape;
pub use state::{DeviceTensor, Storage};
pub use usage::Usage;
pub use weights::{LoadError, Param, Scope, Weights};
pub use work::{Limits, Rates, Work};
