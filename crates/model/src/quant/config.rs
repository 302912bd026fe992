//! What is quantised and how, with the names and defaults of `BitsAndBytesConfig`.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::FourBit;
use crate::config::{Reader, shown};
use crate::error::Error;

/// The type of quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantizationKind {
    /// Blocks of 64 in the 4-bit type of normally distributed numbers.
    Nf4 {
        /// Whether the scales of the blocks are quantised too.
        double: bool,
    },
    /// Blocks of 64 in 4-bit floating point.
    Fp4 {
        /// Whether the scales of the blocks are quantised too.
        double: bool,
    },
    /// Rows of 8-bit integers.
    Int8,
}

impl QuantizationKind {
    pub(crate) fn four_bit(self) -> Option<(FourBit, bool)> {
        match self {
            Self::Nf4 { double } => Some((FourBit::Nf4, double)),
            Self::Fp4 { double } => Some((FourBit::Fp4, double)),
            Self::Int8 => None,
        }
    }
}

/// Quantised loading. Embeddings, norms, biases and the output head always stay as they are.
///
/// The serialised form has the keys `load_in_4bit`, `load_in_8bit`, `bnb_4bit_quant_type`,
/// `bnb_4bit_use_double_quant` and `llm_int8_skip_modules` of `BitsAndBytesConfig`.
///
/// ```
/// use posttrain_model::quant::{Quantization, QuantizationKind};
/// let json = r#"{"load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true}"#;
/// let found: Quantization = serde_json::from_str(json)?;
/// assert_eq!(found, Quantization::new(QuantizationKind::Nf4 { double: true }));
/// let error = serde_json::from_str::<Quantization>(r#"{"load_in_4bits": true}"#).unwrap_err();
/// assert!(error.to_string().contains("did you mean `load_in_4bit`?"), "{error}");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The type.
    pub kind: QuantizationKind,
    /// Modules that stay dense, each named by the end of its path: `down_proj`,
    /// `layers.0.mlp.up_proj`, or a whole part: `layers.0`. One that names nothing is an error.
    pub llm_int8_skip_modules: Vec<String>,
}

impl Quantization {
    /// All linear layers but the head.
    pub const fn new(kind: QuantizationKind) -> Self {
        Self { kind, llm_int8_skip_modules: Vec::new() }
    }

    /// Reads the keys of `BitsAndBytesConfig`; the path is for errors only.
    ///
    /// # Errors
    /// [`Error::ConfigField`] for a wrong value, [`Error::UnknownConfigFields`] for unknown keys.
    pub fn from_json(path: &Path, json: &Value) -> Result<Self, Error> {
        let mut r = Reader::new(path, json)?;
        let (four, eight) = (r.or("load_in_4bit", false)?, r.or("load_in_8bit", false)?);
        let name: String = r.or("bnb_4bit_quant_type", "fp4".to_owned())?;
        let double = r.or("bnb_4bit_use_double_quant", false)?;
        let skip = r.get("llm_int8_skip_modules")?.unwrap_or_default();
        // Those of a file written by transformers that say nothing more.
        for (key, only) in [
            ("quant_method", json!("bitsandbytes")),
            ("_load_in_4bit", json!(four)),
            ("_load_in_8bit", json!(eight)),
            ("bnb_4bit_quant_storage", json!("uint8")),
            ("llm_int8_enable_fp32_cpu_offload", json!(false)),
            ("llm_int8_has_fp16_weight", json!(false)),
        ] {
            if let Some(found) = r.raw(key).filter(|found| **found != only) {
                return Err(r.error(key, shown(found), format!("nothing, or {only}")));
            }
        }
        // Hidden states are neither rounded nor split, so nothing depends on the threshold; the type
        // of the computation is the model's.
        r.raw("llm_int8_threshold");
        if let Some(found) = r.raw("bnb_4bit_compute_dtype").filter(|found| !found.is_null()) {
            let expected = "nothing: the type of the computation is `dtype` of the model";
            return Err(r.error("bnb_4bit_compute_dtype", shown(found), expected));
        }
        let kind = match (four, eight, name.as_str()) {
            (true, false, "nf4") => Ok(QuantizationKind::Nf4 { double }),
            (true, false, "fp4") => Ok(QuantizationKind::Fp4 { double }),
            (false, true, _) => Ok(QuantizationKind::Int8),
            (true, false, other) => {
                Err(r.error("bnb_4bit_quant_type", format!("`{other}`"), "nf4 or fp4"))
            }
            _ => {
                let found = format!("{four}, and `load_in_8bit` {eight}");
                Err(r.error("load_in_4bit", found, "one of them true"))
            }
        };
        // A misspelt key is told before what is missing because of it.
        let fields = r.unread(|_, _| false);
        if !fields.is_empty() {
            return Err(Error::UnknownConfigFields { path: path.to_owned(), fields });
        }
        let kind = kind?;
        Ok(Self { kind, llm_int8_skip_modules: skip })
    }

