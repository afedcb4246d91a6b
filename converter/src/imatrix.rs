//! Importance matrices: for each input channel of a matrix, how large its activations are. The
//! quantizers weigh errors by them.
//!
//! Two formats are read. llama.cpp's present one is a GGUF file with two tensors for each matrix,
//! `NAME.in_sum2` and `NAME.counts`. Its older one, which stable-diffusion.cpp still writes, is a list
//! of names, call counts and sums, without a magic number.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::arch::{Model, Role};
use crate::digest;

/// Real ones have tens of megabytes.
const LARGEST: u64 = 1 << 30;

/// The importance of input channels, by the matrix's name in a GGUF file.
#[derive(Debug)]
pub(crate) struct Imatrix {
    entries: BTreeMap<String, Vec<f32>>,
    file: String,
    sha256: String,
    datasets: Option<String>,
    chunks: u32,
}

impl Imatrix {
    /// Reads and checks a file of either format.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::parse(path).with_context(|| path.display().to_string())
    }

    fn parse(path: &Path) -> Result<Self> {
        let bytes = fs::metadata(path)?.len();
        ensure!(bytes <= LARGEST, "{bytes} bytes are too many for an importance matrix");
        let contents = fs::read(path)?;
        let mut read = if contents.starts_with(b"GGUF") {
            from_gguf(&gguf::File::open(path)?)?
        } else {
            from_legacy(&contents)?
        };
        ensure!(!read.entries.is_empty(), "there is no matrix in it");
        for (name, values) in &read.entries {
            let fine = |value: &f32| value.is_finite() && *value >= 0.0;
            let wrong = values.iter().position(|value| !fine(value));
            if let Some(channel) = wrong {
                bail!("{name:?}: the importance of channel {channel} is {}", values[channel]);
            }
        }
        read.file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        read.sha256 = digest::sha256(path)?;
        Ok(read)
    }

    /// The importance of the columns of each of a model's tensors, where the file has it, and where
    /// it isn't zero throughout: such a matrix was never used.
    ///
    /// # Errors
    /// Where an entry has another number of channels than its matrix.
    pub(crate) fn of(&self, model: &mut Model) -> Result<Vec<Option<Arc<[f32]>>>> {
        let mut found = Vec::new();
        for tensor in &model.tensors {
            let values =
                (tensor.role != Role::Exact).then(|| self.get(&tensor.name, &tensor.diffusers));
            let Some(values) = values.flatten() else {
                found.push(None);
                continue;
            };
            ensure!(
                values.len() as u64 == tensor.row(),
                "{}: {:?} has {} channels, the matrix {}",
                self.file,
                tensor.name,
                values.len(),
                tensor.row()
            );
            found.push(values.iter().any(|&value| value > 0.0).then(|| values.into()));
        }
        let count = found.iter().flatten().count();
        if count > 0 {
            // The keys are llama.cpp's, the hash excepted.
            let metadata = &mut model.metadata;
            metadata.set("quantize.imatrix.file", self.file.as_str());
            metadata.set("quantize.imatrix.sha256", self.sha256.as_str());
            if let Some(datasets) = &self.datasets {
                metadata.set("quantize.imatrix.dataset", datasets.as_str());
            }
            metadata.set("quantize.imatrix.entries_count", count as u32);
            metadata.set("quantize.imatrix.chunks_count", self.chunks);
        }
        Ok(found)
    }

    fn get(&self, name: &str, diffusers: &str) -> Option<&[f32]> {
        // stable-diffusion.cpp names tensors by where it keeps the model.
        let prefixes =
            ["", "model.diffusion_model.", "model.high_noise_diffusion_model.", "model."];
        let names = prefixes
            .iter()
            .flat_map(|prefix| [name, diffusers].map(|name| format!("{prefix}{name}")));
        let found = names.into_iter().find_map(|name| self.entries.get(&name));
        found.map(Vec::as_slice)
    }
}

