//! What a conversion wrote, as the table that it ends with.

use gguf::DType;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The files that a conversion wrote.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of writing.
    pub files: Vec<FileReport>,
}

/// What one file holds.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// Elements of all tensors together.
    pub elements: u64,
    /// Bytes of all tensors together.
    pub tensor_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// How many tensors have each type.
    pub census: BTreeMap<DType, usize>,
    /// How many tensors kept F16 since their rows aren't a multiple of the wanted type's block.
    pub fallbacks: usize,
}

impl FileReport {
    /// Bits that a weight takes on average.
    pub fn bits_per_weight(&self) -> f64 {
        self.tensor_bytes as f64 * 8.0 / self.elements as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |file: &FileReport| file.path.display().to_string();
        let width = self.files.iter().map(|file| path(file).chars().count()).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>11}  {:>6}  tensors", "file", "size", "bits/w")?;
        for file in &self.files {
            let (size, bits) = (megabytes(file.file_bytes), file.bits_per_weight());
            write!(f, "{:width$}  {size:>11}  {bits:>6.2} ", path(file))?;
            for (dtype, count) in &file.census {
                write!(f, " {dtype} {count}")?;
            }
            if file.fallbacks > 0 {
                write!(f, " ({} kept F16: rows are no whole blocks)", file.fallbacks)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}
