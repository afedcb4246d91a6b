//! macOS: an assertion of IOKit against sleep, and files beside the cache.

use super::AwakeError;
use std::fs::File;
use std::io;

/// Keeps an idle computer from sleeping until it is dropped, or the program ends. The display may
/// sleep, and closing the lid still means sleep. `pmset -g assertions` lists it.
pub(crate) struct Awake {
    _assertion: keepawake::KeepAwake,
}

impl Awake {
    /// `reason` is what the system tells its user.
    pub(crate) fn hold(reason: &str) -> Result<Self, AwakeError> {
        let assertion = keepawake::Builder::default()
            .idle(true)
            .reason(reason)
            .app_name("gguf-video")
            .create()
            .map_err(|e| AwakeError(e.to_string()))?;
        Ok(Self { _assertion: assertion })
    }
}

/// Reads and writes of `file` go to the disk from now on.
pub(crate) fn bypass_cache(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_nocache(file, true)?)
}
