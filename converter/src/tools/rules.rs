//! The rules by which loaders take a file or refuse it.
//!
//! ComfyUI-GGUF: `loader.py`, `ops.py`. stable-diffusion.cpp: `model.cpp`, `gguf_reader_ext.h`. What is
//! known of them is of 2026; `tests/consumers` gives files to the programs themselves and compares.

use catalog::{Error, Given, Part, Recognized, recognize};
use gguf::{DType, File, Metadata, Tensor, Value};

use super::Verdict;
use crate::shape;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Transformer,
    DiffusersTransformer,
    HunyuanVideo15,
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
    /// The whole model, or what its tensors lack to be one.
    recognized: Result<Recognized, Error>,
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
        } else if let Some(prefix) = has("double_blocks.0.img_attn_qkv.weight") {
            (Kind::HunyuanVideo15, prefix)
        } else if has("enc.blk.0.attn_q.weight") == Some("") {
            (Kind::Encoder, "")
        } else if has("decoder.conv1.weight").is_some() {
            (Kind::Vae, "")
        } else if has("vision_model.embeddings.class_embedding") == Some("") {
            (Kind::ImageEncoder, "")
        } else {
            (Kind::Unknown, "")
        };
        // Which expert it is tells no loader; where nothing says it, the tensors are compared all the same.
        let parts = [None, Some(Part::Single), Some(Part::HighNoise)];
        let mut all = parts.into_iter().map(|part| recognize(&Given::from(file), part));
        let told = |found: &Result<Recognized, Error>| {
            !matches!(found, Err(Error::Ambiguous { .. } | Error::NoExpert { .. }))
        };
        let recognized = all.find(told).unwrap_or_else(|| recognize(&Given::from(file), None));
        Self { metadata: file.metadata(), tensors: file.tensors(), kind, prefix, recognized }
    }

    /// Why the tensors are not those of a whole model: loaders fill in what is missing with noise, or stop.
    fn flaw(&self) -> Option<String> {
        match self.recognized.as_ref().err()? {
            Error::Tensors { missing, .. } => match missing.as_slice() {
                [] => None,
                [name] => Some(format!("the tensor {name:?} is missing")),
                [name, rest @ ..] => {
                    Some(format!("the tensor {name:?} is missing, and {} others", rest.len()))
                }
            },
            Error::NoTensor { tensor, .. } => Some(format!("the tensor {tensor:?} is missing")),
            Error::Mismatch { tensor, found, wanted, .. } => {
                Some(format!("{tensor:?} is {found:?}, not {wanted:?}"))
            }
            Error::Shape { tensor, shape, .. } => Some(format!("{tensor:?} is {shape:?}")),
            Error::Channels { inputs, outputs, .. } => {
                Some(format!("no Wan model has {inputs} input and {outputs} output channels"))
            }
            Error::Inconsistent { what, .. } => Some(what.clone()),
            Error::Unknown { .. } if self.kind == Kind::HunyuanVideo15 => Some(
                "it is a transformer of HunyuanVideo 1.0's kind, which is not known here".into(),
            ),
            Error::Unknown { .. }
            | Error::HunyuanVideo15 { .. }
            | Error::Ambiguous { .. }
            | Error::NoExpert { .. } => None,
        }
    }

    /// The tensors that the model does not have.
    pub(super) fn unknown(&self) -> &[String] {
        match &self.recognized {
            Err(Error::Tensors { unknown, .. }) => unknown,
            _ => &[],
        }
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
        self.tensors.iter().filter(|tensor| shape::is_patch_embedding(&tensor.name))
    }

    /// The first tensor for which something holds.
    pub(super) fn find(&self, wrong: impl Fn(&Tensor) -> bool) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| wrong(tensor))
    }
}

