//! The rules by which loaders take a file or refuse it.
//!
//! ComfyUI-GGUF: `loader.py`, `ops.py`. stable-diffusion.cpp: `model.cpp`, `gguf_reader_ext.h`.
//! diffusers: `loaders/single_file_utils.py`, `quantizers/gguf`; for the text encoder, transformers:
//! `modeling_gguf_pytorch_utils.py`. What is known of them is of 2026.

use gguf::{DType, File, Metadata, Tensor, Value};

use super::Verdict;
use crate::shape;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Transformer,
    DiffusersTransformer,
    Encoder,
    ImageEncoder,
    Vae,
    Unknown,
}

/// What the rules ask about.
pub(super) struct Facts<'a> {
    pub(super) metadata: &'a Metadata,
    tensors: &'a [Tensor],
    pub(super) kind: Kind,
    /// In front of the transformer's names.
    pub(super) prefix: &'static str,
}

impl<'a> Facts<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        let prefixes = ["", "model.diffusion_model.", "diffusion_model."];
        let has = |name: &str| {
            prefixes.into_iter().find(|prefix| file.tensor(&format!("{prefix}{name}")).is_some())
        };
        let (kind, prefix) = if let Some(prefix) = has("blocks.0.self_attn.q.weight") {
            (Kind::Transformer, prefix)
        } else if let Some(prefix) = has("blocks.0.attn1.to_q.weight") {
            (Kind::DiffusersTransformer, prefix)
        } else if has("enc.blk.0.attn_q.weight") == Some("") {
            (Kind::Encoder, "")
        } else if has("decoder.conv1.weight").is_some() {
            (Kind::Vae, "")
        } else if has("vision_model.embeddings.class_embedding") == Some("") {
            (Kind::ImageEncoder, "")
        } else {
            (Kind::Unknown, "")
        };
        Self { metadata: file.metadata(), tensors: file.tensors(), kind, prefix }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        let whole = format!("{}{name}", self.prefix);
        self.tensors.iter().find(|tensor| tensor.name == whole)
    }

    pub(super) fn architecture(&self) -> Option<&str> {
        self.metadata.string("general.architecture").ok()
    }

    fn first_array(&self) -> Option<&str> {
        let array = |(_, value): &(&str, &Value)| matches!(value, Value::Array(_));
        self.metadata.iter().find(array).map(|(key, _)| key)
    }

    /// Kernels of patch embeddings, by name.
    pub(super) fn patches(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().filter(|tensor| tensor.name.ends_with("patch_embedding.weight"))
    }

    /// The first tensor for which something holds.
    fn find(&self, wrong: impl Fn(&Tensor) -> bool) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| wrong(tensor))
    }
}

const PLAIN: [DType; 2] = [DType::F32, DType::F16];
/// The quantized types that ComfyUI-GGUF and diffusers dequantize on the device.
const FAST: [DType; 12] = [
    DType::Q8_0,
    DType::Q5_1,
    DType::Q5_0,
    DType::Q4_1,
    DType::Q4_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_NL,
    DType::IQ4_XS,
];
const COMFY_UNETS: [&str; 12] = [
    "flux",
    "sd1",
    "sdxl",
    "sd3",
    "aura",
    "hidream",
    "cosmos",
    "ltxv",
    "hyvid",
    "wan",
    "lumina2",
    "qwen_image",
];
const COMFY_ENCODERS: [&str; 6] = ["t5", "t5encoder", "llama", "qwen2vl", "qwen3", "qwen3vl"];

/// What every transformer of Wan has; loaders fill in whatever else is missing with noise.
const ESSENTIAL: [&str; 6] = [
    "head.modulation",
    "head.head.weight",
    "blocks.0.ffn.0.weight",
    "patch_embedding.weight",
    "text_embedding.0.weight",
    "time_projection.1.weight",
];

