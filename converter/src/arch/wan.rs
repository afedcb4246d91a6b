//! The one or two transformers of a checkpoint, diffusers' `WanTransformer3DModel`, and which model
//! they are: its pipeline and their configurations tell.

use anyhow::{Result, ensure};
use catalog::wan::{PATCH, Sizes};
use catalog::{Images, Variant};
use gguf::Metadata;
use serde_json::Value;

use super::{Family, Model, Part, matched, named};
use crate::source::{Config, Folder};

/// The largest model in existence has 40.
const MOST_LAYERS: u64 = 1024;
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
        let family = Family::Wan;
        Ok(Model { part, family, name, source_name, metadata, weights, tensors })
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
        "{path}: the checkpoint is a {class}; supported are {TEXT} and {IMAGE} of Wan 2.1 and 2.2, and {}",
        super::hunyuan_video15::PIPELINES.join(" and ")
    );
    let encoder = folder.class("image_encoder")?;
    let each_token = index.flag("expand_timesteps", false)?;
    let config = folder.config("transformer")?;
    let images = match (class, each_token, two) {
        (_, true, false) => Images::MaybeFirst,
        (_, true, true) => {
            return Err(index.wrong("expand_timesteps", "false, as it must be with transformer_2"));
        }
        (TEXT, ..) => Images::None,
        (_, _, false) if !config.get("pos_embed_seq_len").is_null() => Images::FirstAndLast,
        _ => Images::First,
    };
    let like = |v: &Variant| v.images == images && v.two_experts() == two;
    let variant = Variant::nearest(width(&config)?, like).expect("the registry has each kind");
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

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::VARIANTS;
    use serde_json::json;
    use std::fs;

    /// A model that nothing here tells from another in the registry would be converted as that one.
    #[test]
    fn the_configurations_of_every_variant_tell_it() {
        for wanted in VARIANTS.iter().filter(|variant| variant.images != Images::Control) {
            let encoder = wanted.image_encoder.then_some(["t", "CLIPVisionModel"]);
            let features = wanted.image_encoder.then_some(1280);
            let positions = (wanted.images == Images::FirstAndLast).then_some(514);
            let classes = match wanted.images {
                Images::None => &[TEXT][..],
                Images::MaybeFirst => &[TEXT, IMAGE],
                _ => &[IMAGE],
            };
            for class in classes {
                let source = tempfile::tempdir().unwrap();
                for (file, values) in [
                    (
                        "model_index.json",
                        json!({
                            "_class_name": class,
                            "expand_timesteps": wanted.expand_timesteps(),
                            "image_encoder": encoder,
                        }),
                    ),
                    (
                        "transformer/config.json",
                        json!({
                            "attention_head_dim": 128,
                            "num_attention_heads": wanted.dim / 128,
                            "image_dim": features,
                            "pos_embed_seq_len": positions,
                        }),
                    ),
                    ("image_encoder/config.json", json!({ "hidden_size": features })),
                    ("vae/config.json", json!({ "z_dim": wanted.channels.1 })),
                ] {
                    let path = source.path().join(file);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, values.to_string()).unwrap();
                }
                let folder = Folder::open(source.path()).unwrap();
                let found = variant(&folder, wanted.two_experts()).unwrap();
                assert_eq!(found.name, wanted.name, "{class}");
            }
        }
    }
}
