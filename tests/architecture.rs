//! Arrows between the runtime's folders point one way, `unsafe` stays where it belongs, files stay
//! short, and CONTRIBUTING's tables list what is there.

use e2e::repository;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each folder of the runtime may use, besides itself.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("cli", &["pipeline", "judge", "models", "ggml", "image", "output", "text", "doctor", "os"]),
    ("pipeline", &["models", "ggml", "image", "output", "text"]),
    ("judge", &["output"]),
    ("models", &["nn", "ggml"]),
    ("nn", &["ggml"]),
    ("ggml", &[]),
    ("doctor", &["nn", "ggml", "os"]),
    ("image", &[]),
    ("os", &[]),
    ("output", &[]),
    ("text", &[]),
];

/// Where `unsafe` is allowed to compile. Tests compare the quantizers' bytes with ggml's own.
const UNSAFE: [&str; 9] = [
    "runtime/src/ggml/mod.rs",
    "converter/src/quantize.rs",
    "converter/tests/blocks.rs",
    "quantizers/benches/throughput.rs",
    "quantizers/tests/ggml.rs",
    "gguf/src/cut_short.rs",
    "gguf/src/file.rs",
    "ggml-sys/src/lib.rs",
    "null-metal/src/lib.rs",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn arrows_point_one_way() {
    let root = repository("runtime/src");
    let mut uses = 0;
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap();
        let folder = inside.iter().next().unwrap().to_str().unwrap();
        if inside.iter().count() == 1 {
            continue; // lib.rs and main.rs
        }
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == folder)
            .unwrap_or_else(|| panic!("the folder `{folder}` has no place in the architecture"));
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for used in code.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fits = used == folder || allowed.contains(&used.as_str());
                assert!(fits, "{}:{}: `{folder}` uses `{used}`", path.display(), number + 1);
                uses += 1;
            }
        }
    }
    assert!(uses > 30, "only {uses} uses were found: has the layout changed?");
}

#[test]
fn only_the_command_line_knows_clap() {
    for path in sources(&repository("runtime/src")) {
        let text = fs::read_to_string(&path).unwrap();
        let here = path.components().any(|c| c.as_os_str() == "cli") || path.ends_with("main.rs");
        assert!(here || !text.contains("clap::"), "{}", path.display());
    }
}

#[test]
fn unsafe_code_is_where_it_belongs() {
    let mut found = Vec::new();
    for package in [
        "ggml-sys/src",
        "gguf",
        "catalog",
        "quantizers",
        "converter",
        "null-metal",
        "runtime",
        "tests",
    ] {
        for path in sources(&repository(package)) {
            let text = fs::read_to_string(&path).unwrap();
            if text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("(unsafe_code"))
            {
                found.push(path);
            }
        }
    }
    found.retain(|path| !path.ends_with("tests/architecture.rs"));
    for path in &found {
        let known = UNSAFE.iter().any(|allowed| path.ends_with(allowed));
        assert!(known, "{} allows unsafe code", path.display());
    }
    assert_eq!(found.len(), UNSAFE.len(), "{found:?}");
}

/// What git keeps of the repository.
fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    // Whoever owns the checkout, as in containers.
    git.args(["-c", "safe.directory=*", "ls-files"]).current_dir(repository(""));
    let output = git.output().unwrap_or_else(|e| panic!("git: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The names in the first column of the table below a heading of CONTRIBUTING, and their order.
fn listed(heading: &str) -> Vec<String> {
    let text = fs::read_to_string(repository("CONTRIBUTING.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let names = rows.flat_map(|row| {
        let first = row.split('|').nth(1).unwrap();
        first.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    });
    names.collect()
}

/// What `found` has and the table lacks, and the other way round, must be nothing.
#[track_caller]
fn assert_lists(heading: &str, found: &BTreeSet<String>) {
    let names: BTreeSet<String> = listed(heading).into_iter().collect();
    let missing: Vec<_> = found.difference(&names).collect();
    let gone: Vec<_> = names.difference(found).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "CONTRIBUTING.md, {heading:?}: without a line are {missing:?}, gone are {gone:?}"
    );
}

#[test]
fn every_folder_is_in_contributing() {
    let files = tracked();
    let is_package = |folder: &str| files.contains(&format!("{folder}/Cargo.toml"));
    let mut folders = BTreeSet::new();
    for file in &files {
        let parts: Vec<&str> = file.split('/').collect();
        if let [top, _, ..] = parts[..] {
            folders.insert(format!("{top}/"));
        }
        if let [top, below, _, ..] = parts[..] {
            let cargos = is_package(top) && ["src", "tests", "benches"].contains(&below);
            if !cargos {
                folders.insert(format!("{top}/{below}/"));
            }
        }
    }
    assert_lists("Where things are", &folders);
}

/// The names in the sections of a `Cargo.toml` whose name ends with `dependencies`, each with what
/// is said of it.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').ends_with("dependencies");
        } else if inside && !line.starts_with('#') && !line.trim().is_empty() {
            let end = line.find(['.', ' ', '=']).expect("a name and a value");
            found.push((line[..end].to_owned(), line[end..].to_owned()));
        }
    }
    found
}

#[test]
fn every_dependency_has_its_reason_and_its_use() {
    let (mut named, mut shared, mut used) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for file in tracked().iter().filter(|file| file.ends_with("Cargo.toml")) {
        for (name, said) in dependencies(&fs::read_to_string(repository(file)).unwrap()) {
            if said.contains("workspace") {
                used.insert(name);
            } else if !said.contains("path = ") {
                if file == "Cargo.toml" {
                    shared.insert(name.clone());
                }
                named.insert(name);
            }
        }
    }
    assert!(shared.len() > 20, "has the workspace's table moved? {shared:?}");
    let unused: Vec<_> = shared.difference(&used).collect();
    assert!(unused.is_empty(), "no package uses {unused:?}");
    assert_lists("Dependencies", &named);
    let names = listed("Dependencies");
    assert!(names.is_sorted(), "{names:?}");
}

/// House rule 2.
#[test]
fn files_say_why_they_exist_and_why_they_are_long() {
    for file in tracked().iter().filter(|file| file.ends_with(".rs")) {
        let text = fs::read_to_string(repository(file)).unwrap();
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(!head.is_empty(), "{file} doesn't say why it exists");
        let lines = text.lines().count();
        assert!(lines <= 600, "{file} has {lines} lines");
        assert!(lines <= 400 || head.contains("Long, because "), "{file}: why {lines} lines?");
    }
}
