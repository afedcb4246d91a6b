//! What a GGUF file holds.

use anyhow::Result;
use catalog::{Error, Family, Given, Part, Recognized, recognize};
use gguf::{Array, DType, File, Value};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What a GGUF file holds.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The file.
    pub file: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Of the format.
    pub version: u32,
    /// Which model it is, or which it could be; nothing of files that are none that are known.
    pub model: Option<String>,
    /// What of that the file itself does not say.
    pub inferred: Vec<String>,
    /// Elements of all tensors.
    pub elements: u64,
    /// Bits that an element takes on average.
    pub bits_per_weight: f64,
    /// Keys and values in order; long arrays by their type and length.
    pub metadata: Vec<(String, serde_json::Value)>,
    /// By type: how many tensors, elements and bytes.
    pub types: BTreeMap<String, Census>,
    /// In the order of the file.
    pub tensors: Vec<TensorInfo>,
}

/// The tensors of a type together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Census {
    /// How many there are.
    pub tensors: usize,
    /// How many elements they have.
    pub elements: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

/// A tensor as the header describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// The type of its elements.
    #[serde(rename = "type")]
    pub dtype: String,
    /// From the start of the file.
    pub offset: u64,
    /// Without padding.
    pub bytes: u64,
}

/// Elements of an array that are shown.
const SHOWN: usize = 8;

/// Reads a file's header.
///
/// # Errors
/// Where it is no GGUF file that [`gguf::File`] accepts.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let file = File::open(path)?;
    let mut types: BTreeMap<DType, Census> = BTreeMap::new();
    for tensor in file.tensors() {
        let census = types.entry(tensor.dtype).or_default();
        census.tensors += 1;
        census.elements += tensor.elements();
        census.bytes += tensor.bytes;
    }
    let (elements, bytes) = types
        .values()
        .fold((0, 0), |(n, bytes), census| (n + census.elements, bytes + census.bytes));
    let info = |tensor: &gguf::Tensor| TensorInfo {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        dtype: tensor.dtype.name().into(),
        offset: tensor.offset,
        bytes: tensor.bytes,
    };
    let (model, inferred) = model(&file);
    Ok(Inspection {
        file: path.display().to_string(),
        bytes: file.mapping().len() as u64,
        version: file.version(),
        model,
        inferred,
        elements,
        bits_per_weight: if elements == 0 { 0.0 } else { bytes as f64 * 8.0 / elements as f64 },
        metadata: file
            .metadata()
            .iter()
            .map(|(key, value)| (key.to_owned(), json(value)))
            .collect(),
        types: types.into_iter().map(|(dtype, census)| (dtype.name().into(), census)).collect(),
        tensors: file.tensors().iter().map(info).collect(),
    })
}

/// Which model a file is, and what of that it does not say.
fn model(file: &File) -> (Option<String>, Vec<String>) {
    match recognize(&Given::from(file), None) {
        Ok(Recognized { family: Family::HunyuanVideo15, inferred, .. }) => {
            let task = file
                .metadata()
                .string("hyvid.task")
                .map_or(String::new(), |task| format!(" {}", task.to_uppercase()));
            (Some(format!("HunyuanVideo 1.5{task}")), inferred)
        }
        Ok(Recognized { part, variant, inferred, .. }) => {
            let what = match (part, variant) {
                (Part::HighNoise, Some(variant)) => format!("{}, high-noise expert", variant.title),
                (Part::LowNoise, Some(variant)) => format!("{}, low-noise expert", variant.title),
                (_, Some(variant)) => variant.title.to_owned(),
                (Part::ImageEncoder, None) => "CLIP image encoder".into(),
                (Part::Vae, None) => "Wan VAE".into(),
                (_, None) => "UMT5 text encoder".into(),
            };
            (Some(what), inferred)
        }
        Err(Error::Ambiguous { choices, .. }) => (Some(choices.join(" or ")), Vec::new()),
        Err(_) => (None, Vec::new()),
    }
}

fn json(value: &Value) -> serde_json::Value {
    use serde_json::json;
    match value {
        Value::U8(n) => json!(n),
        Value::I8(n) => json!(n),
        Value::U16(n) => json!(n),
        Value::I16(n) => json!(n),
        Value::U32(n) => json!(n),
        Value::I32(n) => json!(n),
        // As it is written, not as the nearest double is.
        Value::F32(n) => n.to_string().parse::<f64>().map_or(serde_json::Value::Null, |n| json!(n)),
        Value::Bool(b) => json!(b),
        Value::String(text) => json!(text),
        Value::U64(n) => json!(n),
        Value::I64(n) => json!(n),
        Value::F64(n) => json!(n),
        Value::Array(array) if array.len() > SHOWN => {
            json!(format!("array of {} {}", array.len(), element(array)))
        }
        Value::Array(array) => match array {
            Array::U8(v) => json!(v),
            Array::I8(v) => json!(v),
            Array::U16(v) => json!(v),
            Array::I16(v) => json!(v),
            Array::U32(v) => json!(v),
            Array::I32(v) => json!(v),
            Array::F32(v) => json!(v),
            Array::Bool(v) => json!(v),
            Array::String(v) => json!(v),
            Array::U64(v) => json!(v),
            Array::I64(v) => json!(v),
            Array::F64(v) => json!(v),
        },
    }
}

fn element(array: &Array) -> &'static str {
    match array {
        Array::U8(_) => "u8",
        Array::I8(_) => "i8",
        Array::U16(_) => "u16",
        Array::I16(_) => "i16",
        Array::U32(_) => "u32",
        Array::I32(_) => "i32",
        Array::F32(_) => "f32",
        Array::Bool(_) => "bool",
        Array::String(_) => "string",
        Array::U64(_) => "u64",
        Array::I64(_) => "i64",
        Array::F64(_) => "f64",
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
        writeln!(
            f,
            "{}: GGUF version {}, {}, {} tensors, {} weights of {:.2} bits",
            self.file,
            self.version,
            megabytes(self.bytes),
            self.tensors.len(),
            self.elements,
            self.bits_per_weight
        )?;
        if let Some(model) = &self.model {
            writeln!(f, "{model}")?;
        }
        self.inferred.iter().try_for_each(|sentence| writeln!(f, "  {sentence}"))?;
        writeln!(f, "\nmetadata")?;
        for (key, value) in &self.metadata {
            writeln!(f, "  {key} = {value}")?;
        }
        writeln!(f, "\ntypes")?;
        for (dtype, census) in &self.types {
            let (tensors, size) = (census.tensors, megabytes(census.bytes));
            writeln!(f, "  {dtype:<8} {tensors:>6} tensors  {size:>12}")?;
        }
        writeln!(f, "\ntensors")?;
        let width = self.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
        for TensorInfo { name, shape, dtype, bytes, .. } in &self.tensors {
            writeln!(f, "  {name:<width$}  {dtype:<6}  {:>12}  {shape:?}", megabytes(*bytes))?;
        }
        Ok(())
    }
}
