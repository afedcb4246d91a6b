//! The tools, on files that conversions made.

mod support;

use gguf::{DType, File, Metadata, TensorSpec, Writer};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Checkpoint, Wan, job_of_file, originals, write_raw};
use to_gguf::tools::{Consumer, Kept, Rewrap, check, diff, inspect, rewrap};
use to_gguf::{Job, Layout, Silent, convert};

struct Made {
    folder: tempfile::TempDir,
    file: PathBuf,
}

fn made(quant: &str, layout: Layout) -> Made {
    let (folder, job) = job_of_file("tiny.safetensors", quant);
    write_raw(&job.source, &originals(Wan::TINY, ""));
    convert(&Job { layout, ..job.clone() }, &mut Silent).unwrap();
    Made { file: job.output.join(format!("Tiny-{quant}.gguf")), folder }
}

/// Writes a file again with other tensors or keys.
fn changed(
    from: &Path,
    to: &Path,
    change: impl FnOnce(&mut Vec<(TensorSpec, Vec<u8>)>, &mut Metadata),
) {
    let file = File::open(from).unwrap();
    let tensor = |t: &gguf::Tensor| {
        let spec = TensorSpec { name: t.name.clone(), shape: t.shape.clone(), dtype: t.dtype };
        (spec, file.data(t).to_vec())
    };
    let (mut tensors, mut metadata) =
        (file.tensors().iter().map(tensor).collect(), file.metadata().clone());
    change(&mut tensors, &mut metadata);
    let specs = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::create(to, &metadata, specs).unwrap();
    for (_, bytes) in &tensors {
        writer.write(bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn without(metadata: &Metadata, key: &str) -> Metadata {
    let mut other = Metadata::new();
    for (name, value) in metadata.iter().filter(|(name, _)| *name != key) {
        other.set(name, value.clone());
    }
    other
}

#[test]
fn inspect_counts_what_is_there() {
    let made = made("Q4_K_M", Layout::FiveD);
    let found = inspect(&made.file).unwrap();
    assert_eq!(found.tensors.len(), 69);
    assert_eq!(found.types["Q4_K"].tensors, 14);
    assert_eq!(found.types["Q6_K"].tensors, 6);
    assert_eq!(found.bytes, fs::metadata(&made.file).unwrap().len());
    let weight =
        found.tensors.iter().find(|tensor| tensor.name == "blocks.0.ffn.0.weight").unwrap();
    assert_eq!((&weight.shape[..], &*weight.dtype), (&[512, 256][..], "Q4_K"));
    let text = found.to_string();
    assert!(text.contains("wan.recipe = \"Q4_K_M\""), "{text}");

    let output = Command::new(env!("CARGO_BIN_EXE_to-gguf"))
        .arg("inspect")
        .arg(&made.file)
        .arg("--json")
        .output();
    let json: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(json["types"]["Q6_K"]["tensors"], 6);
    assert_eq!(json["tensors"][0]["type"], "F32");
}

#[test]
fn diff_measures_types_and_errors() {
    let exact = made("F32", Layout::FiveD);
    let quantized = made("Q4_K_M", Layout::Fold4d);
    let found = diff(&exact.file, &quantized.file).unwrap();
    assert!(found.only_a.is_empty() && found.only_b.is_empty() && found.shapes.is_empty());
    assert!(!found.is_none());
    let errors: Vec<f64> =
        found.tensors.iter().map(|tensor| tensor.error.unwrap().relative_rmse).collect();
    assert!(errors.is_sorted_by(|a, b| a >= b), "worst first");
    assert!(errors[0] > 0.02 && errors[0] < 0.2, "{}", errors[0]);
    let of = |name: &str| found.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(
        (of("blocks.0.ffn.2.weight").a, of("blocks.0.ffn.2.weight").b),
        (DType::F32, DType::Q6_K)
    );
    assert_eq!(of("head.modulation").error.unwrap().relative_rmse, 0.0);
    assert_eq!(of("head.head.weight").kept, Some(Kept::MoreExact), "F32 and F16");
    assert!(
        found.to_string().contains("6 tensors that neither file quantizes are kept more exactly")
    );

    // The report of the conversion says the same.
    let (_folder, job) = job_of_file("tiny.safetensors", "Q4_K_M");
    write_raw(&job.source, &originals(Wan::TINY, ""));
    let report = convert(&job, &mut Silent).unwrap();
    for tensor in &report.files[0].tensors {
        let error = of(&tensor.name).error.unwrap();
        assert!(
            (tensor.error.relative_rmse - error.relative_rmse).abs()
                < 1e-6 * error.relative_rmse.max(1e-9),
            "{}",
            tensor.name
        );
    }
    assert!(report.errors().lines().count() == 70);
    assert!(diff(&exact.file, &exact.file).unwrap().is_none());
}

fn verdict(file: &Path, consumer: Consumer) -> Vec<String> {
    check(file, &[consumer]).unwrap().remove(0).problems
}

#[test]
fn consumers_take_what_we_write() {
    let plain = made("Q4_K_M", Layout::FiveD);
    for consumer in Consumer::ALL {
        assert_eq!(verdict(&plain.file, consumer), [] as [&str; 0], "{consumer}");
    }
    let folded = made("Q4_K_M", Layout::Fold4d);
    assert!(verdict(&folded.file, Consumer::ComfyUi).is_empty());
    assert!(verdict(&folded.file, Consumer::SdCpp).is_empty());
    assert!(verdict(&folded.file, Consumer::Diffusers)[0].contains("not of five dimensions"));
    assert!(verdict(&folded.file, Consumer::Ours).is_empty());
}

#[test]
fn consumers_have_reasons_to_refuse() {
    use Consumer::{ComfyUi, Diffusers, Ours, SdCpp};
    type Change = fn(&mut Vec<(TensorSpec, Vec<u8>)>, &mut Metadata);
    fn tensor<'a>(
        tensors: &'a mut [(TensorSpec, Vec<u8>)],
        name: &str,
    ) -> &'a mut (TensorSpec, Vec<u8>) {
        tensors.iter_mut().find(|(spec, _)| spec.name == name).unwrap()
    }
    fn halve((spec, bytes): &mut (TensorSpec, Vec<u8>)) {
        spec.dtype = DType::BF16;
        *bytes = bytes.chunks(4).flat_map(|value| [value[2], value[3]]).collect();
    }
    fn begin_with(tensors: &mut [(TensorSpec, Vec<u8>)], prefix: &str) {
        tensors.iter_mut().for_each(|(spec, _)| spec.name.insert_str(0, prefix));
    }
    type Reasons = &'static [(Consumer, &'static str)];
    let cases: &[(&str, Change, Reasons)] = &[
        (
            "an unknown architecture",
            |_, m| {
                m.set("general.architecture", "wan3");
            },
            &[(ComfyUi, "Unexpected architecture type")],
        ),
        (
            "the architecture of an encoder",
            |_, m| {
                m.set("general.architecture", "t5encoder");
            },
            &[(ComfyUi, "Unexpected architecture type")],
        ),
        (
            "a prefix that everybody takes off but we",
            |t, _| begin_with(t, "model.diffusion_model."),
            &[(Ours, "rewrap --strip")],
        ),
        (
            "a prefix that nobody takes off",
            |t, _| begin_with(t, "diffusion_model."),
            &[
                (ComfyUi, "rewrap --strip"),
                (SdCpp, "rewrap --strip"),
                (Diffusers, "rewrap --strip"),
                (Ours, "rewrap --strip"),
            ],
        ),
        (
            "a BF16 convolution",
            |t, _| halve(tensor(t, "patch_embedding.weight")),
            &[(ComfyUi, "patch_embedding.weight"), (Diffusers, "is BF16, not F32 or F16")],
        ),
        (
            "a BF16 modulation",
            |t, _| halve(tensor(t, "blocks.0.modulation")),
            &[(ComfyUi, "only F32 and F16 work")],
        ),
        (
            "a BF16 norm that diffusers keeps in F32",
            |t, _| halve(tensor(t, "blocks.0.norm3.weight")),
            &[],
        ),
        (
            "a BF16 norm",
            |t, _| halve(tensor(t, "blocks.0.self_attn.norm_q.weight")),
            &[(Diffusers, "blocks.0.self_attn.norm_q.weight")],
        ),
        (
            "a lost dimension",
            |t, _| tensor(t, "blocks.1.modulation").0.shape = vec![6, 256],
            &[
                (ComfyUi, "its leading dimension of 1 is lost"),
                (Diffusers, "its leading dimension of 1 is lost"),
                (Ours, "its leading dimension of 1 is lost"),
            ],
        ),
        (
            "a fold without a note",
            |t, _| tensor(t, "patch_embedding.weight").0.shape = vec![4096, 1, 2, 2],
            &[(ComfyUi, "taken for another"), (Diffusers, "not of five dimensions")],
        ),
        (
            "no head",
            |t, _| t.retain(|(spec, _)| spec.name != "head.head.weight"),
            &[
                (ComfyUi, "head.head.weight"),
                (SdCpp, "head.head.weight"),
                (Diffusers, "head.head.weight"),
                (Ours, "head.head.weight"),
            ],
        ),
        (
            "no bias of the last block",
            |t, _| t.retain(|(spec, _)| spec.name != "blocks.1.self_attn.o.bias"),
            &[
                (ComfyUi, "blocks.1.self_attn.o.bias"),
                (SdCpp, "blocks.1.self_attn.o.bias"),
                (Diffusers, "blocks.1.self_attn.o.bias"),
                (Ours, "blocks.1.self_attn.o.bias"),
            ],
        ),
        (
            "a tensor too many",
            |t, _| {
                let mut other = tensor(t, "patch_embedding.bias").clone();
                other.0.name = "blocks.0.unheard_of.bias".into();
                t.push(other);
            },
            &[(Ours, "unheard_of")],
        ),
        // Of a file of to-gguf, all of it is wanted; of one that says nothing, it is found out.
        ("no variant", |_, m| *m = without(m, "wan.variant"), &[(Ours, "wan.variant")]),
        ("no expert", |_, m| *m = without(m, "wan.expert"), &[]),
        ("no architecture", |_, m| *m = without(m, "general.architecture"), &[]),
        ("no metadata", |_, m| *m = Metadata::new(), &[]),
    ];
    let made = made("Q8_0", Layout::FiveD);
    for (what, change, reasons) in cases {
        let path = made.folder.path().join("changed.gguf");
        changed(&made.file, &path, change);
        for consumer in Consumer::ALL {
            let problems = verdict(&path, consumer);
            match reasons.iter().find(|(who, _)| *who == consumer) {
                Some((_, part)) => {
                    assert!(
                        problems.iter().any(|problem| problem.contains(part)),
                        "{what}: {consumer}: {problems:?}"
                    );
                }
                None => assert!(problems.is_empty(), "{what}: {consumer}: {problems:?}"),
            }
        }
    }
    let checkpoint = Checkpoint::tiny();
    checkpoint.single();
    convert(&checkpoint.job("Q8_0"), &mut Silent).unwrap();
    let vae = checkpoint.output().join("VAE/Tiny-VAE-F32.gguf");
    assert!(verdict(&vae, ComfyUi)[0].contains("no node loads a VAE from GGUF"));
    for consumer in [SdCpp, Diffusers, Ours] {
        assert!(verdict(&vae, consumer).is_empty(), "{consumer}");
    }
    let encoder = checkpoint.output().join("TextEncoder/Tiny-umt5-Q8_0.gguf");
    assert!(verdict(&encoder, ComfyUi)[0].contains("[256384, 4096]"));
    assert!(verdict(&encoder, Diffusers).is_empty() && verdict(&encoder, Ours).is_empty());
}

