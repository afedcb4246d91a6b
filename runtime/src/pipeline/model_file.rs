//! Which model files a run was made with: told by their content, so that a run that is resumed can't be
//! continued with another model.

use super::home::Home;
use super::model_folder::ModelFolder;
use super::progress::{Progress, Stage};
use super::request::Request;
use super::whole_file::replace;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Bytes that are read and hashed at once.
const CHUNK: usize = 8 << 20;

/// One file of a model as a run found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// One of [`ModelFolder::files`] or of [`Request::files`]: `transformer`, or `high_noise` and `low_noise`; `text_encoder`, `image_encoder`, `vae`.
    pub part: String,
    /// From the root on, links followed.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of the whole file, in hexadecimal.
    pub blake3: String,
}

impl ModelFile {
    /// Whether it is what the clip shows, and not what makes it.
    pub(super) fn is_picture(&self) -> bool {
        [Request::IMAGE, Request::LAST_IMAGE].contains(&self.part.as_str())
    }
}

/// What tells a file from its older self without reading it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

/// A hash that was computed before.
#[derive(Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    blake3: String,
}

/// Why a file can't be told by its content.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum HashError {
    #[error("{path}: {cause}", path = .path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("interrupted")]
    Interrupted,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { bytes: metadata.len(), modified: modified.as_nanos() as u64 })
    }
}

/// The files of `folder` in their order, then those that `request` names. Each is read whole, but only
/// if it isn't known from before.
pub fn model_files(
    folder: &ModelFolder,
    request: &Request,
    home: &Home,
    progress: &mut dyn Progress,
) -> Result<Vec<ModelFile>, HashError> {
    let mut known: BTreeMap<PathBuf, Known> = fs::read(home.hashes())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut files = Vec::new();
    let mut begun = 0;
    let parts = folder.files().map(|(part, file)| (part.to_owned(), file.path()));
    let parts: Vec<(String, &Path)> = parts.chain(request.files()).collect();
    let total = parts.iter().filter_map(|(_, path)| fs::metadata(path).ok()).map(|m| m.len());
    let total = total.sum();
    for (part, named) in parts {
        let error = |cause| HashError::Read { path: named.to_owned(), cause };
        // A run may be resumed from another folder.
        let path = named.canonicalize().map_err(error)?;
        let stamp = Stamp::of(&path).map_err(error)?;
        let bytes = stamp.bytes;
        let blake3 = match known.get(&path) {
            Some(known) if known.stamp == stamp => known.blake3.clone(),
            _ => {
                progress.begin(Stage::Hash, begun, total);
                let hash = hash(&path, progress)?;
                known.insert(path.clone(), Known { stamp, blake3: hash.clone() });
                hash
            }
        };
        begun += bytes;
        files.push(ModelFile { part, path, bytes, blake3 });
    }
    if let Ok(bytes) = serde_json::to_vec_pretty(&known) {
        // Not remembering only means reading again.
        let _ = home.hashes().parent().map_or(Ok(()), fs::create_dir_all);
        let _ = replace(&home.hashes(), &bytes);
    }
    Ok(files)
}

fn hash(path: &Path, progress: &mut dyn Progress) -> Result<String, HashError> {
    let error = |cause| HashError::Read { path: path.to_owned(), cause };
    let mut file = fs::File::open(path).map_err(error)?;
    let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; CHUNK]);
    loop {
        let count = file.read(&mut chunk).map_err(error)?;
        if count == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update_rayon(&chunk[..count]);
        if progress.advance(count as u64).is_break() {
            return Err(HashError::Interrupted);
        }
    }
}
