//! The header of a safetensors file, as untrusted input.

use anyhow::{Context, Result, ensure};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::element::SourceType;

/// A real shard's header has a few hundred kilobytes.
const LARGEST_HEADER: u64 = 16 << 20;

/// A tensor of a file: its name, type and shape, and where its first byte is.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: SourceType,
    pub(super) shape: Vec<u64>,
    pub(super) offset: u64,
}

/// The header, checked: tensors cover the file from the header's end to its own without a gap.
pub(super) fn entries(file: &File) -> Result<Vec<Entry>> {
    entries_of(&header(file)?, file.metadata()?.len())
}

/// What a file says under `key` of what isn't tensors; nothing, if it is no safetensors file.
pub(crate) fn header_entry(path: &Path, key: &str) -> Result<Option<String>> {
    let Ok(json) = header(&File::open(path)?) else { return Ok(None) };
    let metadata: Metadata = serde_json::from_slice(&json).context("bad safetensors header")?;
    Ok(metadata.metadata().as_ref().and_then(|all| all.get(key).cloned()))
}

/// The header's JSON.
fn header(file: &File) -> Result<Vec<u8>> {
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
    Ok(json)
}

/// As [`entries`], for a header of JSON in a file of so many bytes.
pub(super) fn entries_of(json: &[u8], file_bytes: u64) -> Result<Vec<Entry>> {
    let _: UniqueKeys = serde_json::from_slice(json).context("bad safetensors header")?;
    // Deserializing checks that offsets follow each other and spans fit shapes and types.
    let metadata: Metadata = serde_json::from_slice(json).context("bad safetensors header")?;
    let data = 8 + json.len() as u64;
    let end = data.checked_add(metadata.data_len() as u64);
    ensure!(
        end == Some(file_bytes),
        "the tensors end at byte {}, the file at {file_bytes}; download it again",
        data.saturating_add(metadata.data_len() as u64)
    );
    let entries = metadata.tensors().into_iter().map(|(name, info)| Entry {
        name,
        dtype: source_type(info.dtype),
        shape: info.shape.iter().map(|&n| n as u64).collect(),
        offset: data + info.data_offsets.0 as u64,
    });
    Ok(entries.collect())
}

/// A JSON object whose keys are all different; of two alike, maps would keep the last.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = UniqueKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
                let mut keys = HashSet::new();
                while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                    if keys.contains(&key) {
                        return Err(A::Error::custom(format!("{key:?} is there twice")));
                    }
                    keys.insert(key);
                }
                Ok(UniqueKeys)
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

fn source_type(dtype: Dtype) -> SourceType {
    let other = |name, bytes| SourceType::Other { name, bytes };
    match dtype {
        Dtype::F64 => SourceType::F64,
        Dtype::F32 => SourceType::F32,
        Dtype::F16 => SourceType::F16,
        Dtype::BF16 => SourceType::BF16,
        Dtype::F8_E4M3 => SourceType::F8E4M3,
        Dtype::F8_E5M2 => SourceType::F8E5M2,
        Dtype::I64 => other("I64", 8),
        Dtype::U64 => other("U64", 8),
        Dtype::I32 => other("I32", 4),
        Dtype::U32 => other("U32", 4),
        Dtype::I16 => other("I16", 2),
        Dtype::U16 => other("U16", 2),
        Dtype::I8 => other("I8", 1),
        Dtype::U8 => other("U8", 1),
        Dtype::BOOL => other("BOOL", 1),
        // Of less than a byte, complex, or new: nobody reads their bytes.
        _ => other("of an unsupported type", 0),
    }
}
