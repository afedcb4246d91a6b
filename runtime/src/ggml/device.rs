//! The hardware that ggml found.

use super::log;
use ggml_sys as sys;
use std::ffi::CStr;
use std::ptr::NonNull;

/// A device of ggml's registry. Devices are registered for the whole program, so a handle is `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device(NonNull<sys::ggml_backend_device>);

impl Device {
    pub fn cpu() -> Self {
        log::install();
        // SAFETY: the registry fills itself on first use and is never freed.
        let device = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
        Self(NonNull::new(device).expect("ggml is built with its CPU backend"))
    }

    /// What the hardware calls itself.
    pub fn description(self) -> String {
        // SAFETY: the device is registered for the program; ggml returns a static string.
        unsafe { CStr::from_ptr(sys::ggml_backend_dev_description(self.as_ptr())) }
            .to_string_lossy()
            .into_owned()
    }

    /// How much of an operation goes into one node.
    pub fn limits(self) -> Limits {
        Limits { attention_rows: 4096, convolution_bytes: 32 << 20 }
    }

    pub(super) fn as_ptr(self) -> *mut sys::ggml_backend_device {
        self.0.as_ptr()
    }
}

/// Where the graphs cut long operations, so that no single dispatch runs for seconds and no
/// intermediate grows with the clip.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Query rows of one attention node. Metal's flash attention aborts at 65,536.
    pub attention_rows: i64,
    /// Bytes of a convolution's gathered patches.
    pub convolution_bytes: i64,
}
