//! The program from outside: exit codes, messages, Ctrl-C.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

#[test]
fn mistakes_of_the_user_are_named() {
    let checkpoint = Checkpoint::tiny();
    let q8_0 = ["--quant", "Q8_0"];
    fails(to_gguf(&checkpoint).args(["--quant", "Q9_Z"]), &["\"Q9_Z\" is none of F32, F16,"]);
    fails(to_gguf(&checkpoint).args(q8_0).args(["--threads", "0"]), &["--threads"]);
    fails(to_gguf(&checkpoint).args(q8_0).args(["--name", "../x"]), &["--name \"../x\""]);
    fails(to_gguf(&checkpoint).args(q8_0).args(["--name", "a\nb"]), &["--name \"a\\nb\""]);
    fails(&mut to_gguf(&checkpoint), &["--quant <TYPE>"]);

    let elsewhere = |folder| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_to-gguf"));
        command.arg(checkpoint.file(folder)).arg("-o").arg(checkpoint.output()).args(q8_0);
        command
    };
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
