//! Model files that lie where the format is right: types, sizes and numbers that would end in ggml's
//! assertions, in a kernel that isn't there, or in more memory than there is. The program ends with a
//! sentence instead, before anything is computed.

mod support;

use gguf::{DType, File, Metadata, TensorSpec, Value, Writer};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The demo model, with one file changed at a time.
struct Model(tempfile::TempDir);

impl Model {
    fn new() -> Self {
        Self(support::demo())
    }

    fn file(&self, part: &str) -> PathBuf {
        let entry = fs::read_dir(self.0.path().join(part)).unwrap().next();
        entry.unwrap().unwrap().path()
    }

    /// `gguf-video plan` ends with exit code 2 and `expected` in its words.
    #[track_caller]
    fn refused(
        &self,
        part: &str,
        metadata: &Metadata,
        retyped: Option<(&str, DType)>,
        expected: &str,
    ) {
        let path = self.file(part);
        let right = fs::read(&path).unwrap();
        rewrite(&path, metadata, retyped);
        let output = Command::new(env!("CARGO_BIN_EXE_gguf-video"))
            .args(["plan", "--size", "64x64", "--frames", "5", "--device", "cpu", "--model"])
            .arg(self.0.path())
            .env("GGUF_VIDEO_HOME", self.0.path().join("home"))
            .output()
            .unwrap();
        fs::write(&path, right).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{expected}: {}: {said}", output.status);
        assert!(said.contains(expected) && !said.contains("panicked"), "{expected:?}: {said}");
    }
}

/// The same file with other values under some keys, and one tensor of zeros in another type.
fn rewrite(path: &Path, changes: &Metadata, retyped: Option<(&str, DType)>) {
    let file = File::open(path).unwrap();
    let mut metadata = file.metadata().clone();
    for (key, value) in changes.iter() {
        metadata.set(key, value.clone());
    }
    let new =
        |t: &gguf::Tensor| retyped.filter(|(name, _)| t.name == *name).map(|(_, dtype)| dtype);
    let spec = |t: &gguf::Tensor| TensorSpec {
        name: t.name.clone(),
        shape: t.shape.clone(),
        dtype: new(t).unwrap_or(t.dtype),
    };
    let specs = file.tensors().iter().map(spec).collect();
    let mut writer = Writer::create(path, &metadata, specs).unwrap();
    for tensor in file.tensors() {
        match new(tensor) {
            Some(_) => writer.skip().unwrap(),
            None => writer.write(file.data(tensor)).unwrap(),
        }
    }
    writer.finish().unwrap();
}

fn key(key: &str, value: impl Into<Value>) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set(key, value);
    metadata
}

#[test]
fn types_without_a_kernel() {
    let (model, same) = (Model::new(), Metadata::new());
    let matrix = "blocks.0.self_attn.q.weight";
    for dtype in [DType::I8, DType::I32, DType::F64, DType::Q8_1, DType::Q8_K] {
        let expected = format!("`{matrix}` is {dtype}, only F32, F16, BF16 and quantized types");
        model.refused("HighNoise", &same, Some((matrix, dtype)), &expected);
    }
    // Norms, biases and tables are operands of sums.
    for vector in ["blocks.0.norm3.weight", "blocks.0.ffn.0.bias", "blocks.0.modulation"] {
        for dtype in [DType::Q8_0, DType::Q4_K, DType::I32] {
            let expected = format!("`{vector}` is {dtype}, only F32, F16 and BF16");
            model.refused("LowNoise", &same, Some((vector, dtype)), &expected);
        }
    }
    for table in ["token_embd.weight", "enc.blk.0.attn_rel_b.weight"] {
        let expected = format!("`{table}` is I32, only F32, F16, BF16 and quantized types");
        model.refused("TextEncoder", &same, Some((table, DType::I32)), &expected);
    }
}

#[test]
fn numbers_that_no_model_has() {
    let model = Model::new();
    let epsilon = "wan.attention.layer_norm_epsilon";
    for value in [f32::NAN, -1.0, 0.0, f32::INFINITY] {
        model.refused("HighNoise", &key(epsilon, value), None, epsilon);
    }
    for value in [f32::NAN, f32::INFINITY, -0.5] {
        let boundary = "wan.boundary_ratio";
        model.refused("HighNoise", &key(boundary, value), None, boundary);
    }
    model.refused("HighNoise", &key("wan.steps", u32::MAX), None, "number of steps is 4294967295");
    model.refused("HighNoise", &key("wan.flow_shift", 3e38f32), None, "the flow shift is");

    let rms = "t5encoder.attention.layer_norm_rms_epsilon";
    model.refused("TextEncoder", &key(rms, -1f32), None, rms);
    // Their product is no `i64`.
    let mut heads = key("t5encoder.attention.head_count", u32::MAX);
    heads.set("t5encoder.attention.key_length", u32::MAX);
    model.refused("TextEncoder", &heads, None, "t5encoder.attention.head_count");
}

/// Each file is a whole one, but of another model than the rest.
#[test]
fn files_of_different_models() {
    let model = Model::new();
    let numbers = vec!["1"; 48].join(",");
    let mut vae = key("wanvae.z_dim", 48u32);
    vae.set("wanvae.latents_mean", numbers.clone()).set("wanvae.latents_std", numbers);
    model.refused("VAE", &vae, None, "has 48 latent channels");
    let mut low = key("wan.in_channels", 36u32);
    low.set("wan.out_channels", 16u32);
    model.refused("LowNoise", &low, None, "has 36 input channels");
}
