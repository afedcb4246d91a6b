//! Models without a configuration: single files, folders of original releases, GGUF files. What they
//! are follows from the names and shapes of their tensors.

use anyhow::{Context, Result, anyhow, bail, ensure};
use gguf::Metadata;
use std::path::Path;

use super::{Model, Naming, Part, matched, umt5, wan, wan_vae};
use crate::Job;
use crate::source::{SourceTensor, Weights};
use crate::tokenizer::Tokenizer;

/// What programs put before the names of the one model that a file holds.
const PREFIXES: [&str; 4] = [
    "model.diffusion_model.",
    "model.high_noise_diffusion_model.",
    "diffusion_model.",
    "transformer.",
];
/// ComfyUI's text encoders carry the tokenizer's model among their tensors.
const SPIECE: &str = "spiece_model";

/// The model in a file. `part` is what a transformer does, where that is known.
pub(super) fn model(mut weights: Weights, part: Option<Part>, job: &Job) -> Result<Model> {
    for prefix in PREFIXES {
        let marks =
            ["patch_embedding.weight", "blocks.0.ffn.0.bias", "blocks.0.ffn.net.0.proj.bias"];
        if marks.iter().any(|mark| weights.get(&format!("{prefix}{mark}")).is_some()) {
            weights.strip(prefix)?;
            break;
        }
    }
    let has = |name: &str| weights.get(name).is_some();
    if has("blocks.0.self_attn.q.weight") {
        transformer(weights, Naming::Original, part, job)
    } else if has("blocks.0.attn1.to_q.weight") {
        transformer(weights, Naming::Diffusers, part, job)
    } else if has("enc.blk.0.attn_q.weight") {
        encoder(weights, Naming::Original, job)
    } else if has("encoder.block.0.layer.0.SelfAttention.q.weight") {
        encoder(weights, Naming::Diffusers, job)
    } else if has("decoder.conv1.weight") {
        vae(weights, Naming::Original, job)
    } else if has("decoder.conv_in.weight") && has("quant_conv.weight") {
        vae(weights, Naming::Diffusers, job)
    } else {
        let names: Vec<_> = weights.names().take(4).collect();
        bail!(
            "{}: not a Wan transformer, a UMT5 encoder or a Wan VAE; its tensors are {}, ...",
            weights.path().display(),
            names.join(", ")
        )
    }
}

/// Looks tensors up by what the table calls them in GGUF files.
struct Shapes<'a> {
    weights: &'a Weights,
    naming: Naming,
}

impl Shapes<'_> {
    fn get(&self, original: &str, diffusers: &str) -> Option<&SourceTensor> {
        self.weights.get(match self.naming {
            Naming::Original => original,
            Naming::Diffusers => diffusers,
        })
    }

    /// One of a tensor's dimensions, of which there must be `dimensions`.
    fn size(&self, original: &str, diffusers: &str, dimensions: usize, n: usize) -> Result<u32> {
        let path = self.weights.path().display();
        let tensor = self.get(original, diffusers);
        let tensor = tensor.ok_or_else(|| anyhow!("{path}: the tensor {original:?} is missing"))?;
        ensure!(
            tensor.shape.len() == dimensions,
            "{path}: the tensor {original:?} is {:?}, not of {dimensions} dimensions",
            tensor.shape
        );
        // Larger ones exist in damaged files alone.
        let size = u32::try_from(tensor.shape[n]).ok().filter(|size| (1..1 << 22).contains(size));
        size.ok_or_else(|| anyhow!("{path}: the tensor {original:?} is {:?}", tensor.shape))
    }

    /// How many blocks there are: names are `stem`, a number, and a point.
    fn count(&self, stem: &str) -> u32 {
        let number = |name: &str| name.strip_prefix(stem)?.split('.').next()?.parse::<u32>().ok();
        let last = self.weights.names().filter_map(number).max();
        // Whatever is missing below the last one shows when the table is compared.
        last.map_or(0, |last| last.saturating_add(1)).min(1024)
    }
}

/// Defaults to sample with, by what the shapes say (`wan/configs` of Wan 2.1 and 2.2).
struct Sampling {
    variant: &'static str,
    steps: u32,
    flow_shift: f32,
    guidance: f32,
    boundary: Option<f32>,
}

