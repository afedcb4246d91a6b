//! `gguf-video doctor` as its user sees it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn doctor(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gguf-video"))
        .arg("doctor")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[track_caller]
fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

#[track_caller]
fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

#[test]
fn json_has_its_keys_and_every_op_passes() {
    let folder = tempfile::tempdir().unwrap();
    let output = doctor(folder.path(), &["--device", "cpu", "--json"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&said).unwrap();

    assert_eq!(text(&report, "/program/version"), env!("CARGO_PKG_VERSION"));
    assert!(text(&report, "/program/ggml_version").starts_with("0."));
    for key in ["/program/target", "/program/ggml_source", "/program/ggml_commit", "/system/os"] {
        assert!(!text(&report, key).is_empty());
    }
    assert!(number(&report, "/system/cores") >= 1.0);
    assert!(number(&report, "/system/memory_bytes") > 1e9);
    for key in ["/system/kernel", "/system/rosetta", "/system/iogpu_wired_limit_mb"] {
        assert!(report.pointer(key).is_some(), "{key}");
    }
    assert!(report["refused_backends"].is_array() && report["log"].is_array());
    let backends = report["backends"].as_array().unwrap();
    let cpu = backends.iter().find(|backend| backend["name"] == "CPU").unwrap();
    assert!(!cpu["features"].as_object().unwrap().is_empty());
    let devices = report["devices"].as_array().unwrap();
    let cpu = devices.iter().find(|device| device["family"] == "cpu").unwrap();
    for rate in ["/rates/matmul_flops", "/rates/attention_flops", "/rates/bytes"] {
        assert!(number(cpu, rate) > 1e8, "{rate}");
    }
    assert!(number(cpu, "/memory_bytes/total") > 1e9);
    assert!(number(&report, "/disk/read_bytes_per_second") > 1e5);

    assert_eq!(report["self_test"]["passed"], true);
    assert_eq!(text(&report, "/self_test/device"), text(cpu, "/name"));
    let ops = report["self_test"]["ops"].as_array().unwrap();
    for op in ops {
        assert_eq!(op["outcome"], "pass", "{op}");
        assert!(number(op, "/rms") <= number(op, "/tolerance") && number(op, "/max") < 1.0, "{op}");
        assert!(number(op, "/cases") >= 1.0, "{op}");
    }
    for name in ["linear Q4_K", "get_rows F16", "attention 128", "conv3d 3x3x3", "rope", "softmax"]
    {
        assert!(ops.iter().any(|op| op["name"] == name), "{name}");
    }
    // The CPU rounds activations of a quantized product: a test that saw nothing would say 0.
    let op = ops.iter().find(|op| op["name"] == "linear Q8_0").unwrap();
    assert!(number(op, "/rms") > 1e-4, "{op}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the disk's test left a file");
}

#[test]
fn text_is_short_enough_to_paste_and_names_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("private").join("none");
    let output = doctor(folder.path(), &["--device", "cpu", "--disk", disk.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.lines().count() < 80, "{said}");
    for line in ["disk      can't be measured: its space: ", "  gelu_tanh", "CPU computes right: "]
    {
        assert!(said.lines().any(|l| l.starts_with(line)), "{said}");
    }
    assert!(!said.contains("private"), "{said}");
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = doctor(folder.path(), &["--device", "tpu"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no device `tpu` here"), "{said}");
    assert!(output.stdout.is_empty());
}
