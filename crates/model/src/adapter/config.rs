//! The configuration of an adapter, with the fields and defaults of PEFT 0.21.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::config::{Field, Reader, shown};
use crate::error::Error;

/// `LoraConfig` of PEFT.
///
/// The serialised form is that of `adapter_config.json`. Keys that PEFT has and that are absent here
/// (`trainable_token_indices`, `loftq_config`, `layer_replication`, ...) are read where they say
/// nothing and refused where they say something; others are errors with a suggestion.
///
/// ```
/// use posttrain_model::adapter::LoraConfig;
/// let config: LoraConfig = serde_json::from_str(r#"{"r": 16, "target_modules": "all-linear"}"#)?;
/// assert_eq!((config.r, config.lora_alpha, config.lora_dropout), (16, 8.0, 0.0));
/// let error = serde_json::from_str::<LoraConfig>(r#"{"lora_alfa": 32}"#).unwrap_err();
/// assert!(error.to_string().contains("did you mean `lora_alpha`?"), "{error}");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// The rank.
    pub r: usize,
    /// α: the update is multiplied by α / r.
    pub lora_alpha: f64,
    /// Probability that a number of the input of an update is dropped in training.
    pub lora_dropout: f32,
    /// The modules that get an update: names (the ends of paths), a regular expression that matches
    /// the whole path, or `all-linear`, which is every linear layer but the head. `None` takes PEFT's
    /// choice for the family.
    pub target_modules: Option<Names>,
    /// Modules that get none although `target_modules` names them.
    pub exclude_modules: Option<Names>,
    /// Which biases are trained.
    pub bias: Bias,
    /// α / √r instead of α / r (Kalajdzievski 2023, arXiv:2312.03732).
    pub use_rslora: bool,
    /// Magnitude and direction apart (Liu et al. 2024, arXiv:2402.09353).
    pub use_dora: bool,
    /// Modules that are trained as a whole, each named by the end of its path.
    pub modules_to_save: Vec<String>,
    /// Where training starts.
    pub init_lora_weights: Init,
    /// Only layers with these numbers; with names in `target_modules` alone.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Before the number of a layer in its path: `layers`.
    pub layers_pattern: Vec<String>,
    /// Other ranks: a regular expression that matches the end of a path, the first that does so.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other α, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Embeddings and a head that is the same matrix stay the same when they are trained as a whole.
    pub ensure_weight_tying: bool,
    /// Folder or name of the base model, for those who load the adapter.
    pub base_model_name_or_path: Option<String>,
    /// The revision of the base model.
    pub revision: Option<String>,
    /// `CAUSAL_LM`, `SEQ_CLS` or `TOKEN_CLS`, or nothing. The latter two train the head of a model that
    /// scores as a whole: PEFT adds `classifier` and `score` to `modules_to_save`.
    pub task_type: Option<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            target_modules: None,
            exclude_modules: None,
            bias: Bias::None,
            use_rslora: false,
            use_dora: false,
            modules_to_save: Vec::new(),
            init_lora_weights: Init::Default,
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            ensure_weight_tying: false,
            base_model_name_or_path: None,
            revision: None,
            task_type: None,
        }
    }
}

/// Modules by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// A regular expression that matches a whole path, or `all-linear`.
    Pattern(String),
    /// Whole paths, or their ends.
    List(Vec<String>),
}

impl<const N: usize> From<[&str; N]> for Names {
    fn from(names: [&str; N]) -> Self {
        Self::List(names.map(Into::into).into())
    }
}

impl From<&str> for Names {
    fn from(pattern: &str) -> Self {
        Self::Pattern(pattern.into())
    }
}

impl Field for Names {
    const EXPECTED: &'static str = "a list of names, a regular expression or all-linear";
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(pattern) => Some(Self::Pattern(pattern.clone())),
            other => Vec::read(other).map(Self::List),
        }
    }
}

/// Which biases are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// All of the model.
    All,
    /// Those of the modules that get an update.
    LoraOnly,
}

impl Field for Bias {
    const EXPECTED: &'static str = "none, all or lora_only";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "none" => Some(Self::None),
            "all" => Some(Self::All),
            "lora_only" => Some(Self::LoraOnly),
            _ => None,
        }
    }
}

