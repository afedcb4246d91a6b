//! What a run leaves behind at every moment, so that another process can go on where it ended.
//!
//! | file                     | holds                                            | written         |
//! |--------------------------|--------------------------------------------------|-----------------|
//! | `run.json`               | [`Record`]: what was asked for, files, devices   | once            |
//! | `conditions.safetensors` | the encoded prompts and images                   | once            |
//! | `state.safetensors`      | latents and the sampler's history                | after each step |
//! | `steps.jsonl`            | [`Vitals`], a line a step                        | after each step |
//! | `preview-NNN.png`        | what the clip looks like so far                  | after some steps |
//! | `decode.json`            | how often decoding began without an end          | when it begins  |
//! | `result.json`            | how the run ended                                | at the end      |
//! | `lock`                   | held by the process that works on the run        |                 |
//!
//! Files are replaced whole: a process that is killed at any moment loses one step at most. Links are
//! not followed when something is written: the folder may be somebody else's.

use super::conditions::{Conditions, Images};
use super::denoise::{Checkpoint, Step};
use super::run_record::FORMAT;
use super::sampler::State;
use super::watch::Vitals;
use super::whole_file::{self, SAFE_FLAGS, replace};
use crate::ggml::{HostTensor, Shape};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

pub use super::run_record::{MOST_THREADS, MachineRecord, OutputRecord, Record};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the frames passed the judge.
    pub passed: bool,
    /// What was found in them.
    pub findings: Vec<String>,
    /// Where the frames are.
    pub output: PathBuf,
}

/// Why a folder can't be used as a run's, or what it holds can't be.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum RunError {
    #[error("{path}: {cause}", path = .path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(
        "{path} holds a run already; continue it with `gguf-video resume {path}`, or choose another folder",
        path = .0.display()
    )]
    Exists(PathBuf),
    #[error("{path} holds other files; a run needs a folder of its own", path = .0.display())]
    NotEmpty(PathBuf),
    #[error("{path} holds no run: there is no run.json", path = .0.display())]
    NoRun(PathBuf),
    #[error("{path}: another process is working on this run", path = .0.display())]
    Locked(PathBuf),
    #[error("{path} can't be understood: {why}", path = .path.display())]
    Broken { path: PathBuf, why: String },
    #[error(
        "{path} was written in format {found}, this program knows {FORMAT}: resume it with gguf-video {version}",
        path = .path.display()
    )]
    Format { path: PathBuf, found: u32, version: String },
}

/// A run's folder, in the hands of this process.
pub struct RunFolder {
    path: PathBuf,
    record: Record,
    _lock: File,
}

impl RunFolder {
    /// Begins a run in `path`, a folder that isn't there yet, or is empty.
    pub fn create(path: &Path, record: Record) -> Result<Self, RunError> {
        fs::create_dir_all(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let file = path.join("run.json");
        if file.exists() {
            return Err(RunError::Exists(path.to_owned()));
        }
        // All but the lock, which is ours.
        if fs::read_dir(path).map_err(io_error(path))?.count() > 1 {
            let _ = fs::remove_file(path.join("lock"));
            return Err(RunError::NotEmpty(path.to_owned()));
        }
        let bytes = serde_json::to_vec_pretty(&record).expect("plain data");
        replace(&file, &bytes).map_err(io_error(&file))?;
        Ok(Self { path: path.to_owned(), record, _lock: lock })
    }

    /// Takes over the run in `path`.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let record = Record::read(path)?;
        Ok(Self { path: path.to_owned(), record, _lock: lock(path)? })
    }

    /// Removes the folder and all that is in it.
    ///
    /// # Errors
    /// Where the operating system fails.
    pub fn remove(self) -> Result<(), RunError> {
        fs::remove_dir_all(&self.path).map_err(io_error(&self.path))
    }

    /// As [`RunFolder::create`] or [`RunFolder::open`] got it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `run.json` holds.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// As far as an earlier process encoded them.
    pub fn conditions(&self) -> Result<Option<Conditions>, RunError> {
        const NAME: &str = "conditions";
        let Some(Tensors { mut tensors, .. }) = self.tensors(NAME)? else { return Ok(None) };
        let positive = tensors.remove("positive").ok_or_else(|| self.lacks(NAME, "positive"))?;
        let images = Images {
            features: tensors.remove("image_features"),
            channels: tensors.remove("image_channels"),
            first_frame: tensors.remove("first_frame"),
        };
        Ok(Some(Conditions { positive, negative: tensors.remove("negative"), images }))
    }

