//! The transformer of a HunyuanVideo 1.5 checkpoint, diffusers' `HunyuanVideo15Transformer3DModel`. The
//! file's tensors have the original names, and some are made of several of diffusers'.

use anyhow::{Context, Result, ensure};
use catalog::hunyuan_video15::{
    BYT5_DIM, HEAD, IN_CHANNELS, MLP_RATIO, Made, OUT_CHANNELS, Piece, REFINER_LAYERS, Sizes,
};
use catalog::{Naming, Wanted};
use gguf::Metadata;
use serde_json::{Value, json};

use super::loose::given;
use super::{Family, Model, Part, Tensor, named, tensors};
use crate::source::{Config, Folder, SourceTensor, Weights};

/// The real one has 54.
const MOST_LAYERS: u64 = 1024;
/// Base of the rotary embedding's frequencies.
const ROPE_THETA: f32 = 256.0;

/// What becomes text and images to video, by the class of the pipeline.
pub(super) const PIPELINES: [&str; 2] =
    ["HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline"];
/// The same as metadata has it.
const TASKS: [&str; 2] = ["t2v", "i2v"];

/// Which of the pipelines a checkpoint is.
fn pipeline(folder: &Folder) -> Option<usize> {
    let class = folder.index().get("_class_name").as_str()?;
    PIPELINES.iter().position(|pipeline| *pipeline == class)
}

/// Whether a checkpoint is of this model.
pub(super) fn is(folder: &Folder) -> bool {
    pipeline(folder).is_some()
}

pub(super) fn model(folder: &Folder, name: &str) -> Result<Model> {
    let task = TASKS[pipeline(folder).expect("the folder was asked")];
    folder.expect_class("transformer", &["HunyuanVideo15Transformer3DModel"])?;
    let config = folder.config("transformer")?;
    let sizes = sizes(&config)?;
    let weights = folder.weights("transformer", "diffusion_pytorch_model")?;
    let tensors = made(&weights, &sizes)?;
    let mut metadata = Metadata::new();
    metadata.set("hyvid.task", task);
    sizes.describe(&mut metadata);
    metadata.set("hyvid.flow_shift", flow_shift(folder)?);
    if let Some(guidance) = guidance_scale(folder)? {
        metadata.set("hyvid.guidance_scale", guidance);
    }
    // The length of a side that sizes of videos are chosen by.
    if !config.get("target_size").is_null() {
        metadata.set("hyvid.target_size", config.size("target_size")?);
    }
    Ok(Model {
        part: Part::Single,
        family: Family::HunyuanVideo15,
        name: named(name, Part::Single),
        source_name: folder.name()?,
        metadata,
        weights,
        tensors,
    })
}

/// Which parts of the checkpoint are not converted, and what there is instead.
pub(super) fn left_aside(folder: &Folder) -> Result<Vec<String>> {
    let mut notes = vec![
        "gguf-video doesn't run HunyuanVideo 1.5; the files are for ComfyUI and stable-diffusion.cpp"
            .to_owned(),
    ];
    for (component, instead) in [
        ("text_encoder", "a GGUF file of Qwen2.5-VL-7B-Instruct as llama.cpp makes it"),
        ("text_encoder_2", "Comfy-Org's byt5_small_glyphxl_fp16.safetensors"),
        ("image_encoder", "Comfy-Org's sigclip_vision_patch14_384.safetensors"),
    ] {
        if let Some(class) = folder.class(component)? {
            notes.push(format!("not converted: {component} ({class}); use {instead}"));
        }
    }
    Ok(notes)
}

/// The sizes; what else decides the mathematics must be as the programs that read the file have it.
fn sizes(config: &Config) -> Result<Sizes> {
    for (key, supported) in [
        ("in_channels", json!(IN_CHANNELS)),
        ("out_channels", json!(OUT_CHANNELS)),
        ("attention_head_dim", json!(HEAD)),
        ("num_refiner_layers", json!(REFINER_LAYERS)),
        ("patch_size", json!(1)),
        ("patch_size_t", json!(1)),
        ("qk_norm", json!("rms_norm")),
        ("text_embed_2_dim", json!(BYT5_DIM)),
        ("rope_axes_dim", json!([16, 56, 56])),
    ] {
        config.expect(key, supported)?;
    }
    for (key, supported) in [("mlp_ratio", MLP_RATIO as f32), ("rope_theta", ROPE_THETA)] {
        let fits = config.get(key).is_null() || config.number(key)? == supported;
        ensure!(fits, config.wrong(key, &format!("{supported}, which is supported")));
    }
    Ok(Sizes {
        heads: config.size("num_attention_heads")?,
        layers: config.size_up_to("num_layers", MOST_LAYERS)?,
        text_dim: config.size("text_embed_dim")?,
        image_dim: config.size("image_embed_dim")?,
        mean_flow: config.flag("use_meanflow", false)?,
    })
}

/// The flow shift, if the scheduler is the one that the model is sampled with, and otherwise as usual.
fn flow_shift(folder: &Folder) -> Result<f32> {
    folder.expect_class("scheduler", &["FlowMatchEulerDiscreteScheduler"])?;
    let config = Config::read(folder.path("scheduler").join("scheduler_config.json"))?;
    config.expect("num_train_timesteps", 1000)?;
    config.expect("shift_terminal", Value::Null)?;
    for key in [
        "use_dynamic_shifting",
        "invert_sigmas",
        "stochastic_sampling",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
    ] {
        config.expect(key, false)?;
    }
    config.number("shift")
}

/// The guidance scale, of a checkpoint whose guider has one.
fn guidance_scale(folder: &Folder) -> Result<Option<f32>> {
    let path = folder.path("guider").join("guider_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let config = Config::read(path)?;
    let key = "guidance_scale";
    (!config.get(key).is_null()).then(|| config.number(key)).transpose()
}

/// The tensors of the file, each of its pieces.
fn made(weights: &Weights, sizes: &Sizes) -> Result<Vec<Tensor>> {
    let matched = given(weights).matched(Naming::Diffusers, sizes.diffusers())?;
    // Their types are checked, too.
    let found = tensors(weights, matched)?;
    let source = |diffusers: &str| -> &SourceTensor {
        let found = found.iter().find(|tensor| tensor.diffusers == diffusers);
        &found.expect("every piece is of a tensor that was found").source
    };
    let tensor = |Made { wanted, pieces }: Made| {
        let parts: Vec<(&str, SourceTensor)> = pieces
            .iter()
            .map(|Piece { diffusers, rows }| {
                (diffusers.as_str(), source(diffusers).rows(rows.clone()))
            })
            .collect();
        let joined = SourceTensor::joined(&parts);
        let source = joined.with_context(|| weights.path().display().to_string())?;
        let Wanted { diffusers, name, shape, role } = wanted;
        assert_eq!(source.shape, shape, "{name}");
        Ok(Tensor { source, diffusers, name, shape, role, merges: Vec::new() })
    };
    sizes.made().into_iter().map(tensor).collect()
}
