//! Writes a safetensors file in one forward pass, which appears under its name only when it is whole.

use anyhow::{Context, Result};
use gguf::{DType, TensorSpec};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file being written. Dropping an unfinished one removes it.
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    bytes: u64,
    finished: bool,
}

impl SafetensorsFile {
    /// Creates `path` + `.part` with the header. Types are F32, F16 or BF16.
    pub(crate) fn create(path: &Path, tensors: &[TensorSpec]) -> Result<Self> {
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        header.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
        for tensor in tensors {
            let start = end;
            let elements: u64 = tensor.shape.iter().product();
            end += elements * if tensor.dtype == DType::F32 { 4 } else { 2 };
            let info = serde_json::json!({
                "dtype": tensor.dtype.name(),
                "shape": tensor.shape,
                "data_offsets": [start, end],
            });
            header.insert(tensor.name.clone(), info);
        }
        let mut json = serde_json::to_vec(&header)?;
        // The data begins at a multiple of 8.
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut part = path.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part);
        let file = file.with_context(|| format!("cannot create {}", part.display()))?;
        let bytes = 8 + json.len() as u64 + end;
        let out = BufWriter::new(file);
        let mut file = Self { path: path.to_owned(), part, out, bytes, finished: false };
        file.write(&(json.len() as u64).to_le_bytes())?;
        file.write(&json)?;
        Ok(file)
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the next bytes of the tensors, in their order and without gaps.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).with_context(|| format!("cannot write {}", self.part.display()))
    }

    /// Brings the file to the disk and gives it its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        let context = || format!("cannot write {}", self.part.display());
        self.out.flush().with_context(context)?;
        self.out.get_ref().sync_all().with_context(context)?;
        fs::rename(&self.part, &self.path)
            .with_context(|| format!("cannot create {}", self.path.display()))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for SafetensorsFile {
    fn drop(&mut self) {
        if !self.finished {
            // There is nobody to tell: whatever led here is the error that counts.
            let _ = fs::remove_file(&self.part);
        }
    }
}
