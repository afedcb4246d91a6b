//! The Wan diffusion transformer, after `wan/modules/model.py` of
//! <https://github.com/Wan-Video/Wan2.2>: same classes, same order, same names.
//! Long, because that is one file there, too.
//! Shapes in comments are PyTorch's: L tokens, C channels, N heads, D head size.
//!
//! Differs: the batch is 1 and has no dimension; cross-attention keys and values depend on the
//! prompt alone and are computed once ([`Conditioning`]). All that a block does to a token depends
//! on other tokens only through the keys and values of its self-attention. So a block first makes
//! those, then takes the residual stream piece by piece ([`Pass`]).

use super::conditioning::{Attended, BlockContext, KeysValues};
use super::pass::Pass;
use super::{Conditioning, Config};
use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Graph, HostTensor, Limits, LoadError, Param, Scope,
    Shape, Storage, Tensor, Weights,
};
use crate::models::{Context, Denoiser, ModelError, Tick, Timesteps};
use crate::nn::{LayerNorm, Linear, RmsNorm};

const THETA: f32 = 10_000.0;

/// `[cos(t · w), sin(t · w)]` with `w` from 1 down to 1/10000: `[dim]`.
fn sinusoidal_embedding_1d(dim: i64, position: f32) -> Vec<f32> {
    let half = dim / 2;
    let frequency = |i| (-(f64::from(THETA)).ln() * i as f64 / half as f64).exp() as f32;
    let angles: Vec<f32> = (0..half).map(|i| position * frequency(i)).collect();
    let cos = angles.iter().map(|&a| f64::from(a).cos() as f32);
    let sin = angles.iter().map(|&a| f64::from(a).sin() as f32);
    cos.chain(sin).collect()
}

/// Rotates `x` `[L, N, D]` by each token's frame, row and column, D divided about as 44, 42, 42.
fn rope_apply<'g>(x: Tensor<'g>, positions: &[Tensor<'g>; 3]) -> Tensor<'g> {
    let [_, _, d] = x.dims();
    let side = 2 * (d / 6);
    let dims = [d - 2 * side, side, side];
    let starts = [0, dims[0], dims[0] + side];
    (0..3).fold(x, |x, axis| x.rope(positions[axis], starts[axis], dims[axis], THETA))
}

struct WanSelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    num_heads: i64,
}

impl WanSelfAttention {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        let (dim, eps) = (cfg.dim, cfg.eps);
        Ok(Self {
            q: Linear::new(w.at("q"), dim, dim)?,
            k: Linear::new(w.at("k"), dim, dim)?,
            v: Linear::new(w.at("v"), dim, dim)?,
            o: Linear::new(w.at("o"), dim, dim)?,
            norm_q: RmsNorm::new(w.at("norm_q"), dim, eps)?,
            norm_k: RmsNorm::new(w.at("norm_k"), dim, eps)?,
            num_heads: cfg.num_heads,
        })
    }

    /// Keys and values of the tokens in `x` `[L, C]`, which stand at `positions` (frame, row and
    /// column): `[N, L, D]` each.
    fn keys_values<'g>(
        &self,
        x: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
    ) -> (Tensor<'g>, Tensor<'g>) {
        let k = self.norm_k.forward(self.k.forward(x));
        let v = self.v.forward(x);
        let k = rope_apply(self.heads(k), positions).permute([1, 0, 2]);
        (k, self.heads(v).permute([1, 0, 2]))
    }

    /// Queries of the tokens in `x` `[L, C]`: `[N, L, D]`.
    fn queries<'g>(
        &self,
        x: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let q = self.norm_q.forward(self.q.forward(x).tap(tap("q"))).tap(tap("norm_q"));
        rope_apply(self.heads(q), positions).permute([1, 0, 2])
    }

    /// `[L, C]` as `[L, N, D]`.
    fn heads<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let [l, c] = x.dims();
        x.reshape([l, self.num_heads, c / self.num_heads])
    }
}

/// `WanT2VCrossAttention`, and with image features `WanI2VCrossAttention` of Wan 2.1.
struct WanCrossAttention {
    attn: WanSelfAttention,
    image: Option<ImageAttention>,
}

/// Keys and values of image features, which share the text's queries.
struct ImageAttention {
    k_img: Linear,
    v_img: Linear,
    norm_k_img: RmsNorm,
}

