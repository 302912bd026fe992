//! The settings on which memory depends, for the planner.

use posttrain_model::adapter::{LoraConfig, Names};
use posttrain_model::checkpoint::Dtype;
use posttrain_model::config::Config;
use posttrain_model::quant::QuantizationKind;
use regex::Regex;

use super::SftConfig;
use crate::error::Error;
use crate::memory::{
    MemorySettings, Plan, Quantized, all_parameters, host_memory, lora_parameters,
};

impl SftConfig {
    /// What the run will need, as text, and what would fit where that is too much. `stored` is the type
    /// of the checkpoint, `longest` the tokens of the longest row, `cpu` whether the device is the CPU,
    /// whose memory can be asked for.
    ///
    /// # Errors
    /// Those of [`Plan::new`].
    pub fn memory_report(
        &self,
        model: &Config,
        stored: Dtype,
        longest: usize,
        cpu: bool,
    ) -> Result<String, Error> {
        let adapter = self.peft.lora.as_ref();
        let frozen_base = adapter.is_some() || self.model.adapter.is_some();
        let dtype = self.model.dtype.to_load(frozen_base).unwrap_or(stored);
        let settings = MemorySettings {
            dtype,
            compute: if cpu { Dtype::F32 } else { dtype },
            quantization: self.peft.quantization.as_ref().map(|quantization| {
                match quantization.kind {
                    QuantizationKind::Nf4 { double } | QuantizationKind::Fp4 { double } => {
                        Quantized::FourBit { double }
                    }
                    QuantizationKind::Int8 => Quantized::Int8,
                }
            }),
            trained: match adapter {
                Some(lora) => trained(lora, model),
                None if frozen_base => lora_parameters(model, 8, &[], false),
                None => all_parameters(model),
            },
            optimizer: self.optim.clone(),
            ema: self.training.ema_decay.is_some(),
            per_device_train_batch_size: self.training.per_device_train_batch_size,
            gradient_accumulation_steps: self.training.gradient_accumulation_steps,
            max_length: if self.sft.packing { self.data.max_length } else { longest },
            activations: self.training.activations(),
        };
        let limit = self.training.device_memory.or_else(|| host_memory().filter(|_| cpu));
        Plan::text(model, &settings, limit)
    }
}

/// The tensors of an adapter.
fn trained(lora: &LoraConfig, model: &Config) -> Vec<posttrain_model::Parameter> {
    let names: Vec<String> = match &lora.target_modules {
        None => vec!["q_proj".into(), "v_proj".into(), "qkv_proj".into()],
        Some(Names::List(names)) => names.clone(),
        Some(Names::Pattern(pattern)) if pattern == "all-linear" => Vec::new(),
        Some(Names::Pattern(pattern)) => {
            // A pattern that does not parse is refused where the adapter is made.
            let whole = Regex::new(&format!("^(?:{pattern})$")).ok();
            let paths = all_parameters(model).into_iter();
            let paths = paths.filter_map(|p| Some(p.name.strip_suffix(".weight")?.to_owned()));
            paths.filter(|path| whole.as_ref().is_some_and(|whole| whole.is_match(path))).collect()
        }
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    lora_parameters(model, lora.r, &names, lora.use_dora)
}
