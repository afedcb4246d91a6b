//! Calls the metal gate, a process a case.

use null_metal::Report;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

/// What one case showed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    pub report: Report,
    /// By the runtime's own cost model: of a forward pass, a clip's decoding, a prompt.
    pub seconds: f64,
    /// Bytes of weights, and of everything else at its most.
    pub weights: u64,
    pub working: u64,
}

/// Runs `gate CHIP CASE`; fails with what it said before it ended.
pub fn run(gate: &Path, chip: &str, case: &str) -> Result<Seen, String> {
    let output = Command::new(gate)
        .args([chip, case])
        // ggml would start a debugger on itself.
        .env("GGML_NO_BACKTRACE", "1")
        .output()
        .unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{chip}, {case}: {}: {said}", output.status));
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}
