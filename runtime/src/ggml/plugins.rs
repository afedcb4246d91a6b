//! Backends that were built as libraries (`script/backend`): the same program finds CUDA or Vulkan
//! where they are there, and runs where they aren't.

use super::device::text;
use super::log;
use ggml_sys as sys;
use std::env;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// Folders to look in, instead of those that belong to the program's place.
const FOLDERS: &str = "GGUF_VIDEO_BACKENDS";

/// Files that couldn't be loaded, with ggml's reasons.
static REFUSED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Why backends that are there can't be used: no driver, say, or another version of ggml.
pub fn refused_backends() -> Vec<String> {
    load();
    REFUSED.lock().expect("nothing panics while it holds this").clone()
}

/// Adds what it finds to ggml's registry, once a process; the names of those backends.
pub(super) fn load() -> &'static [String] {
    static LOADED: OnceLock<Vec<String>> = OnceLock::new();
    LOADED.get_or_init(|| {
        log::install();
        log::take_error();
        libraries(&folders()).iter().filter_map(|path| load_one(path)).collect()
    })
}

fn folders() -> Vec<PathBuf> {
    if let Some(folders) = env::var_os(FOLDERS) {
        return env::split_paths(&folders).collect();
    }
    let program = env::current_exe().and_then(fs::canonicalize);
    let Some(beside) = program.ok().and_then(|p| p.parent().map(Path::to_owned)) else {
        return Vec::new();
    };
    vec![beside.join("backends"), beside.join("../lib/gguf-video/backends")]
}

/// The files in `folders` that are named like ggml's backends, in the order of their names.
fn libraries(folders: &[PathBuf]) -> Vec<PathBuf> {
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok());
    let mut found: Vec<_> = entries.flatten().flatten().map(|entry| entry.path()).collect();
    found.retain(|path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("libggml-") && name.ends_with(env::consts::DLL_SUFFIX)
    });
    found.sort();
    found
}

fn load_one(path: &Path) -> Option<String> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
    // SAFETY: a NUL-terminated path. The library's code is ggml's own, built from the source that
    // this program was built from; ggml refuses one of another interface.
    let backend = unsafe { sys::ggml_backend_load(name.as_ptr()) };
    let said = log::take_error();
    if backend.is_null() {
        let why = said.unwrap_or_else(|| format!("{}: ggml refuses it", path.display()));
        REFUSED.lock().expect("nothing panics while it holds this").push(why);
        return None;
    }
    // SAFETY: a backend that was loaded is registered for the program, and so is its name.
    Some(text(unsafe { sys::ggml_backend_reg_name(backend) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libggml-vulkan.so", "libggml-cuda.so", "libggml-cuda.txt", "libother.so"] {
            let name = name.replace(".so", env::consts::DLL_SUFFIX);
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = libraries(&[folder.path().to_owned(), folder.path().join("missing")]);
        let names: Vec<_> = found.iter().map(|p| p.file_stem().unwrap().to_owned()).collect();
        assert_eq!(names, ["libggml-cuda", "libggml-vulkan"]);
    }
}
