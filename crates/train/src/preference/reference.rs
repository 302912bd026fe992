//! The model that a policy is compared with. It gets no gradient.

use std::path::Path;

use posttrain_model::checkpoint::{Checkpoint, resolve};
use posttrain_model::{Batch, Decoder, LoadOptions, Targets, device};

use super::Answer;
use super::stored::{Origin, Stored, Sums, checksum, rows};
use super::tokens::{answers, logprobs};
use crate::config::PreferenceConfig;
use crate::data::{Batches, MicroBatch};
use crate::error::Error;
use crate::optim::Ema;
use crate::run::Run;
use crate::weights::Weights;

/// Its averages in a checkpoint.
const REFERENCE: &str = "reference.safetensors";

/// Which rows are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Train,
    Validation,
}

/// What the policy is compared with.
#[derive(Debug)]
pub(super) enum Reference {
    /// Nothing.
    None,
    /// A model that stays as it is. With an adapter it is the base, whose weights both share; else what
    /// was not trained yet is shared.
    Frozen(Box<Decoder>),
    /// A model that follows the policy (TR-DPO): `π_ref` ← α π + (1 − α) `π_ref`.
    Following { averages: Ema, model: Box<Decoder>, every: u64 },
    /// Numbers that were computed before.
    Stored(Stored),
}

impl Reference {
    /// The reference of a run that starts, or goes on, with `model`.
    pub(super) fn new(
        model: &Decoder,
        weights: &Weights,
        [train, validation]: [Option<&Batches>; 2],
        config: &PreferenceConfig,
        run: &mut Run<'_>,
    ) -> Result<Self, Error> {
        let method = &config.method;
        if !method.loss.has_reference() {
            return Ok(Self::None);
        }
        if method.sync_ref_model {
            let decay = 1.0 - method.ref_model_mixup_alpha;
            let averages = match run.resumed_from() {
                Some(path) => Ema::load(path.join(REFERENCE), decay, model)?,
                None => Ema::new(decay, model)?,
            };
            let reference = Box::new(frozen(averages.applied_to(model)));
            let every = method.ref_model_sync_steps;
            return Ok(Self::Following { averages, model: reference, every });
        }
        let initial = || match &method.ref_model {
            None => weights.initial(model, run.resumed_from().is_some()),
            Some(name) => {
                let dtype = config.model.dtype.to_load(true);
                let options = LoadOptions { dtype, ..LoadOptions::default() };
                let other = Decoder::load_with(resolve(name)?, &model.device(), &options)?;
                knows(&other, train.into_iter().chain(validation))?;
                Ok(frozen(other))
            }
        };
        let Some(train) = train.filter(|_| method.precompute_ref_log_probs) else {
            return Ok(Self::Frozen(Box::new(initial()?)));
        };
        let device = device::name_of(&model.device());
        let (path, origin) =
            (config.ref_log_probs(), origin(&device, weights, train, validation, config)?);
        if let Some(stored) = Stored::read(&path, &origin)? {
            return Ok(Self::Stored(stored));
        }
        let reference = initial()?;
        let mut sets = [Sums::new(), Sums::new()];
        for (set, rows) in sets.iter_mut().zip([Some(train), validation]) {
            if let Some(rows) = rows {
                *set = compute(&reference, rows, run)?;
            }
        }
        let stored = Stored { sets };
        stored.write(&path, &origin)?;
        Ok(Self::Stored(stored))
    }

    /// The answers of a batch; none without a reference.
    pub(super) fn answers(&self, micro: &MicroBatch, set: Set) -> Vec<Answer> {
        let MicroBatch { batch, targets, samples, .. } = micro;
        match self {
            Self::None => Vec::new(),
            Self::Frozen(model) | Self::Following { model, .. } => {
                answers(batch, targets, &logprobs(model, batch, targets), None)
            }
            Self::Stored(stored) => {
                let sums = &stored.sets[usize::from(set == Set::Validation)];
                let mut tokens = vec![0; samples.len()];
                targets.texts().iter().for_each(|&text| tokens[text] += 1);
                let answer = |(&sample, tokens)| {
                    let [sum, tail] = sums[sample];
                    Answer { sum, tail, log_sum_sq: 0.0, tokens }
                };
                samples.iter().zip(tokens).map(answer).collect()
            }
        }
    }

