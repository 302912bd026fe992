//! The weights of a run: from a checkpoint, into the checkpoints of the run, and out at its end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use posttrain_model::adapter::{AdapterSave, LoraConfig};
use posttrain_model::checkpoint::{Checkpoint, Dtype, SaveOptions, read_companions};
use posttrain_model::config::Head;
use posttrain_model::{Decoder, LoadOptions};
use regex::Regex;

use crate::config::{Method, Settings};
use crate::error::Error;
use crate::optim::Ema;
use crate::resume;

/// The template's own file, which goes before the one in `tokenizer_config.json`.
const TEMPLATE: &str = "chat_template.jinja";
/// The name of the adapter that is trained.
const ADAPTER: &str = "default";
/// Every trained number of an adapter, as it is: what resuming needs where the adapter is written in
/// another form (PiSSA and OLoRA as plain LoRA).
const TRAINED: &str = "trained.safetensors";

/// What of a model is trained and stored.
#[derive(Debug)]
pub struct Weights {
    kind: Kind,
    /// The checkpoint.
    base: PathBuf,
    /// Tokenizer and generation files of the base, which go with every model that is written.
    companions: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
enum Kind {
    /// The weights of the model, loaded so.
    Full(LoadOptions),
    /// An adapter; the base stays as it is.
    Adapter {
        /// What the adapter says of its base.
        base: String,
        /// Where it came from, if it is not new.
        from: Option<PathBuf>,
    },
}

impl Weights {
    /// Loads the model of a run: that of the configuration, or as the checkpoint `resumed` has it.
    ///
    /// # Errors
    /// [`Error::Model`] for what cannot be loaded, [`Error::Config`] for a pattern that matches no
    /// parameter and when nothing is left to be trained, [`Error::Checkpoint`] for settings with which the
    /// checkpoint would be that of another run.
    pub fn load<M: Method>(
        config: &Settings<M>,
        base: &Path,
        resumed: Option<&Path>,
        device: &Device,
    ) -> Result<(Self, Decoder), Error> {
        if let Some(checkpoint) = resumed {
            resume::check(checkpoint, &config.to_json())?;
        }
        let (lora, adapter) = (&config.peft.lora, &config.model.adapter);
        let adapted = lora.is_some() || adapter.is_some();
        let options = LoadOptions {
            dtype: config.model.dtype.to_load(adapted),
            quantization: config.peft.quantization.clone(),
        };
        let mut companions = read_companions(base)?;
        if let Some(path) = &config.model.chat_template_path {
            // Whoever loads the model shall write conversations as it was trained on them.
            let path = if path.is_dir() { path.join(TEMPLATE) } else { path.clone() };
            let template = std::fs::read(&path).map_err(Error::io(&path))?;
            companions.retain(|(name, _)| name != TEMPLATE);
            companions.push((TEMPLATE.to_owned(), template));
        }
        let (trainable, frozen) = (config.model.trainable.as_deref(), &config.model.frozen);
        if !adapted {
            let model = full(resumed.unwrap_or(base), base, device, &options)?;
            let model = with_head(model, config)?;
            let model = choose(model, trainable, frozen)?;
            let kind = Kind::Full(options);
            return Ok((Self { kind, base: base.to_owned(), companions }, model));
        }
        let mut model = with_head(Decoder::load_with(base, device, &options)?, config)?;
        match (lora, adapter) {
            (Some(lora), _) => {
                let scores = config.method.task_type() != "CAUSAL_LM";
                let lora = if scores { &with_head_whole(lora, model.config().head) } else { lora };
                model.add_adapter(ADAPTER, lora, config.training.seed)?;
            }
            (_, Some(folder)) => model.load_adapter(folder, ADAPTER)?,
            _ => unreachable!("one of both"),
        }
        let mut model = choose(model, trainable, frozen)?;
        if let Some(resumed) = resumed {
            model = Ema::load(resumed.join(TRAINED), HALF, &model)?.applied_to(&model);
        }
        let kind = Kind::Adapter { base: config.model.name()?.into(), from: adapter.clone() };
        Ok((Self { kind, base: base.to_owned(), companions }, model))
    }

    /// A file that is written beside the weights, in place of one of its name.
    pub fn add_companion(&mut self, (name, content): (String, Vec<u8>)) {
        self.companions.retain(|(known, _)| *known != name);
        self.companions.push((name, content));
    }

    /// The checkpoint that the model, or the base below the adapter, was loaded from.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// A frozen model as it was before the first step, given the one that is trained; what is not
    /// trained, both share. Without an adapter, and with one that was loaded, it has trained weights
    /// of its own, with a new adapter it is the base.
    ///
    /// # Errors
    /// Those of [`Weights::load`]; a run that goes on loads the weights that it began with.
    pub fn initial(&self, model: &Decoder, resumed: bool) -> Result<Decoder, Error> {
        let initial = match &self.kind {
            Kind::Adapter { from: None, .. } => model.without_adapter(),
            _ if !resumed => model.clone(),
            Kind::Full(options) => full(&self.base, &self.base, &model.device(), options)?,
            Kind::Adapter { from: Some(folder), .. } => {
                let mut base = model.without_adapter();
                base.load_adapter(folder, ADAPTER)?;
                base
            }
        };
        Ok(initial.with_trainable(|_| false))
    }