fn empty() -> Imatrix {
    Imatrix {
        entries: BTreeMap::new(),
        file: String::new(),
        sha256: String::new(),
        datasets: None,
        chunks: 0,
    }
}

fn from_gguf(file: &gguf::File) -> Result<Imatrix> {
    let metadata = file.metadata();
    let kind = metadata.string("general.type");
    ensure!(
        kind == Ok("imatrix"),
        "\"general.type\" is not \"imatrix\": another kind of GGUF file"
    );
    let floats = |tensor: &gguf::Tensor| -> Result<Vec<f32>> {
        ensure!(tensor.dtype == gguf::DType::F32, "{:?} is {}", tensor.name, tensor.dtype);
        let bytes = file.data(tensor).as_chunks().0;
        Ok(bytes.iter().map(|&value| f32::from_le_bytes(value)).collect())
    };
    let mut read = empty();
    for tensor in file.tensors() {
        let Some(name) = tensor.name.strip_suffix(".in_sum2") else { continue };
        let counts = file.tensor(&format!("{name}.counts"));
        let counts = counts.with_context(|| format!("\"{name}.counts\" is missing"))?;
        let (sums, counts) = (floats(tensor)?, floats(counts)?);
        // Experts of a mixture have a count and sums each; Wan's are models of their own.
        ensure!(counts.len() == 1, "{name:?} has {} sets of sums", counts.len());
        let count = if counts[0] > 0.0 { counts[0] } else { 1.0 };
        read.entries.insert(name.to_owned(), sums.iter().map(|sum| sum / count).collect());
    }
    read.datasets = metadata.strings("imatrix.datasets").ok().map(|names| names.join(", "));
    read.chunks = metadata.u32("imatrix.chunk_count").unwrap_or(0);
    Ok(read)
}

fn from_legacy(contents: &[u8]) -> Result<Imatrix> {
    let mut rest = contents;
    let mut read = empty();
    let entries = count(&mut rest, "entries")?;
    for n in 0..entries {
        let entry = |rest: &mut &[u8]| -> Result<(String, Vec<f32>)> {
            let length = count(rest, "bytes of the name")?;
            let name = take(rest, length)?.to_vec();
            let name = String::from_utf8(name).context("the name is not UTF-8")?;
            let calls = count(rest, "calls")?.max(1);
            let length = count(rest, "values")?;
            let bytes =
                take(rest, length.checked_mul(4).context("too many values")?)?.as_chunks().0;
            let values = bytes.iter().map(|&value| f32::from_le_bytes(value) / calls as f32);
            Ok((name, values.collect()))
        };
        let entry = entry(&mut rest);
        let (name, values) = entry.with_context(|| {
            format!("neither a GGUF file nor an importance matrix: entry {} of {entries}", n + 1)
        })?;
        let before = read.entries.insert(name, values);
        ensure!(before.is_none(), "an entry is there twice");
    }
    // Older files end here; newer ones have the number of chunks and the data's name.
    if !rest.is_empty() {
        read.chunks = count(&mut rest, "chunks")? as u32;
    }
    if !rest.is_empty() {
        let length = count(&mut rest, "bytes of the data's name")?;
        let name = take(&mut rest, length)?.to_vec();
        read.datasets = Some(String::from_utf8(name).context("the data's name is not UTF-8")?);
    }
    ensure!(rest.is_empty(), "{} bytes follow the end", rest.len());
    Ok(read)
}

fn count(rest: &mut &[u8], what: &str) -> Result<usize> {
    let bytes = take(rest, 4)?;
    let number = i32::from_le_bytes(bytes.try_into().expect("four bytes"));
    usize::try_from(number).ok().with_context(|| format!("{number} {what}"))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let left = rest.len();
    let split = rest.split_at_checked(length);
    let (taken, behind) = split.with_context(|| format!("{length} bytes wanted, {left} left"))?;
    *rest = behind;
    Ok(taken)
}
