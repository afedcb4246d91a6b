//! What cross-attention attends to: computed once per prompt (and image) and expert.

use crate::ggml::{ComputeError, DeviceTensor, Executor, Graph, Tensor};

/// For every block, in order.
pub struct Conditioning {
    pub(super) blocks: Vec<BlockContext>,
}

/// What one block's cross-attention attends to.
pub(super) struct BlockContext {
    /// `[N, text_len, D]`.
    pub(super) text: KeysValues,
    /// `[N, M, D]`, for models with an image encoder.
    pub(super) image: Option<KeysValues>,
}

/// Keys (after their norm) and values on the device.
pub(super) struct KeysValues {
    pub(super) keys: DeviceTensor,
    pub(super) values: DeviceTensor,
}

/// A [`BlockContext`] in a graph.
#[derive(Clone, Copy)]
pub(super) struct Attended<'g> {
    pub(super) text: (Tensor<'g>, Tensor<'g>),
    pub(super) image: Option<(Tensor<'g>, Tensor<'g>)>,
}

impl KeysValues {
    /// `[N, M, D]` each, as the device wants operands; what is in them is anybody's guess.
    pub(super) fn new(exec: &Executor, shape: [i64; 3]) -> Result<Self, ComputeError> {
        let state = || DeviceTensor::new(exec.device(), shape, exec.device().operands());
        Ok(Self { keys: state()?, values: state()? })
    }

    pub(super) fn read<'g>(&self, g: &'g Graph) -> (Tensor<'g>, Tensor<'g>) {
        (g.read(&self.keys), g.read(&self.values))
    }

    /// Stores keys and values of the tokens from `first` on.
    pub(super) fn write_at<'g>(&self, g: &'g Graph, first: i64, (k, v): (Tensor<'g>, Tensor<'g>)) {
        g.write_at(&self.keys, [0, 0, first, 0], k);
        g.write_at(&self.values, [0, 0, first, 0], v);
    }
}

impl BlockContext {
    pub(super) fn read<'g>(&self, g: &'g Graph) -> Attended<'g> {
        Attended { text: self.text.read(g), image: self.image.as_ref().map(|kv| kv.read(g)) }
    }
}
