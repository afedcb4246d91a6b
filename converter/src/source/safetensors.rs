//! A component's weights: safetensors files, one or several with an index, read piece by piece.
//!
//! Files aren't mapped: pages of a mapping count as the program's memory, and a file that shrinks
//! meanwhile would kill it.

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Elements that are in memory at once: 32 MiB as f32. A whole number of every type's blocks.
pub(crate) const WINDOW: usize = 8 << 20;

/// A real shard's header has a few hundred kilobytes.
const LARGEST_HEADER: u64 = 16 << 20;

/// The element types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceType {
    F32,
    F16,
    BF16,
}

impl SourceType {
    pub(crate) fn bytes(self) -> usize {
        match self {
            SourceType::F32 => 4,
            SourceType::F16 | SourceType::BF16 => 2,
        }
    }

    /// Replaces `values` by those of the little-endian `bytes`. Every value is exact in f32.
    pub(crate) fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        let halves = || bytes.as_chunks().0.iter().map(|&half| u16::from_le_bytes(half));
        values.clear();
        match self {
            SourceType::F32 => {
                values.extend(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)));
            }
            SourceType::BF16 => {
                values.extend(halves().map(|half| f32::from_bits(u32::from(half) << 16)));
            }
            SourceType::F16 => {
                let halves: Vec<u16> = halves().collect();
                values.resize(halves.len(), 0.0);
                halves.reinterpret_cast::<f16>().convert_to_f32_slice(values);
            }
        }
    }
}

/// Where a tensor is, and what.
#[derive(Clone, Debug)]
pub(crate) struct SourceTensor {
    /// Outermost dimension first.
    pub(crate) shape: Vec<u64>,
    pub(crate) dtype: SourceType,
    shard: usize,
    /// Of its first byte, from the start of the file.
    offset: u64,
}

impl SourceTensor {
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// All tensors of a component.
pub(crate) struct Weights {
    folder: PathBuf,
    shards: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, SourceTensor>,
}

/// `*.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens `stem.safetensors`, or the shards that `stem.safetensors.index.json` names.
    pub(crate) fn open(folder: &Path, stem: &str) -> Result<Self> {
        let plain = folder.join(format!("{stem}.safetensors"));
        let index = folder.join(format!("{stem}.safetensors.index.json"));
        let mut weights =
            Self { folder: folder.to_owned(), shards: Vec::new(), tensors: BTreeMap::new() };
        if index.is_file() {
            weights.open_index(&index).with_context(|| index.display().to_string())?;
        } else if plain.is_file() {
            weights.open_shard(plain)?;
        } else if let Some(pickle) = pickle(folder) {
            bail!(
                "{}: pickle files run code when they are opened, so they are not read; convert the \
                 checkpoint to safetensors",
                pickle.display()
            );
        } else {
            bail!("{}: neither this file nor its index exists", plain.display());
        }
        Ok(weights)
    }

    fn open_index(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path)?;
        let Index { weight_map } = serde_json::from_reader(BufReader::new(file))?;
        let names: BTreeSet<&String> = weight_map.values().collect();
        for name in names {
            let plain = Path::new(name).file_name().is_some_and(|plain| *plain == **name);
            ensure!(plain, "{name:?} is not the name of a file in the same folder");
            let file = self.folder.join(name);
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
        let (metadata, data) = header(&file).with_context(|| path.display().to_string())?;
        let mut names = Vec::new();
        for (name, info) in metadata.tensors() {
            let dtype = match info.dtype {
                Dtype::F32 => SourceType::F32,
                Dtype::F16 => SourceType::F16,
                Dtype::BF16 => SourceType::BF16,
                other => bail!(
                    "{}: tensor {name:?} is {other:?}; supported are F32, F16 and BF16",
                    path.display()
                ),
            };
            let tensor = SourceTensor {
                shape: info.shape.iter().map(|&n| n as u64).collect(),
                dtype,
                shard: self.shards.len(),
                offset: data + info.data_offsets.0 as u64,
            };
            self.tensors.insert(name.clone(), tensor);
            names.push(name);
        }
        self.shards.push((path, file));
        Ok(names)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn get(&self, name: &str) -> Option<&SourceTensor> {
        self.tensors.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
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
            self.folder.display()
        );
        Ok(())
    }

    fn same_bytes(&self, a: &SourceTensor, b: &SourceTensor) -> Result<bool> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for first in (0..a.elements()).step_by(WINDOW) {
            let bytes = (a.elements() - first).min(WINDOW as u64) as usize * a.dtype.bytes();
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
        let (path, file) = &self.shards[tensor.shard];
        let offset = tensor.offset + first * tensor.dtype.bytes() as u64;
        file.read_exact_at(bytes, offset).with_context(|| {
            format!("cannot read {} bytes at {offset} of {}", bytes.len(), path.display())
        })
    }

    /// The largest magnitude in a tensor. NaN counts as infinite.
    pub(crate) fn largest(&self, tensor: &SourceTensor) -> Result<f32> {
        let (mut bytes, mut values, mut largest) = (Vec::new(), Vec::new(), 0f32);
        // Small steps: the values stay in the processor's cache.
        let step = WINDOW / 64;
        for first in (0..tensor.elements()).step_by(step) {
            let len = (tensor.elements() - first).min(step as u64) as usize;
            bytes.resize(len * tensor.dtype.bytes(), 0);
            self.read(tensor, first, &mut bytes)?;
            tensor.dtype.decode(&bytes, &mut values);
            // Without a sign, the bits of floats are ordered as the floats are, NaN above all.
            let bits = values.iter().fold(0, |bits: u32, value| bits.max(value.abs().to_bits()));
            let found = f32::from_bits(bits);
            largest = largest.max(if found.is_nan() { f32::INFINITY } else { found });
        }
        Ok(largest)
    }
}

/// The header, checked: tensors cover the file from the header's end to its own without a gap. Also
/// where they begin.
fn header(file: &File) -> Result<(Metadata, u64)> {
    let file_bytes = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).context("no safetensors file: too short")?;
    let length = u64::from_le_bytes(length);
    ensure!(
        length <= LARGEST_HEADER && length + 8 <= file_bytes,
        "no safetensors file: a header of {length} bytes in a file of {file_bytes}"
    );
    let mut json = vec![0; length as usize];
    file.read_exact_at(&mut json, 8)?;
    // Deserializing checks that offsets follow each other and spans fit shapes and types.
    let metadata: Metadata = serde_json::from_slice(&json).context("bad safetensors header")?;
    let (data, end) = (8 + length, 8 + length + metadata.data_len() as u64);
    ensure!(
        end == file_bytes,
        "the tensors end at byte {end}, the file at {file_bytes}; download it again"
    );
    Ok((metadata, data))
}

fn pickle(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut pickles = files.filter(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| ["bin", "pt", "pth", "ckpt", "pkl"].contains(&extension))
    });
    pickles.next()
}
