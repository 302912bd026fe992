//! The settings on which memory depends, for the planner.

use std::path::Path;

use posttrain_model::adapter::LoraConfig;
use posttrain_model::checkpoint::Dtype;
use posttrain_model::config::Config;

use super::{Method, Settings};
use crate::error::Error;
use crate::memory::{MemorySettings, Plan, all_parameters, host_memory};
use crate::weights::chosen;

impl<M: Method> Settings<M> {
    /// What the run will need, as text, and what would fit where that is too much. `stored` is the type
    /// of the checkpoint, `longest` the tokens of the longest sequence of a batch, `cpu` whether the device is the CPU,
    /// whose memory can be asked for.
    ///
    /// # Errors
    /// Those of [`Plan::new`] and [`LoraConfig::parameters`], [`Error::Config`] for a pattern that
    /// matches no parameter, and those of reading an adapter's configuration.
    pub fn memory_report(
        &self,
        model: &Config,
        stored: Dtype,
        longest: usize,
        cpu: bool,
    ) -> Result<String, Error> {
        let headed = self.method.head(model)?.map(|head| model.with_head(head)).transpose()?;
        let model = headed.as_ref().unwrap_or(model);
        let settings = self.memory_settings(model, stored, longest, cpu)?;
        let limit = self.training.device_memory.or_else(|| host_memory().filter(|_| cpu));
        Plan::text(model, &settings, limit)
    }

    fn memory_settings(
        &self,
        model: &Config,
        stored: Dtype,
        longest: usize,
        cpu: bool,
    ) -> Result<MemorySettings, Error> {
        let adapter = match (&self.peft.lora, &self.model.adapter) {
            (Some(lora), _) => Some(lora.clone()),
            (None, Some(folder)) => Some(read_adapter(folder)?),
            (None, None) => None,
        };
        let dtype = self.model.dtype.to_load(adapter.is_some()).unwrap_or(stored);
        let mut parameters = match &adapter {
            Some(lora) => lora.parameters(model)?,
            None => all_parameters(model),
        };
        let trained = parameters.iter().filter(|parameter| parameter.trainable);
        let names: Vec<String> = trained.map(|parameter| parameter.name.clone()).collect();
        let (trainable, frozen) = (self.model.trainable.as_deref(), &self.model.frozen);
        let chosen = chosen(&names, trainable, frozen)?;
        for parameter in &mut parameters {
            parameter.trainable &= chosen.contains(&parameter.name);
        }
        Ok(MemorySettings {
            dtype,
            compute: if cpu { Dtype::F32 } else { dtype },
            quantization: self.peft.quantization.clone(),
            parameters,
            optimizer: self.optim.clone(),
            ema: self.training.ema_decay.is_some(),
            reference: self.method.reference(self.peft.lora.is_some()),
            per_device_train_batch_size: self.training.per_device_train_batch_size,
            gradient_accumulation_steps: self.training.gradient_accumulation_steps,
            max_length: longest,
            activations: self.training.activations(),
        })
    }
}

fn read_adapter(folder: &Path) -> Result<LoraConfig, Error> {
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let json = serde_json::from_str(&text)
        .map_err(|error| Error::ConfigFile { path: path.clone(), reason: error.to_string() })?;
    Ok(LoraConfig::from_json(&path, &json)?)
}
