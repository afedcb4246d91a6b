//! The tensors that a file holds, and their comparison with a table.

use gguf::Metadata;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{Error, Naming, Wanted};

/// What says which shapes are right, in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapesFrom {
    /// A `config.json`.
    Config,
    /// The shapes of other tensors of the file.
    Tensors,
}

/// A file: its tensors' names and shapes and, of a GGUF file, its metadata.
#[derive(Clone, Debug)]
pub struct Given<'a> {
    pub(crate) path: &'a Path,
    pub(crate) metadata: Option<&'a Metadata>,
    /// By their names without a prefix that they all have.
    tensors: BTreeMap<Cow<'a, str>, (&'a str, &'a [u64])>,
    prefix: &'static str,
    from: ShapesFrom,
}

/// A tensor of the file that is one of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The name in the file.
    pub source: String,
    /// What the table says of it.
    pub wanted: Wanted,
}

impl<'a> From<&'a gguf::File> for Given<'a> {
    fn from(file: &'a gguf::File) -> Self {
        let tensors = file.tensors().iter().map(|tensor| (&*tensor.name, &*tensor.shape));
        Self::new(file.path(), tensors).with_metadata(file.metadata())
    }
}

impl<'a> Given<'a> {
    /// The tensors of safetensors files. Shapes have the outermost dimension first.
    pub fn new(path: &'a Path, tensors: impl Iterator<Item = (&'a str, &'a [u64])>) -> Self {
        let tensors = tensors.map(|(name, shape)| (name.into(), (name, shape))).collect();
        Self { path, metadata: None, tensors, prefix: "", from: ShapesFrom::Tensors }
    }

    /// Says that they are those of a GGUF file with this metadata.
    pub fn with_metadata(mut self, metadata: &'a Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Says what the table to compare with was made from.
    pub fn by(mut self, from: ShapesFrom) -> Self {
        self.from = from;
        self
    }

    /// What was taken off the names.
    pub fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Takes a prefix off the names that have it.
    pub(crate) fn strip(&mut self, prefix: &'static str) -> Result<(), Error> {
        self.prefix = prefix;
        let mut twice = Vec::new();
        for (_, whole) in std::mem::take(&mut self.tensors) {
            let short = whole.0.strip_prefix(prefix).unwrap_or(whole.0);
            if self.tensors.insert(short.into(), whole).is_some() {
                twice.push(short.to_owned());
            }
        }
        match twice.first() {
            None => Ok(()),
            Some(name) => {
                let what = format!("{name:?} is there with and without {prefix:?}");
                Err(Error::Inconsistent { file: self.path.to_owned(), what })
            }
        }
    }

    /// Puts a prefix before all names.
    pub(crate) fn begin_with(&mut self, prefix: &str) {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        self.tensors =
            tensors.map(|(name, whole)| (format!("{prefix}{name}").into(), whole)).collect();
    }

    /// Forgets tensors that are no part of the model; returns their names.
    pub(crate) fn ignore(&mut self, of_no_use: impl Fn(&str) -> bool) -> Vec<String> {
        let ignored = self.tensors.extract_if(.., |name, _| of_no_use(name));
        ignored.map(|(_, (whole, _))| whole.to_owned()).collect()
    }

    /// Takes `alias` for `name` where only the former is there, as files have it in which two modules
    /// share a tensor. Where both are, the alias is forgotten, and its name returned.
    pub(crate) fn unify(&mut self, alias: &str, name: &'static str) -> Option<String> {
        let (whole, shape) = self.tensors.remove(alias)?;
        if self.tensors.contains_key(name) {
            return Some(whole.to_owned());
        }
        self.tensors.insert(name.into(), (whole, shape));
        None
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(|name| &**name)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[u64]> {
        self.tensors.get(name).map(|&(_, shape)| shape)
    }

    /// One of a tensor's dimensions, of which there must be so many.
    pub(crate) fn size(&self, name: &str, dimensions: usize, n: usize) -> Result<u32, Error> {
        let file = || self.path.to_owned();
        let shape = self.shape(name);
        let shape = shape.ok_or_else(|| Error::NoTensor { file: file(), tensor: name.into() })?;
        let wrong = |dimensions| {
            let (tensor, shape) = (name.to_owned(), shape.to_vec());
            Error::Shape { file: file(), tensor, shape, dimensions }
        };
        if shape.len() != dimensions {
            return Err(wrong(Some(dimensions)));
        }
        // Larger ones exist in damaged files alone.
        let size = shape.get(n).and_then(|&size| u32::try_from(size).ok());
        let size = size.filter(|size| (1..1 << 22).contains(size));
        size.ok_or_else(|| wrong(None))
    }

    /// How many modules of a list there are: names are `stem`, a number, and a point.
    pub(crate) fn count(&self, stem: &str) -> u32 {
        let number = |name: &str| name.strip_prefix(stem)?.split('.').next()?.parse::<u32>().ok();
        let last = self.names().filter_map(number).max();
        // Whatever is missing below the last one shows when the table is compared.
        last.map_or(0, |last| last.saturating_add(1)).min(1024)
    }

    /// A number of the metadata.
    pub(crate) fn number(&self, key: &str) -> Option<u32> {
        self.metadata?.u32(key).ok()
    }

    /// Finds each tensor of a table, with its shape, and nothing else, in the order of the table.
    ///
    /// GGUF files may have the kernels of 3-D convolutions folded to four dimensions, and may have
    /// lost leading dimensions of 1; [`Wanted::shape`] is the whole one.
    ///
    /// # Errors
    /// [`Error::Tensors`] and [`Error::Mismatch`].
    pub fn matched(&self, naming: Naming, table: Vec<Wanted>) -> Result<Vec<Matched>, Error> {
        let file = || self.path.to_owned();
        let known: BTreeSet<&str> = table.iter().map(|wanted| wanted.named(naming)).collect();
        let missing = known.iter().filter(|name| !self.has(name)).map(|&name| name.to_owned());
        let missing: Vec<String> = missing.collect();
        let unknown = self.names().filter(|name| !known.contains(name)).map(str::to_owned);
        let unknown: Vec<String> = unknown.collect();
        if !missing.is_empty() || !unknown.is_empty() {
            return Err(Error::Tensors { file: file(), missing, unknown });
        }
        let one = |wanted: Wanted| {
            let (source, found) = self.tensors[wanted.named(naming)];
            let bent = self.metadata.is_some() && folded(found, &wanted.shape);
            if found == wanted.shape || bent {
                return Ok(Matched { source: source.to_owned(), wanted });
            }
            Err(Error::Mismatch {
                file: file(),
                tensor: source.to_owned(),
                found: found.to_vec(),
                wanted: wanted.shape,
                by: match self.from {
                    ShapesFrom::Config => "config.json",
                    ShapesFrom::Tensors => "the other tensors",
                },
            })
        };
        table.into_iter().map(one).collect()
    }
}

/// Whether `found` is `wanted` as GGUF files may have it: its two outermost dimensions in one, for
/// readers that stop at four, or without ones in front, which some writers lose.
fn folded(found: &[u64], wanted: &[u64]) -> bool {
    let joined = wanted.len() == 5
        && found.len() == 4
        && wanted[0].checked_mul(wanted[1]) == Some(found[0])
        && found[1..] == wanted[2..];
    let ones = wanted.iter().take_while(|&&n| n == 1).count();
    joined
        || (found.len() < wanted.len()
            && found.len() + ones >= wanted.len()
            && found == &wanted[wanted.len() - found.len()..])
}
