//! The VAE of a checkpoint, diffusers' `AutoencoderKLWan`, with encoder and decoder in one file. Small
//! and sensitive, it stays F32.

use anyhow::{Result, ensure};
use catalog::wan_vae::Sizes;
use gguf::Metadata;
use serde_json::{Value, json};

use super::{Family, Model, Part, matched, named};
use crate::source::{Config, Folder};

/// Levels and residual blocks a level: real models have 4 and 2.
const MOST_BLOCKS: u64 = 16;
/// Channels of the picture, and of its patches of 2 x 2.
const COLORS: [u32; 2] = [3, 12];

pub(super) fn model(folder: &Folder, name: &str) -> Result<Model> {
    folder.expect_class("vae", &["AutoencoderKLWan"])?;
    let config = folder.config("vae")?;
    let sizes = sizes(&config)?;
    let weights = folder.weights("vae", "diffusion_pytorch_model")?;
    let tensors = matched(&weights, sizes.tensors())?;
    let mut metadata = Metadata::new();
    sizes.describe(&mut metadata);
    let statistics = |key| {
        let wanted = format!("a list of {} numbers, as many as z_dim", sizes.z);
        let values = config.list(key, &wanted, Value::as_f64)?;
        ensure!(values.len() == sizes.z as usize, config.wrong(key, &wanted));
        Ok(values)
    };
    let (mean, std) = (statistics("latents_mean")?, statistics("latents_std")?);
    Sizes::describe_latents(&mean, &std, &mut metadata);
    Ok(Model {
        part: Part::Vae,
        family: Family::Wan,
        name: sizes.published().map_or_else(|| named(name, Part::Vae), str::to_owned),
        source_name: folder.name()?,
        metadata,
        weights,
        tensors,
    })
}

fn sizes(config: &Config) -> Result<Sizes> {
    // Wan 2.1's configuration may lack what Wan 2.2's brought.
    let residual = config.flag("is_residual", false)?;
    let colors = COLORS[usize::from(residual)];
    if residual {
        config.expect_present("patch_size", 2)?;
    } else {
        config.expect("patch_size", Value::Null)?;
    }
    for key in ["in_channels", "out_channels"] {
        if residual || !config.get(key).is_null() {
            config.expect_present(key, colors)?;
        }
    }
    config.expect("attn_scales", json!([]))?;
    let base = config.size("base_dim")?;
    let decoder_base = match config.get("decoder_base_dim") {
        Value::Null => base,
        _ if residual => config.size("decoder_base_dim")?,
        _ => {
            config.expect("decoder_base_dim", base)?;
            base
        }
    };
    let multipliers = config.list("dim_mult", "a list of numbers from 1 to 16", |value| {
        value.as_u64().filter(|value| (1..=MOST_BLOCKS).contains(value))
    })?;
    let levels = 1..=MOST_BLOCKS as usize;
    ensure!(levels.contains(&multipliers.len()), config.wrong("dim_mult", "1 to 16 levels"));
    let wanted = format!("a list of {} booleans", multipliers.len() - 1);
    let temporal = config.list("temperal_downsample", &wanted, Value::as_bool)?;
    ensure!(temporal.len() + 1 == multipliers.len(), config.wrong("temperal_downsample", &wanted));
    // The decoder's resamplers halve the channels.
    ensure!(residual || base % 2 == 0, config.wrong("base_dim", "an even number"));
    Ok(Sizes {
        base,
        decoder_base,
        z: config.size("z_dim")?,
        blocks: config.size_up_to("num_res_blocks", MOST_BLOCKS)?,
        multipliers,
        temporal,
        residual,
        patch: if residual { 2 } else { 1 },
    })
}