    /// Log-probabilities of answers that are no rows.
    pub(super) fn sums(&self, batch: &Batch, targets: &Targets) -> Vec<f64> {
        match self {
            Self::Frozen(model) | Self::Following { model, .. } => {
                let found = answers(batch, targets, &logprobs(model, batch, targets), None);
                found.iter().map(|answer| answer.sum).collect()
            }
            Self::None | Self::Stored(_) => unreachable!("the configuration refuses this"),
        }
    }

    /// After a step.
    pub(super) fn follow(&mut self, policy: &Decoder, step: u64) {
        if let Self::Following { averages, model, every } = self
            && step.is_multiple_of(*every)
        {
            averages.update(policy);
            **model = frozen(averages.applied_to(policy));
        }
    }

    /// What a checkpoint has to keep.
    pub(super) fn save(&self, folder: &Path) -> Result<(), Error> {
        match self {
            Self::Following { averages, .. } => averages.save(folder.join(REFERENCE)),
            _ => Ok(()),
        }
    }
}

fn frozen(model: Decoder) -> Decoder {
    model.with_trainable(|_| false)
}

/// That a model predicts the tokens of the rows.
fn knows<'a>(model: &Decoder, rows: impl Iterator<Item = &'a Batches>) -> Result<(), Error> {
    let config = model.config();
    if !config.has_logits() {
        let found = format!("a model with the head {:?}", config.head);
        return Err(Error::config("ref_model", found, "a language model"));
    }
    let largest = |rows: &Batches| {
        let texts = 0..rows.samples().len();
        texts.flat_map(|text| rows.samples().ids(text).iter().copied()).max()
    };
    match rows.filter_map(largest).max().filter(|&id| id as usize >= config.vocab_size) {
        Some(id) => {
            let found = format!("a model of {} tokens", config.vocab_size);
            let expected = format!("one with the tokens of the rows, of which one is {id}");
            Err(Error::config("ref_model", found, expected))
        }
        None => Ok(()),
    }
}

fn compute(model: &Decoder, rows: &Batches, run: &mut Run<'_>) -> Result<Sums, Error> {
    let mut sums = vec![[0.0; 2]; rows.samples().len()];
    let mut done = 0;
    for micro in rows.pass() {
        let MicroBatch { batch, targets, samples, .. } = micro?;
        let found = answers(&batch, &targets, &logprobs(model, &batch, &targets), None);
        for (&sample, answer) in samples.iter().zip(found) {
            sums[sample] = [answer.sum, answer.tail];
        }
        done += samples.len() as u64;
        run.progress("log-probabilities of the reference", done, sums.len() as u64)?;
    }
    Ok(sums)
}

fn origin(
    device: &str,
    weights: &Weights,
    train: &Batches,
    validation: Option<&Batches>,
    config: &PreferenceConfig,
) -> Result<Origin, Error> {
    let base = match &config.method.ref_model {
        Some(name) => resolve(name)?,
        None => weights.base().to_owned(),
    };
    let own = config.method.ref_model.is_none();
    let adapter = config.model.adapter.as_deref().filter(|_| own);
    let quantization = config.peft.quantization.as_ref().filter(|_| own);
    let adapted = config.peft.lora.is_some() || config.model.adapter.is_some();
    let loaded = config.model.dtype.to_load(adapted || !own);
    let loaded = match loaded {
        Some(dtype) => Some(dtype),
        None => Checkpoint::open(&base)?.dtype(),
    };
    let loaded = loaded.map(|dtype| dtype.to_string());
    let settings = serde_json::json!([loaded, quantization, device]).to_string();
    let folders: Vec<&Path> = std::iter::once(&*base).chain(adapter).collect();
    let mut origin = rows(train, validation);
    origin.insert("model".into(), checksum(&folders, &settings)?);
    Ok(origin)
}
