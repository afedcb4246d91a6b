//! HunyuanVideo 1.5 checkpoints, written after the lists of `catalog/tests/fixtures`, which no code of
//! the converter has a part in.

use super::{Raw, Tensor, write_raw};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use to_gguf::{Job, Quant};

/// Name in the checkpoint, shape, name in the file, its first row there (`catalog/tests`).
const LIST: &str = include_str!("../../../catalog/tests/fixtures/hunyuan_video15.tsv");
const VAE: &str = include_str!("../../../catalog/tests/fixtures/hunyuan_video15_vae.tsv");

#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    heads: u64,
    layers: u64,
    text: u64,
    image: u64,
    mean_flow: bool,
}

pub(crate) const TINY: Sizes = Sizes { heads: 1, layers: 2, text: 24, image: 16, mean_flow: true };
pub(crate) const PUBLISHED: Sizes =
    Sizes { heads: 16, layers: 54, text: 3584, image: 1152, mean_flow: false };

/// A tensor of the checkpoint, and the row of the file's tensor that its first one is.
pub(crate) struct Line {
    pub(crate) tensor: Tensor,
    pub(crate) row: u64,
}

fn number(text: &str, sizes: Sizes) -> u64 {
    let times = |of: &str| if of.is_empty() { 1 } else { of.parse().unwrap() };
    match text {
        "t" => sizes.text,
        "i" => sizes.image,
        _ => match text.strip_suffix('d') {
            Some(of) => times(of) * 128 * sizes.heads,
            None => text.parse().unwrap(),
        },
    }
}

pub(crate) fn lines(sizes: Sizes) -> Vec<Line> {
    let mut lines = Vec::new();
    for line in LIST.lines() {
        let [source, shape, name, row]: [&str; 4] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let shape: Vec<u64> = shape.split('x').map(|n| number(n, sizes)).collect();
        let row = number(row, sizes);
        let copies = match source {
            _ if source.starts_with("transformer_blocks.") => sizes.layers,
            _ if source.contains(".refiner_blocks.") => 2,
            _ => 1,
        };
        let mut push = |source: String, name: String| {
            let tensor = Tensor { source, shape: shape.clone(), name, poke: None };
            lines.push(Line { tensor, row });
        };
        for n in 0..copies {
            let number = |text: &str| text.replacen("blocks.0.", &format!("blocks.{n}."), 1);
            push(number(source), number(name));
        }
        if let (true, Some(rest)) =
            (sizes.mean_flow, source.strip_prefix("time_embed.timestep_embedder."))
        {
            let name = name.replacen("time_in", "time_r_in", 1);
            push(format!("time_embed.timestep_embedder_r.{rest}"), name);
        }
    }
    lines
}

/// The VAE's, much narrower.
pub(crate) fn vae() -> Vec<Tensor> {
    let narrow = |n: u64| if n > 64 { (n / 64).max(8) } else { n };
    let line = |line: &str| {
        let [source, shape, name]: [&str; 3] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let mut shape: Vec<u64> = shape.split('x').map(|n| narrow(n.parse().unwrap())).collect();
        // Between levels, pixels and frames become channels, and channels pixels and frames.
        let level = || usize::from(source.split('.').nth(2).unwrap().as_bytes()[0] - b'0');
        if source.contains(".downsamplers.") {
            shape[0] = 2;
        } else if source.contains(".upsamplers.") {
            shape[0] = [128, 64, 32, 32][level()];
        }
        let (source, name) = (source.to_owned(), name.to_owned());
        Tensor { source, shape, name, poke: None }
    };
    VAE.lines().map(line).collect()
}

pub(crate) struct Checkpoint {
    folder: TempDir,
}

