//! The converter on a checkpoint of every model: which files it makes, what they say, and that their
//! values are the checkpoint's.

use e2e::{checkpoint, fixture};
use gguf::{DType, File, Metadata};
use safetensors::SafeTensors;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use to_gguf::tools::{Consumer, check, inspect};
use to_gguf::{Job, Part, convert};

/// Every value of a checkpoint's component, by its diffusers name, as F32.
fn values(component: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut values = BTreeMap::new();
    for entry in fs::read_dir(component).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = fs::read(path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            for (name, tensor) in file.tensors() {
                let data = tensor.data().chunks_exact(4);
                let data = data.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                assert!(values.insert(name, data).is_none());
            }
        }
    }
    values
}

/// The component's tensors are the file's: as many, and each with its values under its new name.
fn assert_holds(file: &File, component: &Path, renamed: &[(&str, &str)]) {
    let theirs = values(component);
    assert_eq!(file.tensors().len(), theirs.len(), "{}", component.display());
    let ours = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(tensor.dtype, DType::F32, "{name}");
        let data = file.data(tensor).chunks_exact(4);
        data.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    for (diffusers, name) in renamed {
        assert!(ours(name) == theirs[*diffusers], "{diffusers} is not {name}");
    }
    // Names are paired by the table alone; what must hold is that no values are lost or doubled.
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let found: BTreeSet<_> = file.tensors().iter().map(|t| bits(&ours(&t.name))).collect();
    let wanted: BTreeSet<_> = theirs.values().map(|values| bits(values)).collect();
    assert!(found == wanted, "{}", component.display());
}

struct Made {
    output: tempfile::TempDir,
    source: tempfile::TempDir,
}

impl Made {
    fn new(model: &str) -> Self {
        let source = checkpoint(model);
        let made = Self { output: tempfile::tempdir().unwrap(), source };
        convert(&made.job(), &mut to_gguf::Silent).unwrap_or_else(|e| panic!("{model}: {e:#}"));
        made
    }

    fn job(&self) -> Job {
        let quants = ["F32".parse().unwrap()];
        let job = Job::new(self.source.path(), self.output.path(), &quants);
        Job { name: "Xs".into(), publish: true, license: Some("mit".into()), ..job }
    }

    fn files(&self) -> Vec<String> {
        let report = convert(&Job { dry_run: true, ..self.job() }, &mut to_gguf::Silent).unwrap();
        let relative = |path: &PathBuf| {
            path.strip_prefix(self.output.path()).unwrap().to_string_lossy().into_owned()
        };
        report.files.iter().map(|file| relative(&file.path)).collect()
    }

    fn open(&self, name: &str) -> File {
        File::open(self.output.path().join(name)).unwrap_or_else(|e| panic!("{e}"))
    }

    fn component(&self, name: &str) -> PathBuf {
        self.source.path().join(name)
    }

    /// Everybody who can load such a file can load this one.
    fn assert_loads(&self, name: &str, consumers: &[Consumer]) {
        for verdict in check(&self.output.path().join(name), consumers).unwrap() {
            assert_eq!(verdict.problems, [] as [&str; 0], "{name} by {}", verdict.consumer);
        }
    }
}

const SHARED: [&str; 3] =
    ["TextEncoder/Xs-umt5-F32.gguf", "VAE/Xs-VAE-F32.gguf", "VAE/Xs-VAE.safetensors"];

const FIRST: (&str, &str) = ("patch_embedding.weight", "patch_embedding.weight");
const NORM: (&str, &str) = ("blocks.1.norm2.bias", "blocks.1.norm3.bias");
const OUT: (&str, &str) = ("blocks.0.attn2.to_out.0.weight", "blocks.0.cross_attn.o.weight");

fn optional<T>(value: Result<T, gguf::MetadataError>) -> Option<T> {
    Metadata::optional(value).unwrap()
}

