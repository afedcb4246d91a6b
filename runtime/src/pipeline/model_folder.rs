//! Which files of a folder make a pipeline: told by what is in them, and only where that says too little
//! by their names.

use super::recognized::{self, RecognizeError, Recognized};
use super::request::LatentGrid;
use crate::models::ModelError;
use crate::models::wan::{self, vae};
use catalog::Part;
use gguf::File;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the parts of a model are; a part that isn't named is looked for in `folder`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Looked through with the folders right in it, unless every part is named.
    pub folder: PathBuf,
    /// Of a model that has one transformer.
    pub transformer: Option<PathBuf>,
    /// Of a model that has two: the one for the first steps.
    pub high_noise: Option<PathBuf>,
    /// The one for the last steps.
    pub low_noise: Option<PathBuf>,
    /// UMT5's encoder, with its tokenizer.
    pub text_encoder: Option<PathBuf>,
    /// CLIP's, for models that attend to an image's features; with others, it is an error.
    pub image_encoder: Option<PathBuf>,
    /// Of as many latent channels as the transformer puts out.
    pub vae: Option<PathBuf>,
}

/// The opened files of a pipeline.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    /// The high-noise expert, or the only one.
    pub transformer: Arc<File>,
    /// The low-noise expert.
    pub transformer_2: Option<Arc<File>>,
    /// UMT5's encoder, with its tokenizer.
    pub text_encoder: Arc<File>,
    /// For transformers that attend to an image's features.
    pub image_encoder: Option<Arc<File>>,
    /// Of as many latent channels as the transformer puts out.
    pub vae: Arc<File>,
    /// What the files don't say and was found out, a sentence each.
    pub inferred: Vec<String>,
    /// What speaks against what files were taken for, a sentence each.
    pub doubts: Vec<String>,
}

/// Why files don't make a pipeline.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum FolderError {
    #[error("--model {folder}: {cause}", folder = .folder.display())]
    Read { folder: PathBuf, cause: std::io::Error },
    #[error(
        "--model {file}: a file; give its folder, or name the parts with options of their own (--transformer, --vae, ...)",
        file = .0.display()
    )]
    NoFolder(PathBuf),
    #[error(
        "{folder} is a checkpoint in diffusers layout; make GGUF files of it with `to-gguf {folder} -o FOLDER --quant Q8_0` and give that folder",
        folder = .0.display()
    )]
    Checkpoint(PathBuf),
    #[error("{file}: this model has no image encoder, and takes no --image-encoder", file = .0.display())]
    Unused(PathBuf),
    #[error(transparent)]
    File(#[from] RecognizeError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(
        "{folder}: no {part} among the .gguf and .safetensors files here and one folder below; make one with `to-gguf`, or name it with {option}{near}",
        folder = .folder.display(), near = indented(.near)
    )]
    Missing { folder: PathBuf, part: &'static str, option: &'static str, near: Vec<String> },
    #[error(
        "{folder}: {count} files are a {part}; choose one with {option}:{list}",
        folder = .folder.display(), count = .files.len(), list = lines(.files)
    )]
    Several { folder: PathBuf, part: &'static str, option: &'static str, files: Vec<PathBuf> },
    #[error(
        "{one} has {got} {what}, {other} has {expected}: the files belong to different models",
        one = .one.display(), other = .other.display()
    )]
    Mismatch { what: &'static str, one: PathBuf, got: i64, other: PathBuf, expected: i64 },
    #[error("{file}: this is a {found}, but {option} wants a {part}", file = .file.display())]
    Kind { file: PathBuf, found: &'static str, option: &'static str, part: &'static str },
}

fn lines(files: &[PathBuf]) -> String {
    files.iter().map(|f| format!("\n  {}", f.display())).collect()
}

fn indented(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  {reason}")).collect()
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Single => "transformer",
        Part::HighNoise => "high-noise expert",
        Part::LowNoise => "low-noise expert",
        Part::TextEncoder => "text encoder",
        Part::ImageEncoder => "image encoder",
        Part::Vae => "VAE",
    }
}

fn option(part: Part) -> &'static str {
    match part {
        Part::Single => "--transformer",
        Part::HighNoise => "--high-noise",
        Part::LowNoise => "--low-noise",
        Part::TextEncoder => "--text-encoder",
        Part::ImageEncoder => "--image-encoder",
        Part::Vae => "--vae",
    }
}

