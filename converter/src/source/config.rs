//! A component's JSON configuration, and errors that name the file and the key.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Sizes in configurations are small numbers; whatever is larger is a damaged file. The product of
/// two still is a `u32`.
const LARGEST_SIZE: u64 = 65_535;

/// The values of a `config.json`.
pub(crate) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Config {
    pub(crate) fn read(path: PathBuf) -> Result<Self> {
        // Opening a pipe waits for somebody who writes to it.
        ensure!(path.is_file() || !path.exists(), "{}: not a file", path.display());
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let values = serde_json::from_reader(BufReader::new(file))
            .with_context(|| path.display().to_string())?;
        Ok(Self { path, values })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of a key; null if it isn't there, which diffusers treats alike.
    pub(crate) fn get(&self, key: &str) -> &Value {
        self.values.get(key).unwrap_or(&Value::Null)
    }

    /// Errors unless the key has this value, or is missing: for keys whose default is the value.
    pub(crate) fn expect(&self, key: &str, supported: impl Into<Value>) -> Result<()> {
        match self.values.get(key) {
            Some(value) => self.compare(key, value, &supported.into()),
            None => Ok(()),
        }
    }

    /// Errors unless the key is there with this value: for keys with another default.
    pub(crate) fn expect_present(&self, key: &str, supported: impl Into<Value>) -> Result<()> {
        self.compare(key, self.get(key), &supported.into())
    }

    fn compare(&self, key: &str, value: &Value, supported: &Value) -> Result<()> {
        let path = self.path.display();
        ensure!(value == supported, "{path}: {key:?} is {value}; supported is {supported}");
        Ok(())
    }

    /// A positive integer.
    pub(crate) fn size(&self, key: &str) -> Result<u32> {
        self.size_up_to(key, LARGEST_SIZE)
    }

    /// A positive integer of at most `limit`, for lists and tables that grow with it.
    pub(crate) fn size_up_to(&self, key: &str, limit: u64) -> Result<u32> {
        let value = self.get(key).as_u64().filter(|value| (1..=limit).contains(value));
        let value = value.and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| self.wrong(key, &format!("an integer from 1 to {limit}")))
    }

    pub(crate) fn number(&self, key: &str) -> Result<f32> {
        let value = self.get(key).as_f64().map(|value| value as f32);
        let value = value.filter(|value| value.is_finite());
        value.ok_or_else(|| self.wrong(key, "a number"))
    }

    /// A boolean, which has a default.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            Value::Null => Ok(default),
            value => value.as_bool().ok_or_else(|| self.wrong(key, "a boolean")),
        }
    }

    /// A list of what `pick` takes, which is called `wanted` in the error.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        wanted: &str,
        pick: fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>> {
        let list = self.get(key).as_array();
        let list = list.and_then(|list| list.iter().map(pick).collect::<Option<Vec<T>>>());
        list.ok_or_else(|| self.wrong(key, wanted))
    }

    /// An error about a key that is no `wanted`.
    pub(crate) fn wrong(&self, key: &str, wanted: &str) -> anyhow::Error {
        anyhow!("{}: {key:?} is {}, not {wanted}", self.path.display(), self.get(key))
    }
}
