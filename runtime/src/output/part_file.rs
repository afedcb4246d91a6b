//! A file that gets its name when it is whole.

use nix::libc::O_NOFOLLOW;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::OutputError;

/// Written as `NAME.part` beside the file it becomes; removed if it never does.
pub(super) struct PartFile {
    /// None once it has its name.
    writer: Option<BufWriter<File>>,
    part: PathBuf,
    path: PathBuf,
}

impl PartFile {
    /// Starts the file that becomes `path`. One left by a run that was killed is overwritten, one that
    /// another process is writing is not.
    pub(super) fn create(path: &Path) -> Result<Self, OutputError> {
        check_folder(path)?;
        let mut name = path.file_name().map(OsString::from).unwrap_or_default();
        name.push(".part");
        let part = path.with_file_name(name);
        let mut options = OpenOptions::new();
        // Whoever made a link of this name doesn't choose what is overwritten.
        options.write(true).create(true).truncate(false).custom_flags(O_NOFOLLOW);
        let file = options.open(&part).map_err(OutputError::io(&part))?;
        match file.try_lock() {
            Ok(()) => file.set_len(0).map_err(OutputError::io(&part))?,
            Err(TryLockError::WouldBlock) => return Err(OutputError::Busy { path: part }),
            Err(TryLockError::Error(cause)) => return Err(OutputError::io(&part)(cause)),
        }
        Ok(Self { writer: Some(BufWriter::new(file)), part, path: path.to_owned() })
    }

    /// Gives the whole file its name, in the place of any file that has it.
    pub(super) fn keep(mut self) -> Result<(), OutputError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let kept = writer.flush().and_then(|()| {
            drop(writer);
            fs::rename(&self.part, &self.path)
        });
        if kept.is_err() {
            self.remove();
        }
        kept.map_err(OutputError::io(&self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) {
        // Nothing more can be done about a file that can't even be removed.
        let _ = fs::remove_file(&self.part);
    }

    fn open(&mut self) -> &mut BufWriter<File> {
        self.writer.as_mut().expect("open until it is kept")
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open().flush()
    }
}

impl Seek for PartFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.open().seek(position)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            self.remove();
        }
    }
}

/// Checks that the folder a file would be in exists.
pub(super) fn check_folder(path: &Path) -> Result<(), OutputError> {
    match path.parent() {
        Some(folder) if folder != Path::new("") && !folder.is_dir() => {
            Err(OutputError::NoFolder { path: path.to_owned(), folder: folder.to_owned() })
        }
        _ => Ok(()),
    }
}
