//! What each operating system does in its own way. `macos.rs` is the one file that only macOS
//! compiles; `linux.rs` stands for all others, and says so where it can't.

#[cfg(not(target_os = "macos"))]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod sysctl;

#[cfg(not(target_os = "macos"))]
pub(crate) use linux::{Awake, bypass_cache};
#[cfg(target_os = "macos")]
pub(crate) use macos::{Awake, bypass_cache};
pub(crate) use sysctl::sysctl;

/// Why the computer may fall asleep all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AwakeError(String);
