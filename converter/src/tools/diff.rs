//! Two GGUF files side by side.

use anyhow::Result;
use gguf::{DType, File, Tensor};
use std::fmt;
use std::path::Path;

use crate::measure::{Sums, TensorError};
use crate::{quantize, shape};

/// How two files differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Tensors that the first file has alone.
    pub only_a: Vec<String>,
    /// Tensors that the second file has alone.
    pub only_b: Vec<String>,
    /// Tensors with other shapes; a folded one counts as what it stands for.
    pub shapes: Vec<(String, Vec<u64>, Vec<u64>)>,
    /// Metadata keys whose values differ or that one file lacks, with both values.
    pub metadata: Vec<(String, String, String)>,
    /// The tensors of both, the largest error first.
    pub tensors: Vec<Compared>,
}

/// A tensor of both files.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// Its type in the first file.
    pub a: DType,
    /// Its type in the second file.
    pub b: DType,
    /// How far the second file's values are from the first one's; `None` if a type has no values.
    pub error: Option<TensorError>,
    /// Whether the type differs only in how a tensor was kept that neither file quantizes.
    pub kept: Option<Kept>,
}

/// A tensor that both files keep unquantized, in other types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The first file's is the more exact.
    MoreExact,
    /// The first file's is the less exact.
    LessExact,
}

/// Elements that are compared at once.
const STEP: u64 = 1 << 16;

/// Compares two files.
///
/// # Errors
/// Where one is no GGUF file that [`gguf::File`] accepts.
pub fn diff(a: &Path, b: &Path) -> Result<Difference> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let missing = |of: &File, from: &File| -> Vec<String> {
        let names = of.tensors().iter().map(|tensor| &tensor.name);
        names.filter(|name| from.tensor(name).is_none()).cloned().collect()
    };
    let (mut shapes, mut tensors) = (Vec::new(), Vec::new());
    for tensor in a.tensors() {
        let Some(other) = b.tensor(&tensor.name) else { continue };
        let of = |file: &File, tensor: &Tensor| {
            let original = shape::original(file.metadata(), &tensor.name, &tensor.shape);
            original.unwrap_or_else(|| tensor.shape.clone())
        };
        let (left, right) = (of(&a, tensor), of(&b, other));
        if left != right {
            shapes.push((tensor.name.clone(), left, right));
            continue;
        }
        tensors.push(Compared {
            name: tensor.name.clone(),
            a: tensor.dtype,
            b: other.dtype,
            error: error(a.data(tensor), tensor, b.data(other), other),
            kept: kept(tensor.dtype, other.dtype),
        });
    }
    let size =
        |compared: &Compared| compared.error.map_or(f64::INFINITY, |error| error.relative_rmse);
    tensors.sort_by(|a, b| size(b).total_cmp(&size(a)));
    Ok(Difference {
        only_a: missing(&a, &b),
        only_b: missing(&b, &a),
        shapes,
        metadata: metadata(&a, &b),
        tensors,
    })
}

fn metadata(a: &File, b: &File) -> Vec<(String, String, String)> {
    let mut keys: Vec<&str> = a.metadata().iter().map(|(key, _)| key).collect();
    keys.extend(
        b.metadata().iter().map(|(key, _)| key).filter(|key| a.metadata().get(key).is_none()),
    );
    let shown = |value: Option<&gguf::Value>| match value {
        None => "-".to_owned(),
        Some(value) => {
            let text = format!("{value:?}");
            text.chars().take(80).collect()
        }
    };
    let pairs = keys.into_iter().map(|key| (key, a.metadata().get(key), b.metadata().get(key)));
    let differing = pairs.filter(|(_, a, b)| a != b);
    differing.map(|(key, a, b)| (key.to_owned(), shown(a), shown(b))).collect()
}

fn kept(a: DType, b: DType) -> Option<Kept> {
    if a == b || a.is_quantized() || b.is_quantized() {
        return None;
    }
    Some(if a == DType::F32 { Kept::MoreExact } else { Kept::LessExact })
}

fn error(a: &[u8], left: &Tensor, b: &[u8], right: &Tensor) -> Option<TensorError> {
    let types = [left.dtype, right.dtype];
    if !types.into_iter().all(quantize::is_decodable) {
        return (types[0] == types[1] && a == b).then(|| Sums::default().error());
    }
    let (mut x, mut y, mut sums) = (Vec::new(), Vec::new(), Sums::default());
    let cut = |bytes: &'_ [u8], dtype: DType, first: u64, len: u64| -> (usize, usize) {
        let at = |n: u64| dtype.row_bytes(n).expect("whole blocks") as usize;
        debug_assert!(at(first + len) <= bytes.len());
        (at(first), at(first + len))
    };
    let elements = left.elements();
    for first in (0..elements).step_by(STEP as usize) {
        let len = STEP.min(elements - first);
        let (from, to) = cut(a, left.dtype, first, len);
        quantize::decode(left.dtype, &a[from..to], &mut x);
        let (from, to) = cut(b, right.dtype, first, len);
        quantize::decode(right.dtype, &b[from..to], &mut y);
        sums = sums + Sums::of(&x, &y);
    }
    Some(sums.error())
}

impl Difference {
    /// Whether both hold the same tensors with the same values.
    pub fn is_none(&self) -> bool {
        let same = |compared: &Compared| {
            compared.a == compared.b
                && compared.error.is_some_and(|error| error.relative_rmse == 0.0)
        };
        self.only_a.is_empty()
            && self.only_b.is_empty()
            && self.shapes.is_empty()
            && self.tensors.iter().all(same)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retyped =
            self.tensors.iter().filter(|tensor| tensor.a != tensor.b && tensor.kept.is_none());
        writeln!(
            f,
            "{} tensors in both, {} of them quantized to other types",
            self.tensors.len(),
            retyped.count()
        )?;
        for (kept, word) in [(Kept::MoreExact, "more"), (Kept::LessExact, "less")] {
            let count = self.tensors.iter().filter(|tensor| tensor.kept == Some(kept)).count();
            if count > 0 {
                writeln!(
                    f,
                    "{count} tensors that neither file quantizes are kept {word} exactly in the first"
                )?;
            }
        }
        for (names, which) in [(&self.only_a, "first"), (&self.only_b, "second")] {
            for name in names {
                writeln!(f, "only in the {which}: {name}")?;
            }
        }
        for (name, a, b) in &self.shapes {
            writeln!(f, "other shape: {name}: {a:?} and {b:?}")?;
        }
        for (key, a, b) in &self.metadata {
            writeln!(f, "metadata: {key}: {a} and {b}")?;
        }
        let width = self.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
        writeln!(f, "\n{:width$}  types            rel. RMSE        max      cosine", "tensor")?;
        for Compared { name, a, b, error, .. } in &self.tensors {
            let types = format!("{a} {b}");
            match error {
                Some(TensorError { relative_rmse, largest, cosine }) => writeln!(
                    f,
                    "{name:width$}  {types:<15}  {relative_rmse:>9.3e}  {largest:>9.3e}  {cosine:.8}"
                )?,
                None => writeln!(f, "{name:width$}  {types:<15}  not comparable")?,
            }
        }
        Ok(())
    }
}