/// Where training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// A uniform in ±1/√in, B zero: the adapted model is the base (`true`).
    #[default]
    Default,
    /// A and B random, for tests (`false`).
    Random,
    /// A normal with standard deviation 1/r, B zero.
    Gaussian,
    /// The r largest singular values and their vectors are trained, the rest is frozen (Meng et al.
    /// 2024, arXiv:2404.02948).
    Pissa,
    /// The same with a randomised decomposition of that many iterations.
    PissaNiter(usize),
    /// The first r columns of a QR decomposition are trained (Büyükakyüz 2024, arXiv:2406.01775).
    Olora,
}

impl Init {
    /// Whether the start takes a part of the matrix out of what is frozen.
    pub fn changes_base(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora)
    }

    fn to_json(self) -> Value {
        match self {
            Self::Default => json!(true),
            Self::Random => json!(false),
            Self::Gaussian => json!("gaussian"),
            Self::Pissa => json!("pissa"),
            Self::PissaNiter(count) => json!(format!("pissa_niter_{count}")),
            Self::Olora => json!("olora"),
        }
    }
}

impl Field for Init {
    const EXPECTED: &'static str = "true, false, gaussian, pissa, pissa_niter_N or olora";
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(true) => Some(Self::Default),
            Value::Bool(false) => Some(Self::Random),
            Value::String(name) => match name.to_lowercase().as_str() {
                "gaussian" => Some(Self::Gaussian),
                "pissa" => Some(Self::Pissa),
                "olora" => Some(Self::Olora),
                other => Some(Self::PissaNiter(other.strip_prefix("pissa_niter_")?.parse().ok()?)),
            },
            _ => None,
        }
    }
}

/// Keys of PEFT for what is absent here, with the values that say nothing besides `null`.
fn absent() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("peft_type", vec![json!("LORA")]),
        ("alora_invocation_tokens", vec![]),
        ("arrow_config", vec![]),
        ("corda_config", vec![]),
        ("eva_config", vec![]),
        ("fan_in_fan_out", vec![json!(false)]),
        ("kasa_config", vec![]),
        ("layer_replication", vec![]),
        ("loftq_config", vec![json!({})]),
        ("lora_bias", vec![json!(false)]),
        ("lora_ga_config", vec![]),
        ("megatron_config", vec![]),
        ("megatron_core", vec![json!("megatron.core")]),
        ("monteclora_config", vec![]),
        ("target_parameters", vec![]),
        ("trainable_token_indices", vec![]),
        ("use_bdlora", vec![]),
        ("use_qalora", vec![json!(false)]),
        ("velora_config", vec![]),
    ]
}

/// Keys that change nothing.
const HARMLESS: &[&str] =
    &["auto_mapping", "inference_mode", "peft_version", "qalora_group_size", "runtime_config"];

impl LoraConfig {
    /// Reads the content of an `adapter_config.json`; the path is for errors only.
    ///
    /// # Errors
    /// [`Error::ConfigField`] for a value that is ill-typed, out of range or not supported,
    /// [`Error::UnknownConfigFields`] for unknown keys.
    pub fn from_json(path: &Path, json: &Value) -> Result<Self, Error> {
        let mut r = Reader::new(path, json)?;
        for (key, neutral) in absent() {
            let found = r.raw(key).filter(|found| !found.is_null() && !neutral.contains(found));
            if let Some(found) = found {
                let neutral: Vec<_> = neutral.iter().map(|value| format!(" or {value}")).collect();
                let expected = format!("null{}: this is not supported", neutral.concat());
                return Err(r.error(key, shown(found), expected));
            }
        }
        for key in HARMLESS {
            r.raw(key);
        }
        let default = Self::default();
        let layers = match r.raw("layers_to_transform") {
            Some(Value::Number(_)) => r.get("layers_to_transform")?.map(|layer: usize| vec![layer]),
            _ => r.get("layers_to_transform")?,
        };
        let pattern = match r.raw("layers_pattern") {
            Some(Value::String(one)) => vec![one.clone()],
            _ => r.get("layers_pattern")?.unwrap_or_default(),
        };
        let config = Self {
            r: r.or("r", default.r)?,
            lora_alpha: r.or("lora_alpha", default.lora_alpha)?,
            lora_dropout: r.or("lora_dropout", default.lora_dropout)?,
            target_modules: r.get("target_modules")?,
            exclude_modules: r.get("exclude_modules")?,
            bias: r.or("bias", default.bias)?,
            use_rslora: r.or("use_rslora", false)?,
            use_dora: r.or("use_dora", false)?,
            modules_to_save: r.get("modules_to_save")?.unwrap_or_default(),
            init_lora_weights: r.or("init_lora_weights", Init::Default)?,
            layers_to_transform: layers,
            layers_pattern: pattern,
            rank_pattern: patterns(&mut r, "rank_pattern")?,
            alpha_pattern: patterns(&mut r, "alpha_pattern")?,
            ensure_weight_tying: r.or("ensure_weight_tying", false)?,
            base_model_name_or_path: r.get("base_model_name_or_path")?,
            revision: r.get("revision")?,
            task_type: r.get("task_type")?,
        };
        config.check(&r)?;
        let fields = r.unread(|_, _| false);
        if !fields.is_empty() {
            return Err(Error::UnknownConfigFields { path: path.to_owned(), fields });
        }
        Ok(config)
    }