fn plain(source: &Path, output: PathBuf) -> Rewrap {
    Rewrap {
        source: source.to_owned(),
        output,
        layout: None,
        prefix: None,
        strip: None,
        set: vec![],
        unset: vec![],
        force: false,
    }
}

#[test]
fn layouts_change_back_and_forth_without_loss() {
    let five = made("Q5_K_M", Layout::FiveD);
    let folded = made("Q5_K_M", Layout::Fold4d);
    let out = |name: &str| five.folder.path().join(name);
    let there = Rewrap { layout: Some(Layout::Fold4d), ..plain(&five.file, out("folded.gguf")) };
    rewrap(&there).unwrap();
    assert!(fs::read(out("folded.gguf")).unwrap() == fs::read(&folded.file).unwrap());
    let back =
        Rewrap { layout: Some(Layout::FiveD), ..plain(&out("folded.gguf"), out("back.gguf")) };
    rewrap(&back).unwrap();
    assert!(fs::read(out("back.gguf")).unwrap() == fs::read(&five.file).unwrap());
    let error = rewrap(&back).unwrap_err().to_string();
    assert!(error.ends_with("back.gguf exists; --force replaces it"), "{error}");

    // As stable-diffusion.cpp writes: folded, prefixed, no metadata.
    changed(&five.file, &out("sd.gguf"), |tensors, metadata| {
        *metadata = Metadata::new();
        for (spec, _) in tensors {
            if spec.shape.len() == 5 {
                spec.shape = vec![256 * 16, 1, 2, 2];
            }
            spec.name = format!("model.diffusion_model.{}", spec.name);
        }
    });
    let options = Rewrap {
        layout: Some(Layout::FiveD),
        strip: Some("model.diffusion_model.".into()),
        set: vec![("general.architecture".into(), "wan".into())],
        ..plain(&out("sd.gguf"), out("comfy.gguf"))
    };
    rewrap(&options).unwrap();
    assert!(verdict(&out("comfy.gguf"), Consumer::ComfyUi).is_empty());
    assert!(verdict(&out("comfy.gguf"), Consumer::Diffusers).is_empty());
}

