//! Named tensors in files: safetensors, one or several with an index, or GGUF. Read piece by piece.
//!
//! Files aren't mapped while tensors are read: pages of a mapping count as the program's memory, and
//! a file that shrinks meanwhile would kill it.

use anyhow::{Context, Result, bail, ensure};
use catalog::ShapesFrom;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::element::SourceType;
use super::{fp8, safetensors};

/// Elements that are in memory at once: 32 MiB as f32. A whole number of every type's blocks.
pub(crate) const WINDOW: usize = 8 << 20;

/// Where a tensor is, and what.
#[derive(Clone, Debug)]
pub(crate) struct SourceTensor {
    /// Outermost dimension first.
    pub(crate) shape: Vec<u64>,
    pub(crate) dtype: SourceType,
    /// What every value is multiplied by.
    pub(super) scale: Option<f32>,
    /// In the order of its elements; one, unless it was made of rows of several.
    extents: Vec<Extent>,
}

/// Elements that lie together in a file.
#[derive(Clone, Debug)]
struct Extent {
    shard: usize,
    /// Of the first byte, from the start of the file.
    offset: u64,
    elements: u64,
}

impl SourceTensor {
    fn new(shape: Vec<u64>, dtype: SourceType, shard: usize, offset: u64) -> Self {
        let extents = vec![Extent { shard, offset, elements: shape.iter().product() }];
        Self { shape, dtype, scale: None, extents }
    }

    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Some of its rows, which must be there; it must lie in one piece.
    pub(crate) fn rows(&self, rows: Range<u64>) -> Self {
        let [extent] = &self.extents[..] else { panic!("it is made of rows itself") };
        let (shape, row) = (&self.shape, self.elements() / self.shape[0]);
        assert!(rows.start <= rows.end && rows.end <= shape[0], "{rows:?} of {shape:?}");
        let extent = Extent {
            shard: extent.shard,
            offset: extent.offset + self.dtype.bytes(rows.start * row),
            elements: (rows.end - rows.start) * row,
        };
        let shape = [&[rows.end - rows.start], &shape[1..]].concat();
        Self { shape, extents: vec![extent], ..self.clone() }
    }

    /// Several tensors with rows of one length, one below the other, with their names for the error.
    ///
    /// # Errors
    /// Where they are of several types or have different factors.
    pub(crate) fn joined(parts: &[(&str, SourceTensor)]) -> Result<Self> {
        let (name, first) = &parts[0];
        let mut whole = first.clone();
        for (other, part) in &parts[1..] {
            assert_eq!(part.shape[1..], first.shape[1..], "{name} and {other}");
            ensure!(
                part.dtype == first.dtype,
                "{name:?} is {}, but {other:?} is {}, and they become one tensor; bring them to one \
                 type",
                first.dtype.name(),
                part.dtype.name()
            );
            ensure!(
                part.scale == first.scale,
                "{name:?} and {other:?} have different factors, and they become one tensor; use the \
                 BF16 or F16 release of the model"
            );
            whole.shape[0] += part.shape[0];
            whole.extents.extend(part.extents.iter().cloned());
        }
        Ok(whole)
    }

    /// Replaces `values` by those of `bytes`.
    pub(crate) fn decode(&self, bytes: &[u8], values: &mut Vec<f32>) {
        self.dtype.decode(bytes, values);
        if let Some(scale) = self.scale {
            values.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

/// The tensors of one or more files that belong together.
pub(crate) struct Weights {
    /// What was opened.
    path: PathBuf,
    shards: Vec<(PathBuf, File)>,
    pub(super) tensors: BTreeMap<String, SourceTensor>,
    /// Of a GGUF file.
    metadata: Option<gguf::Metadata>,
    /// Whether names and shapes are compared with a `config.json`.
    configured: bool,
}

/// `*.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: None,
            configured: false,
        }
    }

    /// Opens `stem.safetensors`, or the shards that `stem.safetensors.index.json` names.
    pub(crate) fn open(folder: &Path, stem: &str) -> Result<Self> {
        let plain = folder.join(format!("{stem}.safetensors"));
        let index = folder.join(format!("{stem}.safetensors.index.json"));
        let mut weights = Self { configured: true, ..Self::new(folder) };
        if index.is_file() {
            weights.open_index(folder, &index).with_context(|| index.display().to_string())?;
        } else if plain.is_file() {
            weights.open_shard(plain)?;
        } else if let Some(pickle) = pickle_in(folder) {
            bail!(refusal_of_pickles(&pickle));
        } else {
            bail!("{}: neither this file nor its index exists", plain.display());
        }
        fp8::scale(&mut weights)?;
        Ok(weights)
    }

