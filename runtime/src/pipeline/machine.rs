//! Where a run computes, and how.

use super::run_folder::MachineRecord;
use crate::ggml::{ComputeError, Device, Executor, Family, Precision, refused_backends};

/// The devices of a pipeline's parts, and what every executor on them is told.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Of the text encoder, and of the image encoder.
    pub text: Device,
    /// Of both experts.
    pub transformer: Device,
    /// Of the VAE's encoder and decoder.
    pub vae: Device,
    /// How closely they follow F32 arithmetic.
    pub precision: Precision,
    /// Of the CPU.
    pub threads: usize,
    /// Seconds of one operation; None for the device's own limit.
    pub dispatch: Option<f64>,
    /// The same of one graph.
    pub submission: Option<f64>,
}

impl Machine {
    /// Everything on one device.
    pub fn on(device: Device, precision: Precision, threads: usize) -> Self {
        let (text, transformer, vae) = (device, device, device);
        let (dispatch, submission) = (None, None);
        Self { text, transformer, vae, precision, threads, dispatch, submission }
    }

    /// By names, for records.
    pub fn record(&self) -> MachineRecord {
        MachineRecord {
            text: self.text.name(),
            transformer: self.transformer.name(),
            vae: self.vae.name(),
            strict: self.precision == Precision::Strict,
            threads: self.threads,
            dispatch_limit: self.dispatch,
            submission_limit: self.submission,
        }
    }

    /// The one that a record names.
    pub fn from_record(record: &MachineRecord) -> Result<Self, DeviceError> {
        Ok(Self {
            text: choose_device(&record.text)?,
            transformer: choose_device(&record.transformer)?,
            vae: choose_device(&record.vae)?,
            precision: if record.strict { Precision::Strict } else { Precision::Native },
            threads: record.threads,
            dispatch: record.dispatch_limit,
            submission: record.submission_limit,
        })
    }

    /// The same machine for a dry run.
    pub fn dry(self) -> Self {
        let (text, transformer, vae) = (self.text.dry(), self.transformer.dry(), self.vae.dry());
        Self { text, transformer, vae, ..self }
    }

    /// On `device`, as this machine computes.
    ///
    /// # Errors
    /// Where the device can't be opened, or has no memory left.
    pub fn executor(&self, device: Device) -> Result<Executor, ComputeError> {
        let mut exec = Executor::new(device, self.precision, self.threads)?;
        let mut limits = exec.limits();
        limits.dispatch = self.dispatch.unwrap_or(limits.dispatch);
        limits.submission = self.submission.unwrap_or(limits.submission);
        exec.set_limits(limits);
        Ok(exec)
    }
}

/// A device was asked for that isn't there.
#[derive(Debug, thiserror::Error)]
#[error(
    "no device `{wanted}` here; there {}: {}{}",
    if .there.len() == 1 { "is" } else { "are" },
    .there.join(", "),
    .refused.iter().map(|why| format!("\n  {why}")).collect::<String>()
)]
pub struct DeviceError {
    wanted: String,
    there: Vec<String>,
    /// Why backends that were found can't be used.
    refused: Vec<String>,
}

/// The device that is meant by `auto` (a GPU if there is one), by a backend (`cpu`, `metal`,
/// `cuda`, `vulkan`: its first device) or by ggml's name of a device (`CUDA1`).
pub fn choose_device(wanted: &str) -> Result<Device, DeviceError> {
    let devices = Device::all();
    let first = |family| devices.iter().find(|d| d.family() == family);
    let found = match wanted.to_ascii_lowercase().as_str() {
        "auto" => devices.first(),
        "cpu" => first(Family::Cpu),
        "metal" => first(Family::Metal),
        "cuda" => first(Family::Cuda),
        "vulkan" => first(Family::Vulkan),
        name => devices.iter().find(|d| d.name().eq_ignore_ascii_case(name)),
    };
    found.copied().ok_or_else(|| DeviceError {
        wanted: wanted.to_owned(),
        there: devices.iter().map(|d| d.name()).collect(),
        refused: refused_backends(),
    })
}
