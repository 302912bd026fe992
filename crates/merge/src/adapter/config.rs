//! `adapter_config.json`: what of it decides the weights of an adapted model.
//!
//! The scale of a module is `alpha / r`, or `alpha / sqrt r` with `use_rslora` (Kalajdzievski 2023,
//! arXiv 2312.03732), with the module's own `r` and `alpha` where `rank_pattern` and `alpha_pattern` have
//! them.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use crate::Error;

/// Settings that PEFT has and that are read where they say nothing: `null`, or one of these values.
const NEUTRAL: &[(&str, &[&str])] = &[
    ("alora_invocation_tokens", &[]),
    ("arrow_config", &[]),
    ("kasa_config", &[]),
    ("layer_replication", &[]),
    ("monteclora_config", &[]),
    ("target_parameters", &["[]"]),
    ("trainable_token_indices", &["[]", "{}"]),
    ("use_bdlora", &[]),
    ("use_qalora", &["false"]),
];

/// Settings that change nothing once an adapter is trained, or only say which modules it has.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "velora_config",
];

/// Settings that are read below.
const READ: &[&str] = &[
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "fan_in_fan_out",
    "init_lora_weights",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
];

/// Starts of training that leave the base as it is.
const STARTS: &[&str] = &["gaussian", "eva", "orthogonal"];

/// The settings of an adapter that decide the weights of the adapted model.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the file")]
pub struct AdapterConfig {
    /// `r`, the rank where no pattern says another.
    pub r: usize,
    /// `lora_alpha`, where no pattern says another.
    pub lora_alpha: f64,
    /// Scales by `alpha / sqrt r` instead of `alpha / r`.
    pub use_rslora: bool,
    /// Rows of merged weights have learned norms.
    pub use_dora: bool,
    /// `B` has a bias.
    pub lora_bias: bool,
    /// Weights are stored as (in, out), for square matrices whose shape does not tell.
    pub fan_in_fan_out: bool,
    /// Whether the file may hold trained biases.
    pub trains_bias: bool,
    /// The ends of the paths of modules that are replaced as a whole.
    pub modules_to_save: Vec<String>,
    /// The ends of the paths of the adapted modules; `None` for a pattern, and where only some layers are
    /// adapted: then the list does not say that all modules of such a name are.
    pub target_modules: Option<Vec<String>>,
    /// Name or folder of the base model.
    pub base_model: Option<String>,
    /// `CAUSAL_LM` and the like, for those who load the adapter.
    pub task_type: Option<String>,
    rank_pattern: Vec<(Regex, usize)>,
    alpha_pattern: Vec<(Regex, f64)>,
}

impl AdapterConfig {
    /// Reads an `adapter_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`], and [`Error::Adapter`] with every setting that is ill-typed, unknown, or
    /// changes the weights in a way that is not read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let object: Map<String, Value> = serde_json::from_str(&text).map_err(Error::json(path))?;
        let mut reader = Reader { object: &object, problems: Vec::new() };
        let config = reader.config();
        if reader.problems.is_empty() {
            return Ok(config);
        }
        Err(Error::Adapter { path: path.to_owned(), problems: reader.problems })
    }

    /// The rank of a module.
    pub fn rank(&self, module: &str) -> usize {
        pattern_value(&self.rank_pattern, module).unwrap_or(self.r)
    }

    /// What the product `B A` of a module is multiplied by.
    pub fn scale(&self, module: &str) -> f64 {
        let alpha = pattern_value(&self.alpha_pattern, module).unwrap_or(self.lora_alpha);
        let r = self.rank(module) as f64;
        alpha / if self.use_rslora { r.sqrt() } else { r }
    }
}

/// The value of the first pattern that matches the end of a path, as PEFT's `get_pattern_key`.
fn pattern_value<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

