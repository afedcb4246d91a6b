//! A forward pass on its way through the blocks: what stays on the device from one to the next.
//!
//! Each piece of the residual stream is a graph of bounded time and memory ([`Pieces`]).

use super::conditioning::KeysValues;
use super::layout::{Grid, patchify, unpatchify};
use super::pieces::Pieces;
use super::{Conditioning, WanModel};
use crate::ggml::{ComputeError, DeviceTensor, Executor, Graph, HostTensor, Storage, Tensor};
use crate::models::{Tick, Timesteps, ticked};
use std::ops::Range;

pub(super) struct Pass<'m> {
    model: &'m WanModel,
    grid: Grid,
    places: [Vec<i32>; 3],
    pieces: Pieces,
    /// The residual stream, `[L, C]`.
    pub(super) x: DeviceTensor,
    /// Of the clip.
    time: Time,
    /// Of so many tokens at the beginning, where it differs.
    first: Option<(i64, Time)>,
    /// Of the block at hand, `[N, L, D]`.
    pub(super) kv: KeysValues,
}

/// A timestep on the device.
struct Time {
    /// Its embedding, `[1, C]`.
    e: DeviceTensor,
    /// The projection of that, `[6, C]`.
    e0: DeviceTensor,
}

impl Time {
    fn new(model: &WanModel, exec: &mut Executor, timestep: f32) -> Result<Self, ComputeError> {
        let (device, dim) = (exec.device(), model.config().dim);
        let state = |shape: [i64; 2]| DeviceTensor::new(device, shape, Storage::F32);
        let time = Self { e: state([1, dim])?, e0: state([6, dim])? };
        exec.update(|g| {
            let (embedding, projection) = model.embed_time(g, timestep);
            g.write(&time.e, embedding);
            g.write(&time.e0, projection);
        })?;
        Ok(time)
    }
}

impl<'m> Pass<'m> {
    /// Embeds `latents` `[in_channels, F, H, W]` and their timesteps.
    pub(super) fn begin(
        model: &'m WanModel,
        exec: &mut Executor,
        latents: &HostTensor,
        timesteps: Timesteps,
    ) -> Result<Self, ComputeError> {
        let (cfg, device, grid) = (model.config(), exec.device(), Grid::of(latents.shape));
        let (tokens, places, apart) = (patchify(latents), grid.positions(), grid.apart(timesteps));
        let pieces = Pieces::new(cfg, &exec.limits(), grid.tokens(), apart);
        let x = DeviceTensor::new(device, [grid.tokens(), cfg.dim], Storage::F32)?;
        let time = Time::new(model, exec, timesteps.clip)?;
        let first = match apart {
            0 => None,
            tokens => Some((tokens, Time::new(model, exec, timesteps.first_frame)?)),
        };
        for range in pieces.narrow() {
            exec.update(|g| {
                let y = model.embed_patches(g.input(&tokens.rows(range.clone())));
                let y = y.tap("patch_embedding");
                g.write_finite(&x, [0, 0, range.start, 0], y, "patch_embedding");
            })?;
        }
        let kv = KeysValues::new(exec, [cfg.num_heads, grid.tokens(), cfg.head_dim()])?;
        Ok(Self { model, grid, places, pieces, x, time, first, kv })
    }

    /// Of the tokens in `range`, which are all from one side of a change.
    fn time(&self, range: &Range<i64>) -> &Time {
        match &self.first {
            Some((tokens, time)) if range.start < *tokens => time,
            _ => &self.time,
        }
    }

    /// Block `i`.
    pub(super) fn block(
        &self,
        i: usize,
        exec: &mut Executor,
        conditioning: &Conditioning,
        tick: Tick,
    ) -> Result<(), ComputeError> {
        let Self { places, pieces, x, kv, .. } = self;
        let (block, context) = (&self.model.blocks[i], &conditioning.blocks[i]);
        for range in pieces.keys_values() {
            exec.update(|g| {
                let (x, e0) = (g.read(x).narrow(1, range.clone()), g.read(&self.time(&range).e0));
                kv.write_at(
                    g,
                    range.start,
                    block.keys_values(x, e0, &positions(g, places, &range)),
                );
            })?;
            ticked(tick)?;
        }
        for range in pieces.block() {
            exec.update(|g| {
                let tap = |name: &str| format!("blocks.{i}.{name}");
                let (piece, e0) =
                    (g.read(x).narrow(1, range.clone()), g.read(&self.time(&range).e0));
                let places = positions(g, places, &range);
                let y = block.forward(piece, e0, &places, kv.read(g), context.read(g), &tap);
                let (y, name) = (y.tap(format_args!("blocks.{i}")), format!("blocks.{i}"));
                g.write_finite(x, [0, 0, range.start, 0], y, name);
            })?;
            ticked(tick)?;
        }
        Ok(())
    }

    /// The velocity, `[out_channels, F, H, W]`.
    pub(super) fn end(self, exec: &mut Executor) -> Result<HostTensor, ComputeError> {
        let mut velocity = Vec::new();
        for range in self.pieces.narrow() {
            let piece = exec.compute(|g| {
                let x = g.read(&self.x).narrow(1, range.clone());
                self.model.head.forward(x, g.read(&self.time(&range).e)).tap("head")
            })?;
            velocity.extend_from_slice(&piece.data);
        }
        let tokens = self.grid.tokens();
        let features = velocity.len() as i64 / tokens;
        Ok(unpatchify(&HostTensor::new([tokens, features], velocity), self.grid))
    }
}

/// Frame, row and column of some tokens.
fn positions<'g>(g: &'g Graph, places: &[Vec<i32>; 3], range: &Range<i64>) -> [Tensor<'g>; 3] {
    places.each_ref().map(|p| g.indices(&p[range.start as usize..range.end as usize]))
}
