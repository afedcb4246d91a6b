//! A published folder against its hashes, and each of its files on its own.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::digest;
use crate::publish::HASHES;
use crate::source::Weights;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Below the folder.
    pub file: PathBuf,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// Checks every file that `SHA256SUMS` lists and every GGUF and safetensors file in the folder and
/// its folders; returns how many there are, and what is wrong with them.
///
/// # Errors
/// Where the folder or the list can't be read.
pub fn verify(folder: &Path) -> Result<(usize, Vec<Problem>)> {
    let list = folder.join(HASHES);
    ensure!(folder.is_dir(), "{}: no such folder", folder.display());
    ensure!(
        list.exists(),
        "{}: no {HASHES} to check against; `to-gguf --publish` writes one",
        folder.display()
    );
    let text =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let listed = parse(&text).with_context(|| list.display().to_string())?;
    let mut present = BTreeSet::new();
    collect(folder, Path::new(""), &mut present)?;
    let names: BTreeSet<&PathBuf> = listed.keys().chain(&present).collect();
    let mut problems = Vec::new();
    for &name in &names {
        let path = folder.join(name);
        let what = match listed.get(name) {
            None => Some(format!("{HASHES} doesn't list it")),
            Some(_) if !path.is_file() => Some("missing".into()),
            Some(hash) => {
                let found = digest::sha256(&path)?;
                (found != *hash).then(|| format!("its hash is {found}, listed is {hash}"))
            }
        };
        let what = what.or_else(|| structure(&path));
        problems.extend(what.map(|what| Problem { file: name.clone(), what }));
    }
    Ok((names.len(), problems))
}

/// Lines of `sha256sum`: a hash, two spaces (or one and an asterisk), a name.
fn parse(text: &str) -> Result<BTreeMap<PathBuf, String>> {
    let mut listed = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = number + 1;
        let (hash, name) = line.split_once(' ').with_context(|| format!("line {number}"))?;
        let name = name.strip_prefix([' ', '*']).unwrap_or(name);
        let hexadecimal = hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
        ensure!(hexadecimal, "line {number}: {hash:?} is no SHA-256");
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(inside && !name.is_empty(), "line {number}: {name:?} is not below the folder");
        let before = listed.insert(name.into(), hash.to_lowercase());
        ensure!(before.is_none(), "line {number}: {name:?} is there twice");
    }
    Ok(listed)
}

fn collect(folder: &Path, below: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let here = folder.join(below);
    for entry in fs::read_dir(&here).with_context(|| here.display().to_string())? {
        let entry = entry.with_context(|| here.display().to_string())?;
        let name = below.join(entry.file_name());
        // Links to folders may lead in circles.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(folder, &name, files)?;
        } else if name.extension().is_some_and(|end| end == "gguf" || end == "safetensors") {
            files.insert(name);
        }
    }
    Ok(())
}

/// What is wrong with a file on its own.
fn structure(path: &Path) -> Option<String> {
    match path.extension()?.to_str()? {
        "gguf" => {
            gguf::File::open(path).err().map(|error| format!("{:#}", anyhow::Error::new(error)))
        }
        "safetensors" => Weights::open_file(path).err().map(|error| format!("{error:#}")),
        _ => None,
    }
}