impl Checkpoint {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let checkpoint = Self { folder: tempfile::tempdir().unwrap() };
        let configs = [
            (
                "model_index.json",
                json!({
                    "_class_name": "HunyuanVideo15ImageToVideoPipeline",
                    "guider": ["diffusers", "ClassifierFreeGuidance"],
                    "image_encoder": ["transformers", "SiglipVisionModel"],
                    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
                    "text_encoder": ["transformers", "Qwen2_5_VLTextModel"],
                    "text_encoder_2": ["transformers", "T5EncoderModel"],
                    "transformer": ["diffusers", "HunyuanVideo15Transformer3DModel"],
                    "vae": ["diffusers", "AutoencoderKLHunyuanVideo15"],
                }),
            ),
            (
                "transformer/config.json",
                json!({
                    "_class_name": "HunyuanVideo15Transformer3DModel",
                    "attention_head_dim": 128,
                    "image_embed_dim": sizes.image,
                    "in_channels": 65,
                    "mlp_ratio": 4.0,
                    "num_attention_heads": sizes.heads,
                    "num_layers": sizes.layers,
                    "num_refiner_layers": 2,
                    "out_channels": 32,
                    "patch_size": 1,
                    "patch_size_t": 1,
                    "qk_norm": "rms_norm",
                    "rope_axes_dim": [16, 56, 56],
                    "rope_theta": 256.0,
                    "target_size": 640,
                    "task_type": "i2v",
                    "text_embed_2_dim": 1472,
                    "text_embed_dim": sizes.text,
                    "use_meanflow": sizes.mean_flow,
                }),
            ),
            (
                "vae/config.json",
                json!({
                    "_class_name": "AutoencoderKLHunyuanVideo15",
                    "block_out_channels": [8, 8, 8, 16, 16],
                    "in_channels": 3,
                    "latent_channels": 32,
                    "layers_per_block": 2,
                    "scaling_factor": 1.03682,
                    "spatial_compression_ratio": 16,
                    "temporal_compression_ratio": 4,
                }),
            ),
            (
                "scheduler/scheduler_config.json",
                json!({ "num_train_timesteps": 1000, "shift": 7.0, "use_dynamic_shifting": false }),
            ),
            ("guider/guider_config.json", json!({ "guidance_scale": 1.0 })),
        ];
        for (file, value) in configs {
            let path = checkpoint.file(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value.to_string()).unwrap();
        }
        let vae: Vec<Raw> = vae().iter().map(|tensor| raw(tensor, "F16")).collect();
        write_raw(&checkpoint.file("vae/diffusion_pytorch_model.safetensors"), &vae);
        checkpoint
    }

    pub(crate) fn tiny() -> Self {
        let checkpoint = Self::new(TINY);
        checkpoint.transformer(|_| {});
        checkpoint
    }

    /// Writes the transformer to two files, so that neighbours are never in the same.
    pub(crate) fn transformer(&self, change: impl FnOnce(&mut Vec<Raw>)) {
        let mut tensors: Vec<Raw> =
            lines(TINY).iter().map(|line| raw(&line.tensor, "BF16")).collect();
        change(&mut tensors);
        let (mut shards, mut map) = ([Vec::new(), Vec::new()], BTreeMap::new());
        let name = |n: usize| format!("diffusion_pytorch_model-{:05}-of-00002.safetensors", n + 1);
        for (n, tensor) in tensors.into_iter().enumerate() {
            map.insert(tensor.name.clone(), name(n % 2));
            shards[n % 2].push(tensor);
        }
        for (n, shard) in shards.iter().enumerate() {
            write_raw(&self.file(&format!("transformer/{}", name(n))), shard);
        }
        let index = self.file("transformer/diffusion_pytorch_model.safetensors.index.json");
        fs::write(index, json!({ "weight_map": map }).to_string()).unwrap();
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("HunyuanVideo-1.5-Diffusers-480p_i2v").join(name)
    }

    pub(crate) fn edit(&self, file: &str, key: &str, value: &Value) {
        let path = self.file(file);
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = value.clone();
        fs::write(path, config.to_string()).unwrap();
    }

    pub(crate) fn job(&self, quants: &str) -> Job {
        let quants: Vec<Quant> = quants.split(',').map(|name| name.parse().unwrap()).collect();
        let output = self.folder.path().join("out");
        Job { name: "Tiny".into(), threads: 2, ..Job::new(self.file(""), output, &quants) }
    }
}

pub(crate) fn raw(tensor: &Tensor, dtype: &'static str) -> Raw {
    let values = tensor.values(dtype).into_iter();
    let bytes = match dtype {
        "BF16" => values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        "F16" => values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect(),
        _ => unreachable!("{dtype}"),
    };
    Raw { name: tensor.source.clone(), dtype, shape: tensor.shape.clone(), bytes }
}
