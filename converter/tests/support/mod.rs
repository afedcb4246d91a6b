//! Checkpoints for the tests, written after lists of the real models' tensors (`fixtures/*.tsv`: name
//! in the checkpoint, shape, name in the GGUF file; block 0 stands for all). The lists are an oracle
//! of their own: no code of the converter has a part in them.
#![allow(dead_code, reason = "each test program uses its part")]

mod configs;
pub(crate) mod hunyuan_video15;

use half::{bf16, f16};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use to_gguf::{Job, Quant};

/// A tensor of a checkpoint.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) source: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) name: String,
    /// An element that has another value than [`values`] says.
    pub(crate) poke: Option<(usize, f32)>,
}

impl Tensor {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// What a checkpoint with elements of `dtype` holds, as f32.
    pub(crate) fn values(&self, dtype: &str) -> Vec<f32> {
        let mut values = values(&self.source, self.elements());
        if let Some((index, value)) = self.poke {
            values[index] = value;
        }
        values.iter().map(|&value| round(value, dtype)).collect()
    }
}

/// Weights as a model's, the same for the same name: a sum of uniform numbers, some larger ones.
fn values(name: &str, elements: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(0xcbf29ce484222325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3)
    });
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..elements)
        .map(|i| 0.05 * (uniform() + uniform() + uniform()) * if i % 97 == 0 { 8.0 } else { 1.0 })
        .collect()
}

fn round(value: f32, dtype: &str) -> f32 {
    match dtype {
        "F32" => value,
        "F16" => f16::from_f32(value).to_f32(),
        "BF16" => bf16::from_f32(value).to_f32(),
        other => panic!("{other}"),
    }
}

fn encode(value: f32, dtype: &str, out: &mut impl Write) {
    match dtype {
        "F32" => out.write_all(&value.to_le_bytes()),
        "F16" => out.write_all(&f16::from_f32(value).to_le_bytes()),
        "BF16" => out.write_all(&bf16::from_f32(value).to_le_bytes()),
        other => panic!("{other}"),
    }
    .unwrap();
}

/// Reads a list, with each of `layers` blocks and each dimension as `scale` says.
fn list(tsv: &str, block: &str, layers: u64, scale: impl Fn(u64) -> u64) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    for line in tsv.lines() {
        let [source, shape, name] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let shape: Vec<u64> = shape.split('x').map(|n| scale(n.parse().unwrap())).collect();
        let copies = if source.contains(block) { layers } else { 1 };
        for n in 0..copies {
            let renumber = |text: &str| text.replacen(".0.", &format!(".{n}."), 1);
            let [source, name] = if source.contains(block) {
                [renumber(source), renumber(name)]
            } else {
                [source.to_owned(), name.to_owned()]
            };
            tensors.push(Tensor { source, shape: shape.clone(), name, poke: None });
        }
    }
    tensors
}

/// A transformer with heads of 64.
#[derive(Clone, Copy)]
pub(crate) struct Wan {
    pub(crate) dim: u64,
    pub(crate) ffn_dim: u64,
    pub(crate) text_dim: u64,
    pub(crate) freq_dim: u64,
    pub(crate) layers: u64,
}

impl Wan {
    pub(crate) const TINY: Wan =
        Wan { dim: 256, ffn_dim: 512, text_dim: 32, freq_dim: 64, layers: 2 };
    pub(crate) const A14B: Wan =
        Wan { dim: 5120, ffn_dim: 13824, text_dim: 4096, freq_dim: 256, layers: 40 };

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        list(include_str!("../fixtures/wan.tsv"), "blocks.0.", self.layers, |n| match n {
            5120 => self.dim,
            30720 => 6 * self.dim,
            13824 => self.ffn_dim,
            4096 => self.text_dim,
            256 => self.freq_dim,
            other => other,
        })
    }

    fn config(&self) -> Value {
        json!({
            "_class_name": "WanTransformer3DModel",
            "attention_head_dim": 64,
            "num_attention_heads": self.dim / 64,
            "cross_attn_norm": true,
            "eps": 1e-6,
            "ffn_dim": self.ffn_dim,
            "freq_dim": self.freq_dim,
            "image_dim": null,
            "in_channels": 16,
            "num_layers": self.layers,
            "out_channels": 16,
            "patch_size": [1, 2, 2],
            "qk_norm": "rms_norm_across_heads",
            "rope_max_seq_len": 1024,
            "text_dim": self.text_dim,
        })
    }
}