#[test]
fn keys_are_set_in_their_types() {
    let made = made("Q8_0", Layout::FiveD);
    let out = made.folder.path().join("out.gguf");
    let set = [
        ("wan.steps", "25"),
        ("wan.flow_shift", "5"),
        ("general.name", "7"),
        ("new.flag", "true"),
        ("new.text", "a b"),
    ];
    let options = Rewrap {
        set: set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        unset: vec!["general.source.name".into()],
        ..plain(&made.file, out.clone())
    };
    rewrap(&options).unwrap();
    let file = File::open(&out).unwrap();
    let m = file.metadata();
    assert_eq!(m.u32("wan.steps"), Ok(25));
    assert_eq!(m.f32("wan.flow_shift"), Ok(5.0));
    assert_eq!(m.string("general.name"), Ok("7"));
    assert_eq!(m.bool("new.flag"), Ok(true));
    assert_eq!(m.string("new.text"), Ok("a b"));
    assert!(m.get("general.source.name").is_none());
    for (set, unset, part) in [
        (
            Some(("wan.steps", "many")),
            None,
            "--set wan.steps: the key holds a u32, which \"many\" is not",
        ),
        (None, Some("no.such"), "no key \"no.such\""),
    ] {
        let options = Rewrap {
            set: set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            unset: unset.iter().map(|key: &&str| key.to_string()).collect(),
            ..plain(&made.file, made.folder.path().join("none.gguf"))
        };
        let error = format!("{:#}", rewrap(&options).unwrap_err());
        assert!(error.contains(part), "{error}");
        assert!(!options.output.exists());
    }
    let strip = Some("model.".into());
    let options = Rewrap { strip, ..plain(&made.file, made.folder.path().join("none.gguf")) };
    let error = rewrap(&options).unwrap_err().to_string();
    assert!(error.ends_with("no tensor's name begins with \"model.\""), "{error}");
    assert!(!options.output.exists());
}

#[test]
fn exit_codes_tell_right_from_wrong() {
    let made = made("Q8_0", Layout::Fold4d);
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_to-gguf")).args(args).output().unwrap().status.code()
    };
    let file = made.file.to_str().unwrap();
    assert_eq!(run(&["check", file, "--for", "comfyui,sdcpp"]), Some(0));
    assert_eq!(run(&["check", file, "--for", "diffusers"]), Some(1));
    assert_eq!(run(&["check", file, "--for", "nobody"]), Some(2));
    assert_eq!(run(&["diff", file, file]), Some(0));
    assert_eq!(run(&["inspect", "/no/such"]), Some(2));
    assert_eq!(run(&["rewrap", file, "-o", file]), Some(2));
    assert_eq!(run(&["verify", made.folder.path().to_str().unwrap()]), Some(2));
}
