//! `torch.nn.Linear`.

use crate::ggml::{LoadError, Param, Scope, Tensor};

pub struct Linear {
    weight: Param,
    bias: Option<Param>,
}

impl Linear {
    /// The bias is optional in the file.
    pub fn new(w: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self, LoadError> {
        Ok(Self {
            weight: w.param("weight", [outputs, inputs])?,
            bias: w.has("bias").then(|| w.param("bias", [outputs])).transpose()?,
        })
    }

    /// `x`: `[.., inputs]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.fed_to(&self.weight);
        let y = x.linear(&self.weight);
        match &self.bias {
            Some(bias) => y + bias,
            None => y,
        }
    }
}
