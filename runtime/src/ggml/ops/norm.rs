//! Normalizations and sums over the innermost dimension. F32 only: on Metal, another type would be
//! accepted and computed wrong.

use crate::ggml::Tensor;
use ggml_sys as sys;

impl<'g> Tensor<'g> {
    /// `(x - mean) / sqrt(var + eps)`, with neither scale nor bias.
    #[track_caller]
    pub fn layer_norm(self, eps: f32) -> Self {
        let x = self.f32_rows("layer_norm");
        // SAFETY: the node is alive for `'g`, F32, with dense rows, as ggml asserts.
        self.graph.node(|ctx| unsafe { sys::ggml_norm(ctx, x.raw.as_ptr(), eps) })
    }

    /// `x / sqrt(mean(x²) + eps)`, without scale.
    #[track_caller]
    pub fn rms_norm(self, eps: f32) -> Self {
        let x = self.f32_rows("rms_norm");
        // SAFETY: as in `layer_norm`.
        self.graph.node(|ctx| unsafe { sys::ggml_rms_norm(ctx, x.raw.as_ptr(), eps) })
    }

    /// `softmax(scale · x + bias)`; `bias` is repeated over the outer dimensions.
    #[track_caller]
    pub fn softmax(self, scale: f32, bias: Option<Tensor<'g>>) -> Self {
        let x = self.f32_rows("softmax").contiguous().operand();
        let [_, heads, rows, columns] = x.shape().full();
        let bias = bias.map(|b| {
            let [one, h, r, c] = b.shape().full();
            assert_eq!((one, h, r, c), (1, heads, rows, columns), "softmax: bias {b:?} on {x:?}");
            b.contiguous().operand()
        });
        let mask = bias.map_or(std::ptr::null_mut(), |b| b.raw.as_ptr());
        // SAFETY: both nodes are alive for `'g`, contiguous and of the shapes that ggml asserts;
        // a null mask means none.
        self.graph.node(|c| unsafe { sys::ggml_soft_max_ext(c, x.raw.as_ptr(), mask, scale, 0.0) })
    }

    /// The sum of all values, `[1]`.
    #[track_caller]
    pub fn total(self) -> Self {
        let x = self.f32_rows("total");
        let [rows, columns] = [x.shape().elements() as i64, x.shape().full()[3]];
        // SAFETY: the node is alive for `'g`, F32, with dense rows.
        let sums = self.graph.node(|c| unsafe { sys::ggml_sum_rows(c, x.raw.as_ptr()) });
        let sums = sums.reshape([rows / columns]);
        // SAFETY: as above.
        self.graph.node(|c| unsafe { sys::ggml_sum_rows(c, sums.raw.as_ptr()) })
    }

    #[track_caller]
    fn f32_rows(self, op: &str) -> Self {
        // SAFETY: the node is alive for `'g`.
        let dtype = unsafe { self.raw.as_ref() }.type_;
        assert_eq!(dtype, sys::GGML_TYPE_F32, "{op}: {self:?} isn't F32");
        self.dense_rows()
    }
}
