//! `torch.nn.Linear`.

use crate::ggml::{LoadError, Matrix, Param, Scope, Tensor};

pub struct Linear {
    weight: Matrix,
    bias: Option<Param>,
}

impl Linear {
    /// The bias is optional in the file.
    pub fn new(w: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self, LoadError> {
        Ok(Self {
            weight: w.matrix("weight", [outputs, inputs])?,
            bias: w.has("bias").then(|| w.param("bias", [outputs])).transpose()?,
        })
    }

    /// `x`: `[.., inputs]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let y = self.weight.forward(x);
        match &self.bias {
            Some(bias) => y + bias,
            None => y,
        }
    }
}
