//! Settings as YAML: the names and defaults of transformers, TRL and PEFT where they have them, an error
//! with a suggestion for what is not known.
//!
//! ```
//! use posttrain_train::config::{Document, SftConfig};
//! let text = "model: my-model\ndata: rows.jsonl\noutput_dir: out\nlearning_rate: 1e-4\n";
//! let mut document = Document::parse("sft.yaml", text)?;
//! document.set("max_steps=20")?;
//! let config = SftConfig::from_document(document)?;
//! assert_eq!((config.training.learning_rate, config.training.max_steps), (1e-4, 20));
//! # Ok::<(), posttrain_train::Error>(())
//! ```

mod data;
mod document;
mod memory;
mod model;
mod preference;
mod reward;
mod sft;
mod training;

use std::path::Path;

use posttrain_model::adapter::LoraConfig;
use posttrain_model::config::{Config, Head};
use posttrain_model::quant::Quantization;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use data::{DataArguments, Paths};
pub use document::Document;
pub use model::{DtypeChoice, ModelArguments};
pub use preference::{PreferenceArguments, PreferenceConfig};
pub use reward::{RewardArguments, RewardConfig, RewardKind};
pub use sft::{LossType, SftArguments};
pub use training::{Resume, TrainingArguments, When};

use crate::Error;
use crate::memory::Reference;
use crate::optim::OptimizerConfig;
use crate::schedule::{Schedule, ScheduleConfig};

/// The settings of a run. In the file all sections stand beside each other; `lora` and `quantization`
/// are mappings of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings<M> {
    /// The checkpoint, and what of it is trained.
    pub model: ModelArguments,
    /// The adapter and the quantisation.
    pub peft: PeftArguments,
    /// The rows.
    pub data: DataArguments,
    /// How long, how much at a time, what is watched and kept.
    pub training: TrainingArguments,
    /// The optimizer.
    pub optim: OptimizerConfig,
    /// The learning rate over time.
    pub schedule: ScheduleConfig,
    /// What is trained of the rows, and by which loss.
    pub method: M,
}

/// The settings of supervised fine-tuning.
pub type SftConfig = Settings<SftArguments>;

/// The section of a file that says what is learned from the rows.
pub trait Method: Default + Serialize + DeserializeOwned {
    /// The learning rate where the file has none.
    const LEARNING_RATE: f64;

    /// PEFT's name of the task, which goes into an adapter's configuration.
    fn task_type(&self) -> &'static str {
        "CAUSAL_LM"
    }

    /// The head that a checkpoint of this configuration needs and does not have; it starts with random
    /// weights.
    ///
    /// # Errors
    /// [`Error::Config`] where it does not follow from the settings, and for a checkpoint that does not
    /// predict tokens where that is learned.
    fn head(&self, model: &Config) -> Result<Option<Head>, Error> {
        if model.has_logits() {
            return Ok(None);
        }
        let found = format!("a checkpoint with the head {:?}", model.head);
        Err(Error::config("model", found, "a language model"))
    }

    /// What is kept to compare the model with; `new_adapter` says whether the base below it is that.
    fn reference(&self, new_adapter: bool) -> Reference {
        let _ = new_adapter;
        Reference::Shared
    }

    /// Checks the section, and what depends on others.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the value and what is allowed.
    fn validate(&self, settings: &Settings<Self>) -> Result<(), Error>;
}

/// An adapter instead of the weights themselves, and a quantised base below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeftArguments {
    /// PEFT's `LoraConfig`; without it all weights are trained.
    pub lora: Option<LoraConfig>,
    /// transformers' `BitsAndBytesConfig` for the frozen base.
    pub quantization: Option<Quantization>,
}

impl<M: Method> Settings<M> {
    /// Reads a file and sets `key=value` over it.
    ///
    /// # Errors
    /// Those of [`Document`] and [`Settings::validate`].
    pub fn read(path: impl AsRef<Path>, sets: &[String]) -> Result<Self, Error> {
        let mut document = Document::read(path)?;
        for set in sets {
            document.set(set)?;
        }
        Self::from_document(document)
    }

    /// From a file that is read already.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] for keys that are not known and values of the wrong type, and those of
    /// [`Settings::validate`].
    pub fn from_document(mut document: Document) -> Result<Self, Error> {
        document.set_default("learning_rate", M::LEARNING_RATE);
        let mut config = Self {
            model: document.section()?,
            peft: document.section()?,
            data: document.section()?,
            training: document.section()?,
            optim: document.section()?,
            schedule: document.section()?,
            method: document.section()?,
        };
        document.finish()?;
        if let Some(lora) = &mut config.peft.lora {
            // What is trained here; PEFT's automatic classes ask for it.
            lora.task_type.get_or_insert_with(|| config.method.task_type().into());
        }
        config.validate()?;
        Ok(config)
    }

    /// Checks every value, and those that depend on each other.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        self.model.name()?;
        self.data.validate()?;
        self.training.validate()?;
        self.optim.validate()?;
        self.method.validate(self)?;
        // How many steps there will be is known with the data; as many as one likes fit any warmup.
        let steps = u64::try_from(self.training.max_steps).ok().filter(|&steps| steps > 0);
        let rate = self.training.learning_rate;
        Schedule::new(&self.schedule, rate, steps.unwrap_or(1 << 40))?;
        let adapter = self.peft.lora.is_some() || self.model.adapter.is_some();
        if self.peft.quantization.is_some() && !adapter {
            let expected = "`lora` or `adapter` with it: quantised weights cannot be trained";
            return Err(Error::config("quantization", "given alone", expected));
        }
        if self.peft.lora.is_some() && self.model.adapter.is_some() {
            let expected = "one of the two: `adapter` brings its own configuration";
            return Err(Error::config("lora", "given beside `adapter`", expected));
        }
        Ok(())
    }

    /// Every setting, those of the file and the defaults, as they stand in a file.
    pub fn to_json(&self) -> Value {
        let sections = [
            serde_json::to_value(&self.model),
            serde_json::to_value(&self.peft),
            serde_json::to_value(&self.data),
            serde_json::to_value(&self.training),
            serde_json::to_value(&self.optim),
            serde_json::to_value(&self.schedule),
            serde_json::to_value(&self.method),
        ];
        let mut all = Map::new();
        for section in sections {
            if let Value::Object(section) = section.expect("settings are JSON") {
                all.extend(section.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
        Value::Object(all)
    }

    /// As a file that [`Settings::read`] reads to the same.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(&self.to_json()).expect("settings are YAML")
    }
}
