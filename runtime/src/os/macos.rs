//! macOS: an assertion of IOKit against sleep.

use super::AwakeError;

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
