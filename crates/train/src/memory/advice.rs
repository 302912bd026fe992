//! Which settings would fit, when the chosen ones do not.

use posttrain_model::Activations;
use posttrain_model::config::Config;
use serde::Serialize;

use super::{MemorySettings, Plan, Quantized, lora_parameters};
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
///
/// # Errors
/// Those of [`Plan::new`].
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
        for (name, changed) in change(config, &settings) {
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

type Changed = Vec<(String, MemorySettings)>;

fn recompute(_: &Config, settings: &MemorySettings) -> Changed {
    if settings.activations == Activations::Recompute {
        return Vec::new();
    }
    let activations = Activations::Recompute;
    vec![(
        "gradient_checkpointing: true".into(),
        MemorySettings { activations, ..settings.clone() },
    )]
}

/// Smaller batches that give the same window.
fn smaller_batch(_: &Config, settings: &MemorySettings) -> Changed {
    let (batch, steps) =
        (settings.per_device_train_batch_size, settings.gradient_accumulation_steps);
    let smaller = (1..batch).rev().filter(|size| batch.is_multiple_of(*size));
    smaller
        .map(|size| {
            let gradient_accumulation_steps = steps * (batch / size);
            let name = format!(
                "per_device_train_batch_size: {size} with gradient_accumulation_steps: \
                 {gradient_accumulation_steps}"
            );
            let settings = settings.clone();
            let per_device_train_batch_size = size;
            let changed = MemorySettings {
                per_device_train_batch_size,
                gradient_accumulation_steps,
                ..settings
            };
            (name, changed)
        })
        .collect()
}

fn small_states(_: &Config, settings: &MemorySettings) -> Changed {
    if settings.optimizer.optim != OptimizerName::AdamW {
        return Vec::new();
    }
    let mut changed = settings.clone();
    changed.optimizer.optim = OptimizerName::AdamW8Bit;
    vec![(format!("optim: {}", OptimizerName::AdamW8Bit.name()), changed)]
}

fn adapter(config: &Config, settings: &MemorySettings) -> Changed {
    if settings.trained.iter().any(|parameter| parameter.name.contains(".lora_")) {
        return Vec::new();
    }
    let trained = lora_parameters(config, RANK, &[], false);
    let name = format!("LoRA with r: {RANK}, target_modules: all-linear");
    vec![(name, MemorySettings { trained, ..settings.clone() })]
}

fn four_bits(_: &Config, settings: &MemorySettings) -> Changed {
    if settings.quantization.is_some() {
        return Vec::new();
    }
    let quantization = Some(Quantized::FourBit { double: true });
    let name = "load_in_4bit: true with bnb_4bit_use_double_quant: true";
    vec![(name.into(), MemorySettings { quantization, ..settings.clone() })]
}