#[test]
fn two_experts_of_image_to_video() {
    let made = Made::new("wan2.2-i2v-a14b");
    let files = ["HighNoise/Xs-HighNoise-F32.gguf", "LowNoise/Xs-LowNoise-F32.gguf"];
    assert_eq!(made.files(), [&files[..], &SHARED].concat());
    for (file, component, role) in
        [(files[0], "transformer", "high_noise"), (files[1], "transformer_2", "low_noise")]
    {
        made.assert_loads(file, &Consumer::ALL);
        let file = made.open(file);
        let m = file.metadata();
        assert_eq!(m.string("wan.variant"), Ok("wan2.2-i2v-a14b"));
        assert_eq!(m.string("wan.expert"), Ok(role));
        assert_eq!(m.f32("wan.boundary_ratio"), Ok(0.9));
        assert_eq!(m.f32("wan.flow_shift"), Ok(3.0));
        assert_eq!(m.f32("wan.guidance_scale"), Ok(3.5));
        assert_eq!((m.u32("wan.in_channels"), m.u32("wan.out_channels")), (Ok(36), Ok(16)));
        assert_eq!(optional(m.u32("wan.image_embedding_length")), None);
        assert_eq!(optional(m.bool("wan.expand_timesteps")), None);
        assert_holds(&file, &made.component(component), &[FIRST, NORM, OUT]);
    }
    let card = fs::read_to_string(made.output.path().join("README.md")).unwrap();
    for part in [
        "base_model: Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        "pipeline_tag: image-to-video",
        "--image first.png",
        "-i first.png",
    ] {
        assert!(card.contains(part), "{part:?} is not in: {card}");
    }
    assert!(!card.contains("clip_vision") && !card.contains("last.png"), "{card}");
}

#[test]
fn text_and_image_to_video_has_a_vae_of_its_own() {
    let made = Made::new("wan2.2-ti2v-5b");
    assert_eq!(made.files(), [&["Xs-F32.gguf"][..], &SHARED].concat());
    made.assert_loads("Xs-F32.gguf", &Consumer::ALL);
    let file = made.open("Xs-F32.gguf");
    let m = file.metadata();
    assert_eq!(m.string("wan.variant"), Ok("wan2.2-ti2v-5b"));
    assert_eq!(m.string("wan.expert"), Ok("single"));
    assert_eq!(m.bool("wan.expand_timesteps"), Ok(true));
    assert_eq!((m.u32("wan.in_channels"), m.u32("wan.out_channels")), (Ok(48), Ok(48)));
    assert_eq!((m.f32("wan.flow_shift"), m.u32("wan.steps")), (Ok(5.0), Ok(50)));
    assert_eq!(optional(m.f32("wan.boundary_ratio")), None);
    assert_holds(&file, &made.component("transformer"), &[FIRST, NORM, OUT]);

    let names = [
        ("quant_conv.weight", "conv1.weight"),
        (
            "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
            "encoder.downsamples.1.downsamples.0.shortcut.weight",
        ),
        (
            "encoder.down_blocks.1.downsampler.time_conv.weight",
            "encoder.downsamples.1.downsamples.2.time_conv.weight",
        ),
        (
            "decoder.up_blocks.0.upsampler.resample.1.bias",
            "decoder.upsamples.0.upsamples.3.resample.1.bias",
        ),
        (
            "decoder.up_blocks.3.resnets.2.norm2.gamma",
            "decoder.upsamples.3.upsamples.2.residual.3.gamma",
        ),
        ("decoder.mid_block.attentions.0.to_qkv.weight", "decoder.middle.1.to_qkv.weight"),
    ];
    let file = made.open(SHARED[1]);
    let m = file.metadata();
    assert_eq!((m.u32("wanvae.base_dim"), m.u32("wanvae.decoder_base_dim")), (Ok(2), Ok(4)));
    assert_eq!((m.u32("wanvae.patch_size"), m.bool("wanvae.is_residual")), (Ok(2), Ok(true)));
    assert_eq!(m.u32("wanvae.z_dim"), Ok(48));
    let std = m.string("wanvae.latents_std").unwrap();
    assert!(std.starts_with("0.4765,1.0364,") && std.split(',').count() == 48, "{std}");
    assert_holds(&file, &made.component("vae"), &names);
    // For other programs: the same, as safetensors in original names.
    let published = values(&made.output.path().join("VAE"));
    assert_eq!(published.len(), file.tensors().len());
    let theirs = values(&made.component("vae"));
    assert!(names.iter().all(|(diffusers, name)| published[*name] == theirs[*diffusers]));

    let card = fs::read_to_string(made.output.path().join("README.md")).unwrap();
    assert!(
        card.contains("Without `--image` the model makes a video of the text alone."),
        "{card}"
    );
}

#[test]
fn one_expert_of_text_to_video() {
    let made = Made::new("wan2.1-t2v-1.3b");
    assert_eq!(made.files(), [&["Xs-F32.gguf"][..], &SHARED].concat());
    let file = made.open("Xs-F32.gguf");
    let m = file.metadata();
    assert_eq!(m.string("wan.variant"), Ok("wan2.1-t2v-1.3b"));
    assert_eq!(optional(m.u32("wan.in_channels")), None, "16 unless said otherwise");
    assert_eq!(optional(m.f32("wan.boundary_ratio")), None);
    // 2.1's VAE says nothing that 2.2 brought.
    let vae = made.open(SHARED[1]);
    for key in ["wanvae.decoder_base_dim", "wanvae.is_residual", "wanvae.patch_size"] {
        assert!(vae.metadata().get(key).is_none(), "{key}");
    }
    // The expert is the first of two.
    assert_holds(&file, &fixture("xs/transformer"), &[FIRST, NORM, OUT]);
}

