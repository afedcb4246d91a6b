//! A file with another header around the same tensors.

use anyhow::{Context, Result, ensure};
use gguf::{File, Metadata, TensorSpec, Value, Writer};
use std::path::PathBuf;
use std::str::FromStr;

use crate::job::check_space;
use crate::shape::{self, Layout, ORIGINAL};

/// What to write anew, and how.
#[derive(Clone, Debug)]
pub struct Rewrap {
    /// The file that there is.
    pub source: PathBuf,
    /// The file to write.
    pub output: PathBuf,
    /// How tensors of five dimensions are stored; as they are if this is `None`.
    pub layout: Option<Layout>,
    /// What is put before every name, or taken off where a name has it (with `strip`).
    pub prefix: Option<String>,
    /// What is taken off the names that begin with it.
    pub strip: Option<String>,
    /// Keys to set, with values in the type of what was there, or else as they look.
    pub set: Vec<(String, String)>,
    /// Keys to leave out.
    pub unset: Vec<String>,
    /// Whether a file that exists is replaced.
    pub force: bool,
}

/// Bytes that are copied at once.
const STEP: usize = 8 << 20;

/// Writes the file; returns its bytes.
///
/// # Errors
/// Where the source is no GGUF file, a key isn't there or a value doesn't fit it, the result is
/// nothing that readers accept, the output exists or has no room.
pub fn rewrap(options: &Rewrap) -> Result<u64> {
    let Rewrap { source, output, .. } = options;
    let file = File::open(source)?;
    ensure!(options.force || !output.exists(), "{} exists; --force replaces it", output.display());
    let mut metadata = Metadata::new();
    for (key, value) in file.metadata().iter() {
        // Files are written with the format's own alignment.
        let left_out = options.unset.iter().any(|unset| unset == key)
            || key == "general.alignment"
            || (options.layout.is_some() && key.starts_with(ORIGINAL));
        if !left_out {
            metadata.set(key, value.clone());
        }
    }
    for key in &options.unset {
        ensure!(file.metadata().get(key).is_some(), "{}: no key {key:?}", source.display());
    }
    for (key, text) in &options.set {
        let value =
            value(file.metadata().get(key), text).with_context(|| format!("--set {key}"))?;
        metadata.set(key, value);
    }
    if let Some(strip) = &options.strip {
        let begins = file.tensors().iter().any(|tensor| tensor.name.starts_with(&**strip));
        ensure!(begins, "{}: no tensor's name begins with {strip:?}", source.display());
    }
    let mut specs = Vec::new();
    for tensor in file.tensors() {
        let name = options.strip.as_deref().and_then(|strip| tensor.name.strip_prefix(strip));
        let name = name.unwrap_or(&tensor.name);
        let name = format!("{}{name}", options.prefix.as_deref().unwrap_or(""));
        let shape = match options.layout {
            None => tensor.shape.clone(),
            Some(layout) => {
                let whole = shape::original(file.metadata(), &tensor.name, &tensor.shape);
                let whole = whole.or_else(|| unfolded(&file, &tensor.name, &tensor.shape));
                let whole = whole.unwrap_or_else(|| tensor.shape.clone());
                if layout == Layout::Fold4d {
                    shape::describe(&mut metadata, [(&*name, &*whole)].into_iter());
                }
                shape::stored(layout, &whole)
            }
        };
        specs.push(TensorSpec { name, shape, dtype: tensor.dtype });
    }
    check_space(output, file.mapping().len() as u64)?;
    let mut writer = Writer::create(output, &metadata, specs)?;
    for tensor in file.tensors() {
        for bytes in file.data(tensor).chunks(STEP) {
            writer.write(bytes)?;
        }
    }
    let bytes = writer.file_bytes();
    writer.finish()?;
    Ok(bytes)
}

/// The kernel of a patch embedding that was folded without a note, as stable-diffusion.cpp does: its
/// outputs are as many as its bias has elements.
fn unfolded(file: &File, name: &str, shape: &[u64]) -> Option<Vec<u64>> {
    let module = name.strip_suffix("weight").filter(|_| shape::is_patch_embedding(name))?;
    let bias = file.tensor(&format!("{module}bias"))?;
    let (outputs, [folded, rest @ ..]) = (bias.elements(), shape) else { return None };
    let fits = rest.len() == 3 && folded.is_multiple_of(outputs);
    fits.then(|| [&[outputs, folded / outputs], rest].concat())
}

/// A value as typed, in the type of the one that it replaces.
fn value(before: Option<&Value>, text: &str) -> Result<Value> {
    let looks = || match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text.parse::<u32>().map(Value::U32).unwrap_or_else(|_| match text.parse::<f32>() {
            Ok(number) if number.is_finite() => Value::F32(number),
            _ => Value::String(text.to_owned()),
        }),
    };
    Ok(match before {
        None => looks(),
        Some(Value::String(_)) => Value::String(text.to_owned()),
        Some(Value::U8(_)) => Value::U8(parsed(text, "u8")?),
        Some(Value::I8(_)) => Value::I8(parsed(text, "i8")?),
        Some(Value::U16(_)) => Value::U16(parsed(text, "u16")?),
        Some(Value::I16(_)) => Value::I16(parsed(text, "i16")?),
        Some(Value::U32(_)) => Value::U32(parsed(text, "u32")?),
        Some(Value::I32(_)) => Value::I32(parsed(text, "i32")?),
        Some(Value::U64(_)) => Value::U64(parsed(text, "u64")?),
        Some(Value::I64(_)) => Value::I64(parsed(text, "i64")?),
        Some(Value::F32(_)) => Value::F32(parsed(text, "f32")?),
        Some(Value::F64(_)) => Value::F64(parsed(text, "f64")?),
        Some(Value::Bool(_)) => Value::Bool(parsed(text, "bool")?),
        Some(Value::Array(_)) => {
            anyhow::bail!("it is an array, which can only be left out (--unset)")
        }
    })
}

/// `text` as what the key holds.
fn parsed<T: FromStr>(text: &str, kind: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("the key holds a {kind}, which {text:?} is not"))
}
