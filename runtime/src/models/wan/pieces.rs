//! How a forward pass is cut along its tokens, so that no graph runs for long (a display's watchdog
//! would end it, and Ctrl-C would wait for it) and no intermediate grows with the clip.

use super::Config;
use crate::ggml::{Limits, Work};
use std::ops::Range;

pub(super) struct Pieces {
    tokens: i64,
    /// Tokens at the beginning that share no piece with the others.
    apart: i64,
    narrow: i64,
    keys_values: i64,
    block: i64,
}

/// Reads and writes of one F32 channel by the element-wise operations of a block, about.
const TRAFFIC: f64 = 200.0;

impl Pieces {
    /// `apart`: how many tokens at the beginning have a time embedding of their own.
    pub(super) fn new(cfg: &Config, limits: &Limits, tokens: i64, apart: i64) -> Self {
        let (dim, ffn) = (cfg.dim, cfg.ffn_dim);
        let traffic = Work { bytes: TRAFFIC * dim as f64, ..Work::default() };
        let keys_values = Work::linear(1, dim, 2 * dim) + traffic;
        let linears = Work::linear(1, dim, 4 * dim) + Work::linear(1, dim, 2 * ffn);
        let block = linears + Work::attention(1, tokens + cfg.text_len, dim) + traffic;
        let rows =
            |work, channels: i64| limits.graph_rows(work, channels * size_of::<f32>() as i64);
        Self {
            tokens,
            apart,
            narrow: rows(traffic, dim),
            keys_values: rows(keys_values, dim),
            block: rows(block, ffn.max(dim)),
        }
    }

    /// For embedding and head.
    pub(super) fn narrow(&self) -> impl Iterator<Item = Range<i64>> + use<> {
        self.cut(self.narrow)
    }

    /// For the keys and values of a block's self-attention.
    pub(super) fn keys_values(&self) -> impl Iterator<Item = Range<i64>> + use<> {
        self.cut(self.keys_values)
    }

    /// For the rest of a block.
    pub(super) fn block(&self) -> impl Iterator<Item = Range<i64>> + use<> {
        self.cut(self.block)
    }

    /// Graphs of one block.
    pub(super) fn graphs(&self) -> u64 {
        (self.keys_values().count() + self.block().count()) as u64
    }

    /// As few pieces as `limit` allows, of about equal length.
    fn cut(&self, limit: i64) -> impl Iterator<Item = Range<i64>> + use<> {
        [0..self.apart, self.apart..self.tokens].into_iter().flat_map(
            move |Range { start, end }| {
                let count = ((end - start + limit - 1) / limit).max(1);
                let length = ((end - start + count - 1) / count).max(1);
                (start..end).step_by(length as usize).map(move |from| from..end.min(from + length))
            },
        )
    }
}
