//! Matrix products and table look-ups: the ops that read weights of any type.

use crate::ggml::{Operand, Precision, Tensor};
use ggml_sys as sys;

impl<'g> Tensor<'g> {
    /// `x @ weightᵀ`, as `torch.nn.functional.linear`: `[.., I]` by `[O, I]` gives `[.., O]`.
    ///
    /// ggml's CPU backend rounds `x` to the weight's partner type (1.6e-3 for BF16, 5e-3 for
    /// Q8_0); strict runs widen both to F32 first.
    #[track_caller]
    pub fn linear(self, weight: impl Operand<'g>) -> Self {
        let w = weight.in_graph(self.graph).widened().rounded();
        let x = self.widened().rounded();
        let ([_, inputs], [.., last]) = (w.dims::<2>(), self.shape().full());
        assert_eq!(last, inputs, "linear: {self:?} by weight {w:?}");
        // CUDA would add up in F16, which ends at 65,504, or round operands to BF16.
        w.binary(x.operand().raw, sys::ggml_mul_mat).accumulated(sys::GGML_PREC_F32)
    }

    /// `x @ yᵀ` over the two inner dimensions, matrix by matrix: `[.., N, K]` by `[.., M, K]`
    /// gives `[.., N, M]`.
    #[track_caller]
    pub fn matmul_transposed(self, y: Tensor<'g>) -> Self {
        let ([a, b, _, k], [c, d, _, l]) = (self.shape().full(), y.shape().full());
        assert_eq!(([a, b], k), ([c, d], l), "matmul: {self:?} by {y:?}");
        let (x, y) = (self.rounded().operand(), y.rounded().operand());
        y.binary(x.raw, sys::ggml_mul_mat).accumulated(sys::GGML_PREC_F32)
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
        self.cast(sys::GGML_TYPE_F32)
    }

    /// An operand as the graph's precision has it.
    #[track_caller]
    pub(super) fn rounded(self) -> Self {
        match self.graph.precision {
            Precision::Halved => {
                self.contiguous().cast(sys::GGML_TYPE_F16).cast(sys::GGML_TYPE_F32)
            }
            Precision::Native | Precision::Strict => self,
        }
    }

    #[track_caller]
    fn cast(self, dtype: sys::ggml_type) -> Self {
        // SAFETY: the node is alive for `'g`; ggml casts every type to F32, and F32 to F16.
        self.graph.node(|c| unsafe { sys::ggml_cast(c, self.raw.as_ptr(), dtype) })
    }
}
