//! What a source is: a diffusers checkpoint, a folder of the original release, or a single file.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Model, Part, loose, models};
use crate::Job;
use crate::source::{Folder, Weights, pickle_in, refusal_of_pickles};

/// The models of a source.
pub(crate) struct Found {
    pub(crate) models: Vec<Model>,
    /// What was left aside, and why.
    pub(crate) notes: Vec<String>,
    /// What speaks against what files were taken for.
    pub(crate) doubts: Vec<String>,
    /// The licence, if the source says.
    pub(crate) license: Option<License>,
}

/// A licence as model cards name it.
pub(crate) struct License {
    pub(crate) id: String,
    /// Where it is `other`: what it is called, and where it is.
    pub(crate) name: Option<String>,
    pub(crate) link: Option<String>,
}

/// The experts' folders in the original release of Wan 2.2 A14B.
const EXPERTS: [(&str, Part); 2] =
    [("high_noise_model", Part::HighNoise), ("low_noise_model", Part::LowNoise)];

/// Finds every model of a job's source.
pub(crate) fn find(job: &Job) -> Result<Found> {
    let source = &job.source;
    ensure!(source.exists(), "{}: no such file or folder", source.display());
    if source.is_file() {
        ensure!(
            !source.ends_with("model_index.json"),
            "{}: give the folder that this file is in",
            source.display()
        );
        let found = loose::model(Weights::open_file(source)?, job.part, job)?;
        let (model, notes, doubt) = taken(source, found);
        let said = |key: &str| model.metadata.string(key).ok().map(str::to_owned);
        let license = said("general.license").map(|id| License {
            id,
            name: said("general.license.name"),
            link: said("general.license.link"),
        });
        let doubts = doubt.into_iter().collect();
        return Ok(Found { models: vec![model], notes, doubts, license });
    }
    let license = license(source);
    if source.join("model_index.json").is_file() {
        let folder = Folder::open(source)?;
        let index = source.join("model_index.json");
        ensure!(job.part.is_none(), "--expert: {} says what each one is", index.display());
        ensure!(job.tokenizer.is_none(), "--tokenizer: {} names one", index.display());
        let (models, notes) = models(&folder, &job.name)?;
        return Ok(Found { models, notes, doubts: Vec::new(), license });
    }
    let (mut models, mut notes, mut doubts) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |folder: &Path, part| -> Result<()> {
        let (model, said, against) = taken(folder, loose::model(open(folder)?, part, job)?);
        models.push(model);
        notes.extend(said);
        doubts.extend(against);
        Ok(())
    };
    let mut experts = false;
    for (name, part) in EXPERTS {
        let folder = source.join(name);
        if folder.is_dir() {
            add(&folder, Some(part))?;
            experts = true;
        }
    }
    if !experts {
        add(source, job.part)?;
    }
    if let Some(pickle) = pickle_in(source) {
        notes.push(format!("not converted: {}", refusal_of_pickles(&pickle)));
    }
    Ok(Found { models, notes, doubts, license })
}

/// A model, what its source was taken for without saying so itself, and what speaks against that.
fn taken(source: &Path, found: loose::Loose) -> (Model, Vec<String>, Option<String>) {
    let name = source.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned();
    let of = |sentence: String| format!("{name}: {sentence}");
    (found.model, found.inferred.into_iter().map(of).collect(), found.doubt.map(of))
}

/// The one model in a folder: what an index lists, or the only file.
fn open(folder: &Path) -> Result<Weights> {
    let (mut indices, mut files) = (Vec::new(), Vec::new());
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".safetensors.index.json") {
            indices.push(path);
        } else if name.ends_with(".safetensors") || name.ends_with(".gguf") {
            files.push(path);
        }
    }
    let listed = |paths: &[PathBuf]| {
        let names = paths.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy());
        names.collect::<Vec<_>>().join(", ")
    };
    match (&indices[..], &files[..]) {
        ([index], _) => Weights::open_file(index),
        ([], [file]) => Weights::open_file(file),
        ([], []) => match pickle_in(folder) {
            Some(pickle) => bail!(refusal_of_pickles(&pickle)),
            None => bail!(
                "{}: neither a diffusers checkpoint (give the folder that holds model_index.json) \
                 nor a folder with .safetensors files",
                folder.display()
            ),
        },
        ([], _) => bail!(
            "{}: several files without an index; give one of them: {}",
            folder.display(),
            listed(&files)
        ),
        (_, _) => {
            bail!("{}: several indices; give one of them: {}", folder.display(), listed(&indices))
        }
    }
}

/// The licence in the front matter of a folder's model card.
fn license(folder: &Path) -> Option<License> {
    let card = fs::read_to_string(folder.join("README.md")).ok()?;
    let mut lines = card.lines();
    if lines.next()?.trim() != "---" {
        return None;
    }
    let front: Vec<&str> = lines.take_while(|line| line.trim() != "---").collect();
    let value = |key: &str| {
        let mut values = front.iter().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let value = values.next()?.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    Some(License {
        id: value("license")?,
        name: value("license_name"),
        // A file beside the source's card isn't beside these files.
        link: value("license_link").filter(|link| link.contains("://")),
    })
}
