//! The rules by which gguf-video takes a file or refuses it.

use super::Verdict;
use super::rules::{Facts, Kind, NO_MODEL, lost_dimension, original_names, vector_types, whole};

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
    match facts.kind {
        Kind::Unknown => return verdict.problems.push(NO_MODEL.into()),
        Kind::HunyuanVideo15 => {
            return verdict.problems.push("it doesn't run HunyuanVideo 1.5".into());
        }
        _ => whole(facts, verdict),
    }
    if let [first, ..] = facts.unknown() {
        verdict.problems.push(format!("{first:?} is no tensor of the model"));
    }
    if facts.get("vace_patch_embedding.weight").is_some() {
        verdict.problems.push("VACE's second stack of blocks is not computed".into());
    }
    // A file of to-gguf is taken at its word; of others, what they don't say is found out.
    if says_what_it_is(facts) {
        said(facts, verdict);
    } else {
        verdict.notes.push("what it doesn't say is told by its tensors and its name".into());
    }
    vector_types(facts, verdict);
}

/// Whether the metadata is to-gguf's; a folded kernel is none of its.
fn says_what_it_is(facts: &Facts<'_>) -> bool {
    let (architecture, key) = match facts.kind {
        Kind::Encoder => ("t5encoder", "t5encoder.vocab_size"),
        Kind::ImageEncoder => ("clipvision", "clipvision.block_count"),
        Kind::Vae => ("wanvae", "wanvae.z_dim"),
        _ => ("wan", "wan.embedding_length"),
    };
    let expert = facts.metadata.string("wan.expert").is_ok_and(|expert| EXPERTS.contains(&expert));
    let transformer = matches!(facts.kind, Kind::Transformer | Kind::DiffusersTransformer);
    facts.architecture() == Some(architecture)
        && facts.metadata.get(key).is_some()
        && (expert || !transformer)
        && facts.patches().all(|tensor| tensor.shape.len() != 4 || tensor.name != PATCH)
}

const PATCH: &str = "patch_embedding.weight";
const EXPERTS: [&str; 3] = ["high_noise", "low_noise", "single"];

/// What a file of to-gguf has to have beside its tensors.
fn said(facts: &Facts<'_>, verdict: &mut Verdict) {
    let keys: &[&str] = match facts.kind {
        Kind::Encoder => &["tokenizer.ggml.tokens", "t5encoder.attention.relative_max_distance"],
        Kind::ImageEncoder => &OUR_CLIP,
        Kind::Vae => &["wanvae.latents_mean", "wanvae.latents_std"],
        _ => &OURS,
    };
    let absent = keys.iter().filter(|key| facts.metadata.get(key).is_none());
    verdict.problems.extend(absent.map(|key| missing(key)));
    if facts.kind == Kind::DiffusersTransformer {
        original_names(facts, verdict);
    }
    if facts.kind == Kind::Transformer {
        lost_dimension(facts, verdict);
        if !facts.prefix.is_empty() {
            verdict.problems.push(format!(
                "names begin with {:?}; `to-gguf rewrap --strip` takes it off",
                facts.prefix
            ));
        }
        let said = facts.metadata.u32("wan.in_channels").unwrap_or(16);
        let stored = facts.get(PATCH).and_then(|tensor| tensor.shape.get(1));
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
}

fn missing(key: &str) -> String {
    format!("the metadata key {key:?} is missing; convert the file with to-gguf")
}