    /// Keeps what the encoders made, so that a resumed run needs none of them.
    ///
    /// # Errors
    /// Where the operating system fails.
    pub fn save_conditions(&self, conditions: &Conditions) -> Result<(), RunError> {
        let Conditions { positive, negative, images } = conditions;
        let optional = [
            ("negative", negative),
            ("image_features", &images.features),
            ("image_channels", &images.channels),
            ("first_frame", &images.first_frame),
        ];
        let there = optional.into_iter().filter_map(|(name, t)| Some((name, t.as_ref()?)));
        let all = std::iter::once(("positive", positive)).chain(there);
        let tensors: Vec<_> = all.map(|(name, t)| (name, t.shape, &*t.data)).collect();
        self.save("conditions", &tensors, None)
    }

    /// Where an earlier process was after its last whole step.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, RunError> {
        const NAME: &str = "state";
        let Some(Tensors { mut tensors, metadata }) = self.tensors(NAME)? else { return Ok(None) };
        let number = |key| metadata.get(key).and_then(|text| text.parse().ok());
        let step = number("step").ok_or_else(|| self.lacks(NAME, "step"))?;
        let latents = tensors.remove("latents").ok_or_else(|| self.lacks(NAME, "latents"))?;
        let order = metadata.get("buffers").ok_or_else(|| self.lacks(NAME, "buffers"))?;
        let mut buffers = Vec::new();
        for name in order.split(',').filter(|name| !name.is_empty()) {
            let values = tensors.remove(name).ok_or_else(|| self.lacks(NAME, name))?;
            buffers.push((name.to_owned(), values.data.to_vec()));
        }
        Ok(Some(Checkpoint { latents, sampler: State { step, buffers } }))
    }

    /// Keeps latents and sampler in the place of those of the step before.
    ///
    /// # Errors
    /// Where the operating system fails.
    pub fn save_step(&self, step: &Step<'_>) -> Result<(), RunError> {
        let state = step.sampler.state();
        let shape = step.latents.shape;
        // After the last step nobody needs the sampler's memory.
        let kept = if state.step == step.steps { &[][..] } else { &state.buffers };
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let metadata = HashMap::from([
            ("step".to_owned(), state.step.to_string()),
            ("buffers".to_owned(), names.join(",")),
        ]);
        let latents = [("latents", shape, &*step.latents.data)];
        let buffers = kept.iter().map(|(name, values)| (name.as_str(), shape, &**values));
        let tensors: Vec<_> = latents.into_iter().chain(buffers).collect();
        self.save("state", &tensors, Some(metadata))
    }

    /// Adds a line to the log of steps.
    pub fn log(&self, vitals: &Vitals) -> Result<(), RunError> {
        let path = self.path.join("steps.jsonl");
        let mut line = serde_json::to_vec(vitals).expect("plain data");
        line.push(b'\n');
        let mut options = OpenOptions::new();
        let open = options.create(true).append(true).custom_flags(SAFE_FLAGS).open(&path);
        open.and_then(|mut file| file.write_all(&line)).map_err(io_error(&path))
    }

    /// Where the preview after step `step`, from 1, belongs.
    pub fn preview(&self, step: usize) -> PathBuf {
        self.path.join(format!("preview-{step:03}.png"))
    }

    /// Remembers that decoding begins, and says how often it did without coming to an end.
    pub fn begin_decoding(&self) -> Result<u32, RunError> {
        let path = self.path.join("decode.json");
        let before: u32 = match whole_file::read(&path).map_err(io_error(&path))? {
            None => 0,
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| broken(&path, &e))?,
        };
        replace(&path, before.saturating_add(1).to_string().as_bytes()).map_err(io_error(&path))?;
        Ok(before)
    }

    /// Decoding ended for a reason that has nothing to do with it.
    pub fn forget_decoding(&self) {
        // Left behind, it only makes later bands smaller.
        let _ = fs::remove_file(self.path.join("decode.json"));
    }

    /// Writes `result.json`, and forgets that decoding began.
    ///
    /// # Errors
    /// Where the operating system fails.
    pub fn finish(&self, outcome: &Outcome) -> Result<(), RunError> {
        self.forget_decoding();
        let path = self.path.join("result.json");
        let bytes = serde_json::to_vec_pretty(outcome).expect("plain data");
        replace(&path, &bytes).map_err(io_error(&path))
    }

    fn save(
        &self,
        name: &str,
        tensors: &[(&str, Shape, &[f32])],
        metadata: Option<HashMap<String, String>>,
    ) -> Result<(), RunError> {
        let path = self.path.join(format!("{name}.safetensors"));
        let views = tensors.iter().map(|(name, shape, values)| {
            let shape = shape.full().map(|d| d as usize).to_vec();
            let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values));
            (*name, view.expect("as many bytes as the shape has"))
        });
        let file = safetensors::serialize(views, metadata).expect("plain data");
        replace(&path, &file).map_err(io_error(&path))
    }

    fn tensors(&self, name: &str) -> Result<Option<Tensors>, RunError> {
        let path = self.path.join(format!("{name}.safetensors"));
        let Some(bytes) = whole_file::read(&path).map_err(io_error(&path))? else {
            return Ok(None);
        };
        let broken = |e: safetensors::SafeTensorError| broken(&path, &e);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let mut tensors = HashMap::new();
        for (name, view) in file.tensors() {
            let shape: Result<[i64; 4], _> =
                view.shape().iter().map(|&d| d as i64).collect::<Vec<_>>().try_into();
            let (Ok(shape), Dtype::F32) = (shape, view.dtype()) else {
                let why = format!("`{name}` is {:?} of {:?}", view.dtype(), view.shape());
                return Err(RunError::Broken { path, why });
            };
            let values = bytemuck::pod_collect_to_vec(view.data());
            tensors.insert(name, HostTensor::new(shape, values));
        }
        Ok(Some(Tensors { tensors, metadata: header.metadata().clone().unwrap_or_default() }))
    }

    fn lacks(&self, name: &str, what: &str) -> RunError {
        let path = self.path.join(format!("{name}.safetensors"));
        RunError::Broken { path, why: format!("`{what}` isn't there") }
    }
}

