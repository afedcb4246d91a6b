//! Arrows between the runtime's folders point one way, and `unsafe` stays where it belongs.

use e2e::repository;
use std::fs;
use std::path::{Path, PathBuf};

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
