//! Token ids against Hugging Face's library (made by tests/reference/tokenizer.py).

use gguf::Metadata;
use gguf_video::text::{Tokenizer, TokenizerError};

#[derive(serde::Deserialize)]
struct Golden {
    texts: Vec<String>,
    umt5: Reference,
    demo: Reference,
}

#[derive(serde::Deserialize)]
struct Reference {
    /// Piece, score, type.
    pieces: Vec<(String, f32, i32)>,
    unknown: u32,
    byte_fallback: bool,
    strip: bool,
    /// Of each text.
    ids: Vec<Vec<u32>>,
}

impl Reference {
    fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        let pieces = || self.pieces.iter();
        metadata
            .set("tokenizer.ggml.tokens", pieces().map(|p| p.0.clone()).collect::<Vec<String>>())
            .set("tokenizer.ggml.scores", pieces().map(|p| p.1).collect::<Vec<f32>>())
            .set("tokenizer.ggml.token_type", pieces().map(|p| p.2).collect::<Vec<i32>>())
            .set(
                "tokenizer.ggml.precompiled_charsmap",
                include_bytes!("golden/nmt_nfkc.charsmap").to_vec(),
            )
            .set("tokenizer.ggml.unknown_token_id", self.unknown)
            .set("tokenizer.ggml.eos_token_id", 1_u32);
        if self.byte_fallback {
            metadata.set("tokenizer.ggml.byte_fallback", true);
        }
        if self.strip {
            metadata.set("tokenizer.ggml.strip_whitespace", true);
        }
        metadata
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/tokenizers.json")).expect("the golden's form")
}

#[test]
fn texts_split_as_in_the_reference() {
    let golden = golden();
    for (name, reference) in [("umt5", &golden.umt5), ("demo", &golden.demo)] {
        let tokenizer = Tokenizer::from_metadata(&reference.metadata()).expect("a tokenizer");
        assert_eq!(tokenizer.encode(""), [1], "the end of text alone");
        for (text, expected) in golden.texts.iter().zip(&reference.ids) {
            assert_eq!(tokenizer.encode(text), *expected, "{name}: {text:?}");
        }
        assert_eq!(tokenizer.encode(&"ball ".repeat(600)).len(), Tokenizer::MAX_TOKENS);
    }
}

/// llama.cpp's readers want as many tokens as the embedding has rows.
#[test]
fn rows_that_no_text_becomes_change_nothing() {
    let mut golden = golden();
    let unused = (0..84).map(|i| (format!("[PAD{i}]"), -10_000.0, 5));
    golden.umt5.pieces.extend(unused);
    let tokenizer = Tokenizer::from_metadata(&golden.umt5.metadata()).expect("a tokenizer");
    for (text, expected) in golden.texts.iter().zip(&golden.umt5.ids) {
        assert_eq!(tokenizer.encode(text), *expected, "{text:?}");
    }
    assert!(tokenizer.encode("[PAD0]").len() > 2, "not one piece");
}

#[test]
fn the_golden_shows_what_it_should() {
    // Extra ids, unknown characters and bytes really occur in what is compared.
    let golden = golden();
    let ids = |reference: &Reference, start: &str| -> Vec<u32> {
        let at = golden.texts.iter().position(|text| text.starts_with(start)).expect("the text");
        reference.ids[at].clone()
    };
    let last = golden.umt5.pieces.len() as u32 - 1;
    assert_eq!(ids(&golden.umt5, "<extra_id_1>"), [last - 1, 1]);
    assert_eq!(ids(&golden.umt5, "\u{1f600}\u{1f601}").iter().filter(|&&id| id == 3).count(), 1);
    assert!(!ids(&golden.demo, "\u{1f600}\u{1f601}").contains(&2));
}

#[test]
fn metadata_that_fits_no_tokenizer_is_refused() {
    let golden = golden();
    let broken = |change: &dyn Fn(&mut Metadata)| {
        let mut metadata = golden.umt5.metadata();
        change(&mut metadata);
        Tokenizer::from_metadata(&metadata).err().expect("an error")
    };
    let count = golden.umt5.pieces.len();
    assert!(matches!(
        Tokenizer::from_metadata(&Metadata::new()),
        Err(TokenizerError::Metadata(gguf::MetadataError::Missing { .. }))
    ));
    let error = broken(&|m| {
        m.set("tokenizer.ggml.scores", vec![0.0_f32]);
    });
    assert!(matches!(error, TokenizerError::Counts { scores: 1, .. }), "{error}");
    let error = broken(&|m| {
        m.set("tokenizer.ggml.scores", vec![f32::NAN; count]);
    });
    assert_eq!(error.to_string(), "the score of token \"<pad>\" is NaN");
    let error = broken(&|m| {
        m.set("tokenizer.ggml.eos_token_id", 1_000_000_u32);
    });
    assert_eq!(
        error.to_string(),
        format!(
            "metadata key \"tokenizer.ggml.eos_token_id\" is 1000000, but there are only {count} tokens"
        )
    );
    let error = broken(&|m| {
        m.set("tokenizer.ggml.precompiled_charsmap", vec![1_u8, 2]);
    });
    assert!(matches!(error, TokenizerError::Charsmap(_)), "{error}");
    // The library would go down 100,000 levels of the stack.
    let error = broken(&|m| {
        let mut tokens = m.strings("tokenizer.ggml.tokens").unwrap().to_vec();
        tokens[9] = "x".repeat(100_000);
        m.set("tokenizer.ggml.tokens", tokens);
    });
    assert_eq!(error.to_string(), "token 9 has 100000 bytes, more than 1024");
    let error = broken(&|m| {
        m.set("tokenizer.ggml.byte_fallback", 1_u32);
    });
    assert!(matches!(error, TokenizerError::Metadata(_)), "{error}");
}
