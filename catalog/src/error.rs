//! Why a file's tensors are not those of a known model.

use std::path::PathBuf;

/// How many names an error lists before it only counts.
const LISTED: usize = 8;

/// Why a file can't be taken for one of the models.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum Error {
    #[error(
        "{}: not a Wan transformer, a HunyuanVideo 1.5 transformer, a UMT5 encoder, a Wan VAE or a CLIP image \
         encoder; its tensors are {}, ...",
        file.display(), first.join(", ")
    )]
    Unknown { file: PathBuf, first: Vec<String> },
    #[error(
        "{}: a HunyuanVideo 1.5 transformer in {whose} names; gguf-video doesn't run this model, and \
         to-gguf converts it from a folder in diffusers layout, with model_index.json",
        file.display()
    )]
    HunyuanVideo15 { file: PathBuf, whose: &'static str },
    #[error("{}: the tensor {tensor:?} is missing", file.display())]
    NoTensor { file: PathBuf, tensor: String },
    #[error("{}: the tensor {tensor:?} is {shape:?}{}", file.display(), wanted(*dimensions))]
    Shape { file: PathBuf, tensor: String, shape: Vec<u64>, dimensions: Option<usize> },
    #[error("{}: {}", file.display(), difference(missing, unknown))]
    Tensors { file: PathBuf, missing: Vec<String>, unknown: Vec<String> },
    #[error("{}: tensor {tensor:?} is {found:?}, by {by} it must be {wanted:?}", file.display())]
    Mismatch { file: PathBuf, tensor: String, found: Vec<u64>, wanted: Vec<u64>, by: &'static str },
    #[error(
        "{}: a transformer of {inputs} input and {outputs} output channels{beside} is none of the \
         models that are known",
        file.display()
    )]
    Channels { file: PathBuf, inputs: u32, outputs: u32, beside: &'static str },
    #[error(
        "{}: nothing tells which transformer this is, {}",
        file.display(), choices.join(" or ")
    )]
    Ambiguous {
        file: PathBuf,
        /// Each as the name of a model and of an expert: `wan2.2-t2v-a14b high_noise`.
        choices: Vec<String>,
    },
    #[error("{}: {title}, which this is, has no {part}", file.display())]
    NoExpert { file: PathBuf, title: &'static str, part: &'static str },
    #[error("{}: {what}", file.display())]
    Inconsistent { file: PathBuf, what: String },
}

fn wanted(dimensions: Option<usize>) -> String {
    dimensions.map_or(String::new(), |n| format!(", not of {n} dimensions"))
}

fn difference(missing: &[String], unknown: &[String]) -> String {
    match (missing, unknown) {
        (missing, []) => format!("tensors are missing: {}", list(missing)),
        ([], unknown) => format!("tensors that the model does not have: {}", list(unknown)),
        (missing, unknown) => format!(
            "tensors are missing: {}; and there are some that the model does not have: {}",
            list(missing),
            list(unknown)
        ),
    }
}

fn list(names: &[String]) -> String {
    let listed = names[..names.len().min(LISTED)].join(", ");
    if names.len() > LISTED { format!("{listed}, ... ({} in all)", names.len()) } else { listed }
}