impl WanCrossAttention {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        let (dim, eps) = (cfg.dim, cfg.eps);
        let image = || -> Result<ImageAttention, LoadError> {
            Ok(ImageAttention {
                k_img: Linear::new(w.at("k_img"), dim, dim)?,
                v_img: Linear::new(w.at("v_img"), dim, dim)?,
                norm_k_img: RmsNorm::new(w.at("norm_k_img"), dim, eps)?,
            })
        };
        let image = cfg.image_dim.map(|_| image()).transpose()?;
        Ok(Self { attn: WanSelfAttention::new(w, cfg)?, image })
    }

    /// Keys and values of `context` `[text_len, C]`: `[N, text_len, D]` each.
    fn keys_values<'g>(&self, context: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
        let a = &self.attn;
        let k = a.norm_k.forward(a.k.forward(context));
        let v = a.v.forward(context);
        (a.heads(k).permute([1, 0, 2]), a.heads(v).permute([1, 0, 2]))
    }

    /// Keys and values of embedded image features `[M, C]`: `[N, M, D]` each.
    fn image_keys_values<'g>(&self, context: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
        let (a, image) = (&self.attn, self.image.as_ref().expect("a model with image features"));
        let k = image.norm_k_img.forward(image.k_img.forward(context));
        let v = image.v_img.forward(context);
        (a.heads(k).permute([1, 0, 2]), a.heads(v).permute([1, 0, 2]))
    }

    /// `x`: `[L, C]`. Padding rows of the text are attended, too.
    fn forward<'g>(&self, x: Tensor<'g>, context: Attended<'g>) -> Tensor<'g> {
        let ([l, c], a) = (x.dims(), &self.attn);
        let q = a.heads(a.norm_q.forward(a.q.forward(x))).permute([1, 0, 2]);
        let (k, v) = context.text;
        let text = q.attention(k, v).reshape([l, c]);
        let all = match context.image {
            Some((k, v)) => text + q.attention(k, v).reshape([l, c]),
            None => text,
        };
        a.o.forward(all)
    }
}

pub(super) struct WanAttentionBlock {
    self_attn: WanSelfAttention,
    norm3: LayerNorm,
    cross_attn: WanCrossAttention,
    ffn_0: Linear,
    ffn_2: Linear,
    modulation: Param,
    eps: f32,
}

impl WanAttentionBlock {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        Ok(Self {
            self_attn: WanSelfAttention::new(w.at("self_attn"), cfg)?,
            norm3: LayerNorm::new(w.at("norm3"), cfg.dim, cfg.eps)?,
            cross_attn: WanCrossAttention::new(w.at("cross_attn"), cfg)?,
            ffn_0: Linear::new(w.at("ffn.0"), cfg.dim, cfg.ffn_dim)?,
            ffn_2: Linear::new(w.at("ffn.2"), cfg.ffn_dim, cfg.dim)?,
            modulation: w.param("modulation", [1, 6, cfg.dim])?,
            eps: cfg.eps,
        })
    }

    /// Shift, scale and gate of self-attention, then of the feed-forward, from `e` `[6, C]`.
    fn modulated<'g>(&self, e: Tensor<'g>) -> [Tensor<'g>; 6] {
        let e = e + &self.modulation;
        std::array::from_fn(|i| e.narrow(1, i as i64..i as i64 + 1))
    }

    /// What self-attention attends to in the tokens of `x` `[L, C]`: `[N, L, D]` each.
    pub(super) fn keys_values<'g>(
        &self,
        x: Tensor<'g>,
        e: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
    ) -> (Tensor<'g>, Tensor<'g>) {
        let [shift, scale, ..] = self.modulated(e);
        let y = x.layer_norm(self.eps) * (scale + 1.0) + shift;
        self.self_attn.keys_values(y, positions)
    }

    /// `x`: `[L, C]`; `e`: `[6, C]`; `tokens`: keys and values of all tokens, `[N, M, D]` each.
    pub(super) fn forward<'g>(
        &self,
        x: Tensor<'g>,
        e: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
        tokens: (Tensor<'g>, Tensor<'g>),
        context: Attended<'g>,
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let (q, (k, v)) = (self.queries(x, e, positions, tap), tokens);
        self.after_attention(x, e, q.attention(k, v).reshape(x.shape()), context, tap)
    }

    /// Queries of self-attention, `[N, L, D]`.
    pub(super) fn queries<'g>(
        &self,
        x: Tensor<'g>,
        e: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let [shift, scale, ..] = self.modulated(e);
        let y = x.layer_norm(self.eps) * (scale + 1.0) + shift;
        self.self_attn.queries(y, positions, &|n: &str| tap(&format!("self_attn.{n}")))
    }

    /// The rest of [`WanAttentionBlock::forward`], from what self-attention `attended` to `[L, C]`.
    pub(super) fn after_attention<'g>(
        &self,
        x: Tensor<'g>,
        e: Tensor<'g>,
        attended: Tensor<'g>,
        context: Attended<'g>,
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let e = self.modulated(e);
        let y = self.self_attn.o.forward(attended.tap(tap("self_attn.attended")));
        let x = x + y.tap(tap("self_attn")) * e[2];

        // cross-attention and feed-forward
        let y = self.cross_attn.forward(self.norm3.forward(x), context);
        let x = x + y.tap(tap("cross_attn"));
        let y = x.layer_norm(self.eps) * (e[4] + 1.0) + e[3];
        let y = self.ffn_0.forward(y.tap(tap("norm2"))).gelu_tanh().tap(tap("ffn.0"));
        let y = self.ffn_2.forward(y);
        x + y.tap(tap("ffn")) * e[5]
    }
}

