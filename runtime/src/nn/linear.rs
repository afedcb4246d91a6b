//! `torch.nn.Linear`.

use crate::ggml::{LoadError, Matrix, Param, Scope, Tensor};

/// `x` by the transposed weight `[outputs, inputs]`, plus the bias `[outputs]`.
pub struct Linear {
    weight: Matrix,
    bias: Option<Param>,
}

impl Linear {
    /// With a bias, without which the file is damaged.
    pub fn new(w: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self, LoadError> {
        let bias = Some(w.param("bias", [outputs])?);
        Ok(Self { weight: w.matrix("weight", [outputs, inputs])?, bias })
    }

    /// The reference's `bias=False`.
    pub fn without_bias(w: Scope<'_>, inputs: i64, outputs: i64) -> Result<Self, LoadError> {
        Ok(Self { weight: w.matrix("weight", [outputs, inputs])?, bias: None })
    }

    /// `x`: `[.., inputs]` to `[.., outputs]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let y = self.weight.forward(x);
        match &self.bias {
            Some(bias) => y + bias,
            None => y,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Linear;
    use crate::ggml::{Device, Weights};
    use gguf::{DType, File, Metadata, TensorSpec, Writer};
    use std::sync::Arc;

    fn weights(names: &[&str]) -> Weights {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let spec = |name: &&str| {
            let shape = if name.ends_with("bias") { vec![2] } else { vec![2, 4] };
            TensorSpec { name: (*name).to_owned(), shape, dtype: DType::F32 }
        };
        let specs = names.iter().map(spec).collect();
        let mut writer = Writer::create(&path, &Metadata::new(), specs).unwrap();
        names.iter().for_each(|_| writer.skip().unwrap());
        writer.finish().unwrap();
        Weights::load(Arc::new(File::open(&path).unwrap()), Device::cpu()).unwrap()
    }

    /// Without its bias a layer computes something, and nothing would tell that it is wrong.
    #[test]
    fn a_bias_is_there_or_isnt_as_the_reference_says() {
        let (bare, whole) = (weights(&["x.weight"]), weights(&["x.weight", "x.bias"]));
        let error = Linear::new(bare.root().at("x"), 4, 2).err().expect("no bias");
        assert!(error.to_string().contains("x.bias"), "{error}");
        assert!(Linear::without_bias(bare.root().at("x"), 4, 2).is_ok());
        assert!(Linear::without_bias(whole.root().at("x"), 4, 2).is_ok());
        assert!(whole.expect_all_used().is_err());
        assert!(Linear::new(whole.root().at("x"), 4, 2).is_ok());
        assert!(whole.expect_all_used().is_ok());
    }
}
