//! Linux: an inhibitor lock of logind, and files out of the cache.
//!
//! The lock is taken by `systemd-inhibit`, which every system with logind has: a crate that talks to
//! D-Bus for this one call would bring a third as many dependencies as the program has.

use super::AwakeError;
use rustix::fs::Advice;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Keeps an idle computer from suspending until it is dropped, or the program ends, however it does.
/// `systemd-inhibit --list` shows it.
pub(crate) struct Awake {
    /// It holds the lock as long as its input is open.
    holder: Child,
}

/// What runs under the lock: it says so, and then waits for the end of its input.
const HOLDER: [&str; 3] = ["sh", "-c", "echo held && exec cat"];

impl Awake {
    /// `reason` is what the system tells its user.
    pub(crate) fn hold(reason: &str) -> Result<Self, AwakeError> {
        let inhibit = |what: &str| {
            let mut command = Command::new("systemd-inhibit");
            command.args([what, "--mode=block", "--who=gguf-video"]);
            command.arg(format!("--why={reason}")).args(HOLDER);
            Self::held_by(command)
        };
        // Who is logged in from elsewhere may only keep the system from calling itself idle.
        inhibit("--what=idle:sleep").or_else(|_| inhibit("--what=idle"))
    }

    fn held_by(mut command: Command) -> Result<Self, AwakeError> {
        let name = command.get_program().to_string_lossy().into_owned();
        // Ctrl-C is for this program, which then ends the lock.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder =
            command.spawn().map_err(|e| AwakeError(format!("{name} can't be run: {e}")))?;
        let mut said = String::new();
        let output = holder.stdout.take().expect("a pipe");
        let read = BufReader::new(output).read_line(&mut said);
        if read.is_ok() && said == "held\n" {
            return Ok(Self { holder });
        }
        drop(holder.stdin.take());
        let mut why = String::new();
        let errors = holder.stderr.take().expect("a pipe").read_to_string(&mut why);
        // Nothing is left to do with what ended or never began.
        let _ = (errors, holder.wait());
        let why = why.lines().next().unwrap_or("it gives no reason").trim().to_owned();
        Err(AwakeError(format!("{name}: {why}")))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // It ends by itself; its status says nothing.
        let _ = self.holder.wait();
    }
}

/// What is on the disk of `file` is read from there, not from memory.
pub(crate) fn bypass_cache(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_lock_lasts_as_long_as_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, ended) = (folder.path().join("begun"), folder.path().join("ended"));
        // As systemd-inhibit does it: take the lock, run the command, release it.
        let script = format!("touch {begun:?}; \"$@\"; touch {ended:?}");
        let mut command = shell(&script);
        command.arg("sh").args(HOLDER);
        let awake = Awake::held_by(command).unwrap();
        assert!(begun.exists() && !ended.exists());
        drop(awake);
        assert!(ended.exists());
    }

    #[test]
    fn a_refusal_comes_with_its_reason() {
        let error = Awake::held_by(shell("echo Failed to inhibit: no bus >&2; exit 1"));
        assert_eq!(error.err().unwrap().to_string(), "sh: Failed to inhibit: no bus");
        let error = Awake::held_by(Command::new("no-such-program")).err().unwrap().to_string();
        assert!(error.starts_with("no-such-program can't be run"), "{error}");
    }
}
