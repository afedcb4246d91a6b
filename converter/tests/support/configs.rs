//! The JSON files of the tests' checkpoints, with the keys of the real ones that matter.

use super::VOCAB;
use serde_json::{Value, json};

pub(super) fn model_index() -> Value {
    json!({
        "_class_name": "WanPipeline",
        "boundary_ratio": 0.875,
        "expand_timesteps": false,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    })
}

pub(super) fn scheduler() -> Value {
    json!({
        "_class_name": "UniPCMultistepScheduler",
        "flow_shift": 3.0,
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "solver_order": 2,
        "solver_type": "bh2",
        "use_flow_sigmas": true,
    })
}

pub(super) fn umt5() -> Value {
    json!({
        "model_type": "umt5",
        "feed_forward_proj": "gated-gelu",
        "vocab_size": VOCAB,
        "d_model": 256,
        "d_ff": 512,
        "d_kv": 64,
        "num_heads": 4,
        "num_layers": 2,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "eos_token_id": 1,
        "pad_token_id": 0,
    })
}

/// Laid out as the real one's.
pub(super) fn tokenizer() -> Value {
    let added = |id: u32, content: &str| json!({ "id": id, "content": content, "special": true });
    json!({
        "version": "1.0",
        "added_tokens": [
            added(0, "<pad>"), added(1, "</s>"), added(2, "<s>"), added(3, "<unk>"),
            added(9, "<extra_id_0>"),
        ],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Precompiled", "precompiled_charsmap": "AQID" },
            { "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " },
        ]},
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "</s>", "type_id": 0 } },
            ],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } },
        },
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [
                ["<pad>", 0.0], ["</s>", 0.0], ["<s>", 0.0], ["<unk>", 0.0],
                ["<0x0A>", 0.0], ["\u{2581}ball", -2.5], ["<0xZZ>", -3.25],
            ],
        },
    })
}

pub(super) fn vae() -> Value {
    json!({
        "_class_name": "AutoencoderKLWan",
        "base_dim": 4,
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "temperal_downsample": [false, true, true],
        "z_dim": 16,
        "latents_mean": (0..16).map(|i| -0.75 + 0.0625 * f64::from(i)).collect::<Vec<_>>(),
        "latents_std": (0..16).map(|i| 2.8184 - f64::from(i)).collect::<Vec<_>>(),
    })
}
