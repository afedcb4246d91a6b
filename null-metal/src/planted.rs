//! Graphs that must not pass: what proves that the gate closes.

use ggml_sys as sys;

/// A graph of one node, and what is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// `IM2COL_3D`, which Metal doesn't have.
    UnsupportedOp,
    /// Accepted by ggml, which then runs the F32 kernel on it.
    Bf16Norm,
    /// Accepted by ggml, which then ends the process.
    AttentionOf70000Rows,
}

/// Encodes the graph on the null device that was registered.
pub fn run_planted(planted: Planted) {
    // SAFETY: one context with room for all tensors, freed last; every tensor gets its memory from
    // the device's own buffer type.
    unsafe {
        let ctx = sys::ggml_init(sys::ggml_init_params {
            mem_size: 1 << 20,
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        });
        let tensor = |dtype, ne: [i64; 4]| sys::ggml_new_tensor(ctx, dtype, 4, ne.as_ptr());
        let (f32, f16) = (sys::GGML_TYPE_F32, sys::GGML_TYPE_F16);
        let node = match planted {
            Planted::UnsupportedOp => {
                let (kernel, image) = (tensor(f16, [3, 3, 3, 64]), tensor(f32, [8, 8, 8, 8]));
                sys::ggml_im2col_3d(ctx, kernel, image, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, f16)
            }
            Planted::Bf16Norm => {
                sys::ggml_rms_norm(ctx, tensor(sys::GGML_TYPE_BF16, [5120, 512, 1, 1]), 1e-6)
            }
            Planted::AttentionOf70000Rows => {
                let (q, kv) = (tensor(f32, [128, 70_000, 1, 1]), tensor(f16, [128, 512, 1, 1]));
                sys::ggml_flash_attn_ext(ctx, q, kv, kv, std::ptr::null_mut(), 0.1, 0.0, 0.0)
            }
        };
        let device = sys::ggml_backend_dev_by_name(c"MTL0".as_ptr());
        let backend = sys::ggml_backend_dev_init(device, std::ptr::null());
        let graph = sys::ggml_new_graph_custom(ctx, 8, false);
        sys::ggml_build_forward_expand(graph, node);
        let kind = sys::ggml_backend_dev_buffer_type(device);
        let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(ctx, kind);
        let _ = sys::ggml_backend_graph_compute(backend, graph);
        sys::ggml_backend_buffer_free(buffer);
        sys::ggml_backend_free(backend);
        sys::ggml_free(ctx);
    }
}