const CLIP: [&str; 2] = ["ImageEncoder/Xs-clip-F32.gguf", "ImageEncoder/Xs-clip.safetensors"];

#[test]
fn image_encoders_and_what_takes_their_features() {
    for (model, shift, positions) in
        [("wan2.1-i2v-14b", 3.0, None), ("wan2.1-flf2v-14b", 16.0, Some(514))]
    {
        let made = Made::new(model);
        let [encoder, vae @ ..] = SHARED;
        let files = [&["Xs-F32.gguf", encoder][..], &CLIP, &vae].concat();
        assert_eq!(made.files(), files);
        // diffusers has no name for the embedding of positions.
        let others = Consumer::ALL.into_iter().filter(|other| *other != Consumer::Diffusers);
        let all = if positions.is_some() { others.collect() } else { Consumer::ALL.to_vec() };
        made.assert_loads("Xs-F32.gguf", &all);
        let file = made.open("Xs-F32.gguf");
        let m = file.metadata();
        assert_eq!(m.string("wan.variant"), Ok(model));
        assert_eq!(m.f32("wan.flow_shift"), Ok(shift));
        assert_eq!(m.u32("wan.image_embedding_length"), Ok(32));
        assert_eq!(optional(m.u32("wan.image_positions")), positions);
        let mut names = vec![
            FIRST,
            NORM,
            ("condition_embedder.image_embedder.norm2.weight", "img_emb.proj.4.weight"),
            ("condition_embedder.image_embedder.ff.net.2.weight", "img_emb.proj.3.weight"),
            ("blocks.1.attn2.add_v_proj.bias", "blocks.1.cross_attn.v_img.bias"),
            ("blocks.0.attn2.norm_added_k.weight", "blocks.0.cross_attn.norm_k_img.weight"),
        ];
        if positions.is_some() {
            names.push(("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"));
        }
        assert_holds(&file, &made.component("transformer"), &names);

        made.assert_loads(CLIP[0], &[Consumer::Ours]);
        let file = made.open(CLIP[0]);
        let m = file.metadata();
        assert_eq!(m.string("general.architecture"), Ok("clipvision"));
        for (key, value) in [
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("block_count", 3),
            ("attention.head_count", 2),
            ("image_size", 224),
            ("patch_size", 14),
        ] {
            assert_eq!(m.u32(&format!("clipvision.{key}")), Ok(value), "{key}");
        }
        assert_eq!(m.f32("clipvision.attention.layer_norm_epsilon"), Ok(1e-5));
        let name = "vision_model.encoder.layers.2.mlp.fc2.weight";
        let class = "vision_model.embeddings.class_embedding";
        assert_holds(&file, &made.component("image_encoder"), &[(name, name), (class, class)]);
        let card = fs::read_to_string(made.output.path().join("README.md")).unwrap();
        assert!(card.contains("`ImageEncoder/Xs-clip.safetensors` | `clip_vision`"), "{card}");
        assert_eq!(card.contains("--last-image last.png"), positions.is_some(), "{card}");
        let refused = "diffusers can't load these files: it has no name";
        assert_eq!(card.contains(refused), positions.is_some(), "{card}");
        assert_eq!(card.contains("from_single_file"), positions.is_none(), "{card}");
    }
}

/// Its matrices are F16 unless everything is F32, or `quants_image` says otherwise.
#[test]
fn the_image_encoder_is_quantized_where_it_is_asked_for() {
    let source = checkpoint("wan2.1-i2v-14b");
    let made = |quants_image: Option<&str>| {
        let output = tempfile::tempdir().unwrap();
        let job = Job {
            name: "Xs".into(),
            quants_image: quants_image.map(|quant| vec![quant.parse().unwrap()]),
            ..Job::new(source.path(), output.path(), &["Q8_0".parse().unwrap()])
        };
        let report = convert(&job, &mut to_gguf::Silent).unwrap();
        let clip = report.files.iter().find(|file| file.part == Part::ImageEncoder).unwrap();
        let types = |name: &str| clip.tensors.iter().find(|t| t.name == name).unwrap().dtype;
        assert_eq!(types("vision_model.embeddings.patch_embedding.weight"), DType::F32);
        assert_eq!(types("vision_model.embeddings.position_embedding.weight"), DType::F32);
        assert_eq!(types("vision_model.pre_layrnorm.bias"), DType::F32);
        types("vision_model.encoder.layers.0.self_attn.out_proj.weight")
    };
    assert_eq!(made(None), DType::F16);
    assert_eq!(made(Some("Q8_0")), DType::Q8_0);
}

