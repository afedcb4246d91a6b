//! What a report leaves out of other people's sentences: folders that tell who somebody is.

use std::env;
use std::path::{Path, PathBuf};

/// `said` with `~` for the user's folder, and `.` for the program's.
pub(super) fn private(said: &str) -> String {
    let program = env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned));
    without(said, program, env::home_dir())
}

fn without(said: &str, program: Option<PathBuf>, home: Option<PathBuf>) -> String {
    let folders = [(program, "."), (home, "~")];
    folders.into_iter().fold(said.to_owned(), |said, (folder, name)| {
        let folder = folder.map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
        if folder.len() > 1 { said.replace(&folder, name) } else { said }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_get_short_names() {
        let of =
            |said: &str| without(said, Some("/Users/ada/bin".into()), Some("/Users/ada".into()));
        assert_eq!(of("/Users/ada/bin/backends/libggml.so: no"), "./backends/libggml.so: no");
        assert_eq!(of("loading '/Users/ada/x'"), "loading '~/x'");
        assert_eq!(without("/usr/lib", None, Some("/".into())), "/usr/lib");
    }
}
