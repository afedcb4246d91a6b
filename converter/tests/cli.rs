//! The program from outside: exit codes, messages, Ctrl-C.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::{Checkpoint, Wan};

fn to_gguf(checkpoint: &Checkpoint) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_to-gguf"));
    command.arg(checkpoint.path()).arg("--output").arg(checkpoint.output());
    command
}

#[track_caller]
fn fails(command: &mut Command, parts: &[&str]) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{message}");
    assert!(stdout.is_empty(), "{stdout:?}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_conversion_ends_with_a_table() {
    let checkpoint = Checkpoint::tiny();
    let output = to_gguf(&checkpoint).args(["--quant", "q8_0", "--threads", "1"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "no bar without a terminal: {output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[1].contains("HighNoise/Tiny-HighNoise-Q8_0.gguf"), "{table}");
    assert!(lines[1].ends_with("F32 43 F16 6 Q8_0 20"), "{table}");
    assert_eq!(checkpoint.written().len(), 4);
}

/// What `arguments` print, as JSON, and whether all is well.
#[track_caller]
fn json(command: &mut Command, arguments: &[&str]) -> (Value, bool) {
    let output = command.args(arguments).args(["--json", "--quiet"]).output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.success())
}

#[test]
fn programs_get_what_people_read() {
    let checkpoint = Checkpoint::tiny();
    let (planned, _) = json(&mut to_gguf(&checkpoint), &["--quant", "Q8_0", "--dry-run"]);
    assert_eq!((&planned["written"], checkpoint.written().len()), (&false.into(), 0));
    assert_eq!(planned["files"][0]["relative_rmse"], Value::Null);
    let (report, fine) = json(&mut to_gguf(&checkpoint), &["--quant", "Q8_0", "--publish"]);
    let files = report["files"].as_array().unwrap();
    assert!(fine && files.len() == 5, "{report:#}");
    for file in files {
        let path = Path::new(file["path"].as_str().unwrap());
        assert_eq!(file["bytes"], fs::metadata(path).unwrap().len(), "{path:?}");
    }
    assert_eq!(files[0]["types"], serde_json::json!({ "F16": 6, "F32": 43, "Q8_0": 20 }));
    let error = files[0]["relative_rmse"].as_f64().unwrap();
    assert!(error > 1e-3 && error < 1e-2, "{error}");

    let tool = || Command::new(env!("CARGO_BIN_EXE_to-gguf"));
    let (high, low) = (files[0]["path"].as_str().unwrap(), files[1]["path"].as_str().unwrap());
    let (verdicts, fine) = json(&mut tool(), &["check", high, "--for", "ours,comfyui"]);
    assert!(
        fine && verdicts[0]["program"] == "ours" && verdicts[1]["loads"] == true,
        "{verdicts:#}"
    );
    let (difference, fine) = json(&mut tool(), &["diff", high, low]);
    assert!(!fine && difference["same"] == false, "{difference:#}");
    assert_eq!(difference["tensors"].as_array().unwrap().len(), 69);
    let folder = checkpoint.output();
    let (checked, fine) = json(&mut tool(), &["verify", folder.to_str().unwrap()]);
    assert!(fine && checked["problems"] == serde_json::json!([]), "{checked:#}");

    let silent = tool().args(["check", high, "--quiet"]).output().unwrap();
    assert!(silent.status.success() && silent.stdout.is_empty(), "{silent:?}");
    fails(tool().args(["--quiet", "check", high]), &["which stand before all options"]);
    // Warnings stay.
    let again = folder.join("again");
    let again = ["-o", again.to_str().unwrap(), "--quant", "Q4_0", "--quiet", "--expert", "low"];
    let warned = tool().arg(high).args(again).output().unwrap();
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(warned.status.success() && warned.stdout.is_empty(), "{said}");
    assert!(said.starts_with("warning: the source was quantized before"), "{said}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let checkpoint = Checkpoint::tiny();
    to_gguf(&checkpoint).args(["--quant", "Q8_0"]).output().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_to-gguf"));
    let mut child = command
        .arg("inspect")
        .arg(&checkpoint.written()[0])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn mistakes_of_the_user_are_named() {
    let checkpoint = Checkpoint::tiny();
    let q8_0 = ["--quant", "Q8_0"];
    fails(to_gguf(&checkpoint).args(["--quant", "Q9_Z"]), &["invalid value 'Q9_Z'", "F32, F16,"]);
    fails(to_gguf(&checkpoint).args(q8_0).args(["--threads", "0"]), &["--threads"]);
    fails(to_gguf(&checkpoint).args(q8_0).args(["--name", "../x"]), &["--name \"../x\""]);
    fails(to_gguf(&checkpoint).args(q8_0).args(["--name", "a\nb"]), &["--name \"a\\nb\""]);
    fails(&mut to_gguf(&checkpoint), &["--quant <TYPE>"]);

    let elsewhere = |folder| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_to-gguf"));
        command.arg(checkpoint.file(folder)).arg("-o").arg(checkpoint.output()).args(q8_0);
        command
    };
    fails(&mut elsewhere("model_index.json"), &["give the folder that this file is in"]);
    fails(&mut elsewhere("absent"), &["absent"]);
    fails(&mut elsewhere("tokenizer"), &["give the folder that holds model_index.json"]);

    checkpoint.edit("model_index.json", |index| index["_class_name"] = "FluxPipeline".into());
    fails(to_gguf(&checkpoint).args(q8_0), &["FluxPipeline", "supported are WanPipeline"]);
    // What a file says moves no cursor.
    let steers = "\u{1b}[2J\u{7}Pipe";
    checkpoint.edit("model_index.json", |index| index["_class_name"] = steers.into());
    fails(to_gguf(&checkpoint).args(q8_0), &["is a \\u{1b}[2J\\u{7}Pipe; supported"]);
    assert!(checkpoint.written().is_empty());
}

#[test]
fn mistakes_of_typing_are_answered_with_what_was_meant() {
    let checkpoint = Checkpoint::tiny();
    let q8_0 = ["--quant", "Q8_0"];
    let kept = checkpoint.file("vae");
    let kept = kept.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--quant", "q8"], "a similar value exists: 'Q8_0'"),
        (&["--quant", "fp16"], "a similar value exists: 'F16'"),
        (&["--qaunt", "Q8_0"], "a similar argument exists: '--quant'"),
        (&["--quant", "Q8_0", "--recipe", "publishd"], "a similar value exists: 'published'"),
        (&["--quant", "Q8_0", "--layout", "4d"], "[possible values: 5d, fold4d]"),
        (&["--target-size", "9"], "\"9\" is no size such as 9.5GB"),
        (&["--quant", "Q8_0", "another"], "unexpected argument 'another': there is one source"),
        (&["--quant", "Q8_0", "--expert", "high"], "--expert: "),
        (&["--quant", "Q8_0", "--tokenizer", "x"], "--tokenizer: "),
        (&["--quant", "Q8_0", "--errors", "absent/x"], "--errors absent/x: the folder isn't there"),
        (&["--quant", "Q8_0", "--errors", kept], "the file is there and has no errors of tensors"),
        (&["--quant", "Q8_0", "--lora", "absent.safetensors"], "absent.safetensors: no such file"),
        (&["--quant", "Q8_0", "--imatrix", "absent"], "absent: No such file"),
        (&["--quant", "Q8_0", "--tensor-type", "x"], "\"x\" is not REGEX=TYPE"),
    ];
    for (arguments, expected) in cases {
        fails(to_gguf(&checkpoint).args(*arguments), &[expected]);
    }
    let alone = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_to-gguf"));
        command.args(arguments).arg("-o").arg(checkpoint.output()).args(q8_0);
        command
    };
    let encoder = checkpoint.file("text_encoder");
    let encoder = encoder.to_str().unwrap();
    fails(&mut alone(&[encoder, "--tokenizer", "absent"]), &["--tokenizer absent: neither a"]);
    let vae = checkpoint.file("vae");
    let vae = vae.to_str().unwrap();
    fails(&mut alone(&[vae, "--expert", "low"]), &["--expert is for transformers"]);
    fails(&mut alone(&[vae, "--tokenizer", "x"]), &["--tokenizer is for text encoders"]);
    assert!(checkpoint.written().is_empty());
}