/// A checkpoint in which one JSON value is another.
fn edited(model: &str, file: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let source = checkpoint(model);
    let path = source.path().join(file);
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    // The file, and the folder it is in, are links to the fixture.
    let folder = path.parent().unwrap();
    if folder != source.path() {
        let real = folder.canonicalize().unwrap();
        fs::remove_file(folder).unwrap();
        fs::create_dir(folder).unwrap();
        for entry in fs::read_dir(real).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    fs::remove_file(&path).unwrap();
    fs::write(&path, value.to_string()).unwrap();
    let output = source.path().join("out");
    let job = Job::new(source.path(), &output, &["F16".parse().unwrap()]);
    let error = convert(&job, &mut to_gguf::Silent).unwrap_err();
    assert!(!output.exists(), "nothing is written");
    format!("{error:#}")
}

#[test]
fn checkpoints_that_contradict_themselves_are_refused() {
    use serde_json::json;
    let (i2v, a14b, ti2v) = ("wan2.1-i2v-14b", "wan2.2-i2v-a14b", "wan2.2-ti2v-5b");
    let (index, clip, vae) = ("model_index.json", "image_encoder/config.json", "vae/config.json");
    let (wan, low) = ("transformer/config.json", "transformer_2/config.json");
    let processor = "image_processor/preprocessor_config.json";
    let other = json!(["t", "SiglipVisionModel"]);
    let cases = [
        (i2v, index, "image_encoder", json!([null, null]), "\"image_encoder\" is missing"),
        (i2v, index, "image_encoder", other, "CLIPVisionModel"),
        (i2v, index, "image_processor", json!(null), "\"image_processor\" is missing"),
        (i2v, index, "_class_name", json!("WanPipeline"), "has none"),
        (i2v, index, "_class_name", json!("WanVACEPipeline"), "is a WanVACEPipeline"),
        (i2v, clip, "hidden_act", json!("quick_gelu"), "supported is \"gelu\""),
        (i2v, clip, "hidden_size", json!(64), "\"image_dim\" is 32"),
        (i2v, processor, "resample", json!(2), "supported is 3"),
        (i2v, processor, "size", json!({ "shortest_edge": 336 }), "\"shortest_edge\":224"),
        (i2v, wan, "pos_embed_seq_len", json!(514), "image_embedder.pos_embed"),
        (a14b, index, "expand_timesteps", json!(true), "must be with transformer_2"),
        (a14b, index, "boundary_ratio", json!(null), "not a number"),
        (a14b, low, "in_channels", json!(16), "supported is 36"),
        (a14b, index, "_class_name", json!("WanPipeline"), "supported is 16"),
        (ti2v, index, "expand_timesteps", json!(false), "\"z_dim\" is 48"),
        (ti2v, vae, "is_residual", json!(false), "patch_size"),
        (ti2v, vae, "latents_mean", json!([0.5]), "48 numbers"),
    ];
    for (model, file, key, value, part) in cases {
        let error = edited(model, file, |config| config[key] = value);
        assert!(error.contains(part), "{model} {file} {key}: {part:?} is not in: {error}");
    }
}

/// What a file is taken for without its metadata is what it says with it.
#[test]
fn files_are_recognized_without_their_metadata() {
    for (model, file, expert) in [
        ("wan2.2-i2v-a14b", "HighNoise/Xs-HighNoise-F32.gguf", Some(Part::HighNoise)),
        ("wan2.2-ti2v-5b", "Xs-F32.gguf", None),
        ("wan2.2-ti2v-5b", "VAE/Xs-VAE-F32.gguf", None),
        ("wan2.1-flf2v-14b", "Xs-F32.gguf", None),
        ("xs", "VAE/Xs-VAE-F32.gguf", None),
    ] {
        let made = Made::new(model);
        let file = made.open(file);
        let tensors = file.tensors().iter().map(|t| (t.name.as_str(), &t.shape[..]));
        let given = catalog::Given::new(file.path(), tensors);
        let found = catalog::recognize(&given, expert).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found.tensors.len(), file.tensors().len());
        // Sampling defaults are the scheduler's in a checkpoint, and no shape tells the heads.
        let differs = ["wan.flow_shift", "wan.attention.head_count"];
        for (key, value) in found.metadata.iter().filter(|(key, _)| !differs.contains(key)) {
            assert_eq!(file.metadata().get(key), Some(value), "{model}: {key}");
        }
        let said = inspect(file.path()).unwrap();
        assert!(said.model.is_some() && said.inferred.is_empty(), "{said:?}");
    }
}
