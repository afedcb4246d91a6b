//! Sums, products and activation functions.

use crate::ggml::{Operand, Precision, Tensor};
use ggml_sys as sys;
use std::ops::{Add, Mul};

// CUDA's activation functions take contiguous tensors alone.
impl<'g> Tensor<'g> {
    /// `torch.nn.functional.silu(x)`: `x · sigmoid(x)`.
    #[track_caller]
    pub fn silu(self) -> Self {
        self.contiguous().unary(sys::ggml_silu)
    }

    /// `x²`.
    #[track_caller]
    pub(in crate::ggml) fn squares(self) -> Self {
        self.contiguous().unary(sys::ggml_sqr)
    }

    /// `torch.nn.functional.gelu(x, approximate="tanh")`. ggml's CPU backend looks it up in an F16
    /// table (an error of 6e-4, which would hide a wrong variant); strict runs spell it out.
    #[track_caller]
    pub fn gelu_tanh(self) -> Self {
        match self.graph.precision {
            Precision::Native => self.contiguous().unary(sys::ggml_gelu),
            Precision::Strict | Precision::Halved => {
                let x = self.contiguous();
                let cubic = x.unary(sys::ggml_sqr) * 0.044_715 + 1.0;
                let inner = x * cubic * std::f32::consts::FRAC_2_PI.sqrt();
                (x * 0.5) * (inner.unary(sys::ggml_tanh) + 1.0)
            }
        }
    }

    /// `torch.nn.functional.gelu(x)`, by the error function; ggml computes it in F32 everywhere.
    #[track_caller]
    pub fn gelu_erf(self) -> Self {
        self.contiguous().unary(sys::ggml_gelu_erf)
    }

    #[track_caller]
    fn broadcast(self, rhs: impl Operand<'g>, op: &str, f: super::BinaryOp) -> Self {
        let (x, y) = (self.dense_rows(), rhs.in_graph(self.graph).dense_rows());
        // SAFETY: both nodes are alive for `'g`.
        let fits = unsafe { sys::ggml_can_repeat(y.raw.as_ptr(), x.raw.as_ptr()) };
        assert!(fits, "{op}: {y:?} doesn't broadcast to {x:?}");
        x.binary(y.raw, f)
    }

    #[track_caller]
    fn affine(self, scale: f32, bias: f32) -> Self {
        let x = self.contiguous();
        // SAFETY: the node is alive for `'g`, and contiguous, as ggml asserts.
        self.graph.node(|ctx| unsafe { sys::ggml_scale_bias(ctx, x.raw.as_ptr(), scale, bias) })
    }
}

/// `rhs` is repeated along dimensions where it has 1; the left side never is.
impl<'g, R: Operand<'g>> Add<R> for Tensor<'g> {
    type Output = Self;

    #[track_caller]
    fn add(self, rhs: R) -> Self {
        self.broadcast(rhs, "add", sys::ggml_add)
    }
}

/// `rhs` is repeated along dimensions where it has 1; the left side never is.
impl<'g, R: Operand<'g>> Mul<R> for Tensor<'g> {
    type Output = Self;

    #[track_caller]
    fn mul(self, rhs: R) -> Self {
        self.broadcast(rhs, "mul", sys::ggml_mul)
    }
}

impl Add<f32> for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn add(self, rhs: f32) -> Self {
        self.affine(1.0, rhs)
    }
}

impl Mul<f32> for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn mul(self, rhs: f32) -> Self {
        self.affine(rhs, 0.0)
    }
}
