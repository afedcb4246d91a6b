//! Tensors in host memory: what goes into a run, and what comes out of it.

use super::Shape;
use std::ops::Range;
use std::sync::Arc;

/// F32 values in host memory, row-major, cheap to clone.
#[derive(Clone, Debug)]
pub struct HostTensor {
    /// In PyTorch order, outermost dimension first.
    pub shape: Shape,
    /// One value for each element of `shape`.
    pub data: Arc<[f32]>,
}

impl HostTensor {
    /// `data` in the order of PyTorch: the last dimension of `shape` runs fastest. Panics unless it has
    /// as many values.
    #[track_caller]
    pub fn new(shape: impl Into<Shape>, data: impl Into<Arc<[f32]>>) -> Self {
        let (shape, data) = (shape.into(), data.into());
        assert_eq!(shape.elements(), data.len(), "{shape:?} needs {} values", shape.elements());
        Self { shape, data }
    }

    /// All values 0.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self::new(shape, vec![0.0; shape.elements()])
    }

    /// Some rows of a matrix.
    #[track_caller]
    pub fn rows(&self, range: Range<i64>) -> Self {
        let [_, columns] = self.shape.dims();
        let values = (range.start * columns) as usize..(range.end * columns) as usize;
        Self::new([range.end - range.start, columns], &self.data[values])
    }
}
