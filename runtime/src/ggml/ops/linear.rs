//! Matrix products and table look-ups: the ops that read weights of any type.

use crate::ggml::{Operand, Precision, Tensor};
use ggml_sys as sys;

impl<'g> Tensor<'g> {
    /// `x @ weightᵀ`, as `torch.nn.functional.linear`: `[.., I]` by `[O, I]` gives `[.., O]`.
    ///
    /// ggml's CPU backend rounds `x` to the weight's partner type (1.6e-3 for BF16, 5e-3 for
    /// Q8_0); strict runs widen the weight to F32 first.
    #[track_caller]
    pub fn linear(self, weight: impl Operand<'g>) -> Self {
        let w = weight.in_graph(self.graph).widened();
        let ([_, inputs], [.., last]) = (w.dims::<2>(), self.shape().full());
        assert_eq!(last, inputs, "linear: {self:?} by weight {w:?}");
        // CUDA would add up in F16, which ends at 65,504.
        w.binary(self.operand().raw, sys::ggml_mul_mat).accumulated(sys::GGML_PREC_BF16)
    }

    /// `x @ yᵀ` over the two inner dimensions, matrix by matrix: `[.., N, K]` by `[.., M, K]`
    /// gives `[.., N, M]`.
    #[track_caller]
    pub fn matmul_transposed(self, y: Tensor<'g>) -> Self {
        let ([a, b, _, k], [c, d, _, l]) = (self.shape().full(), y.shape().full());
        assert_eq!(([a, b], k), ([c, d], l), "matmul: {self:?} by {y:?}");
        y.operand().binary(self.operand().raw, sys::ggml_mul_mat).accumulated(sys::GGML_PREC_F32)
    }

    /// Rows of `table` `[V, C]`, chosen by this vector of I32 numbers: `[N, C]`, always F32.
    #[track_caller]
    pub fn rows_of(self, table: impl Operand<'g>) -> Self {
        let table = table.in_graph(self.graph);
        let _ = (table.dims::<2>(), self.dims::<1>());
        table.binary(self.raw, sys::ggml_get_rows)
    }

    #[track_caller]
    fn widened(self) -> Self {
        // SAFETY: the node is alive for `'g`.
        let dtype = unsafe { self.raw.as_ref() }.type_;
        if self.graph.precision == Precision::Native || dtype == sys::GGML_TYPE_F32 {
            return self;
        }
        // SAFETY: as above; ggml casts every type to F32.
        self.graph.node(|c| unsafe { sys::ggml_cast(c, self.raw.as_ptr(), sys::GGML_TYPE_F32) })
    }
}
