//! The Wan diffusion transformer, after `wan/modules/model.py` of
//! <https://github.com/Wan-Video/Wan2.2>: same classes, same order, same names.
//! Shapes in comments are PyTorch's: L tokens, C channels, N heads, D head size.
//!
//! Differs: the batch is 1 and has no dimension; cross-attention keys and values depend on the
//! prompt alone and are computed once ([`Conditioning`]). All that a block does to a token depends
//! on other tokens only through the keys and values of its self-attention. So a block first makes
//! those, then takes the residual stream piece by piece: each piece is a graph of bounded time and
//! memory ([`Pieces`]), and between graphs everything stays on the device.

use super::layout::{Grid, patchify, unpatchify};
use super::pieces::Pieces;
use super::{Conditioning, Config};
use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Graph, HostTensor, Limits, LoadError, Param, Scope,
    Shape, Storage, Tensor, Weights,
};
use crate::models::{Denoiser, ModelError, Tick, ticked};
use crate::nn::{LayerNorm, Linear, RmsNorm};
use std::ops::Range;

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

struct WanCrossAttention(WanSelfAttention);

impl WanCrossAttention {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        Ok(Self(WanSelfAttention::new(w, cfg)?))
    }

    /// Keys and values of `context` `[text_len, C]`: `[N, text_len, D]` each.
    fn keys_values<'g>(&self, context: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
        let a = &self.0;
        let k = a.norm_k.forward(a.k.forward(context));
        let v = a.v.forward(context);
        (a.heads(k).permute([1, 0, 2]), a.heads(v).permute([1, 0, 2]))
    }

    /// `x`: `[L, C]`; `k`, `v`: `[N, text_len, D]`. Padding rows of the text are attended, too.
    fn forward<'g>(&self, x: Tensor<'g>, (k, v): (Tensor<'g>, Tensor<'g>)) -> Tensor<'g> {
        let ([l, c], a) = (x.dims(), &self.0);
        let q = a.heads(a.norm_q.forward(a.q.forward(x))).permute([1, 0, 2]);
        a.o.forward(q.attention(k, v).reshape([l, c]))
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

    /// `x`: `[L, C]`; `e`: `[6, C]`; `tokens`: keys and values of all tokens, `[N, M, D]` each;
    /// `text`: of the prompt, `[N, text_len, D]` each.
    fn forward<'g>(
        &self,
        x: Tensor<'g>,
        e: Tensor<'g>,
        positions: &[Tensor<'g>; 3],
        tokens: (Tensor<'g>, Tensor<'g>),
        text: (Tensor<'g>, Tensor<'g>),
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let (q, (k, v)) = (self.queries(x, e, positions, tap), tokens);
        self.after_attention(x, e, q.attention(k, v).reshape(x.shape()), text, tap)
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
        text: (Tensor<'g>, Tensor<'g>),
        tap: &dyn Fn(&str) -> String,
    ) -> Tensor<'g> {
        let e = self.modulated(e);
        let y = self.self_attn.o.forward(attended.tap(tap("self_attn.attended")));
        let x = x + y.tap(tap("self_attn")) * e[2];

        // cross-attention and feed-forward
        let y = self.cross_attn.forward(self.norm3.forward(x), text);
        let x = x + y.tap(tap("cross_attn"));
        let y = x.layer_norm(self.eps) * (e[4] + 1.0) + e[3];
        let y = self.ffn_0.forward(y.tap(tap("norm2"))).gelu_tanh().tap(tap("ffn.0"));
        let y = self.ffn_2.forward(y);
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
    pub(super) blocks: Vec<WanAttentionBlock>,
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
    pub(super) fn embed_patches<'g>(&self, tokens: Tensor<'g>) -> Tensor<'g> {
        let [_, features] = tokens.dims();
        let kernel = tokens.graph().read(&self.patch_embedding);
        tokens.linear(kernel.reshape([self.config.dim, features])) + &self.patch_bias
    }

    /// [`Denoiser::condition`] for the first `count` blocks alone.
    pub(super) fn condition_blocks(
        &self,
        exec: &mut Executor,
        text: &HostTensor,
        count: usize,
    ) -> Result<Conditioning, ComputeError> {
        let (cfg, device) = (&self.config, exec.device());
        let [rows, text_dim] = text.shape.dims();
        assert!(rows <= cfg.text_len && text_dim == cfg.text_dim, "text of {:?}", text.shape);
        let mut padded = text.data.to_vec();
        padded.resize((cfg.text_len * text_dim) as usize, 0.0);
        let padded = HostTensor::new([cfg.text_len, text_dim], padded);

        let context = DeviceTensor::new(device, [cfg.text_len, cfg.dim], Storage::F32)?;
        exec.update(|g| {
            let y = self.text_embedding[0].forward(g.input(&padded)).gelu_tanh();
            let y = self.text_embedding[1].forward(y).tap("text_embedding");
            g.write(&context, y);
        })?;
        let mut blocks = Vec::with_capacity(count);
        for block in &self.blocks[..count] {
            let shape = [cfg.num_heads, cfg.text_len, cfg.head_dim()];
            let (keys, values) = keys_values(exec, shape)?;
            exec.update(|g| {
                let (k, v) = block.cross_attn.keys_values(g.read(&context));
                g.write(&keys, k);
                g.write(&values, v);
            })?;
            blocks.push((keys, values));
        }
        Ok(Conditioning { blocks })
    }

    /// The time embedding `[1, C]` and its projection `[1, 6, C]`.
    pub(super) fn embed_time<'g>(&self, g: &'g Graph, timestep: i64) -> (Tensor<'g>, Tensor<'g>) {
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
        self.condition_blocks(exec, text, self.blocks.len())
    }

    fn velocity(
        &self,
        exec: &mut Executor,
        latents: &HostTensor,
        timestep: i64,
        conditioning: &Conditioning,
        tick: Tick,
    ) -> Result<HostTensor, ComputeError> {
        let pass = Pass::begin(self, exec, latents, timestep)?;
        for i in 0..self.blocks.len() {
            pass.block(i, exec, conditioning, tick)?;
        }
        pass.end(exec)
    }

    fn ticks(&self, limits: &Limits, latents: Shape) -> u64 {
        self.config.ticks(limits, latents)
    }
}

