//! A GGUF file mapped into memory.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::Error;
use crate::header::Header;
use crate::metadata::Metadata;
use crate::tensor::{Tensor, tensor_bytes};

/// An open GGUF file: its metadata and tensor descriptions in memory of their own, its data mapped.
///
/// The file must not be truncated while it is open: touching data that is gone ends the process (with
/// a message, after [`crate::say_when_cut_short`]).
pub struct File {
    path: PathBuf,
    contents: Contents,
    version: u32,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
}

/// The bytes of a file.
enum Contents {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Contents {
    fn bytes(&self) -> &[u8] {
        match self {
            Contents::Mapped(mapping) => mapping,
            Contents::Owned(bytes) => bytes,
        }
    }
}

impl File {
    /// Opens the file and checks all of its header, and that the data it describes is there.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be opened or mapped, [`Error::Malformed`] at the first defect.
    pub fn open(path: impl AsRef<Path>) -> Result<File, Error> {
        let path = path.as_ref();
        let mapping = map(path).map_err(|source| Error::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        File::new(path, Contents::Mapped(mapping))
    }

    /// Reads a file that is in memory already; `name` stands for its path.
    ///
    /// # Errors
    /// [`Error::Malformed`] at the first defect.
    pub fn from_bytes(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<File, Error> {
        File::new(name.as_ref(), Contents::Owned(bytes))
    }

    /// Maps a file of another format: `describe` says what its bytes hold, after which it is read as a
    /// GGUF file would be.
    ///
    /// # Errors
    /// [`Error::Io`] as [`File::open`], and whatever `describe` returns.
    ///
    /// # Panics
    /// If what was described isn't a file's: see [`File::described`].
    pub fn foreign<E: From<Error>>(
        path: impl AsRef<Path>,
        describe: impl FnOnce(&[u8]) -> Result<(Metadata, Vec<Tensor>), E>,
    ) -> Result<File, E> {
        let path = path.as_ref().to_owned();
        let mapping = map(&path).map_err(|source| Error::Io {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let (metadata, tensors) = describe(&mapping)?;
        let contents = Contents::Mapped(mapping);
        let (nothing, by_name) = (Metadata::new(), HashMap::new());
        let file =
            File { path, contents, version: 3, metadata: nothing, tensors: Vec::new(), by_name };
        Ok(file.described(metadata, tensors))
    }

    /// The same bytes under other names: for files whose own say too little, or something else.
    ///
    /// # Panics
    /// If two tensors have one name, if a tensor's bytes aren't those of its shape and type, or if they
    /// aren't in the file.
    #[must_use]
    pub fn described(mut self, metadata: Metadata, tensors: Vec<Tensor>) -> File {
        let length = self.mapping().len() as u64;
        self.by_name.clear();
        for (index, tensor) in tensors.iter().enumerate() {
            let Tensor { name, shape, dtype, offset, bytes } = tensor;
            let right = tensor_bytes(shape, *dtype).is_ok_and(|wanted| wanted == *bytes);
            let inside = offset.checked_add(*bytes).is_some_and(|end| end <= length);
            assert!(right && inside, "{tensor:?} is no part of {length} bytes");
            assert!(self.by_name.insert(name.clone(), index).is_none(), "{name} is there twice");
        }
        (self.metadata, self.tensors) = (metadata, tensors);
        self
    }

    fn new(path: &Path, contents: Contents) -> Result<File, Error> {
        let header = Header::parse(contents.bytes()).map_err(|fault| Error::Malformed {
            path: path.to_owned(),
            offset: fault.offset,
            subject: fault.subject,
            source: fault.defect,
        })?;
        let Header { version, metadata, tensors, by_name } = header;
        Ok(File { path: path.to_owned(), contents, version, metadata, tensors, by_name })
    }

    /// The path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// The bytes of one of this file's tensors: little endian elements, or blocks, row by row.
    ///
    /// # Panics
    /// If `tensor` is not of this file and reaches beyond its end.
    pub fn data(&self, tensor: &Tensor) -> &[u8] {
        &self.mapping()[tensor.offset as usize..][..tensor.bytes as usize]
    }

    /// The whole file, header included; [`Tensor::offset`] counts from its start.
    pub fn mapping(&self) -> &[u8] {
        self.contents.bytes()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

#[allow(unsafe_code, reason = "a mapped file can change behind the language's back")]
fn map(path: &Path) -> std::io::Result<Mmap> {
    // Mapping a folder fails with whatever the system says of devices, and opening a pipe waits for somebody who
    // writes to it.
    let kind = fs::metadata(path)?;
    if kind.is_dir() {
        return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "is a directory"));
    }
    if !kind.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = fs::File::open(path)?;
    // SAFETY: The mapping is read-only and owned by `File`. Another process may still write to the
    // file: the header is copied out of the mapping before it is checked, and tensor data is handed out
    // as bytes of which every value is valid, so no decision rests on a byte staying as it was. `Writer`
    // replaces files by renaming, which leaves existing mappings alone. Truncation raises SIGBUS.
    unsafe { Mmap::map(&file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_cross_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<File>();
    }
}