/// A text encoder's embeddings are more than one window: 33000 x 256 elements.
pub(crate) const VOCAB: u64 = 33_000;

pub(crate) fn umt5_tensors() -> Vec<Tensor> {
    list(include_str!("../fixtures/umt5.tsv"), "encoder.block.0.", 2, |n| match n {
        256384 => VOCAB,
        4096 => 256,
        10240 => 512,
        64 => 4,
        other => other,
    })
}

pub(crate) fn vae_tensors() -> Vec<Tensor> {
    list(include_str!("../fixtures/wan_vae.tsv"), "no blocks", 1, |n| {
        if n % 96 == 0 { n / 96 * 4 } else { n }
    })
}

/// The types of the components' elements.
pub(crate) const DTYPES: [(&str, &str); 4] =
    [("transformer", "F32"), ("transformer_2", "BF16"), ("text_encoder", "F16"), ("vae", "BF16")];

/// A checkpoint of two experts in a folder of its own, which is removed with it.
pub(crate) struct Checkpoint {
    folder: TempDir,
}

impl Checkpoint {
    pub(crate) fn tiny() -> Self {
        let checkpoint = Self::without_transformers();
        checkpoint.transformer("transformer", Wan::TINY, 3);
        checkpoint.transformer("transformer_2", Wan::TINY, 1);
        checkpoint
    }

    /// All but the transformers.
    pub(crate) fn without_transformers() -> Self {
        let checkpoint = Self { folder: tempfile::tempdir().unwrap() };
        checkpoint.json("model_index.json", &configs::model_index());
        checkpoint.json("scheduler/scheduler_config.json", &configs::scheduler());
        checkpoint.json("text_encoder/config.json", &configs::umt5());
        checkpoint.json("tokenizer/tokenizer.json", &configs::tokenizer());
        checkpoint.json("vae/config.json", &configs::vae());
        checkpoint.weights("text_encoder", &umt5_tensors(), 2);
        checkpoint.weights("vae", &vae_tensors(), 1);
        checkpoint
    }

    pub(crate) fn transformer(&self, component: &str, wan: Wan, shards: usize) {
        self.json(&format!("{component}/config.json"), &wan.config());
        self.weights(component, &wan.tensors(), shards);
    }

    /// A transformer whose weights are holes in the file: zeros that take no space.
    pub(crate) fn sparse_transformer(&self, component: &str, wan: Wan) {
        self.json(&format!("{component}/config.json"), &wan.config());
        let path = self.file(&format!("{component}/diffusion_pytorch_model.safetensors"));
        write_safetensors(&path, &wan.tensors(), "F32", true);
    }

    /// Makes it a checkpoint of one expert.
    pub(crate) fn single(&self) {
        self.edit("model_index.json", |index| {
            index["transformer_2"] = json!([null, null]);
            index["boundary_ratio"] = Value::Null;
        });
    }

