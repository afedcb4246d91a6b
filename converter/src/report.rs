//! What a conversion wrote, as the table that it ends with.

use gguf::DType;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::arch::Part;
use crate::measure::TensorError;
use crate::recipe::Quant;

/// The files that a conversion wrote.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of writing.
    pub files: Vec<FileReport>,
    /// Files that were there already, whole, and were left, and what their models do.
    pub continued: Vec<(Part, PathBuf)>,
    /// What speaks against what files of the source were taken for.
    pub doubts: Vec<String>,
    /// What of the source was left aside, and why.
    pub notes: Vec<String>,
    /// Whether nothing was written; sizes are without headers then, and errors unknown.
    pub planned: bool,
}

/// What one file holds.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// What the model does.
    pub part: Part,
    /// What the file is called after.
    pub quant: Quant,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// How many tensors kept F16 since their rows aren't a multiple of the wanted type's block.
    pub fallbacks: usize,
    /// Whether the source was quantized before, so that its losses are in there, too.
    pub requantized: bool,
    /// The error over all tensors that aren't F32.
    pub relative_rmse: f64,
    /// In the order of the file.
    pub tensors: Vec<TensorReport>,
}

/// What became of one tensor.
#[derive(Clone, Debug)]
pub struct TensorReport {
    /// In the file.
    pub name: String,
    /// Its type there.
    pub dtype: DType,
    /// How many elements it has.
    pub elements: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// How far it is from the source; nothing where F32 holds it.
    pub error: TensorError,
}

impl FileReport {
    /// Bits that a weight takes on average.
    pub fn bits_per_weight(&self) -> f64 {
        let sum = |of: fn(&TensorReport) -> u64| self.tensors.iter().map(of).sum::<u64>() as f64;
        sum(|tensor| tensor.bytes) * 8.0 / sum(|tensor| tensor.elements)
    }

    /// How many tensors have each type.
    pub fn census(&self) -> BTreeMap<DType, usize> {
        let mut census = BTreeMap::new();
        for tensor in &self.tensors {
            *census.entry(tensor.dtype).or_insert(0) += 1;
        }
        census
    }
}

impl Report {
    /// The first line of [`Report::errors`].
    pub const ERRORS: &str = "file\ttensor\ttype\trelative_rmse\tmax\tcosine";

    /// What whoever publishes the files should know.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.doubts.clone();
        if self.files.iter().any(|file| file.requantized) {
            let warning = "the source was quantized before; what that lost stays lost, and errors \
                           are measured from there";
            warnings.push(warning.into());
        }
        warnings
    }

    /// The errors of all tensors, the largest of each file first, as a table with tabs between its
    /// columns.
    pub fn errors(&self) -> String {
        let mut table = format!("{}\n", Self::ERRORS);
        for file in &self.files {
            let mut tensors: Vec<_> = file.tensors.iter().collect();
            tensors.sort_by(|a, b| b.error.relative_rmse.total_cmp(&a.error.relative_rmse));
            for TensorReport { name, dtype, error, .. } in tensors {
                let TensorError { relative_rmse, largest, cosine } = error;
                let path = file.path.display();
                table += &format!(
                    "{path}\t{name}\t{dtype}\t{relative_rmse:.3e}\t{largest:.3e}\t{cosine:.8}\n"
                );
            }
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |file: &FileReport| file.path.display().to_string();
        let width = self.files.iter().map(|file| path(file).chars().count()).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>11}  {:>6}  {:>7}  tensors", "file", "size", "bits/w", "error")?;
        for file in &self.files {
            let (size, bits) = (megabytes(file.file_bytes), file.bits_per_weight());
            let error = percent(file.relative_rmse);
            write!(f, "{:width$}  {size:>11}  {bits:>6.2}  {error:>7} ", path(file))?;
            for (dtype, count) in file.census() {
                write!(f, " {dtype} {count}")?;
            }
            if file.fallbacks > 0 {
                write!(f, " ({} kept F16: rows are no whole blocks)", file.fallbacks)?;
            }
            writeln!(f)?;
        }
        for (_, path) in &self.continued {
            writeln!(f, "{}: whole already", path.display())?;
        }
        if self.planned {
            writeln!(f, "nothing is written; sizes are without metadata")?;
        }
        self.warnings().iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// A relative error; nothing if there is none.
pub(crate) fn percent(error: f64) -> String {
    if error == 0.0 { "-".into() } else { format!("{:.3}%", 100.0 * error) }
}
