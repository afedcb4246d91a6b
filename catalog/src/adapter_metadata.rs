//! What diffusers writes of an adapter into the header of its file, as `lora_adapter_metadata`: peft's `LoraConfig`
//! in JSON, its keys behind the name of the part that the adapter is for (`transformer.lora_alpha`).

use serde::Deserialize;
use std::collections::BTreeMap;

/// peft's configuration of each part.
#[derive(Default)]
pub(crate) struct AdapterMetadata(BTreeMap<String, Config>);

/// The fields that change what is added (`peft/tuners/lora/config.py`).
#[derive(Deserialize)]
struct Config {
    lora_alpha: Option<f64>,
    alpha_pattern: Option<BTreeMap<String, f64>>,
    use_rslora: Option<bool>,
    use_dora: Option<bool>,
}

impl AdapterMetadata {
    /// # Errors
    /// Where it isn't what diffusers writes, or adds something else than products.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(json).map_err(|e| e.to_string())?;
        let mut parts: BTreeMap<String, serde_json::Map<_, _>> = BTreeMap::new();
        for (key, value) in fields {
            let Some((part, field)) = key.split_once('.') else {
                return Err(format!("{key:?} names no part"));
            };
            parts.entry(part.to_owned()).or_default().insert(field.to_owned(), value);
        }
        let mut configs = BTreeMap::new();
        for (part, fields) in parts {
            let config: Config =
                serde_json::from_value(fields.into()).map_err(|e| e.to_string())?;
            if config.use_dora == Some(true) {
                return Err("`use_dora` is true, and only low-rank products are known".into());
            }
            configs.insert(part, config);
        }
        Ok(Self(configs))
    }

    /// What the product of `key` and its pair is multiplied by, and divided by the rank. None: the rank.
    pub(crate) fn alpha(&self, key: &str, rank: u64) -> Option<f32> {
        let own = self.0.iter().find_map(|(part, config)| {
            let module = key.strip_prefix(part.as_str())?.strip_prefix('.')?;
            Some((config, module))
        });
        // Tools take the part's name off.
        let only = || Some((self.0.values().next().filter(|_| self.0.len() == 1)?, key));
        let (config, module) = own.or_else(only)?;
        let module = module.split(".lora").next().unwrap_or(module);
        let is_of = |pattern: &str| {
            module.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let patterns = config.alpha_pattern.iter().flatten();
        let special =
            patterns.filter(|(pattern, _)| is_of(pattern)).map(|(_, alpha)| *alpha).next();
        let alpha = special.or(config.lora_alpha)?;
        // Rank-stabilized: divided by the rank's root.
        let factor = if config.use_rslora == Some(true) { (rank as f64).sqrt() } else { 1.0 };
        Some((alpha * factor) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "transformer.blocks.0.attn1.to_q.lora_A.weight";

    fn alpha(json: &str, key: &str) -> Option<f32> {
        AdapterMetadata::parse(json).unwrap().alpha(key, 16)
    }

    #[test]
    fn alpha_is_the_parts_or_the_modules_own() {
        let json = r#"{"transformer.lora_alpha": 8, "transformer.r": 16, "transformer.alpha_pattern": {"to_q": 2, "0.to_k": 3},
            "transformer_2.lora_alpha": 5, "transformer_2.use_rslora": true}"#;
        assert_eq!(alpha(json, KEY), Some(2.0));
        assert_eq!(alpha(json, &KEY.replace("to_q", "to_k")), Some(8.0), "attn1.to_k isn't 0.to_k");
        assert_eq!(alpha(json, &KEY.replace("transformer", "transformer_2")), Some(20.0));
        assert_eq!(alpha(json, "blocks.0.ffn.0.lora_A.weight"), None, "which part's?");
        let one = r#"{"transformer.lora_alpha": 8}"#;
        assert_eq!(alpha(one, "blocks.0.ffn.0.lora_A.weight"), Some(8.0));
        assert_eq!(alpha("{}", KEY), None);
    }

    #[test]
    fn what_is_no_product_is_refused() {
        for (json, why) in [
            (r#"{"transformer.use_dora": true}"#, "use_dora"),
            (r#"{"lora_alpha": 8}"#, "names no part"),
            (r#"{"transformer.lora_alpha": "8"}"#, "invalid type"),
            ("{", "EOF"),
        ] {
            let error = AdapterMetadata::parse(json).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
    }
}
