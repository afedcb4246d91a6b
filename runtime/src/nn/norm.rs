//! Normalizations with learned scale.

use crate::ggml::{LoadError, Param, Scope, Tensor};

/// `torch.nn.LayerNorm` with scale and bias.
pub struct LayerNorm {
    weight: Param,
    bias: Param,
    eps: f32,
}

impl LayerNorm {
    /// Of rows of `dim`.
    pub fn new(w: Scope<'_>, dim: i64, eps: f32) -> Result<Self, LoadError> {
        Ok(Self { weight: w.param("weight", [dim])?, bias: w.param("bias", [dim])?, eps })
    }

    /// `x`: `[.., dim]`, each row by itself.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.layer_norm(self.eps) * &self.weight + &self.bias
    }
}

/// `torch.nn.RMSNorm`.
pub struct RmsNorm {
    weight: Param,
    eps: f32,
}

impl RmsNorm {
    /// Of rows of `dim`.
    pub fn new(w: Scope<'_>, dim: i64, eps: f32) -> Result<Self, LoadError> {
        Ok(Self { weight: w.param("weight", [dim])?, eps })
    }

    /// `x`: `[.., dim]`, each row by itself.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.rms_norm(self.eps) * &self.weight
    }
}
