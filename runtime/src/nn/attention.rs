//! Attention that stores its scores: for heads that fused kernels don't know, and for a bias in F32.

use crate::ggml::Tensor;

/// `softmax(scale · q kᵀ + bias) v` for `q` `[H, N, D]`, `k` and `v` `[H, M, D]`, `bias`
/// `[H, N, M]`; gives `[H, N, D]`. Scores of [`crate::ggml::Limits::scratch`] bytes exist at a
/// time.
#[track_caller]
pub fn scored_attention<'g>(
    q: Tensor<'g>,
    k: Tensor<'g>,
    v: Tensor<'g>,
    scale: f32,
    bias: Option<Tensor<'g>>,
) -> Tensor<'g> {
    let ([h, n, d], [_, m, _]) = (q.dims(), k.dims::<3>());
    let v = v.permute([0, 2, 1]).contiguous();
    let rows = (q.graph().limits().scratch / (4 * h * m)).max(1);
    let attend =
        |q: Tensor<'g>, bias| q.matmul_transposed(k).softmax(scale, bias).matmul_transposed(v);
    if n <= rows {
        return attend(q, bias);
    }
    (0..n).step_by(rows as usize).fold(q.graph().uninitialized([h, n, d]), |out, start| {
        let range = start..n.min(start + rows);
        let bias = bias.map(|b| b.narrow(1, range.clone()));
        out.set([0, start, 0], attend(q.narrow(1, range), bias))
    })
}
