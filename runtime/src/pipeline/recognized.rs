//! A model's file, whatever it is called and however little it says. What `to-gguf` wrote is taken as it
//! is; other GGUF files, and safetensors files, are told by their tensors, and described as if `to-gguf`
//! had written them: their bytes are used where they lie.

use catalog::{Family, Given, Naming, Part};
use gguf::{DType, File, Metadata, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file and what it does.
#[derive(Clone, Debug)]
pub(super) struct Recognized {
    /// As `to-gguf` would have described it.
    pub file: Arc<File>,
    /// What a pipeline needs it for.
    pub part: Part,
    /// What the file doesn't say and was found out, a sentence each.
    pub inferred: Vec<String>,
    /// What speaks against what it was taken for.
    pub doubt: Option<String>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RecognizeError {
    /// It can't be opened, or is no sound GGUF file.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// It has that extension, and a header or a length that such files don't have.
    #[error("{file} is no safetensors file: {why}", file = .file.display())]
    Safetensors { file: PathBuf, why: String },
    /// Its bytes can't be used where they lie.
    #[error(
        "{file}: tensor `{tensor}` is {dtype}, which can't be used as it is; convert the file with `to-gguf`",
        file = .file.display()
    )]
    Type { file: PathBuf, tensor: String, dtype: String },
    /// Of a model that is converted for other programs alone.
    #[error(
        "{file}: a HunyuanVideo 1.5 transformer, which gguf-video doesn't run; ComfyUI with ComfyUI-GGUF and \
         stable-diffusion.cpp do",
        file = .0.display()
    )]
    HunyuanVideo15(PathBuf),
    /// It doesn't say what it is, and its tensors are no model's, or could be those of several.
    #[error(transparent)]
    Unknown(catalog::Error),
    /// It says that it is a part of a model, and isn't a whole one.
    #[error(transparent)]
    Damaged(catalog::Error),
}

impl RecognizeError {
    /// Whether it may be the file that was meant.
    pub(super) fn is_near(&self) -> bool {
        use catalog::Error::{Ambiguous, HunyuanVideo15};
        let told = matches!(self, Self::Unknown(Ambiguous { .. } | HunyuanVideo15 { .. }));
        told || matches!(self, Self::Type { .. } | Self::HunyuanVideo15(_) | Self::Damaged(_))
    }
}

/// Opens `path`. `told` is what its transformer does, where the user said so.
pub(super) fn open(path: &Path, told: Option<Part>) -> Result<Recognized, RecognizeError> {
    let file = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
        File::foreign(path, |bytes| safetensors(path, bytes))?
    } else {
        File::open(path)?
    };
    // What a file of `to-gguf` says was decided when it was made; whoever was told otherwise has taken
    // the wrong one.
    match says(file.metadata()) {
        Some(part) if !is_folded(&file) => {
            Ok(Recognized { file: Arc::new(file), part, inferred: Vec::new(), doubt: None })
        }
        Some(_) => described(file, None),
        None => described(file, told),
    }
}

/// Those of our parts.
const ARCHITECTURES: [&str; 4] = ["wan", "t5encoder", "wanvae", "clipvision"];

/// What a file of `to-gguf` says it is.
fn says(metadata: &Metadata) -> Option<Part> {
    let has = |key| metadata.get(key).is_some();
    match metadata.string("general.architecture").ok()? {
        "wan" if has("wan.embedding_length") => match metadata.string("wan.expert").ok()? {
            "high_noise" => Some(Part::HighNoise),
            "low_noise" => Some(Part::LowNoise),
            "single" => Some(Part::Single),
            _ => None,
        },
        "wanvae" if has("wanvae.z_dim") => Some(Part::Vae),
        "t5encoder" if has("t5encoder.vocab_size") => Some(Part::TextEncoder),
        "clipvision" if has("clipvision.block_count") => Some(Part::ImageEncoder),
        _ => None,
    }
}

/// Whether kernels of five dimensions are kept in four.
fn is_folded(file: &File) -> bool {
    file.tensor("patch_embedding.weight").is_some_and(|tensor| tensor.shape.len() == 4)
}

/// `file` as `to-gguf` would have it, by its tensors.
fn described(file: File, told: Option<Part>) -> Result<Recognized, RecognizeError> {
    let (recognized, metadata) = {
        let shapes = file.tensors().iter().map(|t| (t.name.as_str(), t.shape.as_slice()));
        let given = Given::new(file.path(), shapes).with_metadata(file.metadata());
        let claims = file.metadata().string("general.architecture");
        let claims = claims.is_ok_and(|name| ARCHITECTURES.contains(&name));
        let error = if claims { RecognizeError::Damaged } else { RecognizeError::Unknown };
        let recognized = catalog::recognize(&given, told).map_err(error)?;
        if recognized.family == Family::HunyuanVideo15 {
            return Err(RecognizeError::HunyuanVideo15(file.path().to_owned()));
        }
        let metadata = recognized.complete(Some(file.metadata()));
        (recognized, metadata)
    };
    let tensor = |matched: &catalog::Matched| {
        let stored = file.tensor(&matched.source).expect("the catalog found it").clone();
        let wanted = &matched.wanted;
        let name = wanted.named(Naming::Original).to_owned();
        Tensor { name, shape: wanted.shape.clone(), ..stored }
    };
    let tensors = recognized.tensors.iter().map(tensor).collect();
    let catalog::Recognized { part, inferred, doubt, .. } = recognized;
    Ok(Recognized { file: Arc::new(file.described(metadata, tensors)), part, inferred, doubt })
}

/// The tensors of a safetensors file's `bytes`.
fn safetensors(path: &Path, bytes: &[u8]) -> Result<(Metadata, Vec<Tensor>), RecognizeError> {
    let broken = |e: &dyn std::fmt::Display| RecognizeError::Safetensors {
        file: path.to_owned(),
        why: e.to_string(),
    };
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(|e| broken(&e))?;
    let data = 8 + length as u64;
    if data + header.data_len() as u64 != bytes.len() as u64 {
        return Err(broken(&"it isn't as long as its header says; download it again"));
    }
    let mut tensors = Vec::new();
    for (name, info) in header.tensors() {
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            // ComfyUI's text encoders keep the tokenizer's model among their tensors.
            Dtype::U8 => continue,
            other => {
                let (file, dtype) = (path.to_owned(), format!("{other:?}"));
                return Err(RecognizeError::Type { file, tensor: name, dtype });
            }
        };
        let (start, end) = info.data_offsets;
        // Numbers without dimensions and empty tensors are no weights.
        if info.shape.is_empty() || start == end {
            continue;
        }
        let shape: Vec<u64> = info.shape.iter().map(|&d| d as u64).collect();
        if shape.len() > 5 {
            return Err(broken(&format!("tensor `{name}` is {shape:?}")));
        }
        let (offset, bytes) = (data + start as u64, (end - start) as u64);
        tensors.push(Tensor { name, shape, dtype, offset, bytes });
    }
    Ok((Metadata::new(), tensors))
}