fn sampling(sizes: &wan::Sizes, part: Part) -> Sampling {
    let of = |variant, steps, flow_shift, guidance, boundary| Sampling {
        variant,
        steps,
        flow_shift,
        guidance,
        boundary,
    };
    let experts = part != Part::Single;
    let image = sizes.in_channels > sizes.out_channels;
    match (experts, image, sizes.vace.is_some()) {
        (true, _, true) => of("wan2.2-vace-a14b", 40, 12.0, 4.0, Some(0.875)),
        (false, _, true) => of("wan2.1-vace", 50, 16.0, 5.0, None),
        (true, true, _) => of("wan2.2-i2v-a14b", 40, 5.0, 3.5, Some(0.9)),
        (true, false, _) if part == Part::HighNoise => {
            of("wan2.2-t2v-a14b", 40, 12.0, 4.0, Some(0.875))
        }
        (true, false, _) => of("wan2.2-t2v-a14b", 40, 12.0, 3.0, Some(0.875)),
        (false, true, _) => of("wan2.1-i2v", 40, 5.0, 5.0, None),
        (false, false, _) if sizes.in_channels == 48 => of("wan2.2-ti2v-5b", 50, 5.0, 5.0, None),
        (false, false, _) => of("wan2.1-t2v", 50, 5.0, 5.0, None),
    }
}

/// Heads have 128 channels in every Wan model.
const HEAD: u32 = 128;

fn sizes(weights: &Weights, naming: Naming) -> Result<wan::Sizes> {
    let shapes = Shapes { weights, naming };
    let dim = shapes.size("patch_embedding.bias", "patch_embedding.bias", 1, 0)?;
    let channels = |name: &str| -> Result<u32> {
        let stored = weights.get(name).map_or(0, |tensor| tensor.shape.len());
        // A folded kernel has inputs and outputs in one dimension.
        match stored {
            4 if weights.is_gguf() => Ok(shapes.size(name, name, 4, 0)? / dim),
            _ => shapes.size(name, name, 5, 1),
        }
    };
    let embedder = |part: &str| format!("condition_embedder.{part}.weight");
    let image =
        |ours: &str, theirs: &str| (format!("img_emb.{ours}"), format!("image_embedder.{theirs}"));
    let (norm, their_norm) = image("proj.0.weight", "norm1.weight");
    let their_norm = format!("condition_embedder.{their_norm}");
    let (position, their_position) = image("emb_pos", "pos_embed");
    let their_position = format!("condition_embedder.{their_position}");
    let optional = |ours: &str, theirs: &str, dimensions, n| {
        shapes.get(ours, theirs).map(|_| shapes.size(ours, theirs, dimensions, n)).transpose()
    };
    let vace = match shapes.count("vace_blocks.") {
        0 => None,
        layers => Some((layers, channels("vace_patch_embedding.weight")?)),
    };
    let heads =
        weights.metadata().and_then(|metadata| metadata.u32("wan.attention.head_count").ok());
    let head = shapes.size("head.head.weight", "proj_out.weight", 2, 0)?;
    Ok(wan::Sizes {
        heads: heads.unwrap_or((dim / HEAD).max(1)),
        dim,
        ffn_dim: shapes.size("blocks.0.ffn.0.weight", "blocks.0.ffn.net.0.proj.weight", 2, 0)?,
        freq_dim: shapes.size(
            "time_embedding.0.weight",
            &embedder("time_embedder.linear_1"),
            2,
            1,
        )?,
        text_dim: shapes.size(
            "text_embedding.0.weight",
            &embedder("text_embedder.linear_1"),
            2,
            1,
        )?,
        layers: shapes.count("blocks."),
        in_channels: channels("patch_embedding.weight")?,
        // Patches are 1 x 2 x 2.
        out_channels: head / 4,
        image_dim: optional(&norm, &their_norm, 1, 0)?,
        image_positions: optional(&position, &their_position, 3, 1)?,
        vace,
    })
}

fn transformer(weights: Weights, naming: Naming, part: Option<Part>, job: &Job) -> Result<Model> {
    let sizes = sizes(&weights, naming)?;
    let tensors = matched(&weights, naming, sizes.tensors())?;
    let part = part.or_else(|| said(&weights)).unwrap_or_else(|| guessed(weights.path()));
    let sampling = sampling(&sizes, part);
    let (role, folder) = match part {
        Part::HighNoise => ("high_noise", "HighNoise"),
        Part::LowNoise => ("low_noise", "LowNoise"),
        _ => ("single", ""),
    };
    let mut metadata = Metadata::new();
    metadata.set("wan.variant", sampling.variant);
    if let Some(boundary) = sampling.boundary {
        metadata.set("wan.boundary_ratio", boundary);
    }
    metadata
        .set("wan.flow_shift", sampling.flow_shift)
        .set("wan.steps", sampling.steps)
        .set("wan.expert", role)
        .set("wan.guidance_scale", sampling.guidance);
    sizes.describe(1e-6, &mut metadata);
    carry(&weights, &["wan."], &mut metadata);
    // What the file was told to be outweighs what it said.
    metadata.set("wan.expert", role);
    Ok(Model {
        part,
        folder,
        architecture: "wan",
        name: wan::named(&job.name, folder),
        source_name: source_name(&weights, job),
        metadata,
        weights,
        tensors,
    })
}

