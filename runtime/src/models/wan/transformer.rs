//! The Wan diffusion transformer, after `wan/modules/model.py` of
//! <https://github.com/Wan-Video/Wan2.2>: same classes, same order, same names.
//! Shapes in comments are PyTorch's: L tokens, C channels, N heads, D head size.
//!
//! Differs: the batch is 1 and has no dimension; a forward pass is one graph a block, with the
//! residual stream on the device; cross-attention keys and values depend on the prompt alone and
//! are computed once ([`Conditioning`]).

use super::layout::{Grid, patchify, unpatchify};
use super::{Conditioning, Config};
use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Graph, HostTensor, LoadError, Param, Scope, Storage,
    Tensor, Weights,
};
use crate::models::{Denoiser, ModelError, Tick, ticked};
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

    /// `x`: `[L, C]`; `positions`: frame, row and column of each token.
    fn forward<'g>(
        &self,
        x: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let [l, c] = x.dims();
        let heads = |t: Tensor<'g>| t.reshape([l, self.num_heads, c / self.num_heads]);
        let q = self.norm_q.forward(self.q.forward(x).tap(tap("q"))).tap(tap("norm_q"));
        let k = self.norm_k.forward(self.k.forward(x));
        let v = self.v.forward(x);
        let q = rope_apply(heads(q), positions).permute([1, 0, 2]);
        let k = rope_apply(heads(k), positions).permute([1, 0, 2]);
        let v = heads(v).permute([1, 0, 2]);
        self.o.forward(q.attention(k, v).reshape([l, c]))
    }
}

struct WanCrossAttention(WanSelfAttention);

impl WanCrossAttention {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        Ok(Self(WanSelfAttention::new(w, cfg)?))
    }

    /// Keys and values of `context` `[text_len, C]`, each `[text_len, N, D]`.
    fn keys_values<'g>(&self, context: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
        let ([l, c], a) = (context.dims(), &self.0);
        let heads = |t: Tensor<'g>| t.reshape([l, a.num_heads, c / a.num_heads]);
        (heads(a.norm_k.forward(a.k.forward(context))), heads(a.v.forward(context)))
    }

    /// `x`: `[L, C]`; `k`, `v`: `[text_len, N, D]`. Padding rows of the text are attended, too.
    fn forward<'g>(&self, x: Tensor<'g>, k: Tensor<'g>, v: Tensor<'g>) -> Tensor<'g> {
        let ([l, c], a) = (x.dims(), &self.0);
        let q = a.norm_q.forward(a.q.forward(x)).reshape([l, a.num_heads, c / a.num_heads]);
        let y = q.permute([1, 0, 2]).attention(k.permute([1, 0, 2]), v.permute([1, 0, 2]));
        a.o.forward(y.reshape([l, c]))
    }
}

struct WanAttentionBlock {
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

    /// `x`: `[L, C]`; `e`: `[6, C]`; `k`, `v`: of the text, `[text_len, N, D]`.
    fn forward<'g>(
        &self,
        x: Tensor<'g>,
        e: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
        (k, v): (Tensor<'g>, Tensor<'g>),
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let e = e + &self.modulation;
        let e: [Tensor<'g>; 6] = std::array::from_fn(|i| e.narrow(1, i as i64..i as i64 + 1));

        // self-attention
        let y = x.layer_norm(self.eps) * (e[1] + 1.0) + e[0];
        let y = self.self_attn.forward(y, positions, &|n| tap(&format!("self_attn.{n}")));
        let x = x + y.tap(tap("self_attn")) * e[2];

        // cross-attention and feed-forward
        let y = self.cross_attn.forward(self.norm3.forward(x), k, v);
        let x = x + y.tap(tap("cross_attn"));
        let y = x.layer_norm(self.eps) * (e[4] + 1.0) + e[3];
        let y = self.ffn_2.forward(self.ffn_0.forward(y).gelu_tanh());
        x + y.tap(tap("ffn")) * e[5]
    }
}

struct Head {
    head: Linear,
    modulation: Param,
    eps: f32,
}

impl Head {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        Ok(Self {
            head: Linear::new(w.at("head"), cfg.dim, 4 * cfg.channels)?,
            modulation: w.param("modulation", [1, 2, cfg.dim])?,
            eps: cfg.eps,
        })
    }

    /// `x`: `[L, C]`; `e`: `[1, C]`, the time embedding before its activation.
    fn forward<'g>(&self, x: Tensor<'g>, e: Tensor<'g>) -> Tensor<'g> {
        let e = x.graph().read(&self.modulation) + e;
        let (shift, scale) = (e.narrow(1, 0..1), e.narrow(1, 1..2));
        self.head.forward(x.layer_norm(self.eps) * (scale + 1.0) + shift)
    }
}

