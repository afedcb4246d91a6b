//! The UMT5 encoder, after `transformers/models/umt5/modeling_umt5.py`, with llama.cpp's
//! `t5encoder` tensor names. Shapes in comments: N tokens, C channels, H heads, D head size.
//!
//! Differs: only a prompt's real tokens are run, so there is no padding and no mask.

use crate::ggml::{
    ComputeError, DeviceTensor, Executor, HostTensor, LoadError, Param, Scope, Storage, Tensor,
    Weights,
};
use crate::models::{EPSILON, LARGEST_SIZE, ModelError, TextEncoder, Tick, is_epsilon, ticked};
use crate::nn::{Linear, RmsNorm};
use gguf::Metadata;

struct Config {
    layers: i64,
    dim: i64,
    ffn_dim: i64,
    num_heads: i64,
    head_dim: i64,
    vocab: i64,
    buckets: i64,
    max_distance: i64,
    eps: f32,
}

impl Config {
    fn new(file: &gguf::File) -> Result<Self, ModelError> {
        let (m, error) = (file.metadata(), ModelError::metadata(file.path()));
        let size = |key: &str| m.u32(&format!("t5encoder.{key}")).map(i64::from).map_err(error);
        let distance = m.u32("t5encoder.attention.relative_max_distance");
        let config = Self {
            layers: size("block_count")?,
            dim: size("embedding_length")?,
            ffn_dim: size("feed_forward_length")?,
            num_heads: size("attention.head_count")?,
            head_dim: size("attention.key_length")?,
            vocab: size("vocab_size")?,
            buckets: size("attention.relative_buckets_count")?,
            // T5's own value, which other tools' files leave out.
            max_distance: Metadata::optional(distance).map_err(error)?.map_or(128, i64::from),
            eps: m.f32("t5encoder.attention.layer_norm_rms_epsilon").map_err(error)?,
        };
        let refuse = |key, value: String, wanted| {
            Err(ModelError::Value { file: file.path().to_owned(), key, value, wanted })
        };
        for (key, size) in [
            ("t5encoder.attention.head_count", config.num_heads),
            ("t5encoder.attention.key_length", config.head_dim),
        ] {
            if !(1..=LARGEST_SIZE).contains(&size) {
                return refuse(key, size.to_string(), "which no encoder has");
            }
        }
        if !is_epsilon(config.eps) {
            let key = "t5encoder.attention.layer_norm_rms_epsilon";
            return refuse(key, config.eps.to_string(), EPSILON);
        }
        let buckets = config.buckets;
        if buckets < 4 || buckets % 4 != 0 || config.max_distance <= buckets / 4 {
            let wanted = "expected a multiple of 4 that fits the largest distance";
            let key = "t5encoder.attention.relative_buckets_count";
            return refuse(key, buckets.to_string(), wanted);
        }
        Ok(config)
    }
}

/// The bucket of a key `distance` tokens after its query, for bidirectional attention.
fn relative_position_bucket(distance: i64, buckets: i64, max_distance: i64) -> i64 {
    let (half, apart) = (buckets / 2, distance.abs());
    let after = if distance > 0 { half } else { 0 };
    let exact = half / 2;
    if apart < exact {
        return after + apart;
    }
    let span = (max_distance as f32 / exact as f32).ln();
    let far = (apart as f32 / exact as f32).ln() / span * (half - exact) as f32;
    after + (half - 1).min(exact + far as i64)
}

struct UMT5Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    relative_attention_bias: Param,
    num_heads: i64,
    head_dim: i64,
}

impl UMT5Attention {
    fn new(w: &Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        let (dim, inner) = (cfg.dim, cfg.num_heads * cfg.head_dim);
        Ok(Self {
            q: Linear::without_bias(w.at("attn_q"), dim, inner)?,
            k: Linear::without_bias(w.at("attn_k"), dim, inner)?,
            v: Linear::without_bias(w.at("attn_v"), dim, inner)?,
            o: Linear::without_bias(w.at("attn_o"), inner, dim)?,
            relative_attention_bias: w.param("attn_rel_b.weight", [cfg.buckets, cfg.num_heads])?,
            num_heads: cfg.num_heads,
            head_dim: cfg.head_dim,
        })
    }

    /// `x`: `[N, C]`; `buckets`: the bucket of every query and key, `[N · N]`.
    fn forward<'g>(&self, x: Tensor<'g>, buckets: Tensor<'g>) -> Tensor<'g> {
        let ([n, _], (h, d)) = (x.dims(), (self.num_heads, self.head_dim));
        let heads = |t: Tensor<'g>| t.reshape([n, h, d]).permute([1, 0, 2]);
        let bias = buckets.rows_of(&self.relative_attention_bias);
        let bias = bias.reshape([n, n, h]).permute([2, 0, 1]);
        let (q, k, v) = (self.q.forward(x), self.k.forward(x), self.v.forward(x));
        // No division by the root of D: T5 folds it into the initial weights.
        let y = heads(q).scored_attention(heads(k), heads(v), 1.0, Some(bias));
        self.o.forward(y.permute([1, 0, 2]).reshape([n, h * d]))
    }
}

