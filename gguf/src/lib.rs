//! The GGUF file format: a strict reader, [`File`], and a streaming writer, [`Writer`].
//!
//! A GGUF file holds named tensors and what a program must know to use them, in one file that can be
//! mapped into memory and used in place. All integers are little endian. From the first byte on:
//!
//! | part | content |
//! |---|---|
//! | magic, version | the bytes `GGUF`, then a `u32`: 2 or 3 (they differ only in that 3 may be big endian) |
//! | counts | `u64` number of tensors, `u64` number of metadata entries |
//! | metadata | one entry after another: key, `u32` value type, value |
//! | tensor infos | name, `u32` number of dimensions, that many `u64` dimensions, `u32` [`DType`] id, `u64` offset |
//! | padding | zeros up to a multiple of the alignment |
//! | data | the tensors in the order of their infos, each padded to a multiple of the alignment |
//!
//! A string is a `u64` byte length and UTF-8 without a terminator. An array is a `u32` element type, a
//! `u64` number of elements, then the elements; the format also knows arrays of arrays, which no model
//! uses and this crate refuses. A bool is one byte, 0 or 1.
//!
//! Dimensions are stored innermost first. [`Tensor::shape`] and [`TensorSpec::shape`] are the other way
//! round, outermost first as PyTorch prints them; only this crate sees the stored order. The innermost
//! dimension is the row: a quantized [`DType`] packs [`DType::block_len`] neighbours of a row into
//! [`DType::block_bytes`] bytes, so a row is a whole number of blocks.
//!
//! Offsets in the file count from the start of the data part. [`Tensor::offset`] counts from the start
//! of the file. The alignment is 32, or the value of the metadata key `general.alignment`.
//!
//! # Trust
//!
//! A model file is a download, so [`File::open`] trusts no number in it: each length is compared with
//! the bytes that are left before anything is allocated, sums and products are checked, and every
//! tensor's bytes are known to lie inside the file before the first one is handed out. The data part
//! must be as a writer leaves it, without holes or overlaps. Accepted beyond that are bytes after the
//! last tensor and absent padding there, for both occur in shared files and harm nobody.
//!
//! # Five dimensions
//!
//! ggml's own reader stops at four dimensions. The kernels of 3-D convolutions have five, and the video
//! models in circulation store them so; this crate reads and writes one to five. Readers that step in
//! for ggml's there can't parse array metadata, so [`Writer::create`] refuses the two together.
//!
//! # Example
//!
//! ```
//! use gguf::{DType, File, Metadata, TensorSpec, Writer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.gguf");
//! let mut metadata = Metadata::new();
//! metadata.set("general.architecture", "wan").set("wan.expert", "high_noise");
//! let bias = TensorSpec { name: "head.bias".into(), shape: vec![2], dtype: DType::F32 };
//!
//! let mut writer = Writer::create(&path, &metadata, vec![bias])?;
//! writer.write(&1.0f32.to_le_bytes())?;
//! writer.write(&2.0f32.to_le_bytes())?;
//! writer.finish()?;
//!
//! let file = File::open(&path)?;
//! assert_eq!(file.metadata().string("wan.expert")?, "high_noise");
//! let bias = file.tensor("head.bias").expect("it was just written");
//! assert_eq!(file.data(bias)[4..], 2.0f32.to_le_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! The reference for the format is `docs/gguf.md` in the ggml repository.

#![warn(missing_docs)]

#[cfg(unix)]
mod cut_short;
mod dtype;
mod error;
mod file;
mod header;
mod metadata;
mod tensor;
mod value;
mod writer;

#[cfg(unix)]
pub use cut_short::say_when_cut_short;
pub use dtype::{DType, UnknownDType};
pub use error::{Defect, Error, Subject};
pub use file::File;
pub use metadata::{Metadata, MetadataError};
pub use tensor::{Tensor, TensorSpec};
pub use value::{Array, Value};
pub use writer::Writer;
