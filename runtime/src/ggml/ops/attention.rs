//! Attention, fused and with its scores stored, and the rotary embedding of its queries and keys.

use super::pieces;
use crate::ggml::{Tensor, table};
use ggml_sys as sys;

impl<'g> Tensor<'g> {
    /// `softmax(q kᵀ / √D) v` for `q` `[H, N, D]`, `k` and `v` `[H, M, D]`; gives `[N, H, D]`.
    ///
    /// Queries are cut by [`crate::ggml::Limits::attention_rows`]. The scores are stored only for
    /// heads of a size that the device's fused kernels don't know.
    #[track_caller]
    pub fn attention(self, k: Tensor<'g>, v: Tensor<'g>) -> Self {
        let ([h, n, d], [kh, m, kd]) = (self.dims::<3>(), k.dims::<3>());
        assert_eq!(
            ([h, d], [kh, m, kd]),
            ([kh, kd], v.dims()),
            "attention: {self:?}, {k:?}, {v:?}"
        );
        if !table::fuses_attention(self.graph.family, d) {
            return self.scored_attention(k, v, 1.0 / (d as f32).sqrt(), None).permute([1, 0, 2]);
        }
        let limit = self.graph.limits().attention_rows(m, h * d);
        let (q, k, v) = (self.rounded(), k.rounded(), v.rounded());
        if n <= limit {
            return q.flash_attention(k, v);
        }
        pieces(n, limit).fold(self.graph.uninitialized([n, h, d]), |out, range| {
            out.set([range.start, 0, 0], q.narrow(1, range).flash_attention(k, v))
        })
    }

    #[track_caller]
    fn flash_attention(self, k: Tensor<'g>, v: Tensor<'g>) -> Self {
        let [_, _, d] = self.dims::<3>();
        let (q, k, v) = (self.operand_rows(), k.operand_rows(), v.operand_rows());
        // SAFETY: the nodes are alive for `'g`; `attention` checked the shapes, and the rows are
        // dense, as ggml asserts; there is no mask.
        let out = self.graph.node(|ctx| unsafe {
            let (q, k, v) = (q.raw.as_ptr(), k.raw.as_ptr(), v.raw.as_ptr());
            let scale = 1.0 / (d as f32).sqrt();
            sys::ggml_flash_attn_ext(ctx, q, k, v, std::ptr::null_mut(), scale, 0.0, 0.0)
        });
        out.accumulated(sys::GGML_PREC_F32)
    }

    /// `softmax(scale · q kᵀ + bias) v` for `q` `[H, N, D]`, `k` and `v` `[H, M, D]`, `bias`
    /// `[H, N, M]`; gives `[H, N, D]`. Scores of [`crate::ggml::Limits::scratch`] bytes exist at a
    /// time.
    #[track_caller]
    pub fn scored_attention(
        self,
        k: Tensor<'g>,
        v: Tensor<'g>,
        scale: f32,
        bias: Option<Tensor<'g>>,
    ) -> Self {
        let ([h, n, d], [_, m, _]) = (self.dims(), k.dims::<3>());
        let v = v.permute([0, 2, 1]).contiguous();
        let rows = (self.graph.limits().scratch / (4 * h * m)).max(1);
        let attend =
            |q: Self, bias| q.matmul_transposed(k).softmax(scale, bias).matmul_transposed(v);
        if n <= rows {
            return attend(self, bias);
        }
        (0..n).step_by(rows as usize).fold(self.graph.uninitialized([h, n, d]), |out, start| {
            let range = start..n.min(start + rows);
            let bias = bias.map(|b| b.narrow(1, range.clone()));
            out.set([0, start, 0], attend(self.narrow(1, range), bias))
        })
    }

    /// Rotates pairs of neighbouring channels `start..start + dims` of `[N, H, D]`: pair `j` of
    /// token `n` by `positions[n] · theta^(-2j / dims)`. Other channels stay.
    #[track_caller]
    pub fn rope(self, positions: Tensor<'g>, start: i64, dims: i64, theta: f32) -> Self {
        let ([n, _, d], [count]) = (self.dims::<3>(), positions.dims());
        assert!(n == count && start + dims <= d && dims % 2 == 0, "rope: {self:?}, {positions:?}");
        let x = self.dense_rows();
        // SAFETY: the nodes are alive for `'g`; the asserts are those of ggml; no frequency factors.
        self.graph.node(|ctx| unsafe {
            let (x, p) = (x.raw.as_ptr(), positions.raw.as_ptr());
            let (dims, mode) = (dims as i32, sys::GGML_ROPE_TYPE_NORMAL as i32);
            let none = std::ptr::null_mut();
            let out =
                sys::ggml_rope_ext(ctx, x, p, none, dims, mode, 0, theta, 1.0, 0.0, 1.0, 0.0, 0.0);
            sys::ggml_rope_set_offset(out, start as i32)
        })
    }
}
