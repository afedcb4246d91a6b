//! Low-rank adapters (LoRA) beside a transformer's weights, without another file of it: quantized
//! weights stay as they are.

use crate::ggml::{Adapter, Adapters, Change, Source};
use catalog::lora::{Alpha, Kind, LoraError, METADATA, changes, typed};
use catalog::{Given, Naming, Part, wan};
use gguf::{File, Metadata};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;

/// An adapter and how much of it to add.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// A safetensors file.
    pub path: PathBuf,
    /// What all that it adds is multiplied by.
    pub strength: f32,
    /// Where it is added.
    pub of: Of,
}

/// Which transformers an adapter is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// All that the model has.
    All,
    /// The high-noise expert alone.
    HighNoise,
    /// The low-noise expert alone.
    LowNoise,
}

impl FromStr for Lora {
    type Err = String;

    /// `FILE` or `FILE:STRENGTH`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, strength) = typed(text)?;
        Ok(Self { path, strength, of: Of::All })
    }
}

/// Why an adapter can't be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum AdapterError {
    #[error(transparent)]
    File(#[from] gguf::Error),
    #[error("{file} is no safetensors file: {why}", file = .file.display())]
    Safetensors { file: PathBuf, why: String },
    #[error("{file}: tensor `{tensor}` is {dtype}, of which no adapter is read", file = .file.display())]
    Type { file: PathBuf, tensor: String, dtype: String },
    #[error("{file}", file = .file.display())]
    Unfit {
        file: PathBuf,
        #[source]
        cause: LoraError,
    },
    #[error(transparent)]
    Model(#[from] catalog::Error),
}

/// What the adapters among `loras` that are meant for it change of the transformer in `file`.
pub(super) fn adapters(file: &File, loras: &[Lora]) -> Result<Adapters, AdapterError> {
    let mut all = Adapters::new();
    let own = loras.iter().filter(|lora| is_for(lora.of, file));
    for lora in own {
        let table = table(file)?;
        let opened = Rc::new(Opened::new(&lora.path)?);
        let shapes = opened.shapes();
        let keys = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
        let changes = changes(keys, opened.header_entry(METADATA).as_deref(), &table)
            .map_err(|cause| AdapterError::Unfit { file: lora.path.clone(), cause })?;
        for change in changes {
            let (change_of, mut scale) = (&table[change.tensor], lora.strength);
            let change = match change.kind {
                Kind::Difference(key) => Change::Difference(opened.source(key)?),
                Kind::Product { up, down, rank, alpha } => {
                    let alpha = match alpha {
                        Alpha::Tensor(key) => opened.source(key)?()[0],
                        Alpha::Number(alpha) => alpha,
                        Alpha::Rank => rank as f32,
                    };
                    scale *= alpha / rank as f32;
                    let (up, down) = (opened.source(up)?, opened.source(down)?);
                    Change::Product { up, down, rank: rank as i64 }
                }
            };
            all.entry(change_of.name.clone()).or_default().push(Adapter { change, scale });
        }
    }
    Ok(all)
}

fn is_for(of: Of, file: &File) -> bool {
    let expert = file.metadata().string("wan.expert").ok();
    match of {
        Of::All => true,
        Of::HighNoise => expert == Part::HighNoise.expert(),
        Of::LowNoise => expert == Part::LowNoise.expert(),
    }
}

/// Every tensor of the transformer, under both of its names.
fn table(file: &File) -> Result<Vec<catalog::Wanted>, catalog::Error> {
    let shapes = file.tensors().iter().map(|t| (t.name.as_str(), t.shape.as_slice()));
    let given = Given::new(file.path(), shapes).with_metadata(file.metadata());
    Ok(wan::Sizes::of(&given, Naming::Original)?.tensors())
}

/// An adapter's file, mapped.
struct Opened(File);

impl Opened {
    fn new(path: &Path) -> Result<Self, AdapterError> {
        let mapped = File::foreign(path, |_| Ok::<_, gguf::Error>((Metadata::new(), Vec::new())))?;
        let opened = Self(mapped);
        opened
            .parse()
            .map_err(|e| AdapterError::Safetensors { file: path.to_owned(), why: e.to_string() })?;
        Ok(opened)
    }

    fn parse(&self) -> Result<SafeTensors<'_>, safetensors::SafeTensorError> {
        SafeTensors::deserialize(self.0.mapping())
    }

    fn tensor(&self, key: &str) -> TensorView<'_> {
        self.parse().and_then(|file| file.tensor(key)).expect("the header was read before")
    }

    /// Names and shapes of all tensors.
    fn shapes(&self) -> Vec<(String, Vec<u64>)> {
        let file = self.parse().expect("the header was read before");
        let shape = |view: &TensorView<'_>| view.shape().iter().map(|&d| d as u64).collect();
        file.tensors().iter().map(|(name, view)| (name.clone(), shape(view))).collect()
    }

    /// What the header says under `key` of what isn't tensors.
    fn header_entry(&self, key: &str) -> Option<String> {
        let (_, header) = SafeTensors::read_metadata(self.0.mapping()).ok()?;
        header.metadata().as_ref()?.get(key).cloned()
    }

    /// The values of tensor `key`, when they are needed.
    fn source(self: &Rc<Self>, key: String) -> Result<Source, AdapterError> {
        let dtype = self.tensor(&key).dtype();
        let read = match dtype {
            Dtype::F32 => |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes")),
            Dtype::F16 => |b: &[u8]| f16::from_le_bytes(b.try_into().expect("two bytes")).to_f32(),
            Dtype::BF16 => {
                |b: &[u8]| bf16::from_le_bytes(b.try_into().expect("two bytes")).to_f32()
            }
            Dtype::I64 => |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes")) as f32,
            Dtype::I32 => |b: &[u8]| i32::from_le_bytes(b.try_into().expect("four bytes")) as f32,
            other => {
                let (file, dtype) = (self.0.path().to_owned(), format!("{other:?}"));
                return Err(AdapterError::Type { file, tensor: key, dtype });
            }
        };
        let bytes = dtype.bitsize() / 8;
        let opened = self.clone();
        Ok(Rc::new(move || opened.tensor(&key).data().chunks_exact(bytes).map(read).collect()))
    }
}