    /// Opens a file on its own: safetensors, an index of such, or GGUF.
    pub(crate) fn open_file(path: &Path) -> Result<Self> {
        ensure!(path.is_file(), "{}: no such file", path.display());
        let mut weights = Self::new(path);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => {
                weights.open_shard(path.to_owned())?;
            }
            Some("json") => {
                let folder = path.parent().unwrap_or(Path::new("."));
                weights.open_index(folder, path).with_context(|| path.display().to_string())?;
            }
            Some("gguf") => weights.open_gguf(path)?,
            _ if is_pickle(path) => bail!(refusal_of_pickles(path)),
            _ => bail!("{}: neither .safetensors nor .gguf", path.display()),
        }
        fp8::scale(&mut weights)?;
        Ok(weights)
    }

    fn open_index(&mut self, folder: &Path, path: &Path) -> Result<()> {
        let file = File::open(path)?;
        let Index { weight_map } = serde_json::from_reader(BufReader::new(file))?;
        let names: BTreeSet<&String> = weight_map.values().collect();
        for name in names {
            let plain = Path::new(name).file_name().is_some_and(|plain| *plain == **name);
            ensure!(plain, "{name:?} is not the name of a file in the same folder");
            let file = folder.join(name);
            ensure!(file.is_file(), "the shard {name} is missing");
            let present = self.open_shard(file)?;
            let listed = weight_map.iter().filter(|(_, file)| *file == name).map(|(name, _)| name);
            let listed: BTreeSet<&String> = listed.collect();
            let present: BTreeSet<&String> = present.iter().collect();
            if let Some(tensor) = listed.difference(&present).next() {
                bail!("the tensor {tensor:?} is not in {name}");
            }
            if let Some(tensor) = present.difference(&listed).next() {
                bail!("{name} holds the tensor {tensor:?}, which the index does not list there");
            }
        }
        Ok(())
    }

    /// Adds the tensors of a file; returns their names.
    fn open_shard(&mut self, path: PathBuf) -> Result<Vec<String>> {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let entries = safetensors::entries(&file).with_context(|| path.display().to_string())?;
        let mut names = Vec::new();
        for safetensors::Entry { name, dtype, shape, offset } in entries {
            let shard = self.shards.len();
            let tensor = SourceTensor::new(shape, dtype, shard, offset);
            let before = self.tensors.insert(name.clone(), tensor);
            ensure!(before.is_none(), "{}: {name:?} is in two files", path.display());
            names.push(name);
        }
        self.shards.push((path, file));
        Ok(names)
    }

    fn open_gguf(&mut self, path: &Path) -> Result<()> {
        let header = gguf::File::open(path)?;
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        for tensor in header.tensors() {
            let dtype = SourceType::Gguf(tensor.dtype);
            let of = SourceTensor::new(tensor.shape.clone(), dtype, 0, tensor.offset);
            self.tensors.insert(tensor.name.clone(), of);
        }
        self.metadata = Some(header.metadata().clone());
        self.shards.push((path.to_owned(), file));
        Ok(())
    }

    /// What was opened: a folder or a file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata, if it is a GGUF file.
    pub(crate) fn metadata(&self) -> Option<&gguf::Metadata> {
        self.metadata.as_ref()
    }

    /// What says which shapes are right.
    pub(crate) fn shapes_from(&self) -> ShapesFrom {
        if self.configured { ShapesFrom::Config } else { ShapesFrom::Tensors }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&SourceTensor> {
        self.tensors.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Forgets a tensor that is no part of the model.
    pub(crate) fn remove(&mut self, name: &str) -> Option<SourceTensor> {
        self.tensors.remove(name)
    }

    /// Makes `name` of `alias`, as files have it where two modules share a tensor. If both are
    /// there, they must be the same.
    pub(crate) fn unify(&mut self, alias: &str, name: &str) -> Result<()> {
        let Some(tensor) = self.tensors.remove(alias) else { return Ok(()) };
        let Some(original) = self.tensors.get(name) else {
            self.tensors.insert(name.to_owned(), tensor);
            return Ok(());
        };
        let alike = original.shape == tensor.shape && original.dtype == tensor.dtype;
        ensure!(
            alike && self.same_bytes(original, &tensor)?,
            "{}: {alias:?} and {name:?} must be the same tensor, but differ",
            self.path.display()
        );
        Ok(())
    }

    fn same_bytes(&self, a: &SourceTensor, b: &SourceTensor) -> Result<bool> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for first in (0..a.elements()).step_by(WINDOW) {
            let len = (a.elements() - first).min(WINDOW as u64);
            let bytes = a.dtype.bytes(len) as usize;
            left.resize(bytes, 0);
            right.resize(bytes, 0);
            self.read(a, first, &mut left)?;
            self.read(b, first, &mut right)?;
            if left != right {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `bytes` with those from element `first` on.
    pub(crate) fn read(&self, tensor: &SourceTensor, first: u64, bytes: &mut [u8]) -> Result<()> {
        let (mut skip, mut rest) = (tensor.dtype.bytes(first), bytes);
        for extent in &tensor.extents {
            let whole = tensor.dtype.bytes(extent.elements);
            let left = whole.saturating_sub(skip).min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(left as usize);
            rest = later;
            if !now.is_empty() {
                let (path, file) = &self.shards[extent.shard];
                let offset = extent.offset + skip;
                file.read_exact_at(now, offset).with_context(|| {
                    format!("cannot read {left} bytes at {offset} of {}", path.display())
                })?;
            }
            skip = skip.saturating_sub(whole);
        }
        assert!(rest.is_empty(), "more than the tensor was to be read");
        Ok(())
    }

    /// All bytes of a small tensor.
    pub(crate) fn bytes(&self, tensor: &SourceTensor) -> Result<Vec<u8>> {
        let mut bytes = vec![0; tensor.dtype.bytes(tensor.elements()) as usize];
        self.read(tensor, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// All values of a small tensor.
    pub(crate) fn values(&self, tensor: &SourceTensor) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        tensor.decode(&self.bytes(tensor)?, &mut values);
        Ok(values)
    }
}

fn is_pickle(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["bin", "pt", "pth", "ckpt", "pkl"].contains(&extension))
}

/// The first pickle file in a folder.
pub(crate) fn pickle_in(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|path| is_pickle(path)).min()
}

pub(crate) fn refusal_of_pickles(path: &Path) -> String {
    format!(
        "{}: pickle files run code when they are opened, so they are not read; convert the \
         checkpoint to safetensors",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Numbered elements of two tensors, read in windows of every length from every element on.
    #[test]
    fn joined_rows_are_read_as_one_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        let mut file = File::create(&path).unwrap();
        (0..24u32).for_each(|n| file.write_all(&(n as f32).to_le_bytes()).unwrap());
        let file = File::open(&path).unwrap();
        let weights = Weights { shards: vec![(path, file)], ..Weights::new(folder.path()) };
        let a = SourceTensor::new(vec![4, 3], SourceType::F32, 0, 0);
        let b = SourceTensor::new(vec![4, 3], SourceType::F32, 0, 48);
        let joined =
            SourceTensor::joined(&[("a", a.rows(2..4)), ("b", b.clone()), ("a", a.rows(0..1))]);
        let joined = joined.unwrap();
        assert_eq!(joined.shape, [7, 3]);
        let wanted: Vec<f32> = (6..24).chain(0..3).map(|n| n as f32).collect();
        assert_eq!(weights.values(&joined).unwrap(), wanted);
        for first in 0..21 {
            for len in 1..=21 - first {
                let (mut bytes, mut values) = (vec![0; 4 * len], Vec::new());
                weights.read(&joined, first as u64, &mut bytes).unwrap();
                joined.decode(&bytes, &mut values);
                assert_eq!(values, wanted[first..first + len], "{first}, {len}");
            }
        }

        let half = SourceTensor::new(vec![4, 3], SourceType::F16, 0, 0);
        let error = SourceTensor::joined(&[("a", a.clone()), ("b", half)]).unwrap_err().to_string();
        assert!(error.contains("\"a\" is F32, but \"b\" is F16"), "{error}");
        let scaled = SourceTensor { scale: Some(0.5), ..b };
        let error = SourceTensor::joined(&[("a", a), ("b", scaled)]).unwrap_err().to_string();
        assert!(error.contains("different factors"), "{error}");
    }
}