    fn check(&self, r: &Reader<'_>) -> Result<(), Error> {
        let refuse = |key: &str, found: String, expected: &str| Err(r.error(key, found, expected));
        let ranks = self.rank_pattern.iter().map(|(_, rank)| *rank);
        if ranks.chain([self.r]).any(|rank| rank == 0) {
            return refuse("r", "0".into(), "a positive integer");
        }
        let alphas = self.alpha_pattern.iter().map(|(_, alpha)| *alpha);
        let positive = |alpha: &f64| alpha.is_finite() && *alpha > 0.0;
        if let Some(wrong) = alphas.chain([self.lora_alpha]).find(|alpha| !positive(alpha)) {
            return refuse("lora_alpha", wrong.to_string(), "a positive number");
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            let found = self.lora_dropout.to_string();
            return refuse("lora_dropout", found, "a probability of at least 0 and below 1");
        }
        let known = |task: &String| ["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS"].contains(&task.as_str());
        if let Some(other) = self.task_type.as_ref().filter(|task| !known(task)) {
            return refuse("task_type", format!("`{other}`"), "CAUSAL_LM, SEQ_CLS or TOKEN_CLS");
        }
        let by_pattern = matches!(self.target_modules, Some(Names::Pattern(_)));
        if by_pattern && (self.layers_to_transform.is_some() || !self.layers_pattern.is_empty()) {
            let found = "a list, while `target_modules` is one pattern".to_owned();
            return refuse("layers_to_transform", found, "names in `target_modules`, or null");
        }
        if !self.layers_pattern.is_empty() && self.layers_to_transform.is_none() {
            let found = format!("{:?}", self.layers_pattern);
            return refuse("layers_pattern", found, "nothing without `layers_to_transform`");
        }
        Ok(())
    }

    /// Whether the task is to classify, for which PEFT trains the head as a whole.
    pub(crate) fn classifies(&self) -> bool {
        matches!(self.task_type.as_deref(), Some("SEQ_CLS" | "TOKEN_CLS"))
    }

    /// Checks values that were set by hand as [`LoraConfig::from_json`] checks those of a file.
    ///
    /// # Errors
    /// [`Error::ConfigField`]
    pub fn validate(&self) -> Result<(), Error> {
        let json = json!({});
        self.check(&Reader::new(Path::new("the LoRA configuration"), &json)?)
    }

    /// As `adapter_config.json`, with every key of PEFT 0.21.2.
    pub fn to_json(&self) -> Value {
        let names = |names: &Option<Names>| match names {
            None => Value::Null,
            Some(Names::Pattern(pattern)) => json!(pattern),
            Some(Names::List(list)) => json!(list),
        };
        let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
        let number = |value: f64| {
            let whole = value.fract() == 0.0 && value.abs() < 1e15;
            if whole { json!(value as i64) } else { json!(value) }
        };
        let ranks = self.rank_pattern.iter().map(|(name, rank)| (name.clone(), json!(rank)));
        let alphas = self.alpha_pattern.iter().map(|(name, alpha)| (name.clone(), number(*alpha)));
        let bias = match self.bias {
            Bias::None => "none",
            Bias::All => "all",
            Bias::LoraOnly => "lora_only",
        };
        let mut object = json!({
            "alpha_pattern": Value::Object(alphas.collect()),
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": bias,
            "ensure_weight_tying": self.ensure_weight_tying,
            "exclude_modules": names(&self.exclude_modules),
            "inference_mode": true,
            "init_lora_weights": self.init_lora_weights.to_json(),
            "layers_pattern": list(&self.layers_pattern),
            "layers_to_transform": self.layers_to_transform,
            "lora_alpha": number(self.lora_alpha),
            "lora_dropout": f64_of(self.lora_dropout),
            "modules_to_save": list(&self.modules_to_save),
            "peft_version": "0.21.2",
            "qalora_group_size": 16,
            "r": self.r,
            "rank_pattern": Value::Object(ranks.collect()),
            "revision": self.revision,
            "target_modules": names(&self.target_modules),
            "task_type": self.task_type,
            "use_dora": self.use_dora,
            "use_rslora": self.use_rslora,
        });
        let keys = object.as_object_mut().expect("an object");
        for (key, neutral) in absent() {
            keys.insert(key.into(), neutral.into_iter().next().unwrap_or(Value::Null));
        }
        let mut sorted: Vec<(String, Value)> = std::mem::take(keys).into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        Value::Object(sorted.into_iter().collect())
    }
}

