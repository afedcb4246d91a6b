//! What a table of tensors is made of.

/// How exact a tensor must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Biases, norms, modulation tables, convolutions: F32.
    Exact,
    /// A matrix outside the blocks, or one that everything passes through: not quantized.
    Linear,
    /// A matrix of which the blocks, and so the file, mostly consist.
    Block,
}

/// A line of an architecture's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name in a diffusers checkpoint.
    pub diffusers: String,
    /// The name in a GGUF file.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// How exact it must stay.
    pub role: Role,
}

impl Wanted {
    pub(crate) fn new(diffusers: &str, name: &str, shape: impl Into<Vec<u64>>, role: Role) -> Self {
        Self { diffusers: diffusers.to_owned(), name: name.to_owned(), shape: shape.into(), role }
    }

    /// The name by one of the two sets.
    pub fn named(&self, naming: Naming) -> &str {
        match naming {
            Naming::Diffusers => &self.diffusers,
            Naming::Original => &self.name,
        }
    }
}

/// Which of a tensor's names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Those of diffusers and transformers.
    Diffusers,
    /// Those of the original code, which GGUF files have, too. Of the text encoder: llama.cpp's.
    Original,
}

/// Whose transformer a file has, or what it goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Wan 2.1 and 2.2.
    Wan,
    /// HunyuanVideo 1.5, which is converted but not run here.
    HunyuanVideo15,
}

impl Family {
    /// The value of `general.architecture` of its transformers, with which their other keys begin.
    pub fn name(self) -> &'static str {
        match self {
            Family::Wan => "wan",
            Family::HunyuanVideo15 => "hyvid",
        }
    }
}

/// What a file does in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The transformer of a model that has one.
    Single,
    /// The transformer of the first steps.
    HighNoise,
    /// The transformer of the last steps.
    LowNoise,
    /// The text encoder.
    TextEncoder,
    /// The image encoder, which some image-to-video models have.
    ImageEncoder,
    /// The video autoencoder.
    Vae,
}

impl Part {
    /// Whether it is one of the transformers.
    pub fn is_transformer(self) -> bool {
        self.expert().is_some()
    }

    /// The value of `wan.expert`, of a transformer.
    pub fn expert(self) -> Option<&'static str> {
        match self {
            Part::Single => Some("single"),
            Part::HighNoise => Some("high_noise"),
            Part::LowNoise => Some("low_noise"),
            Part::TextEncoder | Part::ImageEncoder | Part::Vae => None,
        }
    }

    /// The value of `general.architecture` of GGUF files with this part of a model of Wan's, or of a
    /// transformer of another family.
    pub fn architecture(self, family: Family) -> &'static str {
        match self {
            Part::Single | Part::HighNoise | Part::LowNoise => family.name(),
            Part::TextEncoder => "t5encoder",
            Part::ImageEncoder => "clipvision",
            Part::Vae => "wanvae",
        }
    }

    /// The folder that files of this part are kept in; empty for the one below which all are.
    pub fn folder(self) -> &'static str {
        match self {
            Part::Single => "",
            Part::HighNoise => "HighNoise",
            Part::LowNoise => "LowNoise",
            Part::TextEncoder => "TextEncoder",
            Part::ImageEncoder => "ImageEncoder",
            Part::Vae => "VAE",
        }
    }
}

/// A table while it grows.
pub(crate) struct List(pub(crate) Vec<Wanted>);

impl List {
    pub(crate) fn one(&mut self, theirs: &str, ours: &str, shape: &[u64], role: Role) {
        self.0.push(Wanted::new(theirs, ours, shape, role));
    }

    pub(crate) fn linear(&mut self, theirs: &str, ours: &str, out: u64, inputs: u64, role: Role) {
        for (part, shape, role) in
            [("weight", &[out, inputs][..], role), ("bias", &[out], Role::Exact)]
        {
            self.one(&format!("{theirs}.{part}"), &format!("{ours}.{part}"), shape, role);
        }
    }

    /// A layer norm with weights.
    pub(crate) fn norm(&mut self, theirs: &str, ours: &str, d: u64) {
        for part in ["weight", "bias"] {
            let names = [theirs, ours].map(|module| format!("{module}.{part}"));
            self.one(&names[0], &names[1], &[d], Role::Exact);
        }
    }

    /// A convolution; the kernel's outputs come first.
    pub(crate) fn conv(&mut self, theirs: &str, ours: &str, kernel: &[u64]) {
        for (part, shape) in [("weight", kernel), ("bias", &kernel[..1])] {
            let names = [theirs, ours].map(|module| format!("{module}.{part}"));
            self.one(&names[0], &names[1], shape, Role::Exact);
        }
    }
}

/// Values separated by commas: some readers can't load arrays beside tensors of five dimensions.
pub fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