    /// Writes what a resumed run needs: the trained weights, with every bit that they have.
    ///
    /// # Errors
    /// [`Error::Model`] and [`Error::Io`] when a file cannot be written.
    pub fn save_state(&self, model: &Decoder, folder: &Path) -> Result<(), Error> {
        match &self.kind {
            Kind::Full(_) => drop(model.save_as(folder, Dtype::F32, &self.options())?),
            Kind::Adapter { .. } => {
                self.save_final(model, folder)?;
                Ema::new(HALF, model)?.save(folder.join(TRAINED))?;
            }
        }
        Ok(())
    }

    /// Writes the final model, in the types of the checkpoint that it came from, or the adapter as
    /// PEFT lays it out.
    ///
    /// # Errors
    /// [`Error::Model`] when a file cannot be written.
    pub fn save_final(&self, model: &Decoder, folder: &Path) -> Result<(), Error> {
        match &self.kind {
            Kind::Full(_) => drop(model.save(folder, &self.options())?),
            Kind::Adapter { base, .. } => {
                let base_model_name_or_path = Some(base.clone());
                let companions = self.companions.clone();
                let options = AdapterSave { base_model_name_or_path, companions };
                model.save_adapter(ADAPTER, folder, &options)?;
            }
        }
        Ok(())
    }

    /// The model as the checkpoint of a step has it.
    ///
    /// # Errors
    /// Those of [`Weights::load`].
    pub fn reload(&self, model: &Decoder, checkpoint: &Path) -> Result<Decoder, Error> {
        match &self.kind {
            Kind::Full(options) => full(checkpoint, &self.base, &model.device(), options),
            Kind::Adapter { .. } => {
                Ok(Ema::load(checkpoint.join(TRAINED), HALF, model)?.applied_to(model))
            }
        }
    }

    fn options(&self) -> SaveOptions {
        SaveOptions { companions: self.companions.clone(), ..SaveOptions::default() }
    }
}

/// The weights of one folder, to be written in the types of another.
fn full(
    folder: &Path,
    base: &Path,
    device: &Device,
    options: &LoadOptions,
) -> Result<Decoder, Error> {
    let model = Decoder::load_with(folder, device, options)?;
    Ok(model.saved_like(&Checkpoint::open(base)?))
}

/// The model with the head that the method needs; a new one follows from the seed.
fn with_head<M: Method>(model: Decoder, config: &Settings<M>) -> Result<Decoder, Error> {
    Ok(match config.method.head(model.config())? {
        Some(head) => model.with_head(head, config.training.seed)?,
        None => model,
    })
}

/// An adapter that trains and keeps the head of a model that scores. PEFT's tasks that classify do it for
/// heads that are called `score`.
fn with_head_whole(lora: &LoraConfig, head: Head) -> LoraConfig {
    let mut lora = lora.clone();
    let classifies = matches!(lora.task_type.as_deref(), Some("SEQ_CLS" | "TOKEN_CLS"));
    let name = match head {
        Head::Language => return lora,
        Head::Value { .. } => "v_head",
        _ if classifies => return lora,
        _ => "score",
    };
    if !lora.modules_to_save.iter().any(|module| module == name) {
        lora.modules_to_save.push(name.to_owned());
    }
    lora
}

/// An average that has seen one value is that value, whatever its decay.
const HALF: f64 = 0.5;

/// Of what is trained, leaves out what the patterns say.
fn choose(
    model: Decoder,
    trainable: Option<&[String]>,
    frozen: &[String],
) -> Result<Decoder, Error> {
    let trained = model.parameters().into_iter().filter(|parameter| parameter.trainable);
    let names: Vec<String> = trained.map(|parameter| parameter.name).collect();
    let chosen = chosen(&names, trainable, frozen)?;
    Ok(model.with_trainable(|name| chosen.contains(name)))
}

/// Of the names of trained parameters, those that the patterns leave.
pub(crate) fn chosen(
    names: &[String],
    trainable: Option<&[String]>,
    frozen: &[String],
) -> Result<BTreeSet<String>, Error> {
    let compiled = |key: &str, patterns: &[String]| {
        let compile = |pattern: &String| {
            let regex = Regex::new(pattern)
                .map_err(|error| Error::config(key, format!("`{pattern}`"), error.to_string()))?;
            if !names.iter().any(|name| regex.is_match(name)) {
                let example = names.first().map_or("", String::as_str);
                let expected = format!("a pattern that some trained parameter matches ({example})");
                return Err(Error::config(key, format!("`{pattern}`"), expected));
            }
            Ok(regex)
        };
        patterns.iter().map(compile).collect::<Result<Vec<_>, Error>>()
    };
    let only = trainable.map(|patterns| compiled("trainable", patterns)).transpose()?;
    let not = compiled("frozen", frozen)?;
    let matches =
        |patterns: &[Regex], name: &str| patterns.iter().any(|pattern| pattern.is_match(name));
    let left = names.iter().filter(|name| {
        only.as_ref().is_none_or(|only| matches(only, name)) && !matches(&not, name)
    });
    let left: BTreeSet<String> = left.cloned().collect();
    if left.is_empty() {
        return Err(Error::config("frozen", "every parameter", "some that are left to be trained"));
    }
    Ok(left)
}
