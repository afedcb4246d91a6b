//! The hardware that ggml found.

use super::{Storage, log, plugins};
use ggml_sys as sys;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr::NonNull;

/// A device of ggml's registry. Devices are registered for the whole program, so a handle is `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    raw: NonNull<sys::ggml_backend_device>,
    dry: bool,
}

/// The backend behind a device, as far as this program treats them differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `CPU`, which every build has.
    Cpu,
    /// `MTL`: the GPUs of Apple's chips.
    Metal,
    /// `CUDA`: GPUs of NVIDIA.
    Cuda,
    /// `Vulkan`: GPUs of any maker.
    Vulkan,
    /// Any other, taken for a GPU.
    Other,
}

/// Bytes that a device has for buffers. Metal tells its recommended working set, the CPU the RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Taken by nobody at the moment.
    pub free: u64,
    /// Free or taken.
    pub total: u64,
}

impl Device {
    /// The computer's own processor.
    ///
    /// # Panics
    /// If ggml was built without its CPU backend.
    pub fn cpu() -> Self {
        log::install();
        // SAFETY: the registry fills itself on first use and is never freed.
        let device = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
        Self { raw: NonNull::new(device).expect("ggml is built with its CPU backend"), dry: false }
    }

    /// Every device of every backend that this program was built with or finds as a library, GPUs
    /// first.
    pub fn all() -> Vec<Self> {
        plugins::load();
        // SAFETY: as in `cpu`; indices are below the count.
        let raw =
            unsafe { (0..sys::ggml_backend_dev_count()).map(|i| sys::ggml_backend_dev_get(i)) };
        let mut devices: Vec<_> = raw
            .map(|raw| Self { raw: NonNull::new(raw).expect("a registered device"), dry: false })
            .collect();
        devices.sort_by_key(|device| device.family() == Family::Cpu);
        devices
    }

    /// The same device for a dry run: graphs are built, checked and measured, and neither memory
    /// is taken nor anything computed. Results are zero.
    pub fn dry(self) -> Self {
        Self { dry: true, ..self }
    }

    /// Whether it is for dry runs: see [`Device::dry`].
    pub fn is_dry(self) -> bool {
        self.dry
    }

    /// By the name of its backend.
    pub fn family(self) -> Family {
        // SAFETY: the device is registered for the program, and so is its backend.
        let name = text(unsafe {
            sys::ggml_backend_reg_name(sys::ggml_backend_dev_backend_reg(self.as_ptr()))
        });
        match name.as_str() {
            "CPU" => Family::Cpu,
            "MTL" => Family::Metal,
            "CUDA" => Family::Cuda,
            "Vulkan" => Family::Vulkan,
            _ => Family::Other,
        }
    }

    /// How to keep what is only read in matrix products and attention: GPUs round their operands to
    /// F16 anyway.
    pub fn operands(self) -> Storage {
        match self.family() {
            Family::Cpu => Storage::F32,
            _ => Storage::F16,
        }
    }

    /// ggml's short name: `CPU`, `MTL0`, `CUDA0`, `Vulkan1`.
    pub fn name(self) -> String {
        // SAFETY: the device is registered for the program.
        text(unsafe { sys::ggml_backend_dev_name(self.as_ptr()) })
    }

    /// What the hardware calls itself.
    pub fn description(self) -> String {
        // SAFETY: as above.
        text(unsafe { sys::ggml_backend_dev_description(self.as_ptr()) })
    }

    /// As the backend has it now: what is free changes with every buffer, of other programs, too.
    pub fn capacity(self) -> Capacity {
        let (mut free, mut total) = (0, 0);
        // SAFETY: as above; both places are written.
        unsafe { sys::ggml_backend_dev_memory(self.as_ptr(), &raw mut free, &raw mut total) }
        Capacity { free: free as u64, total: total as u64 }
    }

    /// Bytes that a backend takes for itself, beside all buffers that it is asked for. CUDA's context,
    /// kernels and workspaces, and a weight unpacked for a product, took 490 MB on an H200.
    pub(super) fn overhead(self) -> usize {
        match self.family() {
            Family::Cuda => 490_000_000,
            _ => 0,
        }
    }

    /// Whether buffers can be made of mapped files, so that weights need no copy.
    pub fn maps_files(self) -> bool {
        // SAFETY: plain data, which ggml fills.
        unsafe {
            let mut props = std::mem::zeroed();
            sys::ggml_backend_dev_get_props(self.as_ptr(), &raw mut props);
            props.caps.buffer_from_host_ptr
        }
    }

    pub(super) fn as_ptr(self) -> *mut sys::ggml_backend_device {
        self.raw.as_ptr()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}{})", self.name(), if self.dry { ", dry" } else { "" })
    }
}

/// ggml's static string.
pub(super) fn text(name: *const c_char) -> String {
    // SAFETY: ggml's names end with NUL and are never freed.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