struct UMT5Block {
    attn_norm: RmsNorm,
    attention: UMT5Attention,
    ffn_norm: RmsNorm,
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
}

impl UMT5Block {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        Ok(Self {
            attn_norm: RmsNorm::new(w.at("attn_norm"), cfg.dim, cfg.eps)?,
            attention: UMT5Attention::new(&w, cfg)?,
            ffn_norm: RmsNorm::new(w.at("ffn_norm"), cfg.dim, cfg.eps)?,
            wi_0: Linear::without_bias(w.at("ffn_gate"), cfg.dim, cfg.ffn_dim)?,
            wi_1: Linear::without_bias(w.at("ffn_up"), cfg.dim, cfg.ffn_dim)?,
            wo: Linear::without_bias(w.at("ffn_down"), cfg.ffn_dim, cfg.dim)?,
        })
    }

    /// `x`: `[N, C]`.
    fn forward<'g>(&self, x: Tensor<'g>, buckets: Tensor<'g>) -> Tensor<'g> {
        let x = x + self.attention.forward(self.attn_norm.forward(x), buckets);
        let h = self.ffn_norm.forward(x);
        x + self.wo.forward(self.wi_0.forward(h).gelu_tanh() * self.wi_1.forward(h))
    }
}

/// `UMT5EncoderModel`.
pub struct Umt5Encoder {
    shared: Param,
    blocks: Vec<UMT5Block>,
    final_layer_norm: RmsNorm,
    config: Config,
}

impl Umt5Encoder {
    /// Refuses a file with missing, misshapen or unknown tensors.
    pub fn new(weights: &Weights, file: &gguf::File) -> Result<Self, ModelError> {
        let (w, config) = (weights.root(), Config::new(file)?);
        let encoder = w.at("enc");
        let model = Self {
            shared: w.param("token_embd.weight", [config.vocab, config.dim])?,
            blocks: (0..config.layers)
                .map(|i| UMT5Block::new(encoder.at("blk").at(i), &config))
                .collect::<Result<_, _>>()?,
            final_layer_norm: RmsNorm::new(encoder.at("output_norm"), config.dim, config.eps)?,
            config,
        };
        weights.expect_all_used()?;
        Ok(model)
    }

    /// Channels of the hidden states.
    pub fn dim(&self) -> i64 {
        self.config.dim
    }

    /// Rows of the embedding table: token ids are below.
    pub fn vocabulary(&self) -> u32 {
        self.config.vocab as u32
    }

    fn buckets(&self, n: i64) -> Vec<i32> {
        let cfg = &self.config;
        let bucket = |d| relative_position_bucket(d, cfg.buckets, cfg.max_distance) as i32;
        (0..n).flat_map(|query| (0..n).map(move |key| bucket(key - query))).collect()
    }
}

impl TextEncoder for Umt5Encoder {
    fn encode(
        &self,
        exec: &mut Executor,
        ids: &[u32],
        tick: Tick,
    ) -> Result<HostTensor, ComputeError> {
        let n = ids.len() as i64;
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let buckets = self.buckets(n);
        let x = DeviceTensor::new(exec.device(), [1, n, self.config.dim], Storage::F32)?;
        exec.update(|g| g.write(&x, g.indices(ids).rows_of(&self.shared)))?;
        for (i, block) in self.blocks.iter().enumerate() {
            exec.update(|g| {
                let y = block.forward(g.read(&x), g.indices(buckets.clone()));
                g.write(&x, y.tap(format_args!("text.block.{i}")));
            })?;
            ticked(tick)?;
        }
        exec.compute(|g| self.final_layer_norm.forward(g.read(&x)))
    }

    fn ticks(&self) -> u64 {
        self.blocks.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::relative_position_bucket;

    /// From `T5Attention._relative_position_bucket` with 32 buckets and distance 128.
    #[test]
    fn buckets_follow_the_reference() {
        let expected = [
            (0, 0),
            (-1, 1),
            (-7, 7),
            (-8, 8),
            (-11, 8),
            (-12, 9),
            (-15, 9),
            (-16, 10),
            (-23, 11),
            (-64, 14),
            (-90, 14),
            (-91, 15),
            (-127, 15),
            (-500, 15),
            (1, 17),
            (7, 23),
            (8, 24),
            (12, 25),
            (127, 31),
            (511, 31),
        ];
        for (distance, bucket) in expected {
            assert_eq!(relative_position_bucket(distance, 32, 128), bucket, "distance {distance}");
        }
    }
}
