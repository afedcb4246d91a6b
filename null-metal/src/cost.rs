//! Seconds that a node would take on a chip, from its sizes alone.

use crate::Chip;
use ggml_sys as sys;

/// Share of the memory's bandwidth that simple kernels reach.
const STREAMING: f64 = 0.7;

pub(crate) fn seconds(chip: &Chip, node: &sys::ggml_tensor) -> f64 {
    let size = |t: &sys::ggml_tensor| t.ne.iter().map(|&n| n as f64).product::<f64>();
    // SAFETY: sources of a live node are alive; types are ggml's own.
    let source = |i: usize| unsafe { node.src[i].as_ref() };
    // SAFETY: as above.
    let bytes = |t: &sys::ggml_tensor| unsafe {
        size(t) * sys::ggml_type_size(t.type_) as f64 / sys::ggml_blck_size(t.type_) as f64
    };
    match (node.op, source(0), source(1)) {
        (sys::GGML_OP_MUL_MAT, Some(weight), _) => {
            2.0 * size(node) * weight.ne[0] as f64 / (chip.flops * chip.matmul)
        }
        (sys::GGML_OP_FLASH_ATTN_EXT, Some(q), Some(k)) => {
            4.0 * size(q) * k.ne[1] as f64 / (chip.flops * chip.attention)
        }
        (sys::GGML_OP_GET_ROWS, ..) => 2.0 * bytes(node) / (chip.bandwidth * STREAMING),
        (_, a, b) => {
            let read = a.map_or(0.0, bytes) + b.map_or(0.0, bytes);
            (bytes(node) + read) / (chip.bandwidth * STREAMING)
        }
    }
}
