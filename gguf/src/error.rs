//! What can be wrong with a file that is read or written, with the facts to find the place.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::dtype::DType;

/// Why a file could not be read or written. The reason is the error's `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "open", "write".
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file being read is not a GGUF file this crate accepts.
    #[error("{}: bad {subject} at byte {offset}", path.display())]
    Malformed {
        /// The file being read.
        path: PathBuf,
        /// Where the faulty part begins, in bytes from the start of the file.
        offset: u64,
        /// What is faulty.
        subject: Subject,
        /// What is wrong with it.
        source: Defect,
    },
    /// The file to be written would not be a GGUF file that readers accept.
    #[error("{}: cannot write {subject}", path.display())]
    Refused {
        /// The file to be written.
        path: PathBuf,
        /// What is faulty.
        subject: Subject,
        /// What is wrong with it.
        source: Defect,
    },
}

/// The part of a file that an [`Error`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The header as a whole, or an entry whose name isn't known yet.
    Header,
    /// The metadata entry with this key.
    Key(String),
    /// The tensor with this name.
    Tensor(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Header => write!(f, "header"),
            Subject::Key(key) => write!(f, "metadata key {key:?}"),
            Subject::Tensor(name) => write!(f, "tensor {name:?}"),
        }
    }
}

/// What is wrong with a part of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum Defect {
    #[error("it begins with the bytes {0:02x?}, not with \"GGUF\"")]
    Magic([u8; 4]),
    #[error("the file is big endian; only little endian files are supported")]
    BigEndian,
    #[error("version {0} is not supported, only 2 and 3 are")]
    Version(u32),
    #[error("{needed} bytes are needed, the file has {left} more")]
    Truncated { needed: u64, left: u64 },
    #[error("{count} {what} cannot fit in the {left} bytes left")]
    Count { what: &'static str, count: u64, left: u64 },
    #[error("the header is longer than {limit} bytes")]
    HeaderLength { limit: u64 },
    #[error("a string is not UTF-8")]
    Utf8,
    #[error("the name is empty")]
    EmptyName,
    #[error("the name has {length} bytes, more than {limit}")]
    NameLength { length: u64, limit: u64 },
    #[error("the name contains {0:?}")]
    NameCharacter(char),
    #[error("the name occurs twice")]
    Duplicate,
    #[error("value type {0} is unknown")]
    ValueType(u32),
    #[error("arrays of arrays are not supported")]
    NestedArray,
    #[error("a bool is {0}, not 0 or 1")]
    Bool(u8),
    #[error("the alignment must be a u32, not {found}")]
    AlignmentType { found: &'static str },
    #[error("the alignment must be a power of two from 8 to 65536, not {0}")]
    Alignment(u32),
    #[error("files are written with an alignment of 32; leave the key out")]
    ForeignAlignment,
    #[error("it has {0} dimensions, not 1 to 5")]
    Dimensions(u64),
    #[error("a dimension is 0")]
    ZeroDimension,
    #[error("its size overflows 63 bits")]
    Overflow,
    #[error("element type {0} is unknown")]
    DType(u32),
    #[error("its rows of {row} elements are not a multiple of the {} elements in a {dtype} block",
        dtype.block_len())]
    Row { row: u64, dtype: DType },
    #[error("its offset {offset} is not a multiple of the alignment {alignment}")]
    OffsetAlignment { offset: u64, alignment: u64 },
    #[error("its offset is {found}, but the tensors before it end at {expected}")]
    OffsetOrder { found: u64, expected: u64 },
    #[error(
        "its {bytes} bytes end at byte {end}, but the file ends at byte {file_bytes}; download it again"
    )]
    Data { bytes: u64, end: u64, file_bytes: u64 },
    #[error("some readers cannot load an array beside a tensor of five dimensions ({tensor:?})")]
    ArrayBesideFiveDimensions { tensor: String },
    #[error("only {written} of its {bytes} bytes were written")]
    Unfinished { written: u64, bytes: u64 },
}
