//! The metadata of a file: ordered entries, and getters that know the type they want.

use indexmap::IndexMap;

use crate::value::{Array, Value};

/// Metadata entries in the order of the file. Keys are unique.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: IndexMap<String, Value>,
}

/// Why a [`Metadata`] getter has no value to return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// There is no such key.
    #[error("metadata key {key:?} is missing")]
    Missing {
        /// The key that was asked for.
        key: String,
    },
    /// The key exists, with a value of another type.
    #[error("metadata key {key:?} holds {found}, not {wanted}")]
    Type {
        /// The key that was asked for.
        key: String,
        /// The type that was asked for.
        wanted: &'static str,
        /// The type in the file.
        found: &'static str,
    },
}

impl Metadata {
    /// No entries yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of `key`: in place if the key exists, else as the last entry.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.entries.insert(key.into(), value.into());
        self
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The string under `key`.
    ///
    /// # Errors
    /// As all typed getters: [`MetadataError::Missing`] without the key, [`MetadataError::Type`] if its
    /// value has any other type. Numbers aren't converted.
    pub fn string(&self, key: &str) -> Result<&str, MetadataError> {
        self.typed(key, "string", |value| match value {
            Value::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// The `u32` under `key`.
    pub fn u32(&self, key: &str) -> Result<u32, MetadataError> {
        self.typed(key, "u32", |value| match value {
            Value::U32(value) => Some(*value),
            _ => None,
        })
    }

    /// The `u64` under `key`.
    pub fn u64(&self, key: &str) -> Result<u64, MetadataError> {
        self.typed(key, "u64", |value| match value {
            Value::U64(value) => Some(*value),
            _ => None,
        })
    }

    /// The `f32` under `key`.
    pub fn f32(&self, key: &str) -> Result<f32, MetadataError> {
        self.typed(key, "f32", |value| match value {
            Value::F32(value) => Some(*value),
            _ => None,
        })
    }

    /// The `bool` under `key`.
    pub fn bool(&self, key: &str) -> Result<bool, MetadataError> {
        self.typed(key, "bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// The array of strings under `key`.
    pub fn strings(&self, key: &str) -> Result<&[String], MetadataError> {
        self.typed(key, "array of string", |value| match value {
            Value::Array(Array::String(elements)) => Some(elements.as_slice()),
            _ => None,
        })
    }

    /// The array of `f32` under `key`.
    pub fn f32s(&self, key: &str) -> Result<&[f32], MetadataError> {
        self.typed(key, "array of f32", |value| match value {
            Value::Array(Array::F32(elements)) => Some(elements.as_slice()),
            _ => None,
        })
    }

    /// The array of `i32` under `key`.
    pub fn i32s(&self, key: &str) -> Result<&[i32], MetadataError> {
        self.typed(key, "array of i32", |value| match value {
            Value::Array(Array::I32(elements)) => Some(elements.as_slice()),
            _ => None,
        })
    }

    /// The array of bytes under `key`. Writers disagree on whether a byte is a `u8` or an `i8`, so both
    /// are taken.
    pub fn bytes(&self, key: &str) -> Result<Vec<u8>, MetadataError> {
        self.typed(key, "array of u8 or i8", |value| match value {
            Value::Array(Array::U8(elements)) => Some(elements.clone()),
            Value::Array(Array::I8(elements)) => {
                Some(elements.iter().map(|byte| byte.cast_unsigned()).collect())
            }
            _ => None,
        })
    }

    /// Turns a missing key into `None`; a value of the wrong type stays an error.
    pub fn optional<T>(result: Result<T, MetadataError>) -> Result<Option<T>, MetadataError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(MetadataError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, MetadataError> {
        let value = self.get(key).ok_or_else(|| MetadataError::Missing { key: key.to_owned() })?;
        pick(value).ok_or_else(|| MetadataError::Type {
            key: key.to_owned(),
            wanted,
            found: value.type_name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_keeps_the_place_of_a_key() {
        let mut metadata = Metadata::new();
        metadata.set("a", 1u32).set("b", true).set("a", "again");
        let entries: Vec<_> = metadata.iter().collect();
        assert_eq!(entries, [("a", &Value::String("again".into())), ("b", &Value::Bool(true))]);
    }

    #[test]
    fn getters_return_their_own_type_only() {
        let mut metadata = Metadata::new();
        metadata.set("u32", 7u32).set("u64", 8u64).set("f32", 0.5f32).set("bool", true);
        metadata.set("string", "wan").set("strings", vec!["a".to_owned()]);
        metadata.set("f32s", vec![0.5f32]).set("i32s", vec![-1i32]);
        metadata.set("u8s", vec![255u8]).set("i8s", vec![-1i8]);

        assert_eq!(metadata.u32("u32"), Ok(7));
        assert_eq!(metadata.u64("u64"), Ok(8));
        assert_eq!(metadata.f32("f32"), Ok(0.5));
        assert_eq!(metadata.bool("bool"), Ok(true));
        assert_eq!(metadata.string("string"), Ok("wan"));
        assert_eq!(metadata.strings("strings"), Ok(&["a".to_owned()][..]));
        assert_eq!(metadata.f32s("f32s"), Ok(&[0.5][..]));
        assert_eq!(metadata.i32s("i32s"), Ok(&[-1][..]));
        assert_eq!(metadata.bytes("u8s"), Ok(vec![255]));
        assert_eq!(metadata.bytes("i8s"), Ok(vec![255]));
        assert_eq!(
            metadata.u64("u32"),
            Err(MetadataError::Type { key: "u32".into(), wanted: "u64", found: "u32" })
        );
        assert_eq!(
            metadata.bytes("i32s").unwrap_err().to_string(),
            "metadata key \"i32s\" holds array of i32, not array of u8 or i8"
        );
    }

    #[test]
    fn only_a_missing_key_is_optional() {
        let mut metadata = Metadata::new();
        metadata.set("a", 1u32);
        assert_eq!(Metadata::optional(metadata.u32("b")), Ok(None));
        assert_eq!(Metadata::optional(metadata.u32("a")), Ok(Some(1)));
        assert!(Metadata::optional(metadata.string("a")).is_err());
    }
}
