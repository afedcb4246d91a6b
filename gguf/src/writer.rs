//! Writes a GGUF file in one forward pass, and lets it appear under its name only when it is whole.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Defect, Error, Subject};
use crate::header::{ALIGNMENT_KEY, KEY_BYTES};
use crate::metadata::Metadata;
use crate::tensor::{ALIGNMENT, TensorSpec, check_name, padded, tensor_bytes};
use crate::value::{Array, Value};

/// A GGUF file being written.
///
/// The header is complete from the start, for shapes and types say how long everything will be. The
/// bytes go to a file beside the final one, named with `.part` behind; [`Writer::finish`] renames it.
/// Dropping an unfinished writer removes it.
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<fs::File>,
    tensors: Vec<TensorSpec>,
    /// The bytes of each tensor, without padding.
    sizes: Vec<u64>,
    /// The position in `tensors` of the one being written.
    current: usize,
    /// Bytes written of that one.
    written: u64,
    data_bytes: u64,
    header_bytes: u64,
    finished: bool,
}

impl Writer {
    /// Checks everything, then creates `path` + `.part` and writes the header to it. An older `.part`
    /// file is overwritten, and so is `path` by [`Writer::finish`].
    ///
    /// # Errors
    /// [`Error::Refused`] if readers would not accept the file, before anything is created: a name
    /// that is empty, too long or used twice, a key that isn't printable ASCII without spaces, a shape
    /// that is no tensor or doesn't fit its type's blocks, an alignment other than 32, array metadata
    /// together with a tensor of five dimensions. [`Error::Io`] if the file can't be written.
    pub fn create(
        path: impl AsRef<Path>,
        metadata: &Metadata,
        tensors: Vec<TensorSpec>,
    ) -> Result<Writer, Error> {
        let path = path.as_ref().to_owned();
        let refused = |(subject, source)| Error::Refused { path: path.clone(), subject, source };
        check_metadata(metadata, &tensors).map_err(refused)?;
        let Layout { sizes, offsets, data_bytes } = Layout::of(&tensors).map_err(refused)?;
        let header = encode_header(metadata, &tensors, &offsets);
        let header_bytes = header.len() as u64;
        if header_bytes.checked_add(data_bytes).is_none_or(|n| i64::try_from(n).is_err()) {
            return Err(refused((Subject::Header, Defect::Overflow)));
        }

        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = fs::File::create(&part).map_err(|source| Error::Io {
            action: "create",
            path: part.clone(),
            source,
        })?;
        let mut writer = Writer {
            path,
            part,
            out: BufWriter::new(file),
            tensors,
            sizes,
            current: 0,
            written: 0,
            data_bytes,
            header_bytes,
            finished: false,
        };
        writer.put(&header)?;
        Ok(writer)
    }

