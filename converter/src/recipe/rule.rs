//! `--tensor-type REGEX=TYPE`: a type for the matrices whose names match.

use gguf::DType;
use regex::Regex;
use std::fmt;
use std::str::FromStr;

use crate::quantize;

/// A type for the matrices whose names match.
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: Regex,
    pub(crate) dtype: DType,
}

impl Rule {
    /// Whether the pattern is found anywhere in the name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.dtype)
    }
}

/// Why a text is no [`Rule`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum BadRule {
    /// There is no `=`.
    #[error("{0:?} is not REGEX=TYPE")]
    Form(String),
    /// The part before the last `=` is no regular expression.
    #[error(transparent)]
    Pattern(#[from] regex::Error),
    /// The part behind it is no type that is written.
    #[error("{0:?} is no type to write; those are F32, F16, BF16, {known}",
        known = quantize::QUANTIZED.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(", "))]
    Type(String),
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let form = || BadRule::Form(text.to_owned());
        let (pattern, name) = text.rsplit_once('=').ok_or_else(form)?;
        if pattern.is_empty() {
            return Err(form());
        }
        let dtype = name.parse().ok().filter(|&dtype| quantize::is_encodable(dtype));
        let dtype = dtype.ok_or_else(|| BadRule::Type(name.to_owned()))?;
        Ok(Self { pattern: Regex::new(pattern)?, dtype })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_a_pattern_and_a_type() {
        let rule: Rule = r"blocks\.(0|1)\..*attn=q6_k".parse().unwrap();
        assert_eq!(rule.dtype, DType::Q6_K);
        assert!(rule.matches("blocks.1.self_attn.q.weight"));
        assert!(!rule.matches("blocks.11.self_attn.q.weight"));
        for (text, part) in [
            ("blocks", "not REGEX=TYPE"),
            ("=Q8_0", "not REGEX=TYPE"),
            ("(=Q8_0", "unclosed group"),
            ("ffn=Q4_K_M", "no type to write"),
            ("ffn=MXFP4", "no type to write"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
