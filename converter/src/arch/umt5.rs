//! The text encoder of a checkpoint, transformers' `UMT5EncoderModel`, with the tokenizer in the
//! metadata.

use anyhow::Result;
use catalog::umt5::Sizes;
use gguf::Metadata;

use super::{Family, Model, Part, matched, named};
use crate::source::{Config, Folder};
use crate::tokenizer::Tokenizer;

/// The largest T5 has 24.
const MOST_LAYERS: u64 = 1024;
/// The real one has 256384.
const LARGEST_VOCABULARY: u64 = 1 << 22;
pub(super) fn model(folder: &Folder, name: &str) -> Result<Model> {
    folder.expect_class("text_encoder", &["UMT5EncoderModel"])?;
    folder.expect_class("tokenizer", &["T5Tokenizer", "T5TokenizerFast"])?;
    let config = folder.config("text_encoder")?;
    config.expect_present("model_type", "umt5")?;
    config.expect_present("feed_forward_proj", "gated-gelu")?;
    let sizes = sizes(&config)?;
    let mut weights = folder.weights("text_encoder", "model")?;
    weights.unify("encoder.embed_tokens.weight", "shared.weight")?;
    let tensors = matched(&weights, sizes.tensors())?;

    let mut metadata = Metadata::new();
    let epsilon = config.number("layer_norm_epsilon")?;
    sizes.describe(epsilon, config.size("relative_attention_max_distance")?, &mut metadata);
    let [end, padding] = ["eos_token_id", "pad_token_id"].map(|key| {
        let id = config.get(key).as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| config.wrong(key, "a token's number"))
    });
    let tokenizer = Tokenizer::open(&folder.path("tokenizer"))?;
    tokenizer.describe(sizes.vocab, end?, padding?, &mut metadata)?;

    Ok(Model {
        part: Part::TextEncoder,
        family: Family::Wan,
        name: sizes.published().map_or_else(|| named(name, Part::TextEncoder), str::to_owned),
        source_name: folder.name()?,
        metadata,
        weights,
        tensors,
    })
}

fn sizes(config: &Config) -> Result<Sizes> {
    Ok(Sizes {
        vocab: config.size_up_to("vocab_size", LARGEST_VOCABULARY)?,
        dim: config.size("d_model")?,
        ffn_dim: config.size("d_ff")?,
        heads: config.size("num_heads")?,
        head_dim: config.size("d_kv")?,
        layers: config.size_up_to("num_layers", MOST_LAYERS)?,
        buckets: config.size("relative_attention_num_buckets")?,
    })
}
