//! The one or two transformers of a checkpoint, diffusers' `WanTransformer3DModel`, and which model
//! they are: its pipeline and their configurations tell.

use anyhow::{Result, ensure};
use catalog::Variant;
use catalog::wan::{PATCH, Sizes};
use gguf::Metadata;
use serde_json::Value;

use super::{Model, Part, matched, named};
use crate::source::{Config, Folder};

/// The largest model in existence has 40.
const MOST_LAYERS: u64 = 1024;
/// Below this width, a model of text to video is the 1.3B.
const LARGE: u32 = 3072;
/// What becomes text and images to video, by the class of the pipeline.
const TEXT: &str = "WanPipeline";
const IMAGE: &str = "WanImageToVideoPipeline";

/// The transformers' folders, and what they do.
const SINGLE: &[(&str, Part)] = &[("transformer", Part::Single)];
const EXPERTS: &[(&str, Part)] =
    &[("transformer", Part::HighNoise), ("transformer_2", Part::LowNoise)];

pub(super) fn models(folder: &Folder, name: &str) -> Result<Vec<Model>> {
    let index = folder.index();
    let experts = match folder.class("transformer_2")? {
        Some(_) => EXPERTS,
        None => SINGLE,
    };
    let variant = variant(folder, experts.len() > 1)?;
    // Null is the default, for one transformer.
    let boundary = match experts.len() {
        1 => {
            let wanted = "null, as it must be without transformer_2";
            ensure!(index.get("boundary_ratio").is_null(), index.wrong("boundary_ratio", wanted));
            None
        }
        _ => Some(index.number("boundary_ratio")?),
    };
    let shift = flow_shift(folder)?;
    let model = |&(component, part): &(&str, Part)| {
        folder.expect_class(component, &["WanTransformer3DModel"])?;
        let config = folder.config(component)?;
        let sizes = sizes(&config, variant)?;
        let weights = folder.weights(component, "diffusion_pytorch_model")?;
        let tensors = matched(&weights, sizes.tensors())?;
        let mut metadata = Metadata::new();
        variant.describe(part, boundary, shift, &mut metadata);
        sizes.describe(config.number("eps")?, &mut metadata);
        let (name, source_name) = (named(name, part), folder.name()?);
        Ok(Model { part, name, source_name, metadata, weights, tensors })
    };
    experts.iter().map(model).collect()
}

/// Which model the checkpoint is.
fn variant(folder: &Folder, two: bool) -> Result<&'static Variant> {
    let index = folder.index();
    let path = index.path().display();
    let class = index.get("_class_name").as_str().unwrap_or("missing");
    ensure!(
        [TEXT, IMAGE].contains(&class),
        "{path}: the checkpoint is a {class}; supported are {TEXT} and {IMAGE} of Wan 2.1 and 2.2"
    );
    let encoder = folder.class("image_encoder")?;
    let each_token = index.flag("expand_timesteps", false)?;
    let config = folder.config("transformer")?;
    let name = match (class, each_token, two) {
        (_, true, false) => "wan2.2-ti2v-5b",
        (TEXT, false, true) => "wan2.2-t2v-a14b",
        (TEXT, false, false) if width(&config)? < LARGE => "wan2.1-t2v-1.3b",
        (TEXT, false, false) => "wan2.1-t2v-14b",
        (_, false, true) => "wan2.2-i2v-a14b",
        (_, false, false) if !config.get("pos_embed_seq_len").is_null() => "wan2.1-flf2v-14b",
        (_, false, false) => "wan2.1-i2v-14b",
        (_, true, true) => {
            return Err(index.wrong("expand_timesteps", "false, as it must be with transformer_2"));
        }
    };
    let variant = Variant::named(name).expect("a name of the registry");
    let title = variant.title;
    match (variant.image_encoder, encoder) {
        (true, None) => anyhow::bail!(
            "{path}: \"image_encoder\" is missing, without which {title} can't see its image"
        ),
        (false, Some(found)) => {
            anyhow::bail!("{path}: \"image_encoder\" is {found}, but {title} has none")
        }
        _ => {}
    }
    if variant.image_encoder {
        let features = folder.config("image_encoder")?.size("hidden_size")?;
        config.expect_present("image_dim", features)?;
    }
    folder.config("vae")?.expect("z_dim", variant.channels.1)?;
    Ok(variant)
}

fn width(config: &Config) -> Result<u32> {
    Ok(config.size("num_attention_heads")? * config.size("attention_head_dim")?)
}

/// The flow shift, if the scheduler is the one that Wan is sampled with, and otherwise as usual.
fn flow_shift(folder: &Folder) -> Result<f32> {
    folder.expect_class("scheduler", &["UniPCMultistepScheduler"])?;
    let config = Config::read(folder.path("scheduler").join("scheduler_config.json"))?;
    config.expect_present("prediction_type", "flow_prediction")?;
    config.expect_present("use_flow_sigmas", true)?;
    config.expect("num_train_timesteps", 1000)?;
    config.expect("solver_order", 2)?;
    config.expect("solver_type", "bh2")?;
    config.expect("predict_x0", true)?;
    config.expect("lower_order_final", true)?;
    config.expect("disable_corrector", serde_json::json!([]))?;
    config.expect("final_sigmas_type", "zero")?;
    for key in [
        "thresholding",
        "use_dynamic_shifting",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
    ] {
        config.expect(key, false)?;
    }
    config.number("flow_shift")
}

fn sizes(config: &Config, variant: &Variant) -> Result<Sizes> {
    let (inputs, outputs) = variant.channels;
    config.expect("patch_size", PATCH.to_vec())?;
    config.expect_present("in_channels", inputs)?;
    config.expect_present("out_channels", outputs)?;
    config.expect("cross_attn_norm", true)?;
    config.expect("qk_norm", "rms_norm_across_heads")?;
    config.expect("rope_max_seq_len", 1024)?;
    let dim = width(config)?;
    let image_dim = if variant.image_encoder {
        config.expect_present("added_kv_proj_dim", dim)?;
        Some(config.size("image_dim")?)
    } else {
        for key in ["image_dim", "added_kv_proj_dim", "pos_embed_seq_len"] {
            config.expect(key, Value::Null)?;
        }
        None
    };
    let positions = match config.get("pos_embed_seq_len") {
        Value::Null => None,
        _ => Some(config.size("pos_embed_seq_len")?),
    };
    Ok(Sizes {
        heads: config.size("num_attention_heads")?,
        dim,
        ffn_dim: config.size("ffn_dim")?,
        freq_dim: config.size("freq_dim")?,
        text_dim: config.size("text_dim")?,
        layers: config.size_up_to("num_layers", MOST_LAYERS)?,
        in_channels: inputs,
        out_channels: outputs,
        image_dim,
        image_positions: positions,
        vace: None,
    })
}
