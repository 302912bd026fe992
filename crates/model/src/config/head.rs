//! What stands above the last norm: the output matrix of a language model, or a head that scores.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Config, Reader, shown};
use crate::arch::Architecture;
use crate::checkpoint::Checkpoint;
use crate::error::Error;

/// The head of a model, as `architectures` of `config.json` names it.
///
/// | head | `architectures` | tensors |
/// |---|---|---|
/// | `Language` | `XForCausalLM`, and any other | `lm_head.weight`, if it is not the embedding matrix |
/// | `Sequence` | `XForSequenceClassification` | `score.weight` |
/// | `Token` | `XForTokenClassification` | `score.weight`, `score.bias` |
/// | `Perceptron` | `Qwen2ForRewardModel`, `Qwen2ForProcessRewardModel` | `score.0.*`, `score.2.*` |
/// | `Value` | `Qwen2ForPrmModel`, and any with the tensors | `v_head.summary.*` |
///
/// The dropout that transformers has before the heads `Token` and `Value` in training is not applied,
/// as it is not under TRL's default `disable_dropout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The output matrix.
    Language,
    /// One linear layer without a bias, read at the last token that is not padding.
    Sequence {
        /// Number of scores.
        labels: usize,
    },
    /// One linear layer, read at any token.
    Token {
        /// Number of scores.
        labels: usize,
        /// Whether it has a bias (`token_classification_bias`).
        bias: bool,
    },
    /// Linear, `ReLU`, linear, with biases (Qwen2.5-Math-RM and -PRM, Zhang et al. 2025,
    /// arXiv:2501.07301).
    Perceptron {
        /// Number of scores: 1, or 2 of a process reward model.
        labels: usize,
        /// Whether the checkpoint has an output matrix too. Nothing reads it; it is written back.
        lm_head: bool,
    },
    /// One linear layer to one score beside the language model, as in Skywork-o1-Open-PRM and TRL's
    /// `AutoModelForCausalLMWithValueHead`.
    Value {
        /// Whether the checkpoint has an output matrix that is not the embedding matrix.
        lm_head: bool,
        /// Whether the tensors of the language model are named `pretrained_model.model...`.
        prefixed: bool,
    },
}

/// The parameter by which a value head is known.
const VALUE: &str = "v_head.summary.weight";
/// Before the tensors of a language model that was saved inside of another module.
const PREFIX: &str = "pretrained_model.";
/// Heads of one family whose classes are not those of transformers.
const QWEN: [(&str, Head); 3] = [
    ("Qwen2ForRewardModel", Head::Perceptron { labels: 1, lm_head: false }),
    ("Qwen2ForProcessRewardModel", Head::Perceptron { labels: 2, lm_head: false }),
    ("Qwen2ForPrmModel", Head::Value { lm_head: false, prefixed: false }),
];
/// Ends of class names that stand for a head that scores.
const SCORING: [&str; 5] = [
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForRewardModel",
    "ForProcessRewardModel",
    "ForPrmModel",
];

impl Head {
    /// Number of scores of a head that scores.
    pub fn labels(self) -> Option<usize> {
        match self {
            Self::Language => None,
            Self::Value { .. } => Some(1),
            Self::Sequence { labels }
            | Self::Token { labels, .. }
            | Self::Perceptron { labels, .. } => Some(labels),
        }
    }

    /// Whether no output matrix may be beside it.
    pub(crate) fn is_alone(self) -> bool {
        matches!(self, Self::Sequence { .. } | Self::Token { .. })
    }

    /// Reads `architectures` and the number of labels, with transformers' defaults.
    pub(super) fn read(r: &mut Reader<'_>, architecture: Architecture) -> Result<Self, Error> {
        let names: Vec<String> = r.get("architectures")?.unwrap_or_default();
        let Some(name) = names.first() else { return Ok(Self::Language) };
        if Some(name.as_str()) == architecture.sequence_class() {
            return Ok(Self::Sequence { labels: labels(r)? });
        }
        if Some(name.as_str()) == architecture.token_class() {
            let bias = r.or("token_classification_bias", true)?;
            return Ok(Self::Token { labels: labels(r)?, bias });
        }
        let qwen = QWEN.iter().filter(|_| architecture == Architecture::Qwen2);
        if let Some((_, head)) = qwen.clone().find(|(known, _)| known == name) {
            return Ok(*head);
        }
        if SCORING.iter().any(|end| name.ends_with(end)) {
            let classes = [architecture.sequence_class(), architecture.token_class()];
            let known = classes.into_iter().flatten().chain(qwen.map(|(known, _)| *known));
            let known: Vec<&str> = known.collect();
            let language = format!("a class of a language model of the family {architecture}");
            let expected = [known.join(", "), language].join(" or ");
            return Err(r.error("architectures", format!("`{name}`"), expected));
        }
        Ok(Self::Language)
    }