pub(super) const PLAIN: [DType; 2] = [DType::F32, DType::F16];
/// The quantized types that ComfyUI-GGUF and diffusers dequantize on the device.
pub(super) const FAST: [DType; 12] = [
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

/// What is said of files that are nothing known.
pub(super) const NO_MODEL: &str = "its tensors are those of no Wan or HunyuanVideo 1.5 model";

/// Says what is wrong with a transformer's names and shapes, and whether other rules make sense.
pub(super) fn original_names(facts: &Facts<'_>, verdict: &mut Verdict) -> bool {
    match facts.kind {
        Kind::Transformer | Kind::HunyuanVideo15 => {
            whole(facts, verdict);
            true
        }
        Kind::DiffusersTransformer => {
            let problem = "the tensors have diffusers' names; convert the file with to-gguf";
            verdict.problems.push(problem.into());
            false
        }
        _ => {
            let problem = match &facts.recognized {
                Err(Error::HunyuanVideo15 { whose, .. }) => {
                    format!("HunyuanVideo 1.5 in {whose} names, which are not checked here")
                }
                _ => NO_MODEL.into(),
            };
            verdict.problems.push(problem);
            false
        }
    }
}

/// Every tensor of the model has to be there in its shape.
pub(super) fn whole(facts: &Facts<'_>, verdict: &mut Verdict) {
    verdict.problems.extend(facts.flaw());
    if let [first, ..] = facts.unknown() {
        verdict.notes.push(format!("{first:?} is no tensor of the model"));
    }
}

/// What is in front of the names must be nothing, or what the loader takes off.
pub(super) fn prefix_taken_off(facts: &Facts<'_>, verdict: &mut Verdict) {
    if !["", "model.diffusion_model."].contains(&facts.prefix) {
        verdict.problems.push(format!(
            "names begin with {:?}; `to-gguf rewrap --strip` takes it off",
            facts.prefix
        ));
    }
}

pub(super) fn comfyui(facts: &Facts<'_>, verdict: &mut Verdict) {
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
    // Its loaders of transformers and of text encoders know different ones.
    let encoder = facts.kind == Kind::Encoder;
    let known = if encoder { COMFY_ENCODERS.as_slice() } else { COMFY_UNETS.as_slice() };
    match facts.architecture() {
        None | Some("pig" | "cow") if !encoder => {
            verdict.notes.push("the architecture is told by the tensors' names".into());
        }
        Some(name) if known.contains(&name) => {}
        name => verdict.problems.push(format!(
            "Unexpected architecture type: \"general.architecture\" is {:?}",
            name.unwrap_or("missing")
        )),
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
    prefix_taken_off(facts, verdict);
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
    // Of HunyuanVideo's, the modulations are linear layers, but the conditions' embedding is not.
    let parameter =
        if facts.kind == Kind::HunyuanVideo15 { "cond_type_embedding" } else { "modulation" };
    let packed = |tensor: &Tensor| {
        !PLAIN.contains(&tensor.dtype)
            && (tensor.shape.len() > 2 || tensor.name.contains(parameter))
    };
    if let Some(tensor) = facts.find(packed) {
        verdict.problems.push(format!(
            "{:?} is {}: only F32 and F16 work for tensors of no linear layer",
            tensor.name, tensor.dtype
        ));
    }
    lost_dimension(facts, verdict);
    vector_types(facts, verdict);
}

/// Modulation has a leading dimension of 1, which some writers lose.
pub(super) fn lost_dimension(facts: &Facts<'_>, verdict: &mut Verdict) {
    let lost = |tensor: &Tensor| tensor.name.ends_with("modulation") && tensor.shape.len() != 3;
    if let Some(tensor) = facts.find(lost) {
        verdict.problems.push(format!(
            "{:?} is {:?}: its leading dimension of 1 is lost",
            tensor.name, tensor.shape
        ));
    }
}

/// Norms, biases and modulation can't be packed.
pub(super) fn vector_types(facts: &Facts<'_>, verdict: &mut Verdict) {
    let packed = |tensor: &Tensor| tensor.shape.len() != 2 && tensor.dtype.is_quantized();
    if let Some(tensor) = facts.find(packed) {
        verdict.problems.push(format!("{:?} is {}, but no matrix", tensor.name, tensor.dtype));
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
        Kind::ImageEncoder => {
            // Of the published `clip_vision_h.safetensors`; diffusers' image encoders don't have it.
            let projection = "visual_projection.weight";
            if facts.get(projection).is_none() {
                verdict.problems.push(format!(
                    "the tensor {projection:?} is missing; use clip_vision_h.safetensors"
                ));
            }
        }
        Kind::Vae => whole(facts, verdict),
        _ => {
            if original_names(facts, verdict) {
                prefix_taken_off(facts, verdict);
            }
        }
    }
    let unknown =
        |tensor: &Tensor| matches!(tensor.dtype, DType::Q1_0 | DType::Q2_0 | DType::NVFP4);
    if let Some(tensor) = facts.find(unknown) {
        verdict.notes.push(format!("{} needs a build with a recent ggml", tensor.dtype));
    }
}
