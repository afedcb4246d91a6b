//! What a run depends on, as `run.json` has it.

use super::model_file::ModelFile;
use super::request::Request;
use super::run_folder::{RunError, broken, io_error};
use super::whole_file;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Of [`Record`]; another one can't be resumed.
pub(super) const FORMAT: u32 = 1;

/// ggml's own limit (`GGML_MAX_N_THREADS`); more only wait for each other.
pub const MOST_THREADS: usize = 512;

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Of the folder's files; a program resumes only what is in its own.
    pub format: u32,
    /// Of this program.
    pub version: String,
    /// Seconds since 1970.
    pub created: u64,
    /// What is to be made.
    pub request: Request,
    /// Where, and how it is computed.
    pub machine: MachineRecord,
    /// What it is made of: a run is resumed with the same ones.
    pub files: Vec<ModelFile>,
    /// What becomes of the frames.
    pub output: OutputRecord,
}

/// [`super::Machine`] by names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Device of text and image encoder, as ggml calls it: `CPU`, `MTL0`.
    pub text: String,
    /// Of both experts.
    pub transformer: String,
    /// Of the VAE's encoder and decoder.
    pub vae: String,
    /// Whether all is computed in F32; else as fast as the backends can.
    pub strict: bool,
    /// Of the CPU, 1 to [`MOST_THREADS`].
    pub threads: usize,
    /// Seconds of one operation; null for the device's own limit.
    pub dispatch_limit: Option<f64>,
    /// Seconds of one graph; null for the device's own limit.
    pub submission_limit: Option<f64>,
}

/// Where the frames go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// A video file, or a folder of images, from the root on.
    pub path: PathBuf,
    /// Frames a second.
    pub fps: u32,
    /// Where an image of some of them side by side goes, if it was asked for.
    pub contact_sheet: Option<PathBuf>,
}

impl Record {
    /// Of a run of this program that begins now.
    pub fn new(
        request: Request,
        machine: MachineRecord,
        files: Vec<ModelFile>,
        output: OutputRecord,
    ) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            created: now.unwrap_or_default().as_secs(),
            request,
            machine,
            files,
            output,
        }
    }

    /// What the run in `path` depends on.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Header {
            format: u32,
            version: String,
        }
        let path = path.join("run.json");
        let Some(bytes) = whole_file::read(&path).map_err(io_error(&path))? else {
            return Err(RunError::NoRun(path.parent().unwrap_or(&path).to_owned()));
        };
        let broken = |e: serde_json::Error| broken(&path, &e);
        let Header { format, version } = serde_json::from_slice(&bytes).map_err(broken)?;
        if format != FORMAT {
            return Err(RunError::Format { path, found: format, version });
        }
        let record: Self = serde_json::from_slice(&bytes).map_err(broken)?;
        let threads = record.machine.threads;
        if !(1..=MOST_THREADS).contains(&threads) {
            let why = format!("`threads` is {threads}, not 1 to {MOST_THREADS}");
            return Err(RunError::Broken { path, why });
        }
        Ok(record)
    }
}