pub(super) struct Head {
    head: Linear,
    modulation: Param,
    eps: f32,
}

impl Head {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        Ok(Self {
            head: Linear::new(w.at("head"), cfg.dim, 4 * cfg.out_channels)?,
            modulation: w.param("modulation", [1, 2, cfg.dim])?,
            eps: cfg.eps,
        })
    }

    /// `x`: `[L, C]`; `e`: `[1, C]`, the time embedding before its activation.
    pub(super) fn forward<'g>(&self, x: Tensor<'g>, e: Tensor<'g>) -> Tensor<'g> {
        let e = x.graph().read(&self.modulation) + e;
        let (shift, scale) = (e.narrow(1, 0..1), e.narrow(1, 1..2));
        self.head.forward(x.layer_norm(self.eps) * (scale + 1.0) + shift)
    }
}

/// `MLPProj` of Wan 2.1: an image encoder's features to the transformer's width.
struct MlpProj {
    /// Only of models that take a first and a last frame.
    emb_pos: Option<Param>,
    norm1: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    norm2: LayerNorm,
}

impl MlpProj {
    fn new(w: Scope<'_>, cfg: &Config, inputs: i64) -> Result<Self, LoadError> {
        const EPS: f32 = 1e-5;
        let proj = w.at("proj");
        let positions = cfg.image_positions;
        Ok(Self {
            emb_pos: positions.map(|n| w.param("emb_pos", [1, n, inputs])).transpose()?,
            norm1: LayerNorm::new(proj.at(0), inputs, EPS)?,
            linear1: Linear::new(proj.at(1), inputs, inputs)?,
            linear2: Linear::new(proj.at(3), inputs, cfg.dim)?,
            norm2: LayerNorm::new(proj.at(4), cfg.dim, EPS)?,
        })
    }

    /// `features`: `[M, image_dim]`.
    fn forward<'g>(&self, features: Tensor<'g>) -> Tensor<'g> {
        let shape = features.shape();
        let x = match &self.emb_pos {
            Some(positions) => features + features.graph().read(positions).reshape(shape),
            None => features,
        };
        let x = self.linear1.forward(self.norm1.forward(x)).gelu_erf();
        self.norm2.forward(self.linear2.forward(x)).tap("image_embedding")
    }
}

/// One expert.
pub struct WanModel {
    patch_embedding: Param,
    patch_bias: Param,
    text_embedding: [Linear; 2],
    time_embedding: [Linear; 2],
    time_projection: Linear,
    img_emb: Option<MlpProj>,
    pub(super) blocks: Vec<WanAttentionBlock>,
    pub(super) head: Head,
    config: Config,
}