#[test]
fn tools_refuse_as_clearly() {
    let checkpoint = Checkpoint::without_transformers();
    let folder = checkpoint.path();
    let (config, folder) = (folder.join("model_index.json"), folder.to_str().unwrap());
    let config = config.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["inspct", config], "the tools are inspect, check, diff, verify and rewrap"),
        (&["inspect", "absent"], "cannot open absent: No such file"),
        (&["inspect", folder], "is a directory"),
        (&["inspect", config], "not with \"GGUF\""),
        (&["check", config, "--for", "comfy"], "a similar value exists: 'comfyui'"),
        (&["diff", config], "<B>"),
        (&["verify", "absent"], "absent: no such folder"),
        (&["verify", folder], "no SHA256SUMS to check against; `to-gguf --publish` writes one"),
        (&["rewrap", config, "-o", config], "the file can't be rewrapped into itself"),
        (&["rewrap", config, "-o", "x", "--set", "x"], "\"x\" is not KEY=VALUE"),
    ];
    for (arguments, expected) in cases {
        fails(Command::new(env!("CARGO_BIN_EXE_to-gguf")).args(*arguments), &[expected]);
    }
}

#[test]
fn every_page_of_help_has_examples() {
    for command in ["", "inspect", "check", "diff", "verify", "rewrap"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_to-gguf"));
        program.args(Some(command).filter(|name| !name.is_empty())).arg("--help");
        let page = String::from_utf8(program.output().unwrap().stdout).unwrap();
        let examples = page.split_once("\nExamples:\n").map_or("", |(_, behind)| behind);
        assert!(examples.matches("  to-gguf ").count() >= 2, "{page}");
        let plain = ["inspect", "rewrap"].contains(&command);
        assert!(plain || examples.contains("\nExit codes: 0"), "{page}");
    }
}

#[test]
fn signals_end_it_cleanly() {
    let checkpoint = Checkpoint::without_transformers();
    checkpoint.single();
    checkpoint.sparse_transformer("transformer", Wan { layers: 8, ..Wan::A14B });
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = to_gguf(&checkpoint);
        let command = command.args(["--quant", "Q4_K"]).stderr(Stdio::piped());
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while checkpoint.written().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(120), "no file is begun");
            sleep(Duration::from_millis(20));
        }
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("interrupted"), "{message}");
        assert!(checkpoint.written().is_empty());
    }
}
