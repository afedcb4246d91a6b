//! Where this program keeps what it must remember from one run to the next.

use std::path::PathBuf;

/// Names the folder, in the place of the system's.
const VARIABLE: &str = "GGUF_VIDEO_HOME";

/// A folder of its own in the user's data folder: `~/.local/share/gguf-video`, on macOS
/// `~/Library/Application Support/gguf-video`.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// Whether or not it is there.
    pub fn find() -> Self {
        use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};
        if let Some(named) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
            return Self(named.into());
        }
        // Without a home folder, beside what is being done.
        let data = choose_native_strategy().map(|s| s.data_dir()).unwrap_or_else(|_| ".".into());
        Self(data.join("gguf-video"))
    }

    /// Run folders, one a run.
    pub fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    /// Hashes of model files, by path, size and time.
    pub fn hashes(&self) -> PathBuf {
        self.0.join("hashes.json")
    }

    /// How fast devices are.
    pub fn calibration(&self) -> PathBuf {
        self.0.join("calibration.json")
    }

    /// Reports of preflights, one a model, device and size.
    pub fn preflights(&self) -> PathBuf {
        self.0.join("preflight")
    }
}