pub(super) fn original_names(facts: &Facts<'_>, verdict: &mut Verdict) -> bool {
    match facts.kind {
        Kind::Transformer => {
            for name in ESSENTIAL.iter().filter(|name| facts.get(name).is_none()) {
                verdict.problems.push(format!("the tensor {name:?} is missing"));
            }
            true
        }
        Kind::DiffusersTransformer => {
            let problem = "the tensors have diffusers' names; convert the file with to-gguf";
            verdict.problems.push(problem.into());
            false
        }
        _ => {
            verdict.problems.push("its tensors are those of no Wan model".into());
            false
        }
    }
}

pub(super) fn comfyui(facts: &Facts<'_>, verdict: &mut Verdict) {
    let architecture = facts.architecture();
    let known = match architecture {
        None | Some("pig" | "cow") => {
            verdict.notes.push("the architecture is told by the tensors' names".into());
            true
        }
        Some(name) => COMFY_UNETS.contains(&name) || COMFY_ENCODERS.contains(&name),
    };
    match facts.kind {
        Kind::Vae => {
            let problem = "no node loads a VAE from GGUF; use the .safetensors file (--publish)";
            return verdict.problems.push(problem.into());
        }
        Kind::ImageEncoder => {
            let problem =
                "no node loads an image encoder from GGUF; use the .safetensors file (--publish)";
            return verdict.problems.push(problem.into());
        }
        Kind::Encoder => comfyui_encoder(facts, verdict),
        _ => {
            if original_names(facts, verdict) {
                comfyui_transformer(facts, verdict);
            }
        }
    }
    if !known {
        let name = architecture.unwrap_or("");
        verdict
            .problems
            .push(format!("Unexpected architecture type: \"general.architecture\" is {name:?}"));
    }
    let slow = |tensor: &Tensor| {
        !PLAIN.contains(&tensor.dtype)
            && tensor.dtype != DType::BF16
            && !FAST.contains(&tensor.dtype)
    };
    if let Some(tensor) = facts.find(slow) {
        verdict
            .notes
            .push(format!("{} is dequantized by numpy, far too slowly to use", tensor.dtype));
    }
}

fn comfyui_encoder(facts: &Facts<'_>, verdict: &mut Verdict) {
    let embedding = facts.get("token_embd.weight").map(|tensor| tensor.shape.clone());
    if embedding.as_deref() != Some(&[256_384, 4096]) {
        verdict.problems.push(format!(
            "the tokenizer is only rebuilt for embeddings of [256384, 4096], not {:?}",
            embedding.unwrap_or_default()
        ));
    }
    if facts.metadata.get("tokenizer.ggml.tokens").is_none() {
        verdict.problems.push("there is no tokenizer in the metadata".into());
    }
}

fn comfyui_transformer(facts: &Facts<'_>, verdict: &mut Verdict) {
    for tensor in facts.patches() {
        let original = shape::original(facts.metadata, &tensor.name, &tensor.shape);
        if tensor.shape.len() != 5 && original.is_none_or(|shape| shape.len() != 5) {
            verdict.problems.push(format!(
                "{:?} is {:?} without its shape in the metadata, so the model would be taken for \
                 another; `to-gguf rewrap --layout 5d` restores it",
                tensor.name, tensor.shape
            ));
        }
    }
    let packed = |tensor: &Tensor| {
        !PLAIN.contains(&tensor.dtype)
            && (tensor.shape.len() > 2 || tensor.name.contains("modulation"))
    };
    if let Some(tensor) = facts.find(packed) {
        verdict.problems.push(format!(
            "{:?} is {}: only F32 and F16 work for tensors that are no matrices",
            tensor.name, tensor.dtype
        ));
    }
    let lost = |tensor: &Tensor| tensor.name.ends_with("modulation") && tensor.shape.len() != 3;
    if let Some(tensor) = facts.find(lost) {
        verdict.problems.push(format!(
            "{:?} is {:?}: its leading dimension of 1 is lost",
            tensor.name, tensor.shape
        ));
    }
    vector_types(facts, verdict);
}

