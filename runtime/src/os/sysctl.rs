//! Settings of the kernel that macOS has and others don't.

use std::process::Command;

/// The value of `name` on macOS; nothing where there is no such setting.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
    let value = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| value.trim().to_owned())
}
