//! The weights of a run: from a checkpoint, into the checkpoints of the run, and out at its end.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use posttrain_model::checkpoint::{Dtype, SaveOptions, read_companions};
use posttrain_model::{Decoder, LoadOptions};
use regex::Regex;

use crate::config::SftConfig;
use crate::error::Error;

/// What of a model is trained and stored.
#[derive(Debug)]
pub struct Weights {
    base: PathBuf,
    /// Tokenizer and generation files of the base, which go with every model that is written.
    companions: Vec<(String, Vec<u8>)>,
}

impl Weights {
    /// Loads the model of a run: that of the configuration, or as the checkpoint `resumed` has it.
    ///
    /// # Errors
    /// [`Error::Model`] for what cannot be loaded, [`Error::Config`] for a pattern that matches no
    /// parameter and when nothing is left to be trained.
    pub fn load(
        config: &SftConfig,
        base: &Path,
        resumed: Option<&Path>,
        device: &Device,
    ) -> Result<(Self, Decoder), Error> {
        let weights = Self { base: base.to_owned(), companions: read_companions(base)? };
        let options = LoadOptions { dtype: config.model.dtype.to_load(false) };
        let model = Decoder::load_with(resumed.unwrap_or(base), device, &options)?;
        let model = choose(model, config.model.trainable.as_deref(), &config.model.frozen)?;
        Ok((weights, model))
    }

    /// Writes what a resumed run needs: the trained weights, with every bit that they have.
    ///
    /// # Errors
    /// [`Error::Model`] when a file cannot be written.
    pub fn save_state(&self, model: &Decoder, folder: &Path) -> Result<(), Error> {
        let options = SaveOptions { companions: self.companions.clone(), ..SaveOptions::default() };
        model.save_as(folder, Dtype::F32, &options)?;
        Ok(())
    }

    /// Writes the final model, in the types of the checkpoint that it came from.
    ///
    /// # Errors
    /// [`Error::Model`] when a file cannot be written.
    pub fn save_final(&self, model: &Decoder, folder: &Path) -> Result<(), Error> {
        let options = SaveOptions { companions: self.companions.clone(), ..SaveOptions::default() };
        model.save(folder, &options)?;
        Ok(())
    }
}

/// Trains what the patterns say.
fn choose(
    model: Decoder,
    trainable: Option<&[String]>,
    frozen: &[String],
) -> Result<Decoder, Error> {
    let names: Vec<String> = model.parameters().into_iter().map(|p| p.name).collect();
    let patterns = |key: &str, patterns: &[String]| {
        let compiled = patterns.iter().map(|pattern| {
            let regex = Regex::new(pattern)
                .map_err(|error| Error::config(key, format!("`{pattern}`"), error.to_string()))?;
            if !names.iter().any(|name| regex.is_match(name)) {
                let expected = "a pattern that some parameter matches, such as \
                                `model.layers.0.mlp.up_proj.weight`";
                return Err(Error::config(key, format!("`{pattern}`"), expected));
            }
            Ok(regex)
        });
        compiled.collect::<Result<Vec<_>, Error>>()
    };
    let (trainable, frozen) =
        (trainable.map(|some| patterns("trainable", some)).transpose()?, patterns("frozen", frozen)?);
    let matches = |patterns: &[Regex], name: &str| patterns.iter().any(|regex| regex.is_match(name));
    let chosen = |name: &str| {
        trainable.as_ref().is_none_or(|some| matches(some, name)) && !matches(&frozen, name)
    };
    if !names.iter().any(|name| chosen(name)) {
        return Err(Error::config("frozen", "every parameter", "some that are left to be trained"));
    }
    Ok(model.with_trainable(chosen))
}