/// One expert.
pub struct WanModel {
    patch_embedding: Param,
    patch_bias: Param,
    text_embedding: [Linear; 2],
    time_embedding: [Linear; 2],
    time_projection: Linear,
    blocks: Vec<WanAttentionBlock>,
    head: Head,
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
            patch_embedding: w.param("patch_embedding.weight", [cfg.dim, cfg.channels, 1, 2, 2])?,
            patch_bias: w.param("patch_embedding.bias", [cfg.dim])?,
            text_embedding: mlp(w.at("text_embedding"), cfg.text_dim)?,
            time_embedding: mlp(w.at("time_embedding"), cfg.freq_dim)?,
            time_projection: Linear::new(w.at("time_projection.1"), cfg.dim, 6 * cfg.dim)?,
            blocks: (0..cfg.num_layers)
                .map(|i| WanAttentionBlock::new(w.at("blocks").at(i), cfg))
                .collect::<Result<_, _>>()?,
            head: Head::new(w.at("head"), cfg)?,
            config,
        };
        weights.expect_all_used()?;
        Ok(model)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `tokens`: `[L, 4 · 16]`, features in order (c, ph, pw).
    fn embed_patches<'g>(&self, tokens: Tensor<'g>) -> Tensor<'g> {
        let [_, features] = tokens.dims();
        let kernel = tokens.graph().read(&self.patch_embedding);
        tokens.linear(kernel.reshape([self.config.dim, features])) + &self.patch_bias
    }

    /// The time embedding `[1, C]` and its projection `[1, 6, C]`.
    fn embed_time<'g>(&self, g: &'g Graph, timestep: i64) -> (Tensor<'g>, Tensor<'g>) {
        let dim = self.config.freq_dim;
        let t = HostTensor::new([1, dim], sinusoidal_embedding_1d(dim, timestep as f32));
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
        text: &HostTensor,
    ) -> Result<Conditioning, ComputeError> {
        let (cfg, device) = (&self.config, exec.device());
        let [rows, text_dim] = text.shape.dims();
        assert!(rows <= cfg.text_len && text_dim == cfg.text_dim, "text of {:?}", text.shape);
        let mut padded = text.data.to_vec();
        padded.resize((cfg.text_len * text_dim) as usize, 0.0);
        let padded = HostTensor::new([cfg.text_len, text_dim], padded);

        let state = |shape| DeviceTensor::new(device, shape, Storage::F32);
        let context = state([1, cfg.text_len, cfg.dim])?;
        exec.update(|g| {
            let y = self.text_embedding[0].forward(g.input(&padded)).gelu_tanh();
            let y = self.text_embedding[1].forward(y).tap("text_embedding");
            g.write(&context, y);
        })?;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let shape = [cfg.text_len, cfg.num_heads, cfg.head_dim()];
            let (keys, values) = (state(shape)?, state(shape)?);
            exec.update(|g| {
                let (k, v) = block.cross_attn.keys_values(g.read(&context));
                g.write(&keys, k);
                g.write(&values, v);
            })?;
            blocks.push((keys, values));
        }
        Ok(Conditioning { blocks })
    }

    fn velocity(
        &self,
        exec: &mut Executor,
        latents: &HostTensor,
        timestep: i64,
        conditioning: &Conditioning,
        tick: Tick,
    ) -> Result<HostTensor, ComputeError> {
        let (cfg, device, grid) = (&self.config, exec.device(), Grid::of(latents));
        let state = |shape| DeviceTensor::new(device, shape, Storage::F32);
        let x = state([1, grid.tokens(), cfg.dim])?;
        let (e, e0) = (state([1, 1, cfg.dim])?, state([1, 6, cfg.dim])?);
        exec.update(|g| {
            let tokens = g.input(&patchify(latents));
            g.write(&x, self.embed_patches(tokens).tap("patch_embedding"));
            let (embedding, projection) = self.embed_time(g, timestep);
            g.write(&e, embedding);
            g.write(&e0, projection);
        })?;
        let places = grid.positions();
        for (i, (block, (keys, values))) in self.blocks.iter().zip(&conditioning.blocks).enumerate()
        {
            exec.update(|g| {
                let positions = places.each_ref().map(|p| g.indices(p.clone()));
                let text = (g.read(keys), g.read(values));
                let tap = |name: &str| format!("blocks.{i}.{name}");
                let y = block.forward(g.read(&x), g.read(&e0), &positions, text, &tap);
                g.write(&x, y.tap(format_args!("blocks.{i}")));
            })?;
            ticked(tick)?;
        }
        let tokens = exec.compute(|g| self.head.forward(g.read(&x), g.read(&e)).tap("head"))?;
        Ok(unpatchify(&tokens, grid))
    }

    fn ticks(&self) -> u64 {
        self.blocks.len() as u64
    }
}