/// Norms and biases can't be packed.
pub(super) fn vector_types(facts: &Facts<'_>, verdict: &mut Verdict) {
    let packed = |tensor: &Tensor| tensor.shape.len() == 1 && tensor.dtype.is_quantized();
    if let Some(tensor) = facts.find(packed) {
        verdict
            .problems
            .push(format!("{:?} is {}, but has one dimension", tensor.name, tensor.dtype));
    }
}

pub(super) fn sdcpp(facts: &Facts<'_>, verdict: &mut Verdict) {
    let five = facts.find(|tensor| tensor.shape.len() > 4);
    if let (Some(tensor), Some(key)) = (five, facts.first_array()) {
        verdict.problems.push(format!(
            "{:?} has five dimensions, and its reader for such files can't parse the array {key:?}",
            tensor.name
        ));
    }
    match facts.kind {
        Kind::Encoder => verdict.notes.push("it has a tokenizer of its own".into()),
        Kind::Vae | Kind::ImageEncoder => {}
        _ => {
            if original_names(facts, verdict)
                && facts.get("blocks.0.cross_attn.norm_k.weight").is_none()
            {
                verdict.problems.push(
                    "\"blocks.0.cross_attn.norm_k.weight\" is missing, by which it knows Wan"
                        .into(),
                );
            }
        }
    }
    let unknown =
        |tensor: &Tensor| matches!(tensor.dtype, DType::Q1_0 | DType::Q2_0 | DType::NVFP4);
    if let Some(tensor) = facts.find(unknown) {
        verdict.notes.push(format!("{} needs a build with a recent ggml", tensor.dtype));
    }
}

pub(super) fn diffusers(facts: &Facts<'_>, verdict: &mut Verdict) {
    match facts.kind {
        Kind::Vae => {
            return verdict
                .problems
                .push("it loads no VAE from GGUF; use the .safetensors file".into());
        }
        Kind::ImageEncoder => {
            let problem =
                "transformers loads no image encoder from GGUF; use the .safetensors file";
            return verdict.problems.push(problem.into());
        }
        Kind::Encoder => {
            // transformers tells UMT5 from T5 by the name alone.
            let name = facts.metadata.string("general.name").unwrap_or("").to_lowercase();
            if !name.contains("umt5") {
                verdict.problems.push(format!(
                    "transformers takes it for T5: \"general.name\" is {name:?}, without \"umt5\""
                ));
            }
            return;
        }
        Kind::Unknown => {
            return verdict.problems.push("its tensors are those of no Wan model".into());
        }
        Kind::Transformer | Kind::DiffusersTransformer => {}
    }
    for tensor in facts.patches() {
        if tensor.shape.len() != 5 {
            verdict.problems.push(format!(
                "{:?} is {:?}, not of five dimensions; `to-gguf rewrap --layout 5d` restores it",
                tensor.name, tensor.shape
            ));
        } else if !PLAIN.contains(&tensor.dtype) {
            verdict.problems.push(format!("{:?} is {}, not F32 or F16", tensor.name, tensor.dtype));
        }
    }
    let vector = |tensor: &Tensor| tensor.shape.len() == 1 && !PLAIN.contains(&tensor.dtype);
    if let Some(tensor) = facts.find(vector) {
        verdict.problems.push(format!("{:?} is {}, not F32 or F16", tensor.name, tensor.dtype));
    }
    let unknown = |tensor: &Tensor| {
        !PLAIN.contains(&tensor.dtype)
            && tensor.dtype != DType::BF16
            && !FAST.contains(&tensor.dtype)
    };
    if let Some(tensor) = facts.find(unknown) {
        verdict
            .problems
            .push(format!("{:?} is {}, which it can't dequantize", tensor.name, tensor.dtype));
    }
    // It knows 1536 channels and 5120 of text to video; the rest it takes for Wan 2.1's I2V-14B.
    let width =
        facts.patches().next().map(|tensor| (tensor.shape[0], tensor.shape.get(1).copied()));
    if !matches!(width, Some((1536, _) | (5120, Some(16)))) {
        verdict.notes.push(
            "from_single_file needs config= and subfolder=, or it takes the model for another"
                .into(),
        );
    }
}
