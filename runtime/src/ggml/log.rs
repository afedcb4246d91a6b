//! What ggml logs: its errors are kept, for a backend may report a failed command there and nowhere
//! else, and so is what backends say of their devices.

use ggml_sys as sys;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, Once};

/// The first error since the last [`take_error`], of any thread.
static ERROR: Mutex<Option<String>> = Mutex::new(None);

/// The first lines of what backends say of themselves and of their devices.
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// So many lines are kept: Metal says about twenty of a device.
const MOST_NOTES: usize = 100;

/// What backends have said so far, other than errors: Metal tells there, and nowhere else, which
/// family its GPU is of and whether it has matrix units.
pub fn notes() -> Vec<String> {
    NOTES.lock().expect("nothing panics while it holds this").clone()
}

/// The first error that ggml has logged since this was last asked.
pub(super) fn take_error() -> Option<String> {
    ERROR.lock().expect("nothing panics while it holds this").take()
}

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
    if level == sys::GGML_LOG_LEVEL_ERROR {
        let mut error = ERROR.lock().expect("nothing panics while it holds this");
        error.get_or_insert_with(|| text.trim().to_owned());
    }
    if [sys::GGML_LOG_LEVEL_WARN, sys::GGML_LOG_LEVEL_INFO].contains(&level) {
        let mut notes = NOTES.lock().expect("nothing panics while it holds this");
        let line = text.trim();
        if notes.len() < MOST_NOTES && !line.is_empty() {
            notes.push(line.to_owned());
        }
    }
}
