//! What a file will hold, decided before it is begun: the types of its tensors and its metadata.

use anyhow::Result;
use gguf::{DType, Metadata, TensorSpec};
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::arch::{Model, Role, Tensor};
use crate::recipe;
use crate::report::FileReport;

/// A model and its tensors' types, in the order of `model.tensors`.
pub(crate) struct Plan {
    pub(crate) model: Model,
    pub(crate) dtypes: Vec<DType>,
    pub(crate) metadata: Metadata,
    /// Bytes of the tensors, with what the format may add between them.
    pub(crate) bytes: u64,
}

impl Plan {
    pub(crate) fn new(model: Model) -> Result<Self> {
        let (mut dtypes, mut bytes) = (Vec::new(), 0);
        for tensor in &model.tensors {
            let row = *tensor.shape.last().expect("no scalar is in the tables");
            let largest = || model.weights.largest(&tensor.source);
            let dtype = recipe::dtype(model.quant, tensor.role, row, largest)?;
            let rows = tensor.elements() / row;
            bytes += rows * dtype.row_bytes(row).expect("the recipe chose by the row") + 32;
            dtypes.push(dtype);
        }
        let metadata = metadata(&model, &dtypes);
        Ok(Self { model, dtypes, metadata, bytes })
    }

    pub(crate) fn specs(&self) -> Vec<TensorSpec> {
        let spec = |(tensor, &dtype): (&Tensor, _)| TensorSpec {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype,
        };
        self.model.tensors.iter().zip(&self.dtypes).map(spec).collect()
    }

    /// What the file at `path`, written after this plan, holds.
    pub(crate) fn report(&self, path: PathBuf, file_bytes: u64) -> FileReport {
        let (mut census, mut fallbacks) = (BTreeMap::new(), 0);
        let (mut elements, mut tensor_bytes) = (0, 0);
        for (tensor, &dtype) in self.model.tensors.iter().zip(&self.dtypes) {
            *census.entry(dtype).or_insert(0) += 1;
            if tensor.role == Role::Block && dtype != self.model.quant.dtype() {
                fallbacks += 1;
            }
            elements += tensor.elements();
            tensor_bytes += dtype.row_bytes(tensor.elements()).expect("rows are whole blocks");
        }
        FileReport { path, elements, tensor_bytes, file_bytes, census, fallbacks }
    }
}

fn metadata(model: &Model, dtypes: &[DType]) -> Metadata {
    let mut metadata = Metadata::new();
    metadata
        .set("general.architecture", model.architecture)
        .set("general.type", "model")
        .set("general.name", model.name.as_str())
        .set("general.source.name", model.source_name.as_str())
        .set("general.quantized_by", concat!("to-gguf ", env!("CARGO_PKG_VERSION")))
        .set("general.file_type", model.quant.file_type());
    if dtypes.iter().any(|dtype| dtype.is_quantized()) {
        // The second layout of ggml's blocks, the only one in use since 2023.
        metadata.set("general.quantization_version", 2u32);
    }
    for (key, value) in model.metadata.iter() {
        metadata.set(key, value.clone());
    }
    metadata
}
