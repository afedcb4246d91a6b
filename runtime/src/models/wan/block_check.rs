//! One block at full size, computed on a device, and for some of its tokens once more elsewhere.
//!
//! All that a block does to a token depends on other tokens through keys and values alone. So a token's
//! result can be computed anew from its own input and everybody's keys and values, in a moment, whatever
//! the size of the clip.

use super::conditioning::{Attended, BlockContext};
use super::layout::{Grid, patchify};
use super::pass::Pass;
use super::{Conditioning, WanModel};
use crate::ggml::{ComputeError, DeviceTensor, Executor, Graph, HostTensor, Storage, Tensor};
use crate::models::{Context, Tick};

/// The block that is looked at: the first, whose input costs nothing.
const BLOCK: usize = 0;

/// The names of what depends on the prompt, or on an image, alone.
const CONTEXT: [[&str; 2]; 2] =
    [["keys of the prompt", "values of the prompt"], ["keys of the image", "values of the image"]];

/// What is asked of the block.
pub struct BlockQuestion<'a> {
    /// `[C, F, H, W]`.
    pub latents: &'a HostTensor,
    /// Of all latent frames, from 0 to 1000.
    pub timestep: f32,
    /// What the block attends to beside the clip.
    pub context: Context<'a>,
    /// The tokens that are compared.
    pub tokens: &'a [i32],
}