struct Reader<'a> {
    object: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn config(&mut self) -> AdapterConfig {
        self.check_names();
        if self.object.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            self.wrong("peft_type", "\"LORA\"");
        }
        self.check_start();
        let positive = |value: &Value| value.as_u64().filter(|r| *r > 0).map(|r| r as usize);
        let finite = |value: &Value| value.as_f64();
        let layers = self.object.get("layers_to_transform").is_some_and(|layers| !layers.is_null());
        let bias = self.get("bias", "\"none\", \"all\" or \"lora_only\"", |value| {
            value.as_str().filter(|bias| ["none", "all", "lora_only"].contains(bias))
        });
        AdapterConfig {
            r: self.get("r", "a positive integer", positive).unwrap_or(8),
            lora_alpha: self.get("lora_alpha", "a number", finite).unwrap_or(8.0),
            use_rslora: self.flag("use_rslora"),
            use_dora: self.flag("use_dora"),
            lora_bias: self.flag("lora_bias"),
            fan_in_fan_out: self.flag("fan_in_fan_out"),
            trains_bias: bias.is_some_and(|bias| bias != "none"),
            modules_to_save: self
                .get("modules_to_save", "a list of names", names)
                .unwrap_or_default(),
            target_modules: self
                .get("target_modules", "a list of names or a pattern", |value| match value {
                    Value::String(_) => Some(None),
                    other => names(other).map(Some),
                })
                .flatten()
                .filter(|_| {
                    !layers && self.object.get("exclude_modules").is_none_or(Value::is_null)
                }),
            base_model: self.text("base_model_name_or_path"),
            task_type: self.text("task_type"),
            rank_pattern: self.patterns("rank_pattern", "a positive integer", positive),
            alpha_pattern: self.patterns("alpha_pattern", "a number", finite),
        }
    }

    /// Names that nobody knows, and settings that say something which is not read.
    fn check_names(&mut self) {
        for (key, value) in self.object {
            if READ.contains(&key.as_str()) || HARMLESS.contains(&key.as_str()) {
                continue;
            }
            match NEUTRAL.iter().find(|(name, _)| name == key) {
                Some((_, neutral)) => {
                    if !value.is_null() && !neutral.contains(&value.to_string().as_str()) {
                        self.wrong(key, "null: it changes the weights in a way that is not read");
                    }
                }
                None => self.problems.push(format!(
                    "`{key}` is unknown{}",
                    closest(key)
                        .map(|near| format!(" (did you mean `{near}`?)"))
                        .unwrap_or_default()
                )),
            }
        }
    }

    /// Some starts take a part out of the base first: what the file holds is no difference to the base.
    fn check_start(&mut self) {
        let harmless = match self.object.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => true,
            Some(Value::String(start)) => STARTS.contains(&start.to_lowercase().as_str()),
            Some(_) => false,
        };
        if !harmless {
            self.wrong(
                "init_lora_weights",
                "true, false, gaussian, eva or orthogonal: others change the base model; save the adapter with \
                 `path_initial_model_for_weight_conversion`, which makes it a difference to the base",
            );
        }
    }

    fn wrong(&mut self, key: &str, expected: &str) {
        let found = self.object.get(key).map_or("absent".into(), Value::to_string);
        self.problems.push(format!("`{key}` is {found}, expected {expected}"));
    }

    fn get<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.object.get(key).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.problems.push(format!("`{key}` is {value}, expected {expected}"));
        }
        read
    }

    fn flag(&mut self, key: &str) -> bool {
        self.get(key, "true or false", Value::as_bool).unwrap_or(false)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.get(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    fn patterns<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Vec<(Regex, T)> {
        let Some(object) = self.get(key, "an object", Value::as_object) else {
            return Vec::new();
        };
        let mut patterns = Vec::with_capacity(object.len());
        for (pattern, value) in object {
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"));
            match (regex, read(value)) {
                (Ok(regex), Some(value)) => patterns.push((regex, value)),
                (Err(error), _) => self.problems.push(format!("`{key}.{pattern}`: {error}")),
                (_, None) => {
                    self.problems
                        .push(format!("`{key}.{pattern}` is {value}, expected {expected}"));
                }
            }
        }
        patterns
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

fn closest(key: &str) -> Option<&'static str> {
    let known = READ.iter().chain(HARMLESS).chain(NEUTRAL.iter().map(|(name, _)| name));
    known
        .map(|name| (strsim::damerau_levenshtein(key, name), *name))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| name)
}
