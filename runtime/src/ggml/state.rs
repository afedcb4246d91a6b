//! Tensors that stay on the device from one graph to the next.

use super::graph::Node;
use super::{ComputeError, Device, Shape, dry};
use ggml_sys as sys;
use std::any::Any;
use std::ptr::NonNull;
use std::rc::Rc;

/// How values are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    F32,
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
    pub(super) fn dtype(self) -> sys::ggml_type {
        match self {
            Self::F32 => sys::GGML_TYPE_F32,
            Self::F16 => sys::GGML_TYPE_F16,
        }
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
    pub fn new(
        device: Device,
        shape: impl Into<Shape>,
        storage: Storage,
    ) -> Result<Self, ComputeError> {
        let dtype = storage.dtype();
        let ne = shape.into().to_ne();
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