    /// The head that the tensors of a checkpoint have: what no `config.json` tells.
    pub(crate) fn found_in(self, checkpoint: &Checkpoint) -> Self {
        let prefixed = checkpoint.names().any(|name| name.starts_with(PREFIX));
        let lm_head = checkpoint.get("lm_head.weight").is_some()
            || checkpoint.get(&format!("{PREFIX}lm_head.weight")).is_some();
        match self {
            Self::Language if checkpoint.get(VALUE).is_some() => Self::Value { lm_head, prefixed },
            Self::Value { .. } => Self::Value { lm_head, prefixed },
            Self::Perceptron { labels, .. } => Self::Perceptron { labels, lm_head },
            other => other,
        }
    }
}

impl Config {
    /// Whether the model has logits: it is a language model, or scores beside one.
    pub fn has_logits(&self) -> bool {
        match self.head {
            Head::Language => true,
            Head::Value { lm_head, .. } => lm_head || self.tie_word_embeddings,
            Head::Sequence { .. } | Head::Token { .. } | Head::Perceptron { .. } => false,
        }
    }

    /// Where a `Sequence` head reads a text: at the last token that is not `pad_token_id`, as
    /// transformers does. Where the end token is also the padding, that is the token before it.
    pub fn pooled(&self, ids: &[u32]) -> usize {
        let Some(pad) = self.pad_token_id else { return ids.len().saturating_sub(1) };
        ids.iter().rposition(|&id| id != pad).unwrap_or(0)
    }

    /// Whether there is an output matrix that is not the embedding matrix.
    pub(crate) fn stores_lm_head(&self) -> bool {
        let head = match self.head {
            Head::Language => true,
            Head::Value { lm_head, .. } | Head::Perceptron { lm_head, .. } => lm_head,
            Head::Sequence { .. } | Head::Token { .. } => false,
        };
        head && !self.tie_word_embeddings
    }

    /// The key of a parameter in the checkpoint.
    pub(crate) fn key<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match self.head {
            Head::Value { prefixed: true, .. } if !name.starts_with("v_head.") => {
                format!("{PREFIX}{name}").into()
            }
            _ => name.into(),
        }
    }

    /// The same decoder under another head, also in the `config.json` to be written.
    ///
    /// # Errors
    /// [`Error::Input`] for a head without labels, or that the family does not have.
    pub fn with_head(&self, head: Head) -> Result<Self, Error> {
        let refuse = |found: String, expected: String| {
            Err(Error::Input { what: "the head".into(), found, expected })
        };
        let (family, found) = (self.architecture, format!("{head:?}"));
        if head.labels() == Some(0) {
            return refuse(found, "one with a label".into());
        }
        let qwen = QWEN.iter().find(|(_, known)| known.labels() == head.labels());
        let class = match head {
            Head::Sequence { .. } => family.sequence_class(),
            Head::Token { .. } => family.token_class(),
            Head::Perceptron { lm_head: false, .. } if family == Architecture::Qwen2 => {
                qwen.map(|(name, _)| *name)
            }
            // The class of the language model stays: the head is known by its tensors.
            Head::Value { prefixed: false, .. } => None,
            _ => return refuse(found, "one that scores".into()),
        };
        if class.is_none() && !matches!(head, Head::Value { .. }) {
            return refuse(found, format!("one that the family {family} has"));
        }
        let lm_head = self.stores_lm_head();
        let head = if let Head::Value { prefixed, .. } = head {
            Head::Value { lm_head, prefixed }
        } else {
            head
        };
        let mut config = Self { head, ..self.clone() };
        if config.pad_token_id.is_none() {
            config.pad_token_id = config.eos_token_ids.first().copied();
        }
        if let Some(json) = config.json.as_object_mut() {
            write(json, head, class);
            json.insert("pad_token_id".into(), json!(config.pad_token_id));
        }
        Ok(config)
    }
}