    /// Writes the next bytes of the current tensor. They may come in pieces of any length, but a piece
    /// does not cross from one tensor into the next. After the last byte the padding is added and the
    /// next tensor is current.
    ///
    /// # Errors
    /// [`Error::Io`], for example when the disk is full. The file can't be finished then; drop the
    /// writer.
    ///
    /// # Panics
    /// If `bytes` is longer than what the current tensor lacks, or every tensor is written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let tensor = self.current().expect("a tensor is left to write to");
        let size = self.sizes[self.current];
        assert!(
            bytes.len() as u64 <= size - self.written,
            "tensor {:?} takes {size} bytes, got {} after {}",
            tensor.name,
            bytes.len(),
            self.written,
        );
        self.put(bytes)?;
        self.written += bytes.len() as u64;
        if self.written == size {
            let padding = size.next_multiple_of(ALIGNMENT) - size;
            self.put(&[0; ALIGNMENT as usize][..padding as usize])?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Leaves the rest of the current tensor zero, as a hole where the file system has them.
    ///
    /// # Errors
    /// [`Error::Io`], as [`Writer::write`].
    ///
    /// # Panics
    /// If every tensor is written.
    pub fn skip(&mut self) -> Result<(), Error> {
        assert!(self.current().is_some(), "a tensor is left to skip");
        let size = self.sizes[self.current];
        let rest = size.next_multiple_of(ALIGNMENT) - self.written;
        // Seeking flushes what was written before.
        let end = self.out.seek(SeekFrom::Current(rest as i64));
        end.and_then(|end| self.out.get_ref().set_len(end)).map_err(|source| Error::Io {
            action: "write",
            path: self.part.clone(),
            source,
        })?;
        self.current += 1;
        self.written = 0;
        Ok(())
    }

    /// The tensor that the next bytes belong to; `None` when every tensor is written.
    pub fn current(&self) -> Option<&TensorSpec> {
        self.tensors.get(self.current)
    }

    /// Bytes of all tensors with their padding.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes of the finished file.
    pub fn file_bytes(&self) -> u64 {
        self.header_bytes + self.data_bytes
    }

    /// Brings the file to the disk and gives it its name.
    ///
    /// # Errors
    /// [`Error::Refused`] if bytes of a tensor are missing, [`Error::Io`] if the operating system fails;
    /// the `.part` file is removed.
    pub fn finish(mut self) -> Result<(), Error> {
        if let Some(tensor) = self.current() {
            return Err(Error::Refused {
                path: self.path.clone(),
                subject: Subject::Tensor(tensor.name.clone()),
                source: Defect::Unfinished {
                    written: self.written,
                    bytes: self.sizes[self.current],
                },
            });
        }
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        self.out.flush().map_err(failed("write", &self.part))?;
        self.out.get_ref().sync_all().map_err(failed("sync", &self.part))?;
        fs::rename(&self.part, &self.path).map_err(failed("create", &self.path))?;
        self.finished = true;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        sync_folder(folder).map_err(failed("sync", folder))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|source| Error::Io {
            action: "write",
            path: self.part.clone(),
            source,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // There is nobody to tell: whatever led here is the error that counts.
            let _ = fs::remove_file(&self.part);
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Without this a power cut can undo the renaming; Windows has no such call and needs none.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

fn check_metadata(metadata: &Metadata, tensors: &[TensorSpec]) -> Result<(), (Subject, Defect)> {
    let five_dimensional = tensors.iter().find(|tensor| tensor.shape.len() == 5);
    for (key, value) in metadata.iter() {
        let length = key.len() as u64;
        let defect = if key.is_empty() {
            Defect::EmptyName
        } else if length > KEY_BYTES {
            Defect::NameLength { length, limit: KEY_BYTES }
        } else if let Some(character) = key.chars().find(|c| !c.is_ascii_graphic()) {
            Defect::NameCharacter(character)
        } else if key == ALIGNMENT_KEY && *value != Value::U32(ALIGNMENT as u32) {
            Defect::ForeignAlignment
        } else if let (Value::Array(_), Some(tensor)) = (value, five_dimensional) {
            Defect::ArrayBesideFiveDimensions { tensor: tensor.name.clone() }
        } else {
            continue;
        };
        return Err((Subject::Key(key.to_owned()), defect));
    }
    Ok(())
}

/// Where the tensors go.
struct Layout {
    /// Bytes of each tensor, without padding.
    sizes: Vec<u64>,
    /// Of each tensor, from the start of the data.
    offsets: Vec<u64>,
    data_bytes: u64,
}

impl Layout {
    fn of(tensors: &[TensorSpec]) -> Result<Layout, (Subject, Defect)> {
        let mut layout = Layout { sizes: Vec::new(), offsets: Vec::new(), data_bytes: 0 };
        let mut names = HashSet::new();
        for tensor in tensors {
            let subject = || Subject::Tensor(tensor.name.clone());
            if !names.insert(&tensor.name) {
                return Err((subject(), Defect::Duplicate));
            }
            layout.push(tensor).map_err(|defect| (subject(), defect))?;
        }
        Ok(layout)
    }

    fn push(&mut self, tensor: &TensorSpec) -> Result<(), Defect> {
        check_name(&tensor.name)?;
        let size = tensor_bytes(&tensor.shape, tensor.dtype)?;
        let end = self.data_bytes.checked_add(size).ok_or(Defect::Overflow)?;
        self.sizes.push(size);
        self.offsets.push(self.data_bytes);
        self.data_bytes = padded(end, ALIGNMENT)?;
        Ok(())
    }
}

fn encode_header(metadata: &Metadata, tensors: &[TensorSpec], offsets: &[u64]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(b"GGUF");
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        encode_string(&mut header, key);
        encode_value(&mut header, value);
    }
    for (tensor, offset) in tensors.iter().zip(offsets) {
        encode_string(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        header.extend(tensor.shape.iter().rev().flat_map(|n| n.to_le_bytes()));
        header.extend(tensor.dtype.id().to_le_bytes());
        header.extend(offset.to_le_bytes());
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    header
}

fn encode_string(header: &mut Vec<u8>, string: &str) {
    header.extend((string.len() as u64).to_le_bytes());
    header.extend(string.as_bytes());
}

fn encode_value(header: &mut Vec<u8>, value: &Value) {
    header.extend(value.type_id().to_le_bytes());
    match value {
        Value::U8(n) => header.extend(n.to_le_bytes()),
        Value::I8(n) => header.extend(n.to_le_bytes()),
        Value::U16(n) => header.extend(n.to_le_bytes()),
        Value::I16(n) => header.extend(n.to_le_bytes()),
        Value::U32(n) => header.extend(n.to_le_bytes()),
        Value::I32(n) => header.extend(n.to_le_bytes()),
        Value::F32(n) => header.extend(n.to_le_bytes()),
        Value::Bool(b) => header.push((*b).into()),
        Value::String(string) => encode_string(header, string),
        Value::Array(array) => encode_array(header, array),
        Value::U64(n) => header.extend(n.to_le_bytes()),
        Value::I64(n) => header.extend(n.to_le_bytes()),
        Value::F64(n) => header.extend(n.to_le_bytes()),
    }
}

fn encode_array(header: &mut Vec<u8>, array: &Array) {
    header.extend(array.element_type_id().to_le_bytes());
    header.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => header.extend(v),
        Array::I8(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::U16(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::I16(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::U32(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::I32(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::F32(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::Bool(v) => header.extend(v.iter().map(|&b| u8::from(b))),
        Array::String(v) => v.iter().for_each(|string| encode_string(header, string)),
        Array::U64(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::I64(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
        Array::F64(v) => header.extend(v.iter().flat_map(|n| n.to_le_bytes())),
    }
}
