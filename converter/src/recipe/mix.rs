//! The mixtures of types behind names such as `Q4_K_M`: for Wan and HunyuanVideo those of the files in
//! circulation (city96's tools for ComfyUI), for the text encoder those of llama.cpp, which its
//! published files were made with. A name says which; a test holds Wan's and the encoder's to counts and
//! sizes of published files.
//!
//! All know tensors by place: `v` is an attention's value projection, `down` the second matrix of a
//! feed-forward network.

use gguf::DType;

use super::Quant;
use crate::arch::Tensor;

/// Which block, and which matrix of it, as far as mixtures tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The value projection: how many there are before it, in the order of the file.
    Value {
        seen: usize,
    },
    /// The second feed-forward matrix of this block.
    Down {
        block: usize,
    },
    /// Query, key and value projections in one.
    Fused,
    /// The token embeddings of a model without an output matrix.
    Embedding,
    Other,
}

/// Where each tensor is, in the order of the file.
pub(super) fn places(tensors: &[Tensor]) -> Vec<Place> {
    let mut seen = 0;
    let place = |tensor: &Tensor| {
        let parts: Vec<&str> = tensor.name.split('.').collect();
        match parts[..] {
            ["blocks", _, "self_attn" | "cross_attn", "v", "weight"]
            | ["enc", "blk", _, "attn_v", "weight"] => {
                seen += 1;
                Place::Value { seen: seen - 1 }
            }
            ["blocks", block, "ffn", "2", "weight"]
            | ["enc", "blk", block, "ffn_down", "weight"] => {
                Place::Down { block: block.parse().expect("tables number blocks") }
            }
            ["double_blocks", _, "img_attn_qkv" | "txt_attn_qkv", "weight"] => Place::Fused,
            ["token_embd", "weight"] => Place::Embedding,
            _ => Place::Other,
        }
    };
    tensors.iter().map(place).collect()
}

/// The type of a Wan block matrix. The blocks of VACE's second stack count as `Other`.
pub(super) fn wan(quant: Quant, place: Place) -> DType {
    use DType::{Q3_K, Q4_1, Q4_K, Q5_1, Q5_K, Q6_K};
    match (quant.name(), place) {
        ("Q2_K", Place::Value { .. }) => Q3_K,
        ("Q3_K_M", Place::Value { seen }) => {
            if seen < 2 {
                Q5_K
            } else {
                Q4_K
            }
        }
        ("Q3_K_M", Place::Down { .. }) => Q4_K,
        ("Q3_K_L", Place::Value { .. } | Place::Down { .. }) => Q5_K,
        ("Q4_0", Place::Down { .. }) => Q4_1,
        ("Q5_0", Place::Down { .. }) => Q5_1,
        ("Q4_K_S", Place::Value { seen }) if seen < 4 => Q5_K,
        ("Q4_K_S", Place::Down { .. }) => Q5_K,
        ("Q4_K_M" | "Q5_K_M", Place::Value { .. } | Place::Down { .. }) => Q6_K,
        _ => quant.dtype(),
    }
}

/// The type of a HunyuanVideo block matrix. The rules for feed-forward networks look for other names
/// than this model's, so its second matrices are of the main type.
pub(super) fn hunyuan_video(quant: Quant, place: Place) -> DType {
    match (quant.name(), place) {
        ("Q3_K_M" | "Q3_K_L", Place::Fused) => DType::Q4_K,
        ("Q4_K_M", Place::Fused) => DType::Q5_K,
        ("Q5_K_M", Place::Fused) => DType::Q6_K,
        _ => quant.dtype(),
    }
}

/// The type of a block matrix of the text encoder with `blocks` blocks (llama.cpp,
/// `llama_tensor_get_type`).
pub(super) fn encoder(quant: Quant, place: Place, blocks: usize, weighted: bool) -> DType {
    use DType::{Q3_K, Q4_1, Q4_K, Q5_1, Q5_K, Q6_K};
    // The first and last eighth, and every third block between them.
    let more = |n: usize| n < blocks / 8 || n >= 7 * blocks / 8 || (n - blocks / 8) % 3 == 2;
    match (quant.name(), place) {
        // Names that no published file has are of one type throughout.
        ("F32" | "F16" | "BF16" | "Q8_0" | "Q5_K" | "Q4_K" | "Q3_K", _) => quant.dtype(),
        (_, Place::Embedding) => Q6_K,
        ("Q2_K", Place::Value { .. } | Place::Down { .. }) => Q3_K,
        ("Q3_K_M", Place::Value { seen }) => {
            if seen < 2 {
                Q5_K
            } else {
                Q4_K
            }
        }
        ("Q3_K_M", Place::Down { block }) => {
            if block < blocks / 16 {
                Q5_K
            } else {
                Q4_K
            }
        }
        ("Q3_K_L", Place::Value { .. } | Place::Down { .. }) => Q5_K,
        ("Q4_K_S", Place::Value { seen }) if seen < 4 => Q5_K,
        ("Q4_K_S", Place::Down { block }) if block < blocks / 8 => Q5_K,
        ("Q4_K_M" | "Q5_K_M", Place::Value { seen: n } | Place::Down { block: n }) if more(n) => {
            Q6_K
        }
        ("IQ4_NL" | "IQ4_XS", Place::Down { block }) if block < blocks / 8 && !weighted => Q5_K,
        ("Q4_0", Place::Down { block }) if block < blocks / 8 && weighted => Q4_1,
        ("Q5_0", Place::Down { block }) if block < blocks / 8 && weighted => Q5_1,
        _ => quant.dtype(),
    }
}