/// What a `config.json` says of a head.
fn write(json: &mut Map<String, Value>, head: Head, class: Option<&str>) {
    let Some(class) = class else { return };
    json.insert("architectures".into(), json!([class]));
    let labels = head.labels().unwrap_or_default();
    let name = |label: usize| format!("LABEL_{label}");
    let names = (0..labels).map(|label| (label.to_string(), json!(name(label))));
    json.insert("id2label".into(), Value::Object(names.collect()));
    let ids = (0..labels).map(|label| (name(label), json!(label)));
    json.insert("label2id".into(), Value::Object(ids.collect()));
    json.shift_remove("num_labels");
    match head {
        Head::Token { bias: false, .. } => {
            json.insert("token_classification_bias".into(), false.into());
        }
        _ => drop(json.shift_remove("token_classification_bias")),
    }
}

/// `id2label` has as many entries as there are labels; without it `num_labels` counts, which is 2.
fn labels(r: &mut Reader<'_>) -> Result<usize, Error> {
    let named = match r.raw("id2label") {
        None | Some(Value::Null) => None,
        Some(Value::Object(names)) => Some(names.len()),
        Some(other) => return Err(r.error("id2label", shown(other), "a JSON object")),
    };
    let counted = r.get::<usize>("num_labels")?;
    let labels = named.or(counted).unwrap_or(2);
    if let Some(counted) = counted.filter(|&counted| counted != labels) {
        let expected = format!("{labels}, the number of entries of id2label");
        return Err(r.error("num_labels", counted.to_string(), expected));
    }
    if labels == 0 {
        return Err(r.error("num_labels", "0", "at least 1"));
    }
    Ok(labels)
}

/// The value of `initializer_range`, with transformers' default.
pub(crate) fn initializer_range(config: &Config) -> Result<f32, Error> {
    let path = Path::new("config.json");
    Reader::new(path, &config.json)?.or("initializer_range", 0.02)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<Config, String> {
        let small = json!({
            "model_type": "qwen2", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        });
        let mut all = small.as_object().unwrap().clone();
        all.extend(json.as_object().unwrap().clone());
        Config::from_json(Path::new("c"), &Value::Object(all)).map_err(|error| error.to_string())
    }

    fn head(json: Value) -> Result<Head, String> {
        read(json).map(|config| config.head)
    }

    #[test]
    fn architectures_decide() {
        let class = |name: &str| head(json!({"architectures": [name]}));
        assert_eq!(head(json!({})), Ok(Head::Language));
        assert_eq!(class("Qwen2ForCausalLM"), Ok(Head::Language));
        assert_eq!(class("Qwen2ForSequenceClassification"), Ok(Head::Sequence { labels: 2 }));
        let token = Head::Token { labels: 2, bias: true };
        assert_eq!(class("Qwen2ForTokenClassification"), Ok(token));
        let process = Head::Perceptron { labels: 2, lm_head: false };
        assert_eq!(class("Qwen2ForProcessRewardModel"), Ok(process));
        let error = class("LlamaForSequenceClassification").unwrap_err();
        assert!(error.contains("Qwen2ForSequenceClassification"), "{error}");
    }

    #[test]
    fn labels_are_counted() {
        let of = |json: Value| {
            let mut all = json!({"architectures": ["Qwen2ForSequenceClassification"]});
            all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
            head(all).map(|head| head.labels().unwrap())
        };
        assert_eq!(of(json!({"num_labels": 3})), Ok(3));
        assert_eq!(of(json!({"id2label": {"0": "LABEL_0"}})), Ok(1));
        assert!(of(json!({"id2label": {"0": "a"}, "num_labels": 3})).is_err());
        assert!(of(json!({"num_labels": 0})).unwrap_err().contains("at least 1"));
    }

    #[test]
    fn the_last_token_that_is_not_padding() {
        let config = read(json!({"pad_token_id": 3})).unwrap();
        assert_eq!(config.pooled(&[5, 3, 6, 3, 3]), 2);
        assert_eq!((config.pooled(&[3, 3]), config.pooled(&[5, 6])), (0, 1));
        let config = read(json!({})).unwrap();
        assert_eq!(config.pooled(&[5, 3, 3]), 2);
    }

    #[test]
    fn a_head_goes_into_the_file() {
        let config = read(json!({"eos_token_id": 7, "num_labels": 5})).unwrap();
        let config = config.with_head(Head::Token { labels: 1, bias: false }).unwrap();
        let again = Config::from_json(Path::new("c"), &config.json).unwrap();
        assert_eq!(again.head, Head::Token { labels: 1, bias: false });
        assert_eq!(
            (again.pad_token_id, &config.json["label2id"]),
            (Some(7), &json!({"LABEL_0": 0}))
        );
        assert!(config.with_head(Head::Sequence { labels: 0 }).is_err());
        assert!(config.with_head(Head::Language).is_err());
    }
}
