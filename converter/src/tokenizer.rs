//! Reads a SentencePiece unigram tokenizer from `tokenizer.json` and writes it as GGUF metadata,
//! under the keys of llama.cpp. What those keys can't say is refused by its name.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use gguf::Metadata;
use serde::Deserialize;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// `tokenizer.ggml.token_type`, as in `llama.h`.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// SentencePiece's mark of a word's beginning.
const MARK: &str = "\u{2581}";
/// No tokenization ever prefers a piece with this score.
const UNUSED_SCORE: f32 = -10_000.0;
/// The largest id a vocabulary could need; the real one ends at 256299.
const LARGEST_ID: u32 = 1 << 22;

/// The vocabulary and what happens to a text before it is cut into pieces.
pub(crate) struct Tokenizer {
    path: PathBuf,
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
    unknown: u32,
    byte_fallback: bool,
    charsmap: Vec<u8>,
    collapses_spaces: bool,
    strips: bool,
    /// What the template puts behind a text.
    end: Vec<u32>,
}

/// The parts of `tokenizer.json`. serde names the part that it doesn't know.
#[derive(Deserialize)]
struct Json {
    added_tokens: Vec<Added>,
    normalizer: Normalizer,
    pre_tokenizer: PreTokenizer,
    post_processor: PostProcessor,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Normalizer {
    Precompiled { precompiled_charsmap: String },
    Sequence { normalizers: Vec<Normalizer> },
    Strip {},
    Replace { pattern: Pattern, content: String },
}

#[derive(Deserialize)]
enum Pattern {
    Regex(String),
    String(String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizer {
    WhitespaceSplit {},
    Metaspace {
        replacement: String,
        prepend_scheme: Option<String>,
        /// What older files have in place of the scheme.
        add_prefix_space: Option<bool>,
    },
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PostProcessor {
    TemplateProcessing {
        single: Vec<Piece>,
        special_tokens: std::collections::BTreeMap<String, Special>,
    },
}

#[derive(Deserialize)]
enum Piece {
    Sequence {},
    SpecialToken { id: String },
}

#[derive(Deserialize)]
struct Special {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Model {
    Unigram {
        unk_id: u32,
        #[serde(default)]
        byte_fallback: bool,
        vocab: Vec<(String, f32)>,
    },
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let json: Json = serde_json::from_reader(BufReader::new(file))
            .with_context(|| path.display().to_string())?;
        Self::new(path.clone(), json).with_context(|| path.display().to_string())
    }

    fn new(path: PathBuf, json: Json) -> Result<Self> {
        let Model::Unigram { unk_id, byte_fallback, vocab } = json.model;
        ensure!((unk_id as usize) < vocab.len(), "no piece has the unk_id {unk_id}");
        let (tokens, scores): (Vec<_>, Vec<_>) = vocab.into_iter().unzip();
        if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
            bail!("the score of piece {id} is no number");
        }
        let kinds =
            tokens.iter().map(|token| if is_byte(token) { kind::BYTE } else { kind::NORMAL });
        let mut tokenizer = Self {
            path,
            kinds: kinds.collect(),
            tokens,
            scores,
            unknown: unk_id,
            byte_fallback,
            charsmap: Vec::new(),
            collapses_spaces: false,
            strips: false,
            end: Vec::new(),
        };
        tokenizer.add(json.added_tokens)?;
        tokenizer.kinds[unk_id as usize] = kind::UNKNOWN;
        tokenizer.normalizer(json.normalizer)?;
        ensure!(!tokenizer.charsmap.is_empty(), "the normalizer Precompiled is missing");
        ensure!(
            tokenizer.pre_tokenizer(json.pre_tokenizer)?,
            "the pre-tokenizer Metaspace is missing"
        );
        tokenizer.template(json.post_processor)?;
        Ok(tokenizer)
    }

    /// Tokens that are cut out of the text first. They may repeat a piece, or come behind the last.
    fn add(&mut self, mut added: Vec<Added>) -> Result<()> {
        added.sort_by_key(|token| token.id);
        for Added { id, content, special } in added {
            ensure!(id <= LARGEST_ID, "the added token {content:?} has the id {id}");
            let kind = if special { kind::CONTROL } else { kind::USER_DEFINED };
            if let Some(token) = self.tokens.get(id as usize) {
                ensure!(*token == content, "the id {id} is both {token:?}'s and {content:?}'s");
                self.kinds[id as usize] = kind;
            } else {
                self.fill(id);
                self.push(content, 0.0, kind);
            }
        }
        Ok(())
    }

    fn push(&mut self, token: String, score: f32, kind: i32) {
        self.tokens.push(token);
        self.scores.push(score);
        self.kinds.push(kind);
    }

    /// Gives the ids up to `end` tokens that no text is made of, for a list has no gaps.
    fn fill(&mut self, end: u32) {
        for id in self.tokens.len() as u32..end {
            self.push(format!("[PAD{id}]"), UNUSED_SCORE, kind::UNUSED);
        }
    }

    fn normalizer(&mut self, normalizer: Normalizer) -> Result<()> {
        match normalizer {
            Normalizer::Precompiled { precompiled_charsmap } => {
                let bytes = BASE64_STANDARD.decode(precompiled_charsmap);
                self.charsmap = bytes.context("precompiled_charsmap is no base64")?;
            }
            Normalizer::Sequence { normalizers } => {
                for normalizer in normalizers {
                    self.normalizer(normalizer)?;
                }
            }
            Normalizer::Strip {} => self.strips = true,
            Normalizer::Replace { pattern: Pattern::Regex(regex), content }
                if regex == " {2,}" && [" ", MARK].contains(&content.as_str()) =>
            {
                self.collapses_spaces = true;
            }
            Normalizer::Replace {
                pattern: Pattern::Regex(what) | Pattern::String(what),
                content,
            } => {
                bail!("the normalizer Replace of {what:?} by {content:?} is not supported");
            }
        }
        Ok(())
    }

    /// Returns whether Metaspace is part of it.
    fn pre_tokenizer(&mut self, pre_tokenizer: PreTokenizer) -> Result<bool> {
        match pre_tokenizer {
            PreTokenizer::WhitespaceSplit {} => {
                self.strips = true;
                Ok(false)
            }
            PreTokenizer::Metaspace { replacement, prepend_scheme, add_prefix_space } => {
                ensure!(replacement == MARK, "the pre-tokenizer Metaspace uses {replacement:?}");
                let always = match prepend_scheme {
                    Some(scheme) => scheme == "always",
                    None => add_prefix_space == Some(true),
                };
                ensure!(always, "the pre-tokenizer Metaspace does not always prepend its mark");
                Ok(true)
            }
            PreTokenizer::Sequence { pretokenizers } => {
                let mut found = false;
                for pre_tokenizer in pretokenizers {
                    found |= self.pre_tokenizer(pre_tokenizer)?;
                }
                Ok(found)
            }
        }
    }

    fn template(&mut self, processor: PostProcessor) -> Result<()> {
        let PostProcessor::TemplateProcessing { single, special_tokens } = processor;
        let [Piece::Sequence {}, Piece::SpecialToken { id }] = &single[..] else {
            bail!("the template is not a text and one token behind it");
        };
        let special = special_tokens.get(id);
        self.end = special.with_context(|| format!("the template's {id:?} has no id"))?.ids.clone();
        Ok(())
    }

    /// Writes the keys. `rows` is the number of embeddings, of which some may belong to no token;
    /// `end` and `padding` are the ids that the model was trained with.
    pub(crate) fn describe(
        mut self,
        rows: u32,
        end: u32,
        padding: u32,
        metadata: &mut Metadata,
    ) -> Result<()> {
        let path = self.path.display();
        ensure!(
            self.end == [end],
            "{path}: the template ends a text with {:?}; eos_token_id is {end} in the text encoder's config.json",
            self.end
        );
        ensure!(
            (padding as usize) < self.tokens.len(),
            "{path}: no token has the pad_token_id {padding}"
        );
        // Readers of these keys want a token for each embedding.
        self.fill(rows);
        metadata
            .set("tokenizer.ggml.model", "t5")
            .set("tokenizer.ggml.pre", "default")
            .set("tokenizer.ggml.tokens", self.tokens)
            .set("tokenizer.ggml.scores", self.scores)
            .set("tokenizer.ggml.token_type", self.kinds)
            .set("tokenizer.ggml.precompiled_charsmap", self.charsmap)
            .set("tokenizer.ggml.unknown_token_id", self.unknown)
            .set("tokenizer.ggml.eos_token_id", end)
            .set("tokenizer.ggml.padding_token_id", padding)
            .set("tokenizer.ggml.add_bos_token", false)
            .set("tokenizer.ggml.add_eos_token", true)
            .set("tokenizer.ggml.add_space_prefix", true)
            .set("tokenizer.ggml.remove_extra_whitespaces", self.collapses_spaces);
        if self.byte_fallback {
            metadata.set("tokenizer.ggml.byte_fallback", true);
        }
        if self.strips {
            metadata.set("tokenizer.ggml.strip_whitespace", true);
        }
        Ok(())
    }
}

/// Whether a piece stands for a byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}
