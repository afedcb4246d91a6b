//! A diffusers checkpoint as untrusted input: which components it has, what their configurations
//! say, and the bytes of their weights.

mod config;
mod element;
mod fp8;
mod safetensors;
mod weights;

pub(crate) use config::Config;
pub(crate) use element::SourceType;
pub(crate) use safetensors::header_entry;
pub(crate) use weights::{SourceTensor, WINDOW, Weights, pickle_in, refusal_of_pickles};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A folder with a `model_index.json`.
pub(crate) struct Folder {
    path: PathBuf,
    index: Config,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        ensure!(path.exists(), "{}: no such folder", path.display());
        let index = path.join("model_index.json");
        ensure!(
            index.is_file(),
            "{}: not a diffusers checkpoint; give the folder that holds model_index.json",
            path.display()
        );
        Ok(Self { path: path.to_owned(), index: Config::read(index)? })
    }

    /// What the folder is called.
    pub(crate) fn name(&self) -> Result<String> {
        let whole = self.path.canonicalize().with_context(|| self.path.display().to_string())?;
        Ok(whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned())
    }

    /// `model_index.json`.
    pub(crate) fn index(&self) -> &Config {
        &self.index
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The class of a component; `None` if the model has no such component.
    pub(crate) fn class(&self, component: &str) -> Result<Option<&str>> {
        let class = match self.index.get(component) {
            Value::Null => return Ok(None),
            Value::Array(pair) if pair.len() == 2 => &pair[1],
            other => bail!("{}: {component:?} is {other}", self.index.path().display()),
        };
        match class {
            Value::Null => Ok(None),
            Value::String(class) => Ok(Some(class)),
            other => bail!("{}: {component:?} has the class {other}", self.index.path().display()),
        }
    }

    /// Errors unless the component's class is one of `supported`.
    pub(crate) fn expect_class(&self, component: &str, supported: &[&str]) -> Result<()> {
        let found = self.class(component)?;
        ensure!(
            found.is_some_and(|class| supported.contains(&class)),
            "{}: {component:?} is {}; supported is {}",
            self.index.path().display(),
            found.unwrap_or("missing"),
            supported.join(" or ")
        );
        Ok(())
    }

    /// The configuration of a component.
    pub(crate) fn config(&self, component: &str) -> Result<Config> {
        Config::read(self.path.join(component).join("config.json"))
    }

    /// The weights of a component, in files whose names begin with `stem`.
    pub(crate) fn weights(&self, component: &str, stem: &str) -> Result<Weights> {
        Weights::open(&self.path.join(component), stem)
    }
}
