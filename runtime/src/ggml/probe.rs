//! A graph of one node, run after each real one. `ggml_backend_graph_compute` gives the status of a
//! submission, not of its end: Metal notices a failed command buffer when it synchronizes, keeps it
//! to itself, and refuses the next graph. So the next graph is one that costs nothing.

use super::graph::Node;
use super::{ComputeError, log};
use ggml_sys as sys;
use std::ptr::NonNull;

pub(super) struct Probe {
    ctx: NonNull<sys::ggml_context>,
    buffer: NonNull<sys::ggml_backend_buffer>,
    graph: NonNull<sys::ggml_cgraph>,
    result: Node,
}

/// What the node's input holds, and what must come out: twice that.
const INPUT: f32 = 21.0;

impl Probe {
    /// # Safety
    /// `backend` is valid.
    pub(super) unsafe fn new(backend: NonNull<sys::ggml_backend>) -> Result<Self, ComputeError> {
        let overhead = {
            // SAFETY: no arguments, no state.
            unsafe { 4 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(4, false) }
        };
        // SAFETY: the context has room for two tensors and the graph; pointers are checked before use.
        unsafe {
            let ctx = NonNull::new(sys::ggml_init(sys::ggml_init_params {
                mem_size: overhead,
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            }))
            .expect("ggml_init");
            let ne = [1, 1, 1, 1];
            let input = sys::ggml_new_tensor(ctx.as_ptr(), sys::GGML_TYPE_F32, 4, ne.as_ptr());
            let result = sys::ggml_scale_bias(ctx.as_ptr(), input, 2.0, 0.0);
            let graph = sys::ggml_new_graph_custom(ctx.as_ptr(), 4, false);
            sys::ggml_build_forward_expand(graph, result);
            let buffer = sys::ggml_backend_alloc_ctx_tensors(ctx.as_ptr(), backend.as_ptr());
            let Some(buffer) = NonNull::new(buffer) else {
                sys::ggml_free(ctx.as_ptr());
                return Err(ComputeError::OutOfMemory { bytes: 2 * size_of::<f32>() });
            };
            let bytes = size_of::<f32>();
            let value = INPUT;
            sys::ggml_backend_tensor_set(input, (&raw const value).cast(), 0, bytes);
            let (graph, result) = (NonNull::new(graph), NonNull::new(result));
            Ok(Self { ctx, buffer, graph: graph.expect("graph"), result: result.expect("node") })
        }
    }

    /// Waits for what was submitted before, and fails if any of it did.
    ///
    /// # Safety
    /// `backend` is the one that `new` was given.
    pub(super) unsafe fn check(
        &self,
        backend: NonNull<sys::ggml_backend>,
    ) -> Result<(), ComputeError> {
        let mut value = 0f32;
        // SAFETY: by contract; graph and tensors live in `self`.
        let status = unsafe {
            sys::ggml_backend_synchronize(backend.as_ptr());
            let status = sys::ggml_backend_graph_compute(backend.as_ptr(), self.graph.as_ptr());
            let bytes = size_of::<f32>();
            let to = (&raw mut value).cast();
            sys::ggml_backend_tensor_get(self.result.as_ptr(), to, 0, bytes);
            status
        };
        if let Some(said) = log::take_error() {
            return Err(ComputeError::Reported(said));
        }
        match status {
            sys::GGML_STATUS_SUCCESS if value == 2.0 * INPUT => Ok(()),
            sys::GGML_STATUS_SUCCESS => Err(ComputeError::Probe { expected: 2.0 * INPUT, value }),
            status => Err(ComputeError::Failed(status)),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe {
            sys::ggml_backend_buffer_free(self.buffer.as_ptr());
            sys::ggml_free(self.ctx.as_ptr());
        }
    }
}