/// What came of some tokens, named by the steps of the computation; a row a token.
pub type BlockValues = Vec<(&'static str, HostTensor)>;

/// The answer of a device, with what others need to compute it anew.
pub struct BlockAnswer {
    /// `[n, C]`.
    input: HostTensor,
    /// Of all tokens, `[M, D]` a head.
    keys: Vec<HostTensor>,
    values: Vec<HostTensor>,
    /// Keys and values of the prompt, and of an image's features: `[N, M, D]`.
    context: Vec<[HostTensor; 2]>,
    /// Of the tokens in question: what is compared.
    pub rows: BlockValues,
}

impl WanModel {
    /// Embeds the whole clip and runs it through the block.
    pub fn block_at_full_size(
        &self,
        exec: &mut Executor,
        question: &BlockQuestion<'_>,
        tick: Tick,
    ) -> Result<BlockAnswer, ComputeError> {
        let conditioning = self.condition_blocks(exec, question.context, BLOCK + 1)?;
        let pass = Pass::begin(self, exec, question.latents, question.timestep.into())?;
        let input = rows(exec, &pass.x, question.tokens)?;
        pass.block(BLOCK, exec, &conditioning, tick)?;
        let output = rows(exec, &pass.x, question.tokens)?;
        let (keys, values) = (heads(exec, &pass.kv.keys)?, heads(exec, &pass.kv.values)?);
        let context = in_context(exec, &conditioning)?;
        let mut rows = vec![
            ("patch embedding", input.clone()),
            ("keys", of_tokens(&keys, question.tokens)),
            ("values", of_tokens(&values, question.tokens)),
        ];
        rows.extend(context_rows(&context));
        rows.push(("block", output));
        Ok(BlockAnswer { input, keys, values, context, rows })
    }

    /// The same for the tokens in question alone, from the input, keys and values in `answer`. So each
    /// part is compared by itself: an error doesn't go on into the next.
    pub fn block_for_tokens(
        &self,
        exec: &mut Executor,
        question: &BlockQuestion<'_>,
        answer: &BlockAnswer,
    ) -> Result<BlockValues, ComputeError> {
        let (block, cfg) = (&self.blocks[BLOCK], self.config());
        let conditioning = self.condition_blocks(exec, question.context, BLOCK + 1)?;
        let context = in_context(exec, &conditioning)?;
        let grid = Grid::of(question.latents.shape);
        let (features, all) = (patchify(question.latents), grid.positions());
        let places =
            all.map(|p| question.tokens.iter().map(|&t| p[t as usize]).collect::<Vec<_>>());
        let count = question.tokens.len() as i64;

        let [_, columns] = features.shape.dims();
        let picked = question.tokens.iter().flat_map(|&token| {
            let start = i64::from(token) * columns;
            features.data[start as usize..(start + columns) as usize].iter().copied()
        });
        let picked = HostTensor::new([count, columns], picked.collect::<Vec<f32>>());
        let embedded = exec.compute(|g| self.embed_patches(g.input(&picked)))?;

        let projection = exec.compute(|g| {
            let (_, projection) = self.embed_time(g, question.timestep);
            projection.reshape([6, cfg.dim])
        })?;
        let known = (&answer.input, &projection);
        let heads = [count, cfg.num_heads * cfg.head_dim()];
        let mut kv = |second: bool| {
            exec.compute(|g| {
                let (x, e) = inputs(g, known);
                let (k, v) = block.keys_values(x, e, &indices(g, &places));
                let chosen = if second { v } else { k };
                chosen.permute([1, 0, 2]).contiguous().reshape(heads)
            })
        };
        let (keys, values) = (kv(false)?, kv(true)?);
        let queries = exec.compute(|g| {
            let (x, e) = inputs(g, known);
            block.queries(x, e, &indices(g, &places), &|name| name.to_owned()).contiguous()
        })?;
        let d = cfg.head_dim();
        let mut attended = vec![0.0; (count * cfg.dim) as usize];
        for head in 0..cfg.num_heads {
            let own = (head * count * d) as usize..((head + 1) * count * d) as usize;
            let q = HostTensor::new([1, count, d], queries.data[own].to_vec());
            let of = |all: &[HostTensor]| {
                let tensor = &all[head as usize];
                let [m, _] = tensor.shape.dims();
                HostTensor::new([1, m, d], tensor.data.clone())
            };
            let (k, v) = (of(&answer.keys), of(&answer.values));
            let result = exec
                .compute(|g| g.input(&q).attention(g.input(&k), g.input(&v)).reshape([count, d]))?;
            for (token, row) in result.data.chunks_exact(d as usize).enumerate() {
                let start = token * cfg.dim as usize + (head * d) as usize;
                attended[start..start + d as usize].copy_from_slice(row);
            }
        }
        let attended = HostTensor::new([count, cfg.dim], attended);
        let output = exec.compute(|g| {
            let (x, e) = inputs(g, known);
            let mut pairs = answer.context.iter().map(|[k, v]| (g.input(k), g.input(v)));
            let text = pairs.next().expect("there is always a prompt");
            let context = Attended { text, image: pairs.next() };
            block.after_attention(x, e, g.input(&attended), context, &|name| name.to_owned())
        })?;
        let mut rows = vec![("patch embedding", embedded), ("keys", keys), ("values", values)];
        rows.extend(context_rows(&context));
        rows.push(("block", output));
        Ok(rows)
    }
}

/// Whether a value depends on the prompt, or on an image, alone.
pub fn of_context(name: &str) -> bool {
    CONTEXT.as_flattened().contains(&name)
}

/// Keys and values of what the block attends to beside the clip.
fn in_context(
    exec: &mut Executor,
    conditioning: &Conditioning,
) -> Result<Vec<[HostTensor; 2]>, ComputeError> {
    let BlockContext { text, image } = &conditioning.blocks[BLOCK];
    let pairs = std::iter::once(text).chain(image);
    pairs.map(|kv| Ok([whole(exec, &kv.keys)?, whole(exec, &kv.values)?])).collect()
}

fn context_rows(context: &[[HostTensor; 2]]) -> impl Iterator<Item = (&'static str, HostTensor)> {
    let names = CONTEXT.as_flattened().iter().copied();
    names.zip(context.as_flattened().iter().map(by_token))
}

/// A state of three dimensions in F32.
fn whole(exec: &mut Executor, state: &DeviceTensor) -> Result<HostTensor, ComputeError> {
    exec.compute(|g| g.read(state).stored(Storage::F32))
}

/// A state `[N, M, D]` in F32, `[M, D]` a head: all at once may be too much for a device.
fn heads(exec: &mut Executor, state: &DeviceTensor) -> Result<Vec<HostTensor>, ComputeError> {
    let [count, m, d] = state.shape().dims();
    let head = |exec: &mut Executor, h: i64| {
        exec.compute(|g| g.read(state).narrow(0, h..h + 1).reshape([m, d]).stored(Storage::F32))
    };
    (0..count).map(|h| head(exec, h)).collect()
}

/// `[N, M, D]` as `[M, N · D]`.
fn by_token(heads: &HostTensor) -> HostTensor {
    let [n, m, d] = heads.shape.dims();
    let row = |token: i64, head: i64| {
        let start = ((head * m + token) * d) as usize;
        &heads.data[start..start + d as usize]
    };
    let values = (0..m).flat_map(|token| (0..n).flat_map(move |head| row(token, head)));
    HostTensor::new([m, n * d], values.copied().collect::<Vec<f32>>())
}

/// Some rows of a state `[L, C]`.
fn rows(
    exec: &mut Executor,
    state: &DeviceTensor,
    tokens: &[i32],
) -> Result<HostTensor, ComputeError> {
    exec.compute(|g| g.indices(tokens).rows_of(state))
}

/// Rows of `heads` `[M, D]` each, side by side: `[n, N · D]`.
fn of_tokens(heads: &[HostTensor], tokens: &[i32]) -> HostTensor {
    let [_, d] = heads[0].shape.dims::<2>();
    let row = |token: i32, head: &HostTensor| {
        let start = i64::from(token) * d;
        head.data[start as usize..(start + d) as usize].to_vec()
    };
    let values = tokens.iter().flat_map(|&t| heads.iter().flat_map(move |head| row(t, head)));
    HostTensor::new([tokens.len() as i64, heads.len() as i64 * d], values.collect::<Vec<f32>>())
}

/// The block's input and the time projection in a graph.
fn inputs<'g>(g: &'g Graph, known: (&HostTensor, &HostTensor)) -> (Tensor<'g>, Tensor<'g>) {
    (g.input(known.0), g.input(known.1))
}

fn indices<'g>(g: &'g Graph, places: &[Vec<i32>; 3]) -> [Tensor<'g>; 3] {
    places.each_ref().map(|p| g.indices(p.as_slice()))
}