/// A file of tensors.
struct Tensors {
    tensors: HashMap<String, HostTensor>,
    metadata: HashMap<String, String>,
}

/// One run among others.
pub struct Listed {
    /// Its folder.
    pub path: PathBuf,
    /// What `run.json` holds.
    pub record: Record,
    /// Steps done.
    pub step: usize,
    /// None before its end, or if `result.json` can't be understood.
    pub outcome: Option<Outcome>,
    /// Whether a process is working on it.
    pub running: bool,
    /// Of all its files.
    pub bytes: u64,
}

/// The runs in the folder `runs`, oldest first; what isn't a run is left out.
pub fn list(runs: &Path) -> Result<Vec<Listed>, RunError> {
    let entries = match fs::read_dir(runs) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(io_error(runs))?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error(runs))?.path();
        let Ok(record) = Record::read(&path) else { continue };
        let read = |name: &str| whole_file::read(&path.join(name)).ok().flatten();
        let outcome = read("result.json").and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let steps = read("steps.jsonl").unwrap_or_default();
        // A power cut may have left a part of a line.
        let mut lines = steps.rsplit(|byte| *byte == b'\n');
        let step = lines.find_map(|line| serde_json::from_slice::<Vitals>(line).ok());
        let files = fs::read_dir(&path).into_iter().flatten().flatten();
        let bytes = files.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum();
        let running = is_locked(&path);
        let step = step.map_or(0, |v| v.step);
        listed.push(Listed { path, record, step, outcome, running, bytes });
    }
    listed.sort_by(|a, b| (a.record.created, &a.path).cmp(&(b.record.created, &b.path)));
    Ok(listed)
}

/// Nobody else works on the run in `path` as long as the file lives.
fn lock(path: &Path) -> Result<File, RunError> {
    /// [`is_locked`] holds the lock for much less than all of these.
    const TRIES: usize = 10;
    let file = path.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).custom_flags(SAFE_FLAGS);
    let open = options.open(&file);
    let open = open.map_err(io_error(&file))?;
    for _ in 0..TRIES {
        match open.try_lock() {
            Ok(()) => return Ok(open),
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(20)),
            Err(TryLockError::Error(cause)) => return Err(RunError::Io { path: file, cause }),
        }
    }
    Err(RunError::Locked(path.to_owned()))
}

/// Whether a process works on the run in `path`. Shared, so that two who ask at once don't see each other.
fn is_locked(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(SAFE_FLAGS).open(path.join("lock"));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> RunError + Copy + '_ {
    |cause| RunError::Io { path: path.to_owned(), cause }
}

pub(super) fn broken(path: &Path, why: &dyn std::fmt::Display) -> RunError {
    RunError::Broken { path: path.to_owned(), why: why.to_string() }
}
