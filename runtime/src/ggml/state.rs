//! Tensors that stay on the device from one graph to the next.

use super::graph::Node;
use super::{ComputeError, Device, HostTensor, Shape, dry};
use ggml_sys as sys;
use gguf::DType;
use std::any::Any;
use std::ptr::NonNull;
use std::rc::Rc;

/// How values are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// Four bytes a value.
    F32,
    /// Two bytes a value: enough for what GPUs round to F16 anyway.
    F16,
}

struct Owner {
    ctx: NonNull<sys::ggml_context>,
    buffer: NonNull<sys::ggml_backend_buffer>,
    raw: Node,
    device: Device,
}

impl Owner {
    fn bytes(&self) -> u64 {
        // SAFETY: the buffer is this value's own.
        unsafe { sys::ggml_backend_buffer_get_size(self.buffer.as_ptr()) as u64 }
    }
}

impl Storage {
    /// As files call it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }

    pub(super) fn ggml_type(self) -> sys::ggml_type {
        self.dtype().id() as sys::ggml_type
    }

    pub(super) fn bytes(self) -> i64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let bytes = self.bytes();
        self.device.book(|usage| usage.states -= bytes);
        // SAFETY: `DeviceTensor::new` made both; they are freed once, when no graph and no handle
        // refers to them any more.
        unsafe {
            sys::ggml_backend_buffer_free(self.buffer.as_ptr());
            sys::ggml_free(self.ctx.as_ptr());
        }
    }
}

/// One tensor in a buffer of its own on the device, zero at first. Graphs read it as an operand
/// and replace it with [`super::Graph::write`]. Clones share the values.
#[derive(Clone)]
pub struct DeviceTensor(Rc<Owner>);

impl DeviceTensor {
    /// Memory of its own on `device`.
    ///
    /// # Errors
    /// Where the device has no room for it.
    pub fn new(
        device: Device,
        shape: impl Into<Shape>,
        storage: Storage,
    ) -> Result<Self, ComputeError> {
        Self::of_type(device, shape.into(), storage.dtype())
    }

    /// The same of any type, with numbers that keep a product's results about as large as its inputs.
    pub(super) fn noise(
        device: Device,
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<Self, ComputeError> {
        /// Rows before they repeat.
        const DISTINCT: usize = 61;
        let shape = shape.into();
        let tensor = Self::of_type(device, shape, dtype)?;
        let [.., columns] = shape.full();
        let rows = shape.elements() / columns as usize;
        let scale = (3.0 / columns as f32).sqrt();
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            scale * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        let dtype = dtype.id() as sys::ggml_type;
        let values: Vec<f32> = (0..DISTINCT * columns as usize).map(|_| next()).collect();
        // SAFETY: plain data in and out: as many values as rows of `columns` have, and room for what
        // they become; each piece lies within the tensor, which is allocated.
        unsafe {
            let row = sys::ggml_row_size(dtype, columns);
            let mut bytes = vec![0u8; DISTINCT * row];
            let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast());
            sys::ggml_quantize_chunk(
                dtype,
                from,
                to,
                0,
                DISTINCT as i64,
                columns,
                std::ptr::null(),
            );
            for first in (0..rows).step_by(DISTINCT) {
                let count = DISTINCT.min(rows - first) * row;
                let data = bytes.as_ptr().cast();
                sys::ggml_backend_tensor_set(tensor.raw().as_ptr(), data, first * row, count);
            }
        }
        Ok(tensor)
    }

    /// The same of any type, with `values` as ggml rounds them to it.
    ///
    /// Panics if rows aren't whole blocks of `dtype`, or if ggml makes none without an importance
    /// matrix.
    pub fn holding(
        device: Device,
        values: &HostTensor,
        dtype: DType,
    ) -> Result<Self, ComputeError> {
        let tensor = Self::of_type(device, values.shape, dtype)?;
        let [.., columns] = values.shape.full();
        let rows = values.shape.elements() as i64 / columns;
        let dtype = dtype.id() as sys::ggml_type;
        // SAFETY: plain data in and out: as many values as the tensor has, and room for what they
        // become; the tensor is allocated.
        unsafe {
            assert_eq!(columns % sys::ggml_blck_size(dtype), 0, "{columns} columns");
            assert!(!sys::ggml_quantize_requires_imatrix(dtype), "an importance matrix is needed");
            let mut bytes = vec![0u8; sys::ggml_row_size(dtype, columns) * rows as usize];
            let (from, to) = (values.data.as_ptr(), bytes.as_mut_ptr().cast());
            sys::ggml_quantize_chunk(dtype, from, to, 0, rows, columns, std::ptr::null());
            let data = bytes.as_ptr().cast();
            sys::ggml_backend_tensor_set(tensor.raw().as_ptr(), data, 0, bytes.len());
        }
        Ok(tensor)
    }

    fn of_type(device: Device, shape: Shape, dtype: DType) -> Result<Self, ComputeError> {
        let (ne, dtype) = (shape.to_ne(), dtype.id() as sys::ggml_type);
        // SAFETY: a `no_alloc` context holds the one tensor's metadata; the device is registered
        // for the program; every pointer is checked before use.
        unsafe {
            let ctx = NonNull::new(sys::ggml_init(sys::ggml_init_params {
                mem_size: 2 * sys::ggml_tensor_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            }))
            .expect("ggml_init");
            let raw = NonNull::new(sys::ggml_new_tensor(ctx.as_ptr(), dtype, 4, ne.as_ptr()))
                .expect("room for one tensor");
            let bytes = sys::ggml_nbytes(raw.as_ptr());
            let kind = dry::buffer_type(device);
            let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(ctx.as_ptr(), kind);
            let Some(buffer) = NonNull::new(buffer) else {
                sys::ggml_free(ctx.as_ptr());
                return Err(ComputeError::OutOfMemory { bytes });
            };
            sys::ggml_backend_buffer_clear(buffer.as_ptr(), 0);
            let owner = Owner { ctx, buffer, raw, device };
            let bytes = owner.bytes();
            device.book(|usage| usage.states += bytes);
            Ok(Self(Rc::new(owner)))
        }
    }

    /// In PyTorch order, padded with ones on the outside to four dimensions.
    pub fn shape(&self) -> Shape {
        // SAFETY: the node lives in this value's own context.
        Shape::from_ne(unsafe { self.0.raw.as_ref() }.ne)
    }

    pub(super) fn raw(&self) -> Node {
        self.0.raw
    }

    pub(super) fn owner(&self) -> Rc<dyn Any> {
        self.0.clone()
    }
}
