//! The UMT5 text encoder: transformers' `UMT5EncoderModel` and llama.cpp's `t5encoder` names. Unlike
//! T5, every block has a relative attention bias of its own.

use gguf::Metadata;

use crate::{Error, Given, Naming, Role, Wanted};

/// Tokens of a prompt; longer ones are cut by `WanPipeline`.
const CONTEXT: u32 = 512;
/// Wan's text encoder is the encoder of umt5-xxl, whose published files have a name of their own.
const XXL_DIM: u32 = 4096;
const PUBLISHED: &str = "umt5-xxl-encoder";
/// Of umt5-xxl, where no configuration says it.
pub const EPSILON: f32 = 1e-6;
/// The distance from which on all tokens are as far, where no configuration says it.
pub const MAX_DISTANCE: u32 = 128;

/// What decides the shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of the embedding; some more than the tokenizer has pieces.
    pub vocab: u32,
    /// Width.
    pub dim: u32,
    /// Width of the hidden layer of a feed-forward network.
    pub ffn_dim: u32,
    /// Attention heads.
    pub heads: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// Blocks.
    pub layers: u32,
    /// Rows of a relative attention bias.
    pub buckets: u32,
}

impl Sizes {
    /// From the shapes of a file's tensors.
    ///
    /// # Errors
    /// Where one that tells a size is missing or has another number of dimensions.
    pub fn of(given: &Given<'_>, naming: Naming) -> Result<Self, Error> {
        let size = |ours: &str, theirs: &str, n| match naming {
            Naming::Original => given.size(ours, 2, n),
            Naming::Diffusers => given.size(theirs, 2, n),
        };
        let block = |theirs: &str| format!("encoder.block.0.layer.{theirs}.weight");
        let bias = block("0.SelfAttention.relative_attention_bias");
        let heads = size("enc.blk.0.attn_rel_b.weight", &bias, 1)?;
        let inner = size("enc.blk.0.attn_q.weight", &block("0.SelfAttention.q"), 0)?;
        let gate = block("1.DenseReluDense.wi_0");
        Ok(Self {
            vocab: size("token_embd.weight", "shared.weight", 0)?,
            dim: size("token_embd.weight", "shared.weight", 1)?,
            ffn_dim: size("enc.blk.0.ffn_gate.weight", &gate, 0)?,
            heads,
            head_dim: inner / heads,
            layers: match naming {
                Naming::Original => given.count("enc.blk."),
                Naming::Diffusers => given.count("encoder.block."),
            },
            buckets: size("enc.blk.0.attn_rel_b.weight", &bias, 0)?,
        })
    }

    /// What files of the published one are called; `None` of others.
    pub fn published(&self) -> Option<&'static str> {
        (self.dim == XXL_DIM).then_some(PUBLISHED)
    }

    /// The metadata that a runtime needs to know the shapes.
    pub fn describe(&self, epsilon: f32, distance: u32, metadata: &mut Metadata) {
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
    pub fn tensors(&self) -> Vec<Wanted> {
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
