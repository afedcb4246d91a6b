//! Files that other tools wrote, and that say little: they are used as they lie, and give what our own
//! files of the same weights give.

use e2e::synthetic::{self, Transformer, Values};
use e2e::{converted, fixture, open_model};
use gguf::{DType, File, Metadata, TensorSpec, Writer};
use gguf_video::ggml::{Device, Executor, HostTensor, Precision, Weights};
use gguf_video::models::wan::vae::{self, WanVae};
use gguf_video::models::wan::{Config, WanModel};
use gguf_video::models::{Context, Denoiser};
use gguf_video::pipeline::noise::Generator;
use gguf_video::pipeline::{
    FolderError, Machine, ModelFolder, Places, Request, Silent, decode, encode,
};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Small enough for a test, with heads as all Wan models have them.
const SMALL: Transformer =
    Transformer { dim: 256, ffn: 512, heads: 2, layers: 2, ..Transformer::A14B_HIGH };

/// `ours` as city96's `convert.py` and llama.cpp's quantizer leave it: three keys of metadata, vectors
/// and what isn't quantized in F16, and a kernel of five dimensions.
fn as_city96(ours: &File, path: &Path, values: Values) {
    let mut metadata = Metadata::new();
    metadata
        .set("general.architecture", "wan")
        .set("general.quantization_version", 2u32)
        .set("general.file_type", 7u32);
    let exact = |t: &gguf::Tensor| t.name.ends_with("modulation") || t.name.starts_with("patch_");
    let dtype = |t: &gguf::Tensor| match t.dtype {
        DType::F32 if !exact(t) => DType::F16,
        other => other,
    };
    let spec = |t: &gguf::Tensor| TensorSpec {
        name: t.name.clone(),
        shape: t.shape.clone(),
        dtype: dtype(t),
    };
    let specs = ours.tensors().iter().map(spec).collect();
    let mut writer = Writer::create(path, &metadata, specs).unwrap();
    for tensor in ours.tensors() {
        if values == Values::Zero {
            writer.skip().unwrap();
            continue;
        }
        let data = ours.data(tensor);
        if dtype(tensor) == tensor.dtype {
            writer.write(data).unwrap();
            continue;
        }
        let half =
            |b: &[u8]| f16::from_f32(f32::from_le_bytes(b.try_into().unwrap())).to_le_bytes();
        writer.write(&data.chunks_exact(4).flat_map(half).collect::<Vec<u8>>()).unwrap();
    }
    writer.finish().unwrap();
}

/// The files of `fixtures/xs` that go with any transformer.
fn encoder_and_vae(folder: &Path) -> Places {
    let rest = folder.join("rest");
    let model = converted(&fixture("xs"), &rest, "F32");
    Places {
        text_encoder: Some(model.text_encoder.path().to_owned()),
        vae: Some(model.vae.path().to_owned()),
        ..Places::default()
    }
}

fn open(places: Places) -> Result<ModelFolder, FolderError> {
    ModelFolder::open(&places)
}

fn velocity(file: &std::sync::Arc<File>) -> HostTensor {
    let config = Config::new(file).unwrap();
    let text = HostTensor::new(
        [7, config.text_dim],
        Generator::new(1).normal(7 * config.text_dim as usize),
    );
    let latents = HostTensor::new([16, 2, 4, 6], Generator::new(2).normal(16 * 2 * 4 * 6));
    let weights = Weights::load(file.clone(), Device::cpu()).unwrap();
    let model = WanModel::new(&weights, config).unwrap();
    let mut exec = Executor::new(Device::cpu(), Precision::Native, 1).unwrap();
    let text = model.condition(&mut exec, Context::text(&text)).unwrap();
    let go_on = &mut || ControlFlow::Continue(());
    model.velocity(&mut exec, &latents, 700.0.into(), &text, go_on).unwrap()
}

