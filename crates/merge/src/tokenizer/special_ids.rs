//! Token ids in `config.json` and `generation_config.json`, when tokens move.

use serde_json::{Map, Value};

use super::MergedTokenizer;

/// A change to a configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigChange {
    /// Such as `eos_token_id` or `text_config.vocab_size`.
    pub key: String,
    /// What the file says; null where the key is missing.
    pub from: Value,
    /// What the merged model's file says.
    pub to: Value,
}

/// Parts of a configuration that describe the language model of a larger one.
pub(super) const TEXT_PARTS: [&str; 4] =
    ["text_config", "llm_config", "language_config", "text_model_config"];

/// The number of tokens that a configuration gives.
pub(super) fn vocab_size(config: &Map<String, Value>) -> Option<&Value> {
    let part = |key: &str| config.get(key)?.get("vocab_size");
    config.get("vocab_size").or_else(|| TEXT_PARTS.iter().find_map(|key| part(key)))
}

impl MergedTokenizer {
    /// Sets the vocabulary size in a `config.json` that comes from input `model`, and every token
    /// id in it to the id of the same token in the merged vocabulary. The changes are returned, and
    /// a warning for each id without a token there.
    ///
    /// Ids of tokens that the merged vocabulary lacks become those of the merged tokenizer's token
    /// with the same role (`eos_token_id`: its `eos_token`), or null; lists lose them.
    pub fn update_config(
        &self,
        model: usize,
        config: &mut Map<String, Value>,
    ) -> (Vec<ConfigChange>, Vec<String>) {
        let (mut changes, warnings) = self.update_ids(model, config);
        let has_text_part = TEXT_PARTS.iter().any(|key| config.get(*key).is_some());
        let rows = Value::from(self.rows);
        let mut set = |prefix: &str, part: &mut Map<String, Value>, insert: bool| {
            let from = part.get("vocab_size").cloned().unwrap_or(Value::Null);
            if (insert || !from.is_null()) && from != rows {
                part.insert("vocab_size".into(), rows.clone());
                let key = format!("{prefix}vocab_size");
                changes.push(ConfigChange { key, from, to: rows.clone() });
            }
        };
        set("", config, !has_text_part);
        for key in TEXT_PARTS {
            if let Some(Value::Object(part)) = config.get_mut(key) {
                set(&format!("{key}."), part, true);
            }
        }
        (changes, warnings)
    }

    /// As [`update_config`](Self::update_config) for a `generation_config.json`, which has no
    /// vocabulary size.
    pub fn update_ids(
        &self,
        model: usize,
        config: &mut Map<String, Value>,
    ) -> (Vec<ConfigChange>, Vec<String>) {
        let mut walk = Walk {
            tokenizer: self,
            model,
            size: vocab_size(config).cloned(),
            changes: Vec::new(),
            warnings: Vec::new(),
        };
        walk.object("", config);
        (walk.changes, walk.warnings)
    }

    fn moved(&self, model: usize, id: u64) -> Option<u32> {
        let id = u32::try_from(id).ok()?;
        // Nearly all tokens stay where they are.
        let own = &self.own[model];
        if own.get(id as usize) == Some(&id) {
            return Some(id);
        }
        own.iter().position(|own| *own == id).map(|row| row as u32)
    }
}

struct Walk<'a> {
    tokenizer: &'a MergedTokenizer,
    model: usize,
    size: Option<Value>,
    changes: Vec<ConfigChange>,
    warnings: Vec<String>,
}

impl Walk<'_> {
    fn object(&mut self, prefix: &str, object: &mut Map<String, Value>) {
        for (key, value) in object.iter_mut() {
            let path = format!("{prefix}{key}");
            if let Value::Object(inner) = value {
                // A part with a vocabulary of its own (speech codes) has other ids.
                let other =
                    inner.get("vocab_size").is_some_and(|size| Some(size) != self.size.as_ref());
                if !other {
                    self.object(&format!("{path}."), inner);
                }
            } else if is_ids(key) {
                let before = value.clone();
                self.ids(key, &path, value);
                if *value != before {
                    let change = ConfigChange { key: path, from: before, to: value.clone() };
                    self.changes.push(change);
                }
            } else if key == "forced_decoder_ids" {
                // Pairs of a position and an id.
                let before = value.clone();
                for pair in value.as_array_mut().into_iter().flatten() {
                    if let Some(id) = pair.get_mut(1) {
                        self.ids(key, &path, id);
                    }
                }
                if *value != before {
                    let change = ConfigChange { key: path, from: before, to: value.clone() };
                    self.changes.push(change);
                }
            }
        }
    }

    fn ids(&mut self, key: &str, path: &str, value: &mut Value) {
        match value {
            Value::Array(list) => {
                let before = list.len();
                list.retain_mut(|value| {
                    let was_null = value.is_null();
                    self.ids("", path, value);
                    was_null || !value.is_null()
                });
                // A phrase of `bad_words_ids` without one of its tokens is another phrase.
                if key.is_empty() && list.len() < before {
                    *value = Value::Null;
                    return;
                }
                if list.is_empty()
                    && before > 0
                    && let Some(id) = self.of_role(key)
                {
                    list.push(id.into());
                }
            }
            Value::Number(number) => {
                // Negative numbers stand for "none".
                let Some(id) = number.as_u64() else { return };
                if let Some(new) = self.tokenizer.moved(self.model, id) {
                    *value = new.into();
                    return;
                }
                let role = self.of_role(key);
                self.warnings.push(format!(
                    "`{path}`: the merged vocabulary has no token for id {id} of {}; {}",
                    self.tokenizer.names[self.model],
                    match role {
                        Some(id) => format!("the tokenizer's own, {id}, takes its place"),
                        None => "it is left out".into(),
                    }
                ));
                *value = role.map_or(Value::Null, Value::from);
            }
            _ => {}
        }
    }

    /// The id of the merged tokenizer's token with the role that `key` names.
    fn of_role(&self, key: &str) -> Option<u32> {
        let role = key.strip_suffix("_id")?;
        self.tokenizer.roles.iter().find(|(name, _)| name == role).map(|(_, id)| *id)
    }
}

fn is_ids(key: &str) -> bool {
    ["_token_id", "_token_ids", "_token_index"].iter().any(|end| key.ends_with(end))
        || matches!(key, "suppress_tokens" | "begin_suppress_tokens" | "bad_words_ids")
}
