//! What the program says to a wrong request, and how it ends. The model's files here are headers
//! with no weights: every mistake must be found before anything is loaded.

use gguf::{DType, Metadata, TensorSpec, Writer};
use std::path::Path;
use std::process::{Command, Output};

/// A file with `metadata` and one tensor of no use.
fn file(path: &Path, metadata: &Metadata) {
    let tensor = TensorSpec { name: "x".into(), shape: vec![1], dtype: DType::F32 };
    let mut writer = Writer::create(path, metadata, vec![tensor]).unwrap();
    writer.write(&[0; 4]).unwrap();
    writer.finish().unwrap();
}

fn transformer(expert: &str) -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", "wan").set("wan.variant", "test").set("wan.expert", expert);
    m.set("wan.boundary_ratio", 0.875f32).set("wan.flow_shift", 3f32);
    m.set("wan.guidance_scale", 4f32).set("wan.steps", 40u32);
    m.set("wan.attention.layer_norm_epsilon", 1e-6f32).set("wan.attention.head_count", 2u32);
    for key in ["embedding", "feed_forward", "text_embedding", "frequency"] {
        m.set(format!("wan.{key}_length"), 64u32);
    }
    m.set("wan.text_length", 512u32);
    m.set("wan.block_count", 1u32);
    m
}

fn model(folder: &Path) {
    file(&folder.join("high.gguf"), &transformer("high_noise"));
    file(&folder.join("low.gguf"), &transformer("low_noise"));
    let mut text = Metadata::new();
    text.set("general.architecture", "t5encoder").set("t5encoder.vocab_size", 9u32);
    file(&folder.join("text.gguf"), &text);
    let mut vae = Metadata::new();
    vae.set("general.architecture", "wanvae").set("wanvae.num_res_blocks", 2u32);
    vae.set("wanvae.base_dim", 4u32).set("wanvae.z_dim", 16u32);
    vae.set("wanvae.dim_mult", "1,2,4,4").set("wanvae.temporal_downsample", "false,true,true");
    let sixteen = |number: &str| vec![number; 16].join(",");
    vae.set("wanvae.latents_mean", sixteen("0")).set("wanvae.latents_std", sixteen("1"));
    file(&folder.join("vae.gguf"), &vae);
}

fn program(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gguf-video"))
        .args(arguments)
        .env("GGUF_VIDEO_HOME", folder.join("home"))
        .current_dir(folder)
        .output()
        .unwrap()
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let whole = [&["run", "--prompt", "a red ball", "--model", "."], arguments].concat();
    program(folder, &whole)
}

/// Exit code 2, one line that holds `expected`, and no new file.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], expected: &str) {
    let whole = [&["run", "--prompt", "a red ball", "--model", "."], arguments].concat();
    wrong(folder, &whole, expected);
}

/// The same for any command.
#[track_caller]
fn wrong(folder: &Path, arguments: &[&str], expected: &str) {
    let list = || std::fs::read_dir(folder).unwrap().count();
    let before = list();
    let output = program(folder, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(expected), "{said}");
    assert_eq!(list(), before, "a file was left behind");
}

#[test]
fn requests_that_make_no_video_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at);
    let nearest = "gguf-video: the size is 100x64; both sides must be multiples of 16, the nearest is 96x64\n";
    refused(at, &["-o", "x.mp4", "--size", "100x64"], nearest);
    refused(at, &["-o", "x.mp4", "--frames", "16"], "4n + 1, the nearest is 17");
    refused(at, &["-o", "x.mp4", "--steps", "0"], "the number of steps is 0");
    refused(at, &["-o", "x.mp4", "--guidance", "nan"], "the guidance scale is NaN");
    refused(at, &["-o", "x.mp4", "--flow-shift", "0"], "the flow shift is 0");
    refused(at, &["-o", "x.mp4", "--sampler", "ddim"], "unipc");
    refused(at, &["-o", "x.mp4", "--size", "big"], "such as 832x480");
    refused(at, &["-o", "x.mp4", "--frobnicate"], "unexpected argument '--frobnicate'");
    refused(at, &["-o", "x.webm"], "x.webm");
    refused(at, &["-o", "nowhere/x.mp4"], "nowhere");
    refused(at, &["-o", "x.mp4", "--contact-sheet", "nowhere/x.png"], "nowhere");
    refused(at, &[], "--output");
}