impl ModelFolder {
    /// Opens the parts that `places` names, and finds the others.
    ///
    /// # Errors
    /// Where a part is missing, or could be one of several files, or can't be read, or belongs to
    /// another model.
    pub fn open(places: &Places) -> Result<Self, FolderError> {
        let mut finder = Finder::new(&places.folder);
        let two = places.high_noise.is_some() || places.low_noise.is_some();
        let alone = places.transformer.is_some()
            || !two && finder.has(Part::Single)? && !finder.has(Part::HighNoise)?;
        let (transformer, transformer_2) = if alone {
            (finder.find(&places.transformer, Part::Single)?, None)
        } else {
            let high = finder.find(&places.high_noise, Part::HighNoise)?;
            (high, Some(finder.find(&places.low_noise, Part::LowNoise)?))
        };
        let text_encoder = finder.find(&places.text_encoder, Part::TextEncoder)?;
        let config = wan::Config::new(&transformer)?;
        let attends = config.image_dim.is_some();
        let image_encoder = match attends {
            true => Some(finder.find(&places.image_encoder, Part::ImageEncoder)?),
            false => match &places.image_encoder {
                Some(file) => return Err(FolderError::Unused(file.clone())),
                None => None,
            },
        };
        let vae = finder.find(&places.vae, Part::Vae)?;
        // Files of different models would meet in the middle of a run.
        let agree = |what, (one, got): (&File, i64), expected: i64| match got == expected {
            true => Ok(()),
            false => {
                let (one, other) = (one.path().to_owned(), transformer.path().to_owned());
                Err(FolderError::Mismatch { what, one, got, other, expected })
            }
        };
        agree("latent channels", (&vae, vae::Config::new(&vae)?.z_dim), config.out_channels)?;
        if let Some(low) = &transformer_2 {
            let own = wan::Config::new(low)?;
            agree("input channels", (low, own.in_channels), config.in_channels)?;
            agree("output channels", (low, own.out_channels), config.out_channels)?;
        }
        let Finder { inferred, doubts, .. } = finder;
        Ok(Self { transformer, transformer_2, text_encoder, image_encoder, vae, inferred, doubts })
    }

    /// What the VAE makes of clips.
    pub fn latent_grid(&self) -> Result<LatentGrid, ModelError> {
        Ok(LatentGrid::from(&vae::Config::new(&self.vae)?))
    }

    /// Each file and what it is called in records: `transformer`, or `high_noise` and `low_noise`;
    /// `text_encoder`, `image_encoder`, `vae`.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Arc<File>)> {
        let alone = self.transformer_2.is_none();
        let first = [(if alone { "transformer" } else { "high_noise" }, &self.transformer)];
        let low = self.transformer_2.iter().map(|file| ("low_noise", file));
        let image = self.image_encoder.iter().map(|file| ("image_encoder", file));
        let (text, vae) = ([("text_encoder", &self.text_encoder)], [("vae", &self.vae)]);
        first.into_iter().chain(low).chain(text).chain(image).chain(vae)
    }
}

struct Finder<'a> {
    folder: &'a Path,
    /// None until something is looked for: where every part is named, the folder doesn't matter.
    found: Option<Vec<Recognized>>,
    /// Why files that might have been meant aren't taken.
    near: Vec<String>,
    inferred: Vec<String>,
    doubts: Vec<String>,
}

impl<'a> Finder<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, found: None, near: vec![], inferred: vec![], doubts: vec![] }
    }

    /// The models in the folder.
    fn look(&mut self) -> Result<&[Recognized], FolderError> {
        if self.found.is_none() {
            self.found = Some(self.read()?);
        }
        Ok(self.found.as_deref().unwrap_or_default())
    }

    fn read(&mut self) -> Result<Vec<Recognized>, FolderError> {
        let mut all = Vec::new();
        for path in candidates(self.folder)? {
            match recognized::open(&path, None) {
                Ok(found) => all.push(found),
                // A damaged GGUF file is an error, whatever it was.
                Err(RecognizeError::File(e)) => return Err(RecognizeError::File(e).into()),
                Err(e) if e.is_near() => self.near.push(e.to_string()),
                // Files of other kinds may lie beside ours.
                Err(_) => {}
            }
        }
        Ok(all)
    }

    fn has(&mut self, part: Part) -> Result<bool, FolderError> {
        Ok(self.look()?.iter().any(|found| found.part == part))
    }

    /// The file at `named`, or the only one of this kind in the folder.
    fn find(&mut self, named: &Option<PathBuf>, part: Part) -> Result<Arc<File>, FolderError> {
        let (name, option) = (name(part), option(part));
        let found = if let Some(path) = named {
            let found = recognized::open(path, part.is_transformer().then_some(part))?;
            if found.part != part {
                let (file, found) = (path.clone(), self::name(found.part));
                return Err(FolderError::Kind { file, found, option, part: name });
            }
            found
        } else {
            let folder = self.folder.to_owned();
            let mut fitting = self.look()?.iter().filter(|found| found.part == part);
            match (fitting.next(), fitting.next()) {
                (None, _) if folder.join("model_index.json").is_file() => {
                    return Err(FolderError::Checkpoint(folder));
                }
                (None, _) => {
                    let near = std::mem::take(&mut self.near);
                    return Err(FolderError::Missing { folder, part: name, option, near });
                }
                (Some(found), None) => found.clone(),
                _ => {
                    let all = self.look()?.iter().filter(|found| found.part == part);
                    let files = all.map(|found| found.file.path().to_owned()).collect();
                    return Err(FolderError::Several { folder, part: name, option, files });
                }
            }
        };
        let path = found.file.path().display();
        let said = found.inferred.iter().map(|sentence| format!("{path}: {sentence}"));
        self.inferred.extend(said);
        self.doubts.extend(found.doubt.iter().map(|sentence| format!("{path}: {sentence}")));
        Ok(found.file)
    }
}

/// The model files in `folder` and in the folders directly below, in order of their names.
fn candidates(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    if folder.is_file() {
        return Err(FolderError::NoFolder(folder.to_owned()));
    }
    let mut files = Vec::new();
    let mut list = |at: &Path| -> Result<Vec<PathBuf>, FolderError> {
        let error = |cause| FolderError::Read { folder: at.to_owned(), cause };
        let mut folders = Vec::new();
        for entry in fs::read_dir(at).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "gguf" || e == "safetensors") {
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
