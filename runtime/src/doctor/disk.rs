//! How fast the disk is that a model is read from and a video written to.

use crate::os::bypass_cache;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that are written and read back, if time allows.
const BYTES: usize = 256 << 20;

/// Bytes between two looks at the clock, after each of which the disk must have them.
const PIECE: usize = 32 << 20;

/// What writing and what reading may take each.
const ENOUGH: Duration = Duration::from_secs(2);

/// What couldn't be done in the folder, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
pub struct DiskError {
    what: &'static str,
    error: io::Error,
}

/// Of the folder that was named, or of the current one.
#[derive(Debug, Serialize)]
pub struct Disk {
    /// What this user may still write; what the system keeps for itself isn't in it.
    pub free_bytes: u64,
    /// Of the whole file system, free or taken.
    pub total_bytes: u64,
    /// Length of the temporary file.
    pub tested_bytes: u64,
    /// With the file synchronized to the disk.
    pub write_bytes_per_second: f64,
    /// Of the same file, from its beginning.
    pub read_bytes_per_second: f64,
    /// Whether the system was told to read from the disk and not from memory. Some file systems do
    /// as they please: a rate of many GB a second is memory's.
    pub cache_bypassed: bool,
}

impl Disk {
    /// Writes a file without a name in `folder`, which is gone when this returns or the program ends.
    pub fn examine(folder: &Path) -> Result<Self, DiskError> {
        let failed = |what| move |error| DiskError { what, error };
        let space = rustix::fs::statvfs(folder).map_err(|e| failed("its space")(e.into()))?;
        let mut file = tempfile::tempfile_in(folder).map_err(failed("a new file"))?;
        // Where it lasts for the file's life, the cache should not even be filled.
        let _ = bypass_cache(&file);

        let noise = noise();
        let begin = Instant::now();
        let written = write(&mut file, &noise).map_err(failed("writing"))?;
        let write_seconds = begin.elapsed().as_secs_f64();

        let cache_bypassed = bypass_cache(&file).is_ok();
        let begin = Instant::now();
        let read = read(&mut file).map_err(failed("reading"))?;
        let read_seconds = begin.elapsed().as_secs_f64();
        Ok(Self {
            free_bytes: space.f_bavail * space.f_frsize,
            total_bytes: space.f_blocks * space.f_frsize,
            tested_bytes: written,
            write_bytes_per_second: written as f64 / write_seconds,
            read_bytes_per_second: read as f64 / read_seconds,
            cache_bypassed,
        })
    }
}

/// Bytes that no file system makes smaller.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..PIECE / 8).flat_map(|_| next().to_le_bytes()).collect()
}

fn write(file: &mut File, noise: &[u8]) -> io::Result<u64> {
    let (begin, mut written) = (Instant::now(), 0);
    while written < BYTES && begin.elapsed() < ENOUGH {
        // No two pieces are alike.
        file.write_all(&(written as u64).to_le_bytes())?;
        file.write_all(&noise[8..])?;
        file.sync_all()?;
        written += PIECE;
    }
    Ok(written as u64)
}

fn read(file: &mut File) -> io::Result<u64> {
    file.rewind()?;
    let (begin, mut read) = (Instant::now(), 0);
    let mut piece = vec![0; 4 << 20];
    while begin.elapsed() < ENOUGH {
        match file.read(&mut piece)? {
            0 => break,
            count => read += count as u64,
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::examine(folder.path()).unwrap();
        assert!(disk.tested_bytes >= PIECE as u64 && disk.free_bytes <= disk.total_bytes);
        assert!(disk.write_bytes_per_second > 1e5 && disk.read_bytes_per_second > 1e5);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let error = Disk::examine(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.starts_with("its space: "), "{error}");
    }
}
