//! Which files of a folder make a pipeline: told by what is in them, never by their names.

use super::request::LatentGrid;
use crate::models::ModelError;
use crate::models::wan::{Expert, vae};
use gguf::File;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the parts of a model are; a part that isn't named is looked for in `folder`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    pub folder: PathBuf,
    pub high_noise: Option<PathBuf>,
    pub low_noise: Option<PathBuf>,
    pub text_encoder: Option<PathBuf>,
    pub vae: Option<PathBuf>,
}

/// The opened files of a pipeline.
#[derive(Debug)]
pub struct ModelFolder {
    /// The high-noise expert, or the only one.
    pub transformer: Arc<File>,
    /// The low-noise expert.
    pub transformer_2: Option<Arc<File>>,
    pub text_encoder: Arc<File>,
    pub vae: Arc<File>,
}

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{folder}: {cause}", folder = .folder.display())]
    Read { folder: PathBuf, cause: std::io::Error },
    #[error(transparent)]
    File(#[from] gguf::Error),
    #[error(
        "{folder}: no {part} among the .gguf files here and one folder below; make one with `to-gguf`, or name it with {option}",
        folder = .folder.display()
    )]
    Missing { folder: PathBuf, part: &'static str, option: &'static str },
    #[error(
        "{folder}: {count} files are a {part}; choose one with {option}:{list}",
        folder = .folder.display(), count = .files.len(), list = lines(.files)
    )]
    Several { folder: PathBuf, part: &'static str, option: &'static str, files: Vec<PathBuf> },
    #[error("{file}: this is {found}, but {option} wants a {part}", file = .file.display())]
    Kind { file: PathBuf, found: String, option: &'static str, part: &'static str },
}

fn lines(files: &[PathBuf]) -> String {
    files.iter().map(|f| format!("\n  {}", f.display())).collect()
}

/// What a file says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Transformer(Expert),
    TextEncoder,
    Vae,
}

impl Part {
    fn of(file: &File) -> Result<Self, String> {
        let text = |key| file.metadata().string(key);
        match text("general.architecture").map_err(|e| format!("a file where {e}"))? {
            "wan" => {
                match text("wan.expert").map_err(|e| format!("a Wan transformer where {e}"))? {
                    "high_noise" => Ok(Self::Transformer(Expert::HighNoise)),
                    "low_noise" => Ok(Self::Transformer(Expert::LowNoise)),
                    "single" => Ok(Self::Transformer(Expert::Single)),
                    other => Err(format!("a Wan transformer for the unknown expert `{other}`")),
                }
            }
            "t5encoder" => Ok(Self::TextEncoder),
            "wanvae" => Ok(Self::Vae),
            other => Err(format!("a model of architecture `{other}`")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Transformer(expert) => expert.name(),
            Self::TextEncoder => "text encoder",
            Self::Vae => "VAE",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Transformer(Expert::HighNoise | Expert::Single) => "--high-noise",
            Self::Transformer(Expert::LowNoise) => "--low-noise",
            Self::TextEncoder => "--text-encoder",
            Self::Vae => "--vae",
        }
    }
}

impl ModelFolder {
    pub fn open(places: &Places) -> Result<Self, FolderError> {
        let mut found = Vec::new();
        for path in candidates(&places.folder)? {
            let file = File::open(&path)?;
            // Files of other kinds may lie beside ours.
            if let Ok(part) = Part::of(&file) {
                found.push((part, Arc::new(file)));
            }
        }
        let single = Part::Transformer(Expert::Single);
        let high = Part::Transformer(Expert::HighNoise);
        let low = Part::Transformer(Expert::LowNoise);
        let folder = Finder { folder: &places.folder, found };
        let alone = match &places.high_noise {
            Some(path) => Part::of(&File::open(path)?) == Ok(single),
            None => folder.has(single) && !folder.has(high),
        };
        let transformer = folder.find(&places.high_noise, if alone { single } else { high })?;
        let transformer_2 = if alone { None } else { Some(folder.find(&places.low_noise, low)?) };
        let text_encoder = folder.find(&places.text_encoder, Part::TextEncoder)?;
        let vae = folder.find(&places.vae, Part::Vae)?;
        Ok(Self { transformer, transformer_2, text_encoder, vae })
    }
}

impl ModelFolder {
    /// What the VAE makes of clips.
    pub fn latent_grid(&self) -> Result<LatentGrid, ModelError> {
        Ok(LatentGrid::from(&vae::Config::new(&self.vae)?))
    }

    /// Each file and what it is called in records: `high_noise`, `low_noise`, `text_encoder`, `vae`.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Arc<File>)> {
        let low = self.transformer_2.iter().map(|file| ("low_noise", file));
        let rest = [("text_encoder", &self.text_encoder), ("vae", &self.vae)];
        std::iter::once(("high_noise", &self.transformer)).chain(low).chain(rest)
    }
}

struct Finder<'a> {
    folder: &'a Path,
    found: Vec<(Part, Arc<File>)>,
}

impl Finder<'_> {
    fn has(&self, part: Part) -> bool {
        self.found.iter().any(|(p, _)| *p == part)
    }

    /// The file at `named`, or the only one of this kind in the folder.
    fn find(&self, named: &Option<PathBuf>, part: Part) -> Result<Arc<File>, FolderError> {
        if let Some(path) = named {
            let file = File::open(path)?;
            let found = match Part::of(&file) {
                Ok(found) if found == part => return Ok(Arc::new(file)),
                Ok(found) => format!("a {}", found.name()),
                Err(what) => what,
            };
            let (file, option, part) = (path.clone(), part.option(), part.name());
            return Err(FolderError::Kind { file, found, option, part });
        }
        let mut fitting = self.found.iter().filter(|(p, _)| *p == part).map(|(_, file)| file);
        let (folder, option, name) = (self.folder.to_owned(), part.option(), part.name());
        match (fitting.next(), fitting.next()) {
            (None, _) => Err(FolderError::Missing { folder, part: name, option }),
            (Some(file), None) => Ok(file.clone()),
            _ => {
                let all = self.found.iter().filter(|(p, _)| *p == part);
                let files = all.map(|(_, file)| file.path().to_owned()).collect();
                Err(FolderError::Several { folder, part: name, option, files })
            }
        }
    }
}

/// The .gguf files in `folder` and in the folders directly below, in order of their names.
fn candidates(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = Vec::new();
    let mut list = |at: &Path| -> Result<Vec<PathBuf>, FolderError> {
        let error = |cause| FolderError::Read { folder: at.to_owned(), cause };
        let mut folders = Vec::new();
        for entry in fs::read_dir(at).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "gguf") {
                files.push(path);
            }
        }
        Ok(folders)
    };
    for below in list(folder)? {
        list(&below)?;
    }
    files.sort();
    Ok(files)
}
