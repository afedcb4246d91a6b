//! The rules by which diffusers takes a file or refuses it: `loaders/single_file_utils.py`, `quantizers/gguf`; for
//! the text encoder, transformers: `modeling_gguf_pytorch_utils.py`.

use gguf::{DType, Tensor};

use super::Verdict;
use super::rules::{FAST, Facts, Kind, NO_MODEL, PLAIN, lost_dimension, prefix_taken_off, whole};

pub(super) fn rules(facts: &Facts<'_>, verdict: &mut Verdict) {
    match facts.kind {
        Kind::Vae => return vae(facts, verdict),
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
        Kind::Unknown => return verdict.problems.push(NO_MODEL.into()),
        Kind::HunyuanVideo15 => {
            let problem =
                "it loads no single file as HunyuanVideo15Transformer3DModel; use the folder";
            return verdict.problems.push(problem.into());
        }
        Kind::Transformer => {
            whole(facts, verdict);
            lost_dimension(facts, verdict);
            prefix_taken_off(facts, verdict);
            if let Some(tensor) = facts.get("img_emb.emb_pos") {
                verdict.problems.push(format!(
                    "it has no name for {:?} and leaves the embedding of positions empty",
                    tensor.name
                ));
            }
        }
        Kind::DiffusersTransformer => {
            whole(facts, verdict);
            if !facts.prefix.is_empty() {
                verdict.problems.push(format!(
                    "names begin with {:?}, which it takes off original names alone",
                    facts.prefix
                ));
            }
        }
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
    // What it keeps in F32 it unpacks while loading: modulation, these norms, the time embedding.
    let unpacked =
        |name: &str| ["norm3.", "norm2.", "time_embedding."].iter().any(|part| name.contains(part));
    let vector = |tensor: &Tensor| {
        tensor.shape.len() == 1 && !PLAIN.contains(&tensor.dtype) && !unpacked(&tensor.name)
    };
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

fn vae(facts: &Facts<'_>, verdict: &mut Verdict) {
    whole(facts, verdict);
    if facts.get("decoder.upsamples.0.upsamples.0.residual.0.gamma").is_some() {
        verdict.problems.push("it knows the original names of Wan 2.1's VAE alone".into());
    }
    if let Some(tensor) = facts.find(|tensor| !PLAIN.contains(&tensor.dtype)) {
        verdict.problems.push(format!("{:?} is {}, not F32 or F16", tensor.name, tensor.dtype));
    }
    if let Some(tensor) = facts.get("decoder.conv1.weight").filter(|t| t.shape.len() != 5) {
        verdict.problems.push(format!(
            "{:?} is {:?}, not of five dimensions; `to-gguf rewrap --layout 5d` restores it",
            tensor.name, tensor.shape
        ));
    }
}
