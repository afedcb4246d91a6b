//! Whether programs can load a GGUF file, by the rules of their loaders.

use anyhow::Result;
use gguf::File;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{diffusers, ours, rules};

/// A program that reads GGUF files of video models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// ComfyUI with ComfyUI-GGUF.
    ComfyUi,
    /// stable-diffusion.cpp.
    SdCpp,
    /// diffusers, with transformers for the text encoder.
    Diffusers,
    /// gguf-video.
    Ours,
}

impl Consumer {
    /// Every one there is.
    pub const ALL: [Consumer; 4] =
        [Consumer::ComfyUi, Consumer::SdCpp, Consumer::Diffusers, Consumer::Ours];
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Consumer::ComfyUi => "comfyui",
            Consumer::SdCpp => "sdcpp",
            Consumer::Diffusers => "diffusers",
            Consumer::Ours => "ours",
        })
    }
}

impl FromStr for Consumer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Consumer::ALL.into_iter().find(|consumer| consumer.to_string() == text);
        known.ok_or_else(|| format!("{text:?} is none of comfyui, sdcpp, diffusers, ours"))
    }
}

/// What a consumer makes of a file.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Who.
    pub consumer: Consumer,
    /// Why it can't load the file, or would load it wrongly; empty if it can.
    pub problems: Vec<String>,
    /// What to know besides.
    pub notes: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.problems.is_empty() { "yes" } else { "no" };
        writeln!(f, "{}: {word}", self.consumer)?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

/// Says for each consumer whether it can load a file.
///
/// # Errors
/// Where it is no GGUF file that [`gguf::File`] accepts: no consumer should be given it.
pub fn check(path: &Path, consumers: &[Consumer]) -> Result<Vec<Verdict>> {
    let file = File::open(path)?;
    let facts = rules::Facts::new(&file);
    let verdict = |&consumer: &Consumer| {
        let mut verdict = Verdict { consumer, problems: Vec::new(), notes: Vec::new() };
        match consumer {
            Consumer::ComfyUi => rules::comfyui(&facts, &mut verdict),
            Consumer::SdCpp => rules::sdcpp(&facts, &mut verdict),
            Consumer::Diffusers => diffusers::rules(&facts, &mut verdict),
            Consumer::Ours => ours::rules(&facts, &mut verdict),
        }
        verdict
    };
    Ok(consumers.iter().map(verdict).collect())
}
