//! The VAE of a HunyuanVideo 1.5 checkpoint, diffusers' `AutoencoderKLHunyuanVideo15`, with encoder and
//! decoder in one file. Programs read it as safetensors in original names.

use anyhow::{Result, ensure};
use catalog::hunyuan_video15_vae::{BLOCKS, LATENTS, LEVELS, Sizes};
use gguf::Metadata;
use serde_json::{Value, json};

use super::{Family, Model, Part, matched, named};
use crate::source::{Config, Folder};

/// What latents are multiplied by before the transformer sees them.
const SCALING_FACTOR: f64 = 1.03682;
/// Levels have 1024 at most.
const MOST_CHANNELS: u64 = 1 << 14;

pub(super) fn model(folder: &Folder, name: &str) -> Result<Model> {
    folder.expect_class("vae", &["AutoencoderKLHunyuanVideo15"])?;
    let sizes = sizes(&folder.config("vae")?)?;
    let weights = folder.weights("vae", "diffusion_pytorch_model")?;
    let tensors = matched(&weights, sizes.tensors())?;
    Ok(Model {
        part: Part::Vae,
        family: Family::HunyuanVideo15,
        name: sizes.published().map_or_else(|| named(name, Part::Vae), str::to_owned),
        source_name: folder.name()?,
        metadata: Metadata::new(),
        weights,
        tensors,
    })
}

fn sizes(config: &Config) -> Result<Sizes> {
    for (key, supported) in [
        ("in_channels", json!(3)),
        ("out_channels", json!(3)),
        ("latent_channels", json!(LATENTS)),
        ("layers_per_block", json!(BLOCKS)),
        ("spatial_compression_ratio", json!(16)),
        ("temporal_compression_ratio", json!(4)),
        ("downsample_match_channel", json!(true)),
        ("upsample_match_channel", json!(true)),
        ("scaling_factor", json!(SCALING_FACTOR)),
    ] {
        config.expect(key, supported)?;
    }
    let wanted = format!("a list of {LEVELS} multiples of 8");
    let channels = config.list("block_out_channels", &wanted, channels)?;
    let channels = <[u32; LEVELS]>::try_from(channels);
    ensure!(channels.is_ok(), config.wrong("block_out_channels", &wanted));
    Ok(Sizes { channels: channels.expect("it was asked") })
}

/// Between levels, channels become pixels and frames.
fn channels(value: &Value) -> Option<u32> {
    let channels = value.as_u64().filter(|n| n.is_multiple_of(8));
    u32::try_from(channels.filter(|n| (8..=MOST_CHANNELS).contains(n))?).ok()
}
