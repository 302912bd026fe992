//! Which settings would fit, when the chosen ones do not.

use posttrain_model::Activations;
use posttrain_model::adapter::LoraConfig;
use posttrain_model::config::Config;
use posttrain_model::quant::{Quantization, QuantizationKind};
use serde::Serialize;

use super::{MemorySettings, Plan};
use crate::error::Error;
use crate::optim::OptimizerName;

/// The rank of the adapter that is proposed.
const RANK: usize = 16;

/// One more change of the settings, with those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// What is changed, as it is written in a configuration.
    pub change: String,
    /// Bytes needed then.
    pub total: u64,
    /// Whether that fits.
    pub fits: bool,
}

/// Changes one thing after the other, each on top of those before, in the order of what they cost:
/// activations computed anew (a third of the speed), a smaller batch with more accumulation (some of
/// the speed), a state of 8 bits, an adapter instead of all weights, the base in 4 bits. Stops at the
/// first that fits.
pub(super) fn trials(
    config: &Config,
    settings: &MemorySettings,
    limit: u64,
) -> Result<Vec<Trial>, Error> {
    let mut settings = settings.clone();
    let mut trials: Vec<Trial> = Vec::new();
    for change in [recompute, smaller_batch, small_states, adapter, four_bits] {
        // A change may have several sizes, such as those of a batch: the first that fits, or the last.
        let mut tried = None;
        for (name, changed) in change(config, &settings)? {
            let total = Plan::new(config, &changed)?.total();
            tried = Some((Trial { change: name, total, fits: total <= limit }, changed));
            if total <= limit {
                break;
            }
        }
        let Some((trial, changed)) = tried else { continue };
        settings = changed;
        let fits = trial.fits;
        trials.push(trial);
        if fits {
            break;
        }
    }
    Ok(trials)
}

/// What a change is called, and the settings after it; nothing where there is nothing to change.
type Changed = Result<Vec<(String, MemorySettings)>, Error>;

fn recompute(_: &Config, settings: &MemorySettings) -> Changed {
    if settings.activations == Activations::Recompute {
        return Ok(Vec::new());
    }
    let activations = Activations::Recompute;
    let changed = MemorySettings { activations, ..settings.clone() };
    Ok(vec![("gradient_checkpointing: true".into(), changed)])
}

/// Smaller batches that give the same window.
fn smaller_batch(_: &Config, settings: &MemorySettings) -> Changed {
    let (batch, steps) =
        (settings.per_device_train_batch_size, settings.gradient_accumulation_steps);
    let smaller = |per_device_train_batch_size| {
        let gradient_accumulation_steps = steps * (batch / per_device_train_batch_size);
        let name = format!(
            "per_device_train_batch_size: {per_device_train_batch_size} with \
             gradient_accumulation_steps: {gradient_accumulation_steps}"
        );
        let changed = MemorySettings {
            per_device_train_batch_size,
            gradient_accumulation_steps,
            ..settings.clone()
        };
        (name, changed)
    };
    Ok((1..batch).rev().filter(|size| batch.is_multiple_of(*size)).map(smaller).collect())
}

fn small_states(_: &Config, settings: &MemorySettings) -> Changed {
    if settings.optimizer.optim != OptimizerName::AdamW {
        return Ok(Vec::new());
    }
    let mut changed = settings.clone();
    changed.optimizer.optim = OptimizerName::AdamW8Bit;
    Ok(vec![(format!("optim: {}", OptimizerName::AdamW8Bit.name()), changed)])
}

fn adapter(config: &Config, settings: &MemorySettings) -> Changed {
    if settings.is_adapter() {
        return Ok(Vec::new());
    }
    let target_modules = Some("all-linear".into());
    let lora = LoraConfig { r: RANK, target_modules, ..LoraConfig::default() };
    let changed = MemorySettings { parameters: lora.parameters(config)?, ..settings.clone() };
    Ok(vec![(format!("LoRA with r: {RANK}, target_modules: all-linear"), changed)])
}

fn four_bits(_: &Config, settings: &MemorySettings) -> Changed {
    if settings.quantization.is_some() {
        return Ok(Vec::new());
    }
    let quantization = Some(Quantization::new(QuantizationKind::Nf4 { double: true }));
    let changed = MemorySettings { quantization, ..settings.clone() };
    let name = "load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: true";
    Ok(vec![(name.into(), changed)])
}