impl WanModel {
    /// Refuses a file with missing, misshapen or unknown tensors.
    pub fn new(weights: &Weights, config: Config) -> Result<Self, ModelError> {
        let (w, cfg) = (weights.root(), &config);
        let mlp = |w: Scope<'_>, inputs| -> Result<[Linear; 2], LoadError> {
            Ok([Linear::new(w.at(0), inputs, cfg.dim)?, Linear::new(w.at(2), cfg.dim, cfg.dim)?])
        };
        let model = Self {
            patch_embedding: w
                .param("patch_embedding.weight", [cfg.dim, cfg.in_channels, 1, 2, 2])?,
            patch_bias: w.param("patch_embedding.bias", [cfg.dim])?,
            text_embedding: mlp(w.at("text_embedding"), cfg.text_dim)?,
            time_embedding: mlp(w.at("time_embedding"), cfg.freq_dim)?,
            time_projection: Linear::new(w.at("time_projection.1"), cfg.dim, 6 * cfg.dim)?,
            img_emb: cfg
                .image_dim
                .map(|inputs| MlpProj::new(w.at("img_emb"), cfg, inputs))
                .transpose()?,
            blocks: (0..cfg.num_layers)
                .map(|i| WanAttentionBlock::new(w.at("blocks").at(i), cfg))
                .collect::<Result<_, _>>()?,
            head: Head::new(w.at("head"), cfg)?,
            config,
        };
        weights.expect_all_used()?;
        Ok(model)
    }

    /// As [`WanModel::new`] got it.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `tokens`: `[L, 4 · in_channels]`, features in order (c, ph, pw).
    pub(super) fn embed_patches<'g>(&self, tokens: Tensor<'g>) -> Tensor<'g> {
        let [_, features] = tokens.dims();
        let kernel = tokens.graph().read(&self.patch_embedding);
        tokens.linear(kernel.reshape([self.config.dim, features])) + &self.patch_bias
    }

    /// [`Denoiser::condition`] for the first `count` blocks alone.
    pub(super) fn condition_blocks(
        &self,
        exec: &mut Executor,
        context: Context<'_>,
        count: usize,
    ) -> Result<Conditioning, ComputeError> {
        let (cfg, device) = (&self.config, exec.device());
        let [rows, text_dim] = context.text.shape.dims();
        assert!(rows <= cfg.text_len && text_dim == cfg.text_dim, "text of {rows} x {text_dim}");
        let mut padded = context.text.data.to_vec();
        padded.resize((cfg.text_len * text_dim) as usize, 0.0);
        let padded = HostTensor::new([cfg.text_len, text_dim], padded);

        let text = DeviceTensor::new(device, [cfg.text_len, cfg.dim], Storage::F32)?;
        exec.update(|g| {
            let y = self.text_embedding[0].forward(g.input(&padded)).gelu_tanh();
            let y = self.text_embedding[1].forward(y).tap("text_embedding");
            g.write(&text, y);
        })?;
        assert_eq!(self.img_emb.is_some(), context.image.is_some(), "an image's features");
        let image = self.img_emb.iter().zip(context.image).map(|(embed, features)| {
            let [rows, _] = features.shape.dims();
            let embedded = DeviceTensor::new(device, [rows, cfg.dim], Storage::F32)?;
            exec.update(|g| g.write(&embedded, embed.forward(g.input(features))))?;
            Ok::<_, ComputeError>(embedded)
        });
        let image = image.last().transpose()?;

        let mut blocks = Vec::with_capacity(count);
        for WanAttentionBlock { cross_attn, .. } in &self.blocks[..count] {
            let heads = |rows: i64| [cfg.num_heads, rows, cfg.head_dim()];
            let of_text = KeysValues::new(exec, heads(cfg.text_len))?;
            exec.update(|g| of_text.write_at(g, 0, cross_attn.keys_values(g.read(&text))))?;
            let mut block = BlockContext { text: of_text, image: None };
            if let Some(image) = &image {
                let [rows, _] = image.shape().dims();
                let kv = KeysValues::new(exec, heads(rows))?;
                exec.update(|g| kv.write_at(g, 0, cross_attn.image_keys_values(g.read(image))))?;
                block.image = Some(kv);
            }
            blocks.push(block);
        }
        Ok(Conditioning { blocks })
    }

    /// The time embedding `[1, C]` and its projection `[1, 6, C]`.
    pub(super) fn embed_time<'g>(&self, g: &'g Graph, timestep: f32) -> (Tensor<'g>, Tensor<'g>) {
        let dim = self.config.freq_dim;
        let t = HostTensor::new([1, dim], sinusoidal_embedding_1d(dim, timestep));
        let e = self.time_embedding[1].forward(self.time_embedding[0].forward(g.input(&t)).silu());
        let e0 = self.time_projection.forward(e.silu()).reshape([1, 6, self.config.dim]);
        (e.tap("time_embedding"), e0.tap("time_projection"))
    }
}

impl Denoiser for WanModel {
    type Conditioning = Conditioning;

    fn condition(
        &self,
        exec: &mut Executor,
        context: Context<'_>,
    ) -> Result<Conditioning, ComputeError> {
        self.condition_blocks(exec, context, self.blocks.len())
    }

    fn velocity(
        &self,
        exec: &mut Executor,
        latents: &HostTensor,
        timesteps: Timesteps,
        conditioning: &Conditioning,
        tick: Tick,
    ) -> Result<HostTensor, ComputeError> {
        let pass = Pass::begin(self, exec, latents, timesteps)?;
        for i in 0..self.blocks.len() {
            pass.block(i, exec, conditioning, tick)?;
        }
        pass.end(exec)
    }

    fn ticks(&self, limits: &Limits, latents: Shape, timesteps: Timesteps) -> u64 {
        self.config.ticks(limits, latents, timesteps)
    }
}
