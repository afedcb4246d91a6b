//! Models without a configuration: single files, folders of original releases, GGUF files. What they
//! are follows from the names and shapes of their tensors.

use anyhow::{Result, anyhow, ensure};
use catalog::{Error, Given, Part, Recognized, recognize};
use gguf::Metadata;
use std::path::Path;

use super::{Model, named, tensors};
use crate::Job;
use crate::source::Weights;
use crate::tokenizer::Tokenizer;

/// A model, what of it its file does not say, and what speaks against that.
pub(super) struct Loose {
    pub(super) model: Model,
    pub(super) inferred: Vec<String>,
    pub(super) doubt: Option<String>,
}

/// The model in a file. `expert` is what a transformer does,
/// where that is known.
pub(super) fn model(mut weights: Weights, expert: Option<Part>, job: &Job) -> Result<Loose> {
    // Where both are there, they must be alike, of which the catalog sees only the names.
    weights.unify("encoder.embed_tokens.weight", "shared.weight")?;
    let found = recognize(&given(&weights), expert).map_err(|error| match error {
        Error::Ambiguous { .. } => anyhow!("{error}; --expert says it"),
        _ => error.into(),
    })?;
    let path = weights.path().display();
    ensure!(
        expert.is_none() || found.part.is_transformer(),
        "{path}: --expert is for transformers, and this is none"
    );
    ensure!(
        job.tokenizer.is_none() || found.part == Part::TextEncoder,
        "{path}: --tokenizer is for text encoders, and this is none"
    );
    let metadata = match found.part {
        Part::Single | Part::HighNoise | Part::LowNoise => {
            let mut metadata = found.metadata.clone();
            carry(&weights, &format!("{}.", found.family.name()), &mut metadata);
            // What the file was told to be outweighs what it said.
            for key in ["wan.variant", "wan.expert"] {
                if let Some(told) = found.metadata.get(key) {
                    metadata.set(key, told.clone());
                }
            }
            metadata
        }
        Part::TextEncoder => text_encoder(&found, &weights, job)?,
        Part::ImageEncoder | Part::Vae => {
            let mut metadata = found.metadata.clone();
            carry(&weights, &format!("{}.", found.part.architecture(found.family)), &mut metadata);
            metadata
        }
    };
    let Recognized { part, family, published, tensors: matched, inferred, doubt, .. } = found;
    let model = Model {
        part,
        family,
        name: published.map_or_else(|| named(&job.name, part), str::to_owned),
        source_name: source_name(&weights, job),
        metadata,
        tensors: tensors(&weights, matched)?,
        weights,
    };
    Ok(Loose { model, inferred, doubt })
}

/// The tensors as the catalog looks at them.
pub(super) fn given(weights: &Weights) -> Given<'_> {
    let tensors = weights.names().map(|name| {
        let tensor = weights.get(name).expect("named by the list");
        (name, &tensor.shape[..])
    });
    let given = Given::new(weights.path(), tensors).by(weights.shapes_from());
    match weights.metadata() {
        Some(metadata) => given.with_metadata(metadata),
        None => given,
    }
}

fn text_encoder(found: &Recognized, weights: &Weights, job: &Job) -> Result<Metadata> {
    let mut metadata = found.metadata.clone();
    carry(weights, "t5encoder.", &mut metadata);
    carry(weights, "tokenizer.", &mut metadata);
    match &job.tokenizer {
        Some(path) => {
            let named = path.ends_with("tokenizer.json");
            ensure!(
                named || path.is_dir(),
                "--tokenizer {}: neither a tokenizer.json nor a folder that has one",
                path.display()
            );
            let folder = if named { path.parent().unwrap_or(Path::new("")) } else { path };
            let rows = found.metadata.u32("t5encoder.vocab_size")?;
            Tokenizer::open(folder)?.describe(rows, 1, 0, &mut metadata)?;
        }
        None => ensure!(
            metadata.get("tokenizer.ggml.tokens").is_some(),
            "{}: a text encoder is of no use without its tokenizer; give the folder that has \
             tokenizer.json with --tokenizer",
            weights.path().display()
        ),
    }
    Ok(metadata)
}

/// Keeps what a GGUF file says about the model.
fn carry(weights: &Weights, stem: &str, metadata: &mut Metadata) {
    let Some(theirs) = weights.metadata() else { return };
    for (key, value) in theirs.iter() {
        let model = key.strip_prefix(stem).is_some_and(|key| key != "recipe");
        if model || key.starts_with("general.license") {
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