    /// Writes a component's weights to one file, or to several with an index.
    pub(crate) fn weights(&self, component: &str, tensors: &[Tensor], shards: usize) {
        let stem = if component == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
        let dtype = DTYPES.iter().find(|(name, _)| *name == component).unwrap().1;
        if shards == 1 {
            let path = self.file(&format!("{component}/{stem}.safetensors"));
            return write_safetensors(&path, tensors, dtype, false);
        }
        let mut map = BTreeMap::new();
        for (n, tensors) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
            let name = format!("{stem}-{:05}-of-{shards:05}.safetensors", n + 1);
            let path = self.file(&format!("{component}/{name}"));
            write_safetensors(&path, tensors, dtype, false);
            map.extend(tensors.iter().map(|tensor| (tensor.source.clone(), name.clone())));
        }
        let index = format!("{component}/{stem}.safetensors.index.json");
        self.json(&index, &json!({ "metadata": {}, "weight_map": map }));
    }

    /// Changes a JSON file.
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.file(file)).unwrap()).unwrap();
        change(&mut value);
        self.json(file, &value);
    }

    fn json(&self, file: &str, value: &Value) {
        let path = self.file(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }

    /// A file of the checkpoint.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("Tiny-Diffusers")
    }

    /// The folder that the jobs write to, which doesn't exist at first.
    pub(crate) fn output(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub(crate) fn job(&self, quant: &str) -> Job {
        let quants: Vec<Quant> = quant.split(',').map(|name| name.parse().unwrap()).collect();
        Job { name: "Tiny".into(), threads: 2, ..Job::new(self.path(), self.output(), &quants) }
    }

    /// Every file in the output folder, if that exists.
    pub(crate) fn written(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, files) } else { files.push(path) }
            }
        }
        let mut files = Vec::new();
        walk(&self.output(), &mut files);
        files
    }
}

fn write_safetensors(path: &Path, tensors: &[Tensor], dtype: &str, hole: bool) {
    let (mut header, mut end) = (BTreeMap::new(), 0);
    let width = if dtype == "F32" { 4 } else { 2 };
    for tensor in tensors {
        let (start, shape) = (end, &tensor.shape);
        end += tensor.elements() * width;
        let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(tensor.source.as_str(), info);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    if hole {
        let length = (8 + header.len() + end) as u64;
        return file.into_inner().unwrap().set_len(length).unwrap();
    }
    for tensor in tensors {
        tensor.values(dtype).into_iter().for_each(|value| encode(value, dtype, &mut file));
    }
    file.flush().unwrap();
}

/// A tensor as it stands in a safetensors file.
pub(crate) struct Raw {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Raw {
    pub(crate) fn f32(name: &str, shape: &[u64], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Raw { name: name.into(), dtype: "F32", shape: shape.to_vec(), bytes }
    }
}

pub(crate) fn write_raw(path: &Path, tensors: &[Raw]) {
    let (mut header, mut end) = (BTreeMap::new(), 0);
    for Raw { name, dtype, shape, bytes } in tensors {
        let start = end;
        end += bytes.len();
        let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(name.as_str(), info);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    tensors.iter().for_each(|tensor| file.write_all(&tensor.bytes).unwrap());
    file.flush().unwrap();
}

/// The transformer as a file of F32 in original names with something in front of each.
pub(crate) fn originals(wan: Wan, prefix: &str) -> Vec<Raw> {
    let raw = |tensor: &Tensor| {
        Raw::f32(&format!("{prefix}{}", tensor.name), &tensor.shape, &tensor.values("F32"))
    };
    wan.tensors().iter().map(raw).collect()
}

/// A file of the shapes alone: zeros that take no space.
pub(crate) fn write_hole(path: &Path, tensors: &[(String, Vec<u64>)]) {
    let tensor = |(name, shape): &(String, Vec<u64>)| Tensor {
        source: name.clone(),
        shape: shape.clone(),
        name: name.clone(),
        poke: None,
    };
    let tensors: Vec<_> = tensors.iter().map(tensor).collect();
    write_safetensors(path, &tensors, "F32", true);
}

/// A folder of its own, and a job that converts a file in it.
pub(crate) fn job_of_file(file: &str, quant: &str) -> (TempDir, Job) {
    let folder = tempfile::tempdir().unwrap();
    let quants: Vec<Quant> = quant.split(',').map(|name| name.parse().unwrap()).collect();
    let job = Job::new(folder.path().join(file), folder.path().join("out"), &quants);
    (folder, Job { name: "Tiny".into(), threads: 2, ..job })
}

/// The values of a GGUF file's tensor.
pub(crate) fn decoded(file: &gguf::File, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
    let mut values = Vec::new();
    to_gguf::decode(tensor.dtype, file.data(tensor), &mut values);
    values
}
