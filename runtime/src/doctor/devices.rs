//! ggml's backends and devices, and what the devices do in a second.

use super::private::private;
use crate::ggml::{self, Family, Precision, notes, refused_backends};
use gguf::DType;
use serde::Serialize;
use std::collections::BTreeMap;

/// Names and values as a backend tells them: `AVX2` is `1`.
pub type Features = BTreeMap<String, String>;

/// What weights the rates are measured with.
const WEIGHTS: DType = DType::Q8_0;

/// What can compute here, and what can't.
#[derive(Debug, Serialize)]
pub struct Backends {
    /// Built in or found as libraries, with a device here or without.
    pub backends: Vec<Backend>,
    /// Libraries of backends that were found and can't be used, each with ggml's reason.
    pub refused_backends: Vec<String>,
    /// Of all backends, GPUs first.
    pub devices: Vec<Device>,
    /// What the backends said while they looked for devices. Metal says there whether the GPU has
    /// matrix units (`has tensor`) and how much memory it should use.
    pub log: Vec<String>,
}

/// The part of ggml that knows one kind of device.
#[derive(Debug, Serialize)]
pub struct Backend {
    /// ggml's name: `CPU`, `MTL`, `CUDA`, `Vulkan`.
    pub name: String,
    /// Whether it came from a library beside the program, and not with it.
    pub library: bool,
    /// How many it found here; 0 where there are none of its kind.
    pub devices: usize,
    /// What it was built with or found; most backends say little.
    pub features: Features,
}

/// Something that can compute.
#[derive(Debug, Serialize)]
pub struct Device {
    /// What `--device` calls it: `CPU`, `MTL0`.
    pub name: String,
    /// What the hardware calls itself.
    pub description: String,
    /// `cpu`, `metal`, `cuda`, `vulkan` or `other`.
    pub family: String,
    /// Of Metal: the working set that it recommends, which `iogpu.wired_limit_mb` changes.
    pub memory_bytes: Memory,
    /// Whether weights are used where the file is mapped, without a copy.
    pub maps_files: bool,
    /// What a run's plan reckons with; nothing, with `rates_error`, if the device failed.
    pub rates: Option<Rates>,
    /// Why there are no `rates`; else null.
    pub rates_error: Option<String>,
}

/// What a device has for buffers, in bytes.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Taken by nobody when the device was asked.
    pub free: u64,
    /// Free or taken.
    pub total: u64,
}

/// Measured, of weights in Q8_0.
#[derive(Debug, Serialize)]
pub struct Rates {
    /// Floating-point operations a second in matrix products.
    pub matmul_flops: f64,
    /// Floating-point operations a second in fused attention.
    pub attention_flops: f64,
    /// Bytes a second that all other operations read and write.
    pub bytes: f64,
}

impl Backends {
    /// Measures each device for about a second.
    pub fn examine(threads: usize) -> Self {
        let all = ggml::Device::all();
        let log = notes().iter().map(|line| private(line)).collect();
        let backends = ggml::Backend::all().into_iter().map(|backend| Backend {
            name: backend.name,
            library: backend.library,
            devices: backend.devices,
            features: backend.features.into_iter().collect(),
        });
        Self {
            backends: backends.collect(),
            refused_backends: refused_backends().iter().map(|why| private(why)).collect(),
            devices: all.into_iter().map(|device| Device::examine(device, threads)).collect(),
            log,
        }
    }
}

impl Device {
    fn examine(device: ggml::Device, threads: usize) -> Self {
        let memory = device.capacity();
        let measured = ggml::Rates::measure(device, Precision::Native, threads, WEIGHTS, None);
        let (rates, rates_error) = match measured {
            Ok(rates) => (Some(rates), None),
            Err(error) => (None, Some(private(&error.to_string()))),
        };
        Self {
            name: device.name(),
            description: device.description(),
            family: family(device),
            memory_bytes: Memory { free: memory.free, total: memory.total },
            maps_files: device.maps_files(),
            rates: rates.map(|rates| Rates {
                matmul_flops: rates.matmul,
                attention_flops: rates.attention,
                bytes: rates.bandwidth,
            }),
            rates_error,
        }
    }

    pub(super) fn is_metal(&self) -> bool {
        self.family == format!("{:?}", Family::Metal).to_lowercase()
    }
}

fn family(device: ggml::Device) -> String {
    format!("{:?}", device.family()).to_lowercase()
}