fn distance(a: &HostTensor, b: &HostTensor) -> f32 {
    let largest = b.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.data.iter().zip(&*b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn experts_of_city96_and_quantstack_are_told_by_their_names() {
    let at = tempfile::tempdir().unwrap();
    let folder = at.path().join("model");
    fs::create_dir(&folder).unwrap();
    let rest = encoder_and_vae(at.path());
    let ours =
        synthetic::transformer(&at.path().join("ours.gguf"), SMALL, DType::Q8_0, Values::Random);
    let names = ["Wan2.2-T2V-A14B-HighNoise-Q8_0.gguf", "Wan2.2-T2V-A14B-LowNoise-Q8_0.gguf"];
    for name in names {
        as_city96(&ours, &folder.join(name), Values::Random);
    }
    let model = open(Places { folder: folder.clone(), ..rest.clone() }).unwrap();
    let named = |file: &File| file.path().file_name().unwrap().to_str().unwrap().to_owned();
    let found = [named(&model.transformer), named(model.transformer_2.as_ref().unwrap())];
    assert_eq!(found, names);
    let config = Config::new(&model.transformer).unwrap();
    assert_eq!(
        (config.variant.as_str(), config.num_heads, config.dim),
        ("wan2.2-t2v-a14b", 2, 256)
    );
    assert_eq!((config.boundary_ratio, config.flow_shift, config.steps), (Some(0.875), 12.0, 40));
    let said = model.inferred.join("\n");
    assert!(said.contains("HighNoise") && said.contains("flow shift 12"), "{said}");
    // Vectors and embeddings were rounded to halves on the way.
    let off = distance(&velocity(&model.transformer), &velocity(&std::sync::Arc::new(ours)));
    assert!(off < 2e-3, "{off}");
}

#[test]
fn experts_that_nothing_tells_apart_take_a_word_from_the_user() {
    let at = tempfile::tempdir().unwrap();
    let folder = at.path().join("model");
    fs::create_dir(&folder).unwrap();
    let rest = encoder_and_vae(at.path());
    let sizes = Transformer { layers: 1, ..Transformer::A14B_HIGH };
    let ours = synthetic::transformer(&at.path().join("x.gguf"), sizes, DType::Q4_K, Values::Zero);
    let [a, b] = ["a.gguf", "b.gguf"].map(|name| folder.join(name));
    for path in [&a, &b] {
        as_city96(&ours, path, Values::Zero);
    }
    let places = Places { folder, ..rest };
    let error = open(places.clone()).unwrap_err().to_string();
    assert!(error.contains("a.gguf") && error.contains("wan2.2-t2v-a14b low_noise"), "{error}");
    let two = Places { high_noise: Some(b.clone()), low_noise: Some(a.clone()), ..places.clone() };
    let model = open(two).unwrap();
    assert_eq!(model.transformer.path(), b);
    assert_eq!(model.transformer_2.unwrap().path(), a);
    let one = open(Places { transformer: Some(a), ..places }).unwrap();
    assert_eq!(Config::new(&one.transformer).unwrap().variant, "wan2.1-t2v-14b");
    assert!(one.transformer_2.is_none());
}

/// Writes tensors as a safetensors file.
fn write_safetensors(path: &Path, tensors: &[(String, Vec<u64>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let shape = shape.iter().map(|&d| d as usize).collect();
        (name, TensorView::new(Dtype::F32, shape, bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Frames of a little noise.
fn frames(folder: &ModelFolder) -> Vec<u8> {
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let latents = HostTensor::new([16, 2, 4, 6], Generator::new(3).normal(16 * 2 * 4 * 6));
    let mut exec = machine.executor(machine.vae).unwrap();
    let mut rgb = Vec::new();
    decode(&mut exec, folder, latents, 5, &mut Silent, &mut |frame| {
        rgb.extend_from_slice(&frame.rgb);
        Ok(())
    })
    .unwrap();
    rgb
}

/// The names of diffusers, and of ComfyUI's `wan_2.1_vae.safetensors`.
#[test]
fn a_vae_in_safetensors_decodes_to_the_same_frames() {
    let at = tempfile::tempdir().unwrap();
    let model = converted(&fixture("xs"), &at.path().join("model"), "F32");
    let expected = frames(&model);
    let comfy = at.path().join("wan_2.1_vae.safetensors");
    let tensor = |t: &gguf::Tensor| (t.name.clone(), t.shape.clone(), model.vae.data(t).to_vec());
    write_safetensors(&comfy, &model.vae.tensors().iter().map(tensor).collect::<Vec<_>>());
    let diffusers = fixture("xs/vae/diffusion_pytorch_model.safetensors");
    for path in [comfy, diffusers] {
        let places = |vae: PathBuf| Places {
            folder: at.path().join("model"),
            vae: Some(vae),
            ..Places::default()
        };
        let other = open(places(path.clone())).unwrap();
        assert_eq!(other.vae.path(), path);
        let found = vae::Config::new(&other.vae).unwrap();
        assert_eq!((found.base_dim, found.z_dim, found.patch_size), (4, 16, 1));
        assert!(frames(&other) == expected, "{}", path.display());
        assert!(WanVae::open(&other.vae, Device::cpu()).is_ok());
    }
}

/// llama.cpp's converter leaves out keys that others are fond of; the tokenizer is in the metadata.
#[test]
fn a_umt5_of_llama_cpp_encodes_the_same() {
    let at = tempfile::tempdir().unwrap();
    let model = converted(&fixture("xs"), &at.path().join("model"), "F32");
    let theirs = at.path().join("umt5-xxl-encoder-F32.gguf");
    let mut metadata = Metadata::new();
    for (key, value) in model.text_encoder.metadata().iter() {
        let left_out = ["t5encoder.vocab_size", "general.source", "general.quantized_by"];
        if !left_out.iter().any(|stem| key.starts_with(stem)) {
            metadata.set(key, value.clone());
        }
    }
    let spec = |t: &gguf::Tensor| TensorSpec {
        name: t.name.clone(),
        shape: t.shape.clone(),
        dtype: t.dtype,
    };
    let file = &model.text_encoder;
    let mut writer =
        Writer::create(&theirs, &metadata, file.tensors().iter().map(spec).collect()).unwrap();
    file.tensors().iter().for_each(|t| writer.write(file.data(t)).unwrap());
    writer.finish().unwrap();
    let places =
        Places { folder: at.path().join("model"), text_encoder: Some(theirs), ..Places::default() };
    let other = open(places).unwrap();
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let request = Request { prompt: "A cat bakes a cake.".into(), ..Request::default() };
    let states = |folder: &ModelFolder| {
        let mut exec = machine.executor(machine.text).unwrap();
        encode(&mut exec, folder, &request, &mut Silent).unwrap().positive
    };
    assert_eq!(states(&other).data, states(&model).data);
}

/// A kernel that `to-gguf --layout fold4d` keeps in four dimensions.
#[test]
fn folded_files_are_unfolded() {
    let at = tempfile::tempdir().unwrap();
    let [plain, folded] = ["plain", "folded"].map(|name| at.path().join(name));
    let expected = converted(&fixture("xs"), &plain, "F32");
    let job = to_gguf::Job {
        name: "test".into(),
        layout: to_gguf::Layout::Fold4d,
        ..to_gguf::Job::new(fixture("xs"), &folded, &["F32".parse().unwrap()])
    };
    to_gguf::convert(&job, &mut to_gguf::Silent).unwrap();
    let model = open_model(&folded);
    let shape = |file: &File| file.tensor("patch_embedding.weight").unwrap().shape.clone();
    assert_eq!(shape(&model.transformer), shape(&expected.transformer));
}