/// A forward pass on its way: what stays on the device from one block to the next.
pub(super) struct Pass<'m> {
    model: &'m WanModel,
    grid: Grid,
    /// What the patch embedding is given, `[L, 4 · 16]`.
    tokens: Shape,
    places: [Vec<i32>; 3],
    pieces: Pieces,
    /// The residual stream, `[L, C]`.
    pub(super) x: DeviceTensor,
    /// The time embedding `[1, C]`, and its projection `[6, C]`.
    e: DeviceTensor,
    e0: DeviceTensor,
    /// Of the block at hand, `[N, L, D]`.
    pub(super) keys: DeviceTensor,
    pub(super) values: DeviceTensor,
}

impl<'m> Pass<'m> {
    /// Embeds `latents` `[C, F, H, W]` and `timestep`.
    pub(super) fn begin(
        model: &'m WanModel,
        exec: &mut Executor,
        latents: &HostTensor,
        timestep: i64,
    ) -> Result<Self, ComputeError> {
        let (cfg, device, grid) = (&model.config, exec.device(), Grid::of(latents.shape));
        let (tokens, places) = (patchify(latents), grid.positions());
        let pieces = Pieces::new(cfg, &exec.limits(), grid.tokens());
        let state = |shape: [i64; 2]| DeviceTensor::new(device, shape, Storage::F32);
        let x = state([grid.tokens(), cfg.dim])?;
        let (e, e0) = (state([1, cfg.dim])?, state([6, cfg.dim])?);
        exec.update(|g| {
            let (embedding, projection) = model.embed_time(g, timestep);
            g.write(&e, embedding);
            g.write(&e0, projection);
        })?;
        for range in pieces.narrow() {
            exec.update(|g| {
                let y = model.embed_patches(g.input(&tokens.rows(range.clone())));
                let y = y.tap("patch_embedding");
                g.write_finite(&x, [0, 0, range.start, 0], y, "patch_embedding");
            })?;
        }
        let heads = [cfg.num_heads, grid.tokens(), cfg.head_dim()];
        let (keys, values) = keys_values(exec, heads)?;
        let tokens = tokens.shape;
        Ok(Self { model, grid, tokens, places, pieces, x, e, e0, keys, values })
    }

    /// Block `i`.
    pub(super) fn block(
        &self,
        i: usize,
        exec: &mut Executor,
        conditioning: &Conditioning,
        tick: Tick,
    ) -> Result<(), ComputeError> {
        let Self { places, pieces, x, e0, keys, values, .. } = self;
        let (block, (text_keys, text_values)) = (&self.model.blocks[i], &conditioning.blocks[i]);
        for range in pieces.keys_values() {
            exec.update(|g| {
                let x = g.read(x).narrow(1, range.clone());
                let (k, v) = block.keys_values(x, g.read(e0), &positions(g, places, &range));
                g.write_at(keys, [0, 0, range.start, 0], k);
                g.write_at(values, [0, 0, range.start, 0], v);
            })?;
            ticked(tick)?;
        }
        for range in pieces.block() {
            exec.update(|g| {
                let tokens = (g.read(keys), g.read(values));
                let text = (g.read(text_keys), g.read(text_values));
                let tap = |name: &str| format!("blocks.{i}.{name}");
                let piece = g.read(x).narrow(1, range.clone());
                let places = positions(g, places, &range);
                let y = block.forward(piece, g.read(e0), &places, tokens, text, &tap);
                let (y, name) = (y.tap(format_args!("blocks.{i}")), format!("blocks.{i}"));
                g.write_finite(x, [0, 0, range.start, 0], y, name);
            })?;
            ticked(tick)?;
        }
        Ok(())
    }

    /// The velocity, `[C, F, H, W]`.
    fn end(self, exec: &mut Executor) -> Result<HostTensor, ComputeError> {
        let mut velocity = Vec::with_capacity(self.tokens.elements());
        for range in self.pieces.narrow() {
            let piece = exec.compute(|g| {
                let x = g.read(&self.x).narrow(1, range.clone());
                self.model.head.forward(x, g.read(&self.e)).tap("head")
            })?;
            velocity.extend_from_slice(&piece.data);
        }
        Ok(unpatchify(&HostTensor::new(self.tokens, velocity), self.grid))
    }
}

/// States for the keys and values of `[N, M, D]`.
fn keys_values(
    exec: &Executor,
    shape: [i64; 3],
) -> Result<(DeviceTensor, DeviceTensor), ComputeError> {
    let state = || DeviceTensor::new(exec.device(), shape, exec.device().operands());
    Ok((state()?, state()?))
}

/// Frame, row and column of some tokens.
fn positions<'g>(g: &'g Graph, places: &[Vec<i32>; 3], range: &Range<i64>) -> [Tensor<'g>; 3] {
    places.each_ref().map(|p| g.indices(&p[range.start as usize..range.end as usize]))
}