    /// As the keys of `BitsAndBytesConfig`.
    pub fn to_json(&self) -> Value {
        let four = self.kind.four_bit();
        let name = match self.kind {
            QuantizationKind::Nf4 { .. } => "nf4",
            _ => "fp4",
        };
        let skip = &self.llm_int8_skip_modules;
        json!({
            "load_in_4bit": four.is_some(),
            "load_in_8bit": four.is_none(),
            "bnb_4bit_quant_type": name,
            "bnb_4bit_use_double_quant": four.is_some_and(|(_, double)| double),
            "llm_int8_skip_modules": if skip.is_empty() { Value::Null } else { json!(skip) },
        })
    }

    /// Whether the module at this path is quantised, and marks what its name is excused by.
    pub(crate) fn covers(&self, path: &str, used: &mut [bool]) -> bool {
        let mut covered = true;
        for (name, used) in self.llm_int8_skip_modules.iter().zip(used) {
            let whole = format!(".{path}.");
            if whole.contains(&format!(".{name}.")) {
                (covered, *used) = (false, true);
            }
        }
        covered
    }
}

impl Serialize for Quantization {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quantization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        Self::from_json(Path::new("quantization"), &json).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &Value) -> Result<Quantization, String> {
        Quantization::from_json(Path::new("q"), json).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_bitsandbytes() {
        let four = read(&json!({"load_in_4bit": true})).unwrap();
        assert_eq!(four, Quantization::new(QuantizationKind::Fp4 { double: false }));
        let eight = read(&json!({"load_in_8bit": true, "llm_int8_skip_modules": ["a"]})).unwrap();
        assert_eq!(eight.kind, QuantizationKind::Int8);
        for found in [four, eight] {
            assert_eq!(read(&found.to_json()).unwrap(), found);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (json, part) in [
            (json!({}), "`load_in_4bit` is false, and `load_in_8bit` false"),
            (json!({"load_in_4bit": true, "load_in_8bit": true}), "expected one of them true"),
            (json!({"load_in_4bit": true, "bnb_4bit_quant_type": "nf3"}), "expected nf4 or fp4"),
            (json!({"load_in_4bit": true, "bnb_4bit_compute_dtype": "bfloat16"}), "`dtype`"),
            (json!({"load_in_4bit": true, "bnb_4bit_quant_storage": "bfloat16"}), "\"uint8\""),
        ] {
            let error = read(&json).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn modules_are_excused_by_whole_names() {
        let mut q = Quantization::new(QuantizationKind::Int8);
        q.llm_int8_skip_modules = ["up_proj", "layers.1", "none"].map(Into::into).into();
        let mut used = [false; 3];
        assert!(q.covers("model.layers.0.mlp.gate_up_proj", &mut used));
        assert!(q.covers("model.layers.11.mlp.down_proj", &mut used));
        assert!(!q.covers("model.layers.0.mlp.up_proj", &mut used));
        assert!(!q.covers("model.layers.1.mlp.down_proj", &mut used));
        assert_eq!(used, [true, true, false]);
    }
}
