//! The UMT5 text encoder: transformers' `UMT5EncoderModel` to llama.cpp's `t5encoder` names, with
//! the tokenizer in the metadata. Unlike T5, every block has a relative attention bias of its own.

use anyhow::Result;
use gguf::Metadata;

use super::{Model, Naming, Part, Role, Wanted, matched};
use crate::source::{Config, Folder};
use crate::tokenizer::Tokenizer;

/// Tokens of a prompt; longer ones are cut by `WanPipeline`.
const CONTEXT: u32 = 512;
/// The largest T5 has 24.
const MOST_LAYERS: u64 = 1024;
/// The real one has 256384.
const LARGEST_VOCABULARY: u64 = 1 << 22;
/// Wan's text encoder is the encoder of umt5-xxl, whose published files have a name of their own.
const XXL_DIM: u32 = 4096;

pub(super) fn model(folder: &Folder, name: &str) -> Result<Model> {
    folder.expect_class("text_encoder", &["UMT5EncoderModel"])?;
    folder.expect_class("tokenizer", &["T5Tokenizer", "T5TokenizerFast"])?;
    let config = folder.config("text_encoder")?;
    config.expect_present("model_type", "umt5")?;
    config.expect_present("feed_forward_proj", "gated-gelu")?;
    let sizes = Sizes::new(&config)?;
    let mut weights = folder.weights("text_encoder", "model")?;
    weights.unify("encoder.embed_tokens.weight", "shared.weight")?;
    let tensors = matched(&weights, Naming::Diffusers, sizes.tensors())?;

    let mut metadata = Metadata::new();
    let epsilon = config.number("layer_norm_epsilon")?;
    sizes.describe(epsilon, config.size("relative_attention_max_distance")?, &mut metadata);
    let [end, padding] = ["eos_token_id", "pad_token_id"].map(|key| {
        let id = config.get(key).as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| config.wrong(key, "a token's number"))
    });
    let tokenizer = Tokenizer::open(&folder.path("tokenizer"))?;
    tokenizer.describe(sizes.vocab, end?, padding?, &mut metadata)?;

    // Readers take an encoder for UMT5's only if its name says so.
    let name = named(name, sizes.dim);
    Ok(Model {
        part: Part::TextEncoder,
        folder: "TextEncoder",
        architecture: "t5encoder",
        name,
        source_name: folder.name()?,
        metadata,
        weights,
        tensors,
    })
}

/// Wan's encoder is called as its published files are, others after their checkpoint.
pub(super) fn named(name: &str, dim: u32) -> String {
    match dim {
        XXL_DIM => "umt5-xxl-encoder".into(),
        _ if name.ends_with("-umt5") => name.to_owned(),
        _ => format!("{name}-umt5"),
    }
}

/// What decides the shapes.
pub(super) struct Sizes {
    pub(super) vocab: u32,
    pub(super) dim: u32,
    pub(super) ffn_dim: u32,
    pub(super) heads: u32,
    pub(super) head_dim: u32,
    pub(super) layers: u32,
    pub(super) buckets: u32,
}

impl Sizes {
    fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            vocab: config.size_up_to("vocab_size", LARGEST_VOCABULARY)?,
            dim: config.size("d_model")?,
            ffn_dim: config.size("d_ff")?,
            heads: config.size("num_heads")?,
            head_dim: config.size("d_kv")?,
            layers: config.size_up_to("num_layers", MOST_LAYERS)?,
            buckets: config.size("relative_attention_num_buckets")?,
        })
    }

    pub(super) fn describe(&self, epsilon: f32, distance: u32, metadata: &mut Metadata) {
        let mut set = |key: &str, value: u32| {
            metadata.set(format!("t5encoder.{key}"), value);
        };
        set("context_length", CONTEXT);
        set("vocab_size", self.vocab);
        set("embedding_length", self.dim);
        set("feed_forward_length", self.ffn_dim);
        set("block_count", self.layers);
        set("attention.head_count", self.heads);
        set("attention.key_length", self.head_dim);
        set("attention.value_length", self.head_dim);
        set("attention.relative_buckets_count", self.buckets);
        set("attention.relative_max_distance", distance);
        metadata
            .set("t5encoder.attention.layer_norm_epsilon", epsilon)
            .set("t5encoder.attention.layer_norm_rms_epsilon", epsilon);
    }

    /// Every tensor, in the order of the forward pass.
    pub(super) fn tensors(&self) -> Vec<Wanted> {
        let [vocab, d, f] = [self.vocab, self.dim, self.ffn_dim].map(u64::from);
        let [heads, buckets] = [self.heads, self.buckets].map(u64::from);
        let inner = heads * u64::from(self.head_dim);
        let mut list =
            vec![Wanted::new("shared.weight", "token_embd.weight", [vocab, d], Role::Block)];
        for n in 0..self.layers {
            let mut one = |theirs: &str, ours: &str, shape: &[u64], role| {
                let source = format!("encoder.block.{n}.layer.{theirs}.weight");
                list.push(Wanted::new(&source, &format!("enc.blk.{n}.{ours}.weight"), shape, role));
            };
            one("0.layer_norm", "attn_norm", &[d], Role::Exact);
            one("0.SelfAttention.q", "attn_q", &[inner, d], Role::Block);
            one("0.SelfAttention.k", "attn_k", &[inner, d], Role::Block);
            one("0.SelfAttention.v", "attn_v", &[inner, d], Role::Block);
            one("0.SelfAttention.o", "attn_o", &[d, inner], Role::Block);
            let bias = "0.SelfAttention.relative_attention_bias";
            one(bias, "attn_rel_b", &[buckets, heads], Role::Exact);
            one("1.layer_norm", "ffn_norm", &[d], Role::Exact);
            one("1.DenseReluDense.wi_0", "ffn_gate", &[f, d], Role::Block);
            one("1.DenseReluDense.wi_1", "ffn_up", &[f, d], Role::Block);
            one("1.DenseReluDense.wo", "ffn_down", &[d, f], Role::Block);
        }
        let norm = ("encoder.final_layer_norm.weight", "enc.output_norm.weight");
        list.push(Wanted::new(norm.0, norm.1, [d], Role::Exact));
        list
    }
}
