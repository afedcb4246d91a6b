//! Man pages and shell completions, made of the command line that a program parses, so that neither says
//! what the program doesn't do. `script/install` puts them where shells and `man` look.

#![warn(missing_docs)]

use clap::Command;
use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::Path;

/// Where each shell looks, below the prefix of an installation.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions"),
    (Shell::Zsh, "share/zsh/site-functions"),
    (Shell::Fish, "share/fish/vendor_completions.d"),
];

/// Writes the pages of `command` and of its subcommands below `prefix`, whose folders are made.
///
/// # Errors
/// Where the operating system fails.
pub fn write(mut command: Command, prefix: &Path) -> io::Result<()> {
    let pages = prefix.join("share/man/man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(command.clone(), &pages)?;
    let name = command.get_name().to_owned();
    for (shell, folder) in SHELLS {
        let folder = prefix.join(folder);
        fs::create_dir_all(&folder)?;
        clap_complete::generate_to(shell, &mut command, &name, &folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn a_program_and_its_subcommands_have_pages() {
        let prefix = tempfile::tempdir().unwrap();
        let run = Command::new("run").arg(Arg::new("size").long("size"));
        write(Command::new("program").subcommand(run), prefix.path()).unwrap();
        let read = |path: &str| fs::read_to_string(prefix.path().join(path)).unwrap();
        assert!(read("share/man/man1/program.1").contains("run"));
        for file in [
            "man/man1/program-run.1",
            "bash-completion/completions/program.bash",
            "zsh/site-functions/_program",
            "fish/vendor_completions.d/program.fish",
        ] {
            assert!(read(&format!("share/{file}")).contains("size"), "{file}");
        }
    }
}