/// The number that was meant: 0.05 and not 0.05000000074505806.
fn f64_of(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

fn patterns<T: Field>(r: &mut Reader<'_>, key: &'static str) -> Result<Vec<(String, T)>, Error> {
    let empty = Map::new();
    let object = match r.raw(key) {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(object)) => object,
        Some(other) => return Err(r.error(key, shown(other), "a JSON object")),
    };
    let mut found = Vec::with_capacity(object.len());
    for (name, value) in object {
        let read = T::read(value)
            .ok_or_else(|| r.error(&format!("{key}.{name}"), shown(value), T::EXPECTED))?;
        found.push((name.clone(), read));
    }
    Ok(found)
}

impl Serialize for LoraConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LoraConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let path = Path::new("the LoRA configuration");
        Self::from_json(path, &json).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &Value) -> Result<LoraConfig, String> {
        LoraConfig::from_json(Path::new("c"), json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let config = LoraConfig {
            r: 3,
            lora_alpha: 4.5,
            lora_dropout: 0.05,
            target_modules: Some(["q_proj", "v_proj"].into()),
            exclude_modules: Some(".*\\.0\\..*".into()),
            bias: Bias::LoraOnly,
            use_rslora: true,
            use_dora: true,
            modules_to_save: vec!["lm_head".into()],
            init_lora_weights: Init::PissaNiter(4),
            layers_to_transform: Some(vec![0, 2]),
            layers_pattern: vec!["layers".into()],
            rank_pattern: vec![("b".into(), 2), ("a".into(), 1)],
            alpha_pattern: vec![("x".into(), 16.0)],
            ensure_weight_tying: true,
            base_model_name_or_path: Some("some/model".into()),
            revision: Some("main".into()),
            task_type: Some("CAUSAL_LM".into()),
        };
        assert_eq!(read(&config.to_json()).unwrap(), config);
        assert_eq!(read(&LoraConfig::default().to_json()).unwrap(), LoraConfig::default());
        assert_eq!(config.to_json()["lora_dropout"], json!(0.05));
        assert_eq!(
            read(&json!({"layers_to_transform": 1})).unwrap().layers_to_transform,
            Some(vec![1])
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (json!({"r": 0}), "`r` is 0"),
            (json!({"lora_dropout": 1.0}), "`lora_dropout` is 1"),
            (json!({"bias": "some"}), "none, all or lora_only"),
            (json!({"init_lora_weights": "eva"}), "`init_lora_weights` is \"eva\""),
            (json!({"lora_bias": true}), "`lora_bias` is true, expected null or false"),
            (json!({"trainable_token_indices": [1]}), "`trainable_token_indices` is [1]"),
            (json!({"peft_type": "IA3"}), "`peft_type` is \"IA3\""),
            (json!({"task_type": "QUESTION_ANS"}), "CAUSAL_LM, SEQ_CLS or TOKEN_CLS"),
            (json!({"target_modules": "a", "layers_to_transform": [1]}), "`layers_to_transform`"),
            (json!({"layers_pattern": "h"}), "`layers_pattern`"),
            (json!({"rank_pattern": {"q": "x"}}), "`rank_pattern.q` is \"x\""),
            (json!({"target_module": ["q"]}), "(did you mean `target_modules`?)"),
        ] {
            let error = read(&json).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