#[test]
fn mistakes_of_typing_are_answered_with_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at);
    let most = usize::MAX.to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["--preset", "lightning"], "a similar value exists: 'lightning4'"),
        (&["--sampler", "eular"], "a similar value exists: 'euler'"),
        (&["--negtive-prompt", "x"], "a similar argument exists: '--negative-prompt'"),
        (&["--frames", "-5"], "'-5' for '--frames <FRAMES>': expected a whole number"),
        (&["--seed", "-1"], "expected a whole number from 0"),
        (&["--guidance", "high"], "expected a number"),
        (&["--threads", "0"], "0 is not in 1..=512"),
        (&["--threads", "100000"], "100000 is not in 1..=512"),
        (&["--fps", "0"], "0 is not in 1..=1000"),
        (&["--frames", &most], "frames are too many; the model knows positions for 4093"),
        (&["--steps", &most], "it must be from 1 to 1000"),
        (&["--preset", "fast", "--steps", &most], "it must be from 1 to 1000"),
        (&["--steps", "4", "--guidance-until", "5"], "--guidance-until 5: there are 4 steps"),
        (
            &["--lora", "x.safetensors:o.8"],
            "\"o.8\" is no strength; expected such as x.safetensors:0.8",
        ),
        (&["--size", "99999x16"], "a side can't be longer than 16384"),
        (&["--contact-sheet", "x.jpg"], "x.jpg: a contact sheet is a PNG image"),
        (&["--preview", "al"], "`al` is none of the steps 1 to 40"),
    ];
    for (arguments, expected) in cases {
        refused(at, &[&["-o", "x.mp4"], *arguments].concat(), expected);
    }
}

/// What takes hours to gather doesn't go over a model.
#[test]
fn an_importance_matrix_replaces_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at);
    std::fs::write(at.join("prompts.txt"), "a red ball").unwrap();
    file(&at.join("kept-LowNoise.gguf"), &transformer("low_noise"));
    for (name, expected) in [
        ("kept.gguf", "kept-LowNoise.gguf: the file is there and is no importance matrix"),
        ("nowhere/x.gguf", "nowhere/x-HighNoise.gguf: the folder isn't there"),
    ] {
        let places = ["--model", ".", "--low", "low.gguf", "--prompts", "prompts.txt"];
        let what = ["run", "--collect-imatrix", name, "--size", "64x64", "--frames", "5"];
        wrong(at, &[&what[..], &places].concat(), expected);
    }
}

#[test]
fn other_commands_refuse_as_clearly() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("text.mp4"), "no video, but long enough").unwrap();
    std::fs::write(at.join("empty.mp4"), "").unwrap();
    std::fs::create_dir(at.join("checkpoint")).unwrap();
    std::fs::write(at.join("checkpoint/model_index.json"), "{}").unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["verify", "absent"], "absent: can't be read: No such file"),
        (&["verify", "text.mp4"], "text.mp4: it doesn't begin as an MP4 file does"),
        (&["verify", "empty.mp4"], "empty.mp4: it doesn't begin as an MP4 file does"),
        (&["verify", "checkpoint"], "checkpoint: there is no frame in it"),
        (&["plan", "--model", "absent"], "--model absent: No such file"),
        (&["plan", "--model", "text.mp4"], "--model text.mp4: a file; give its folder"),
        (&["plan", "--model", "checkpoint"], "`to-gguf checkpoint -o FOLDER --quant Q8_0`"),
        (&["resume"], "is unfinished"),
        (&["resume", "checkpoint"], "checkpoint holds no run: there is no run.json"),
        (&["runs", "clean", "--older-than", "week"], "expected a whole number of days"),
        (&["doctor", "--device", "tpu"], "no device `tpu` here; there"),
    ];
    for (arguments, expected) in cases {
        wrong(at, arguments, expected);
    }
}

/// What is run on a model says so with examples, and which exit codes there are.
#[test]
fn every_page_of_help_has_examples() {
    let here = Path::new(".");
    let page = |arguments: &[&str]| String::from_utf8(program(here, arguments).stdout).unwrap();
    for command in
        ["run", "plan", "preflight", "resume", "runs", "verify", "models", "devices", "doctor"]
    {
        let page = page(&[command, "--help"]);
        let examples = page.matches(&format!("\n  gguf-video {command}")).count();
        assert!(page.contains("\nExamples:\n") && examples >= 2, "{page}");
        let plain = ["runs", "models", "devices"].contains(&command);
        assert!(plain || page.contains("\nExit codes: "), "{page}");
    }
    assert!(page(&["--help"]).contains("\nExit codes: 0"));
}

