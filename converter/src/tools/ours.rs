//! The rules by which gguf-video takes a file or refuses it.

use super::Verdict;
use super::rules::{Facts, Kind, original_names, vector_types};

/// What gguf-video reads of a transformer.
const OURS: [&str; 12] = [
    "wan.variant",
    "wan.expert",
    "wan.flow_shift",
    "wan.guidance_scale",
    "wan.steps",
    "wan.embedding_length",
    "wan.feed_forward_length",
    "wan.attention.head_count",
    "wan.block_count",
    "wan.text_embedding_length",
    "wan.text_length",
    "wan.frequency_length",
];

/// What it reads of an image encoder.
const OUR_CLIP: [&str; 7] = [
    "clipvision.embedding_length",
    "clipvision.feed_forward_length",
    "clipvision.block_count",
    "clipvision.attention.head_count",
    "clipvision.attention.layer_norm_epsilon",
    "clipvision.image_size",
    "clipvision.patch_size",
];

pub(super) fn rules(facts: &Facts<'_>, verdict: &mut Verdict) {
    let wanted = match facts.kind {
        Kind::Transformer => "wan",
        Kind::Encoder => "t5encoder",
        Kind::ImageEncoder => "clipvision",
        Kind::Vae => "wanvae",
        Kind::DiffusersTransformer | Kind::Unknown => {
            original_names(facts, verdict);
            return;
        }
    };
    if facts.architecture() != Some(wanted) {
        verdict.problems.push(format!(
            "\"general.architecture\" is {:?}, not {wanted:?}",
            facts.architecture().unwrap_or("missing")
        ));
    }
    let keys: &[&str] = match facts.kind {
        Kind::Transformer => &OURS,
        Kind::Encoder => &["tokenizer.ggml.tokens", "t5encoder.attention.relative_max_distance"],
        Kind::ImageEncoder => &OUR_CLIP,
        _ => &["wanvae.latents_mean", "wanvae.latents_std"],
    };
    let absent = keys.iter().filter(|key| facts.metadata.get(key).is_none());
    verdict.problems.extend(absent.map(|key| missing(key)));
    if facts.kind == Kind::Transformer {
        if !facts.prefix.is_empty() {
            verdict.problems.push(format!(
                "names begin with {:?}; `to-gguf rewrap --strip` takes it off",
                facts.prefix
            ));
        }
        if let Some(tensor) = facts.patches().find(|tensor| tensor.shape.len() != 5) {
            verdict.problems.push(format!(
                "{:?} is {:?}, not of five dimensions; `to-gguf rewrap --layout 5d` restores it",
                tensor.name, tensor.shape
            ));
        }
        if facts.get("vace_patch_embedding.weight").is_some() {
            verdict.problems.push("VACE's second stack of blocks is not computed".into());
        }
        let said = facts.metadata.u32("wan.in_channels").unwrap_or(16);
        let stored = facts.get("patch_embedding.weight").and_then(|tensor| tensor.shape.get(1));
        if let Some(inputs) = stored.filter(|&&inputs| inputs != u64::from(said)) {
            verdict.problems.push(format!(
                "\"patch_embedding.weight\" has {inputs} input channels, but by \
                 \"wan.in_channels\" it has {said}; convert the file with to-gguf"
            ));
        }
        let key = "wan.image_embedding_length";
        let image = facts.get("img_emb.proj.0.weight").is_some();
        if image && facts.metadata.get(key).is_none() {
            verdict.problems.push(missing(key));
        }
    }
    vector_types(facts, verdict);
}

fn missing(key: &str) -> String {
    format!("the metadata key {key:?} is missing; convert the file with to-gguf")
}
