//! A mapped file that becomes shorter while it is read.
//!
//! Touching what is gone raises SIGBUS, which ends the process without a word. There is no way to go on
//! (the data isn't there), but there is a way to say what happened.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::OnceLock;

/// The exit code of a process that ended so.
const EXIT: i32 = 1;

static MESSAGE: OnceLock<String> = OnceLock::new();

/// From now on, a mapped file that was cut short ends the process with `message` on standard error and
/// exit code 1. Only the first call has an effect.
///
/// # Errors
/// If the system refuses the handler.
#[allow(unsafe_code, reason = "a signal handler can't be installed otherwise")]
pub fn say_when_cut_short(message: &str) -> std::io::Result<()> {
    if MESSAGE.set(format!("{message}\n")).is_err() {
        return Ok(());
    }
    let flags = SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::Handler(say_and_exit), flags, SigSet::empty());
    // SAFETY: the handler calls nothing that isn't safe in one: it reads an atomic, writes and exits.
    unsafe { sigaction(Signal::SIGBUS, &action) }.map(|_| ()).map_err(Into::into)
}

#[allow(unsafe_code, reason = "of the functions that are safe in a signal handler, none is in std")]
extern "C" fn say_and_exit(_: libc::c_int) {
    let message = MESSAGE.get().map_or("", String::as_str);
    // SAFETY: `write` and `_exit` are async-signal-safe; the message lives as long as the program.
    unsafe {
        let _ = libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::_exit(EXIT);
    }
}