#[test]
fn models_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    refused(at, &["-o", "x.mp4"], ".: no high-noise expert");
    // A file that says what it is and isn't: it is named.
    let mut empty = Metadata::new();
    empty.set("general.architecture", "wan");
    file(&at.join("broken.gguf"), &empty);
    refused(at, &["-o", "x.mp4"], "broken.gguf: not a Wan transformer");
    std::fs::remove_file(at.join("broken.gguf")).unwrap();
    model(at);
    refused(
        at,
        &["-o", "x.mp4", "--vae", "text.gguf"],
        "text.gguf: this is a text encoder, but --vae wants a VAE",
    );
    refused(at, &["-o", "x.mp4", "--vae", "missing.gguf"], "missing.gguf");
    refused(at, &["-o", "x.mp4", "--vae", "."], "cannot open .: is a directory");
    refused(
        at,
        &["-o", "x.mp4", "--image-encoder", "vae.gguf"],
        "vae.gguf: this model has no image encoder, and takes no --image-encoder",
    );
    // Experts say which they are, and aren't taken for the other.
    let swapped = ["-o", "x.mp4", "--high-noise", "low.gguf", "--low-noise", "high.gguf"];
    refused(at, &swapped, "low.gguf: this is a low-noise expert, but --high-noise wants");
    let one = ["-o", "x.mp4", "--transformer", "high.gguf"];
    refused(at, &one, "high.gguf: this is a high-noise expert, but --transformer wants");
    file(&at.join("high2.gguf"), &transformer("high_noise"));
    refused(at, &["-o", "x.mp4"], "2 files are a high-noise expert; choose one with --high-noise:");

    std::fs::remove_file(at.join("high2.gguf")).unwrap();
    let mut keys = transformer("high_noise");
    keys.set("wan.flow_shift", "three");
    file(&at.join("high.gguf"), &keys);
    refused(at, &["-o", "x.mp4"], "wan.flow_shift");
    for (key, value) in [("wan.attention.head_count", 3u32), ("wan.text_length", 77)] {
        let mut keys = transformer("high_noise");
        keys.set(key, value);
        file(&at.join("high.gguf"), &keys);
        refused(at, &["-o", "x.mp4"], key);
    }
    file(&at.join("high.gguf"), &transformer("medium_noise"));
    refused(at, &["-o", "x.mp4", "--high-noise", "high.gguf"], "high.gguf: not a Wan transformer");
    std::fs::write(at.join("high.gguf"), "not a model").unwrap();
    refused(at, &["-o", "x.mp4"], "high.gguf");
}

#[test]
fn devices_that_are_not_there_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at);
    refused(at, &["-o", "x.mp4", "--device", "tpu"], "no device `tpu` here; there");
    refused(at, &["-o", "x.mp4", "--vae-device", "CUDA7"], "no device `CUDA7` here; there");
    refused(at, &["-o", "x.mp4", "--submission-limit", "0"], "a number of seconds above 0");
}

/// The request is right, and now the files' headers are looked at: nothing has been computed yet.
#[test]
fn a_file_without_the_models_tensors_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at);
    let output = run(at, &["-o", "x.mp4", "--size", "64x64", "--frames", "5"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("text.gguf"), "{said}");
    assert!(!at.join("x.mp4").exists() && !at.join("x.mp4.part").exists());
    let output = run(at, &["-o", "x.mp4", "--size", "64x64", "--frames", "5", "--quiet"]);
    let alone = String::from_utf8(output.stderr).unwrap();
    assert!(alone.starts_with("gguf-video: ") && said.ends_with(&alone), "{alone}");

    // Where every part is named, nothing in the folder matters, as when a run is resumed.
    let elsewhere = at.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("damaged.gguf"), "GGUF").unwrap();
    let parts =
        ["--high=high.gguf", "--low=low.gguf", "--text-encoder=text.gguf", "--vae=vae.gguf"];
    let video = ["run", "-p", "x", "-o", "x.mp4", "--size", "64x64", "--frames", "5"];
    let output = program(at, &[&video[..], &["--model", "elsewhere"], &parts].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("text.gguf") && !said.contains("damaged.gguf"), "{said}");
    // Where one isn't, a damaged file may be the one that is meant.
    let output = program(at, &[&video[..], &["--model", "elsewhere"], &parts[..3]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("damaged.gguf"), "{said}");
}

/// The README's table is what the program prints.
#[test]
fn the_readme_lists_the_models() {
    let program = Command::new(env!("CARGO_BIN_EXE_gguf-video")).arg("models").output().unwrap();
    let table = String::from_utf8(program.stdout).unwrap();
    assert!(table.lines().count() > 6, "{table}");
    let readme = std::fs::read_to_string("../README.md").unwrap();
    assert!(readme.contains(&table), "the README's table isn't:\n{table}");
}

/// Whole files of a model that is converted but not run: they are no damaged ones.
#[test]
fn models_that_do_not_run_here_are_named() {
    use catalog::hunyuan_video15::Sizes;

    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let sizes = Sizes { heads: 1, layers: 1, text_dim: 8, image_dim: 8, mean_flow: false };
    let spec = |wanted: &catalog::Wanted| TensorSpec {
        name: wanted.name.clone(),
        shape: wanted.shape.clone(),
        dtype: DType::F16,
    };
    let specs: Vec<TensorSpec> = sizes.tensors().iter().map(spec).collect();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "hyvid");
    let elements = |spec: &TensorSpec| spec.shape.iter().product::<u64>() as usize;
    let zeros: Vec<Vec<u8>> = specs.iter().map(|spec| vec![0; 2 * elements(spec)]).collect();
    let mut writer = Writer::create(at.join("hunyuan.gguf"), &metadata, specs).unwrap();
    zeros.iter().for_each(|bytes| writer.write(bytes).unwrap());
    writer.finish().unwrap();
    let reason = "hunyuan.gguf: a HunyuanVideo 1.5 transformer, which gguf-video doesn't run";
    refused(at, &["-o", "x.mp4"], reason);
    refused(at, &["-o", "x.mp4", "--transformer", "hunyuan.gguf"], reason);
}
