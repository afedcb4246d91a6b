//! What is added to a file's weights where they are used: low-rank adapters (LoRA, Hu et al. 2021,
//! arXiv 2106.09685) and differences. Quantized weights stay as they are: `x (W + B A)ᵀ` is computed as
//! `x Wᵀ + (x Aᵀ) Bᵀ`.

use super::{LoadError, Param, Scope, Storage, Tensor};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// F32 values, row-major, that are read when they are needed.
pub type Source = Rc<dyn Fn() -> Vec<f32>>;

/// One change of one tensor.
#[derive(Clone)]
pub struct Adapter {
    /// What is added, before it is scaled.
    pub change: Change,
    /// The change is multiplied by it.
    pub scale: f32,
}

/// What an adapter adds to a tensor.
#[derive(Clone)]
pub enum Change {
    /// `up @ down`, for a tensor whose outermost dimension is O, and the others together I.
    Product {
        /// `[O, rank]`.
        up: Source,
        /// `[rank, I]`.
        down: Source,
        /// Columns of `up`, rows of `down`.
        rank: i64,
    },
    /// As large as the tensor.
    Difference(Source),
}

/// Changes by the tensor's name.
pub type Adapters = BTreeMap<String, Vec<Adapter>>;

/// A matrix `[O, I]` and what is added to it.
pub struct Matrix {
    /// `[O, I]`, as it lies in the file.
    pub weight: Param,
    added: Vec<Added>,
}

enum Added {
    LowRank {
        /// `[O, rank]`, scaled.
        up: Param,
        /// `[rank, I]`.
        down: Param,
    },
    /// `[O, I]`, scaled.
    Whole(Param),
}

impl Matrix {
    /// The matrix `name` of `scope`, which must be `[outputs, inputs]`.
    pub(super) fn new(
        scope: &Scope<'_>,
        name: &str,
        [outputs, inputs]: [i64; 2],
    ) -> Result<Self, LoadError> {
        let weight = scope.stored(name, &[outputs, inputs])?;
        let mut added = Vec::new();
        for Adapter { change, scale } in scope.take_adapters(name) {
            let param = |shape: [i64; 2], values: Source, scale: f32| {
                let values = move || values().iter().map(|v| scale * v).collect();
                scope.made(name, shape, scope.operands(), values)
            };
            added.push(match change {
                Change::Product { up, down, rank } => Added::LowRank {
                    up: param([outputs, rank], up, scale)?,
                    down: param([rank, inputs], down, 1.0)?,
                },
                Change::Difference(values) => {
                    Added::Whole(param([outputs, inputs], values, scale)?)
                }
            });
        }
        Ok(Self { weight, added })
    }

    /// `x`: `[.., I]`; gives `[.., O]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.fed_to(&self.weight);
        self.added.iter().fold(x.linear(&self.weight), |y, added| match added {
            Added::LowRank { up, down } => y + x.linear(down).linear(up),
            Added::Whole(difference) => y + x.linear(difference),
        })
    }
}

impl Adapter {
    /// Adds the change to a tensor's `values`, of `outputs` rows.
    pub(super) fn add_to(&self, values: &mut [f32], outputs: usize) {
        match &self.change {
            Change::Difference(difference) => {
                let pairs = values.iter_mut().zip(difference());
                pairs.for_each(|(value, difference)| *value += self.scale * difference);
            }
            Change::Product { up, down, rank } => {
                let (up, down, rank) = (up(), down(), *rank as usize);
                let inputs = values.len() / outputs;
                for (row, up) in values.chunks_exact_mut(inputs).zip(up.chunks_exact(rank)) {
                    for (factor, down) in up.iter().zip(down.chunks_exact(inputs)) {
                        let pairs = row.iter_mut().zip(down);
                        pairs.for_each(|(value, down)| *value += self.scale * factor * down);
                    }
                }
            }
        }
    }
}

impl Scope<'_> {
    /// The matrix `name`, which must be `shape` `[O, I]`, with what is added to it.
    pub fn matrix(&self, name: &str, shape: [i64; 2]) -> Result<Matrix, LoadError> {
        Matrix::new(self, name, shape)
    }

    /// A tensor of `shape` made at load; nobody knows its values in dry runs.
    fn made(
        &self,
        name: &str,
        shape: [i64; 2],
        storage: Storage,
        values: impl FnOnce() -> Vec<f32>,
    ) -> Result<Param, LoadError> {
        let values = (!self.is_dry()).then(values);
        self.owned(&self.join(&name), shape.into(), storage, values)
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.change {
            Change::Product { rank, .. } => write!(f, "{} x rank {rank}", self.scale),
            Change::Difference(_) => write!(f, "{} x difference", self.scale),
        }
    }
}
