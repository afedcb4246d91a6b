//! The SentencePiece unigram tokenizer of the UMT5 text encoder, built from GGUF metadata.
//!
//! It splits as Hugging Face's `tokenizer.json` of google/umt5-xxl does (so do the reference
//! pipelines), with the same library. SentencePiece itself differs: it falls back to bytes for
//! unknown characters where that file gives `<unk>`. The metadata keys are llama.cpp's, and two
//! more that say where a `tokenizer.json` departs from UMT5's.

use gguf::{Metadata, MetadataError};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Precompiled, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, NormalizerWrapper};

use super::charsmap;

/// Token types of `tokenizer.ggml.token_type` that are found in raw text, before anything else:
/// unknown, control and user-defined tokens.
const CUT_OUT: [i32; 3] = [2, 3, 4];

/// Token type of rows that fill the embedding up; at the end of the list they are no vocabulary, and
/// their scores would make every unknown character cheap in comparison.
const UNUSED: i32 = 5;

/// Bytes of a token.
const LONGEST_PIECE: usize = 1024;

/// Splits text into the tokens that a text encoder was trained with.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    eos: u32,
}

/// Metadata that makes no tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing or has another type.
    #[error("the tokenizer's metadata is incomplete")]
    Metadata(#[from] MetadataError),
    /// Each token needs all three.
    #[error(
        "there are {tokens} tokens, {scores} scores and {types} token types; all must be as many"
    )]
    Counts {
        /// Length of `tokenizer.ggml.tokens`.
        tokens: usize,
        /// Length of `tokenizer.ggml.scores`.
        scores: usize,
        /// Length of `tokenizer.ggml.token_type`.
        types: usize,
    },
    /// A score is a logarithm of a probability.
    #[error("the score of token {token:?} is {score}")]
    Score {
        /// The token.
        token: String,
        /// What the file says.
        score: f32,
    },
    /// A real piece has a few dozen bytes; the library goes down a level of its stack for each.
    #[error("token {index} has {bytes} bytes, more than {LONGEST_PIECE}")]
    Piece {
        /// Its place in the list.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// An id that no token has.
    #[error("metadata key {key:?} is {id}, but there are only {tokens} tokens")]
    Id {
        /// The key.
        key: &'static str,
        /// Its value.
        id: u32,
        /// Number of tokens.
        tokens: usize,
    },
    /// The table of character replacements can't be read.
    #[error(
        "metadata key \"tokenizer.ggml.precompiled_charsmap\" holds no SentencePiece character map"
    )]
    Charsmap(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The library refuses the rest.
    #[error("the tokens make no tokenizer")]
    Build(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Tokenizer {
    /// The most tokens of a prompt that the text encoder sees, the end of text included.
    pub const MAX_TOKENS: usize = 512;

    /// The tokenizer that a text encoder's file carries under `tokenizer.ggml.`: `tokens`, `scores`,
    /// `token_type`, `unknown_token_id`, `eos_token_id`; optionally
    /// `precompiled_charsmap` (none), `add_space_prefix` (true), `remove_extra_whitespaces` (true),
    /// `byte_fallback` (false) and `strip_whitespace` (false).
    ///
    /// # Errors
    /// When a key is missing, has another type, or doesn't fit the others.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        let scores = metadata.f32s("tokenizer.ggml.scores")?;
        let types = metadata.i32s("tokenizer.ggml.token_type")?;
        if scores.len() != tokens.len() || types.len() != tokens.len() {
            return Err(TokenizerError::Counts {
                tokens: tokens.len(),
                scores: scores.len(),
                types: types.len(),
            });
        }
        if let Some((token, &score)) = tokens.iter().zip(scores).find(|(_, s)| !s.is_finite()) {
            return Err(TokenizerError::Score { token: token.clone(), score });
        }
        let long = tokens.iter().map(String::len).enumerate().find(|(_, n)| *n > LONGEST_PIECE);
        if let Some((index, bytes)) = long {
            return Err(TokenizerError::Piece { index, bytes });
        }
        let used = types.iter().rposition(|&kind| kind != UNUSED).map_or(0, |last| last + 1);
        let tokens = &tokens[..used];
        let id = |key| match metadata.u32(key)? {
            id if (id as usize) < tokens.len() => Ok(id),
            id => Err(TokenizerError::Id { key, id, tokens: tokens.len() }),
        };
        let unknown = id("tokenizer.ggml.unknown_token_id")?;
        let eos = id("tokenizer.ggml.eos_token_id")?;
        let byte_fallback = flag(metadata, "tokenizer.ggml.byte_fallback", false)?;

        let vocabulary = tokens.iter().cloned().zip(scores.iter().copied().map(f64::from));
        let model = Unigram::from(vocabulary.collect(), Some(unknown as usize), byte_fallback)
            .map_err(TokenizerError::Build)?;
        let prepend_scheme = match flag(metadata, "tokenizer.ggml.add_space_prefix", true)? {
            true => PrependScheme::Always,
            false => PrependScheme::Never,
        };
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(Metaspace::new('▁', prepend_scheme, true)));
        inner
            .with_normalizer(Some(Sequence::new(normalizers(metadata)?)))
            .map_err(TokenizerError::Build)?;
        let cut_out = tokens.iter().zip(types).filter(|(_, kind)| CUT_OUT.contains(kind));
        inner
            .add_special_tokens(cut_out.map(|(token, _)| AddedToken::from(token.clone(), true)))
            .map_err(TokenizerError::Build)?;
        Ok(Self { inner, eos })
    }

    /// The ids of `text` and of the end of text: at most [`Self::MAX_TOKENS`], cut before the end
    /// of text and not padded. Empty text is the end of text alone.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let encoding = self.inner.encode_fast(text, false);
        let mut ids =
            encoding.expect("a model with an unknown token splits any text").get_ids().to_vec();
        ids.truncate(Self::MAX_TOKENS - 1);
        ids.push(self.eos);
        ids
    }
}

/// What happens to text before it is split into words.
fn normalizers(metadata: &Metadata) -> Result<Vec<NormalizerWrapper>, TokenizerError> {
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let table = Metadata::optional(metadata.bytes("tokenizer.ggml.precompiled_charsmap"))?;
    if let Some(table) = table.filter(|table| !table.is_empty()) {
        charsmap::check(&table).map_err(|e| TokenizerError::Charsmap(e.into()))?;
        let map = Precompiled::from(&table).map_err(|e| TokenizerError::Charsmap(e.into()))?;
        normalizers.push(map.into());
    }
    if flag(metadata, "tokenizer.ggml.strip_whitespace", false)? {
        normalizers.push(Strip::new(true, true).into());
    }
    if flag(metadata, "tokenizer.ggml.remove_extra_whitespaces", true)? {
        let spaces = ReplacePattern::Regex(" {2,}".to_owned());
        normalizers.push(Replace::new(spaces, " ").map_err(TokenizerError::Build)?.into());
    }
    Ok(normalizers)
}

fn flag(metadata: &Metadata, key: &str, default: bool) -> Result<bool, MetadataError> {
    Ok(Metadata::optional(metadata.bool(key))?.unwrap_or(default))
}