/// What a GGUF file of ours says it is.
fn said(weights: &Weights) -> Option<Part> {
    match weights.metadata()?.string("wan.expert").ok()? {
        "high_noise" => Some(Part::HighNoise),
        "low_noise" => Some(Part::LowNoise),
        "single" => Some(Part::Single),
        _ => None,
    }
}

/// What the file's name says; every publisher of two experts has it there.
fn guessed(path: &Path) -> Part {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match (plain.contains("highnoise"), plain.contains("lownoise")) {
        (true, false) => Part::HighNoise,
        (false, true) => Part::LowNoise,
        _ => Part::Single,
    }
}

fn encoder(mut weights: Weights, naming: Naming, job: &Job) -> Result<Model> {
    weights.remove(SPIECE);
    if naming == Naming::Diffusers {
        weights.unify("encoder.embed_tokens.weight", "shared.weight")?;
    }
    let shapes = Shapes { weights: &weights, naming };
    let module = |theirs: &str| format!("encoder.block.0.layer.{theirs}.weight");
    let bias = module("0.SelfAttention.relative_attention_bias");
    let heads = shapes.size("enc.blk.0.attn_rel_b.weight", &bias, 2, 1)?;
    let inner = shapes.size("enc.blk.0.attn_q.weight", &module("0.SelfAttention.q"), 2, 0)?;
    let sizes = umt5::Sizes {
        vocab: shapes.size("token_embd.weight", "shared.weight", 2, 0)?,
        dim: shapes.size("token_embd.weight", "shared.weight", 2, 1)?,
        ffn_dim: shapes.size(
            "enc.blk.0.ffn_gate.weight",
            &module("1.DenseReluDense.wi_0"),
            2,
            0,
        )?,
        heads,
        head_dim: inner / heads,
        layers: match naming {
            Naming::Original => shapes.count("enc.blk."),
            Naming::Diffusers => shapes.count("encoder.block."),
        },
        buckets: shapes.size("enc.blk.0.attn_rel_b.weight", &bias, 2, 0)?,
    };
    let tensors = matched(&weights, naming, sizes.tensors())?;
    let mut metadata = Metadata::new();
    sizes.describe(1e-6, 128, &mut metadata);
    carry(&weights, &["t5encoder.", "tokenizer."], &mut metadata);
    match &job.tokenizer {
        Some(path) => {
            let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
            Tokenizer::open(folder)?.describe(sizes.vocab, 1, 0, &mut metadata)?;
        }
        None => ensure!(
            metadata.get("tokenizer.ggml.tokens").is_some(),
            "{}: a text encoder is of no use without its tokenizer; give the folder that has \
             tokenizer.json with --tokenizer",
            weights.path().display()
        ),
    }
    Ok(Model {
        part: Part::TextEncoder,
        folder: "TextEncoder",
        architecture: "t5encoder",
        name: umt5::named(&job.name, sizes.dim),
        source_name: source_name(&weights, job),
        metadata,
        weights,
        tensors,
    })
}

fn vae(weights: Weights, naming: Naming, job: &Job) -> Result<Model> {
    let sizes = wan_vae::Sizes::published();
    let tensors = matched(&weights, naming, sizes.tensors())
        .context("only the VAE of Wan 2.1 is known without its config.json")?;
    let mut metadata = Metadata::new();
    sizes.describe_published(&mut metadata);
    Ok(Model {
        part: Part::Vae,
        folder: "VAE",
        architecture: "wanvae",
        name: wan_vae::PUBLISHED.into(),
        source_name: source_name(&weights, job),
        metadata,
        weights,
        tensors,
    })
}

/// Keeps what a GGUF file says about the model.
fn carry(weights: &Weights, stems: &[&str], metadata: &mut Metadata) {
    let Some(theirs) = weights.metadata() else { return };
    for (key, value) in theirs.iter() {
        let model = stems.iter().any(|stem| key.starts_with(stem)) && key != "wan.recipe";
        if model || key == "general.license" {
            metadata.set(key, value.clone());
        }
    }
}

fn source_name(weights: &Weights, job: &Job) -> String {
    let theirs =
        weights.metadata().and_then(|metadata| metadata.string("general.source.name").ok());
    let path = job.source.file_name().unwrap_or(job.source.as_os_str());
    theirs.map_or_else(|| path.to_string_lossy().into_owned(), str::to_owned)
}
