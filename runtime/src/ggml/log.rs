//! ggml's log, sent to the `log` crate.

use ggml_sys as sys;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Once;

/// Replaces ggml's own printing to stderr, once a process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    // SAFETY: `forward` is a plain function and uses no user data.
    ONCE.call_once(|| unsafe { sys::ggml_log_set(Some(forward), std::ptr::null_mut()) });
}

unsafe extern "C" fn forward(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a NUL-terminated string that lives for this call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let level = match level {
        sys::GGML_LOG_LEVEL_ERROR => log::Level::Error,
        sys::GGML_LOG_LEVEL_WARN => log::Level::Warn,
        sys::GGML_LOG_LEVEL_INFO => log::Level::Info,
        _ => log::Level::Debug,
    };
    log::log!(target: "ggml", level, "{}", text.trim_end());
}
