//! Outcome reward models: the better answer gets the higher score.
//!
//! ```text
//! L = Σ over passes of (pairs of the pass / pairs of the step) · Bradley-Terry of the pass
//! ```
//!
//! with [`BradleyTerry`]. The score is read at the last token, as transformers reads it.

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use posttrain_model::{Activations, Batch, Decoder, Gradients};

use super::{ScoreReport, ScoredPair};
use crate::config::RewardConfig;
use crate::data::{Batches, MicroBatch, RowKind, Window};
use crate::error::Error;
use crate::preference::BradleyTerry;
use crate::recipe::{Means, Recipe, separate_prompts, train};
use crate::run::Run;
use crate::sft::noise;
use crate::watch::{EvalMetrics, Extras, RunInfo, StepMetrics};
use crate::weights::Weights;

/// Trains a reward model on pairs ([`Batches::of_answers`]), and returns it as it is after the last step.
///
/// # Errors
/// Those of [`train`], and [`Error::Data`] for rows that are no pairs.
pub fn outcome_reward(
    model: Decoder,
    weights: &Weights,
    batches: &mut Batches,
    validation: Option<&Batches>,
    config: &RewardConfig,
    info: RunInfo,
    run: &mut Run<'_>,
) -> Result<Decoder, Error> {
    for rows in [Some(&*batches), validation].into_iter().flatten() {
        rows.answers()?.check(RowKind::Pairs)?;
    }
    check_margins(batches)?;
    let dropout = !config.method.disable_dropout && model.dropout() > 0.0;
    let apart = dropout || model.config().rotates_by_length();
    let separated = apart.then(|| separate_prompts(batches, validation)).flatten();
    let validation = separated.as_ref().or(validation);
    let mut recipe = Outcome {
        loss: config.method.bradley_terry(),
        activations: config.training.activations(),
        seed: dropout.then_some(config.training.seed),
        validation,
    };
    train(&mut recipe, model, weights, batches, config, info, run)
}

/// That all pairs have a margin, or none: a missing one is not 0.
fn check_margins(batches: &Batches) -> Result<(), Error> {
    let rows = batches.answers()?;
    let has = |row: usize| !rows.values(rows.row(row).start).is_empty();
    match (1..rows.len()).find(|&row| has(row) != has(0)) {
        None => Ok(()),
        Some(row) => {
            let reason = format!(
                "{} margin, and {} has {}: expected one for each pair, or none",
                if has(row) { "a" } else { "no" },
                rows.id(0),
                if has(row) { "none" } else { "one" }
            );
            Err(Error::Data { row: rows.id(row).to_string(), reason })
        }
    }
}

struct Outcome<'a> {
    loss: BradleyTerry,
    activations: Activations,
    /// Of dropout, where there is some.
    seed: Option<u64>,
    validation: Option<&'a Batches>,
}

impl Outcome<'_> {
    fn pass(&self, micro: &MicroBatch, scores: &[f32]) -> crate::preference::Loss<[f64; 2]> {
        let rewards: Vec<[f64; 2]> =
            scores.chunks_exact(2).map(|pair| [pair[0].into(), pair[1].into()]).collect();
        let margins = micro.values.chunks_exact(2).map(|pair| pair[0].first().copied());
        let any = micro.values.iter().any(|values| !values.is_empty());
        let margins: Vec<f64> = margins.map(Option::unwrap_or_default).collect();
        self.loss.loss(&rewards, any.then_some(&margins))
    }
}

impl Recipe for Outcome<'_> {
    fn learn(
        &mut self,
        model: &Decoder,
        window: &Window,
        gradients: &mut Gradients,
    ) -> Result<StepMetrics, Error> {
        let pairs = |micro: &MicroBatch| micro.batch.texts().len() as f64;
        let total: f64 = window.micro_batches.iter().map(pairs).sum();
        let (mut loss, mut means) = (0.0, Means::default());
        for (pass, micro) in window.micro_batches.iter().enumerate() {
            let noise = self.seed.map(|seed| noise(seed, window.step, pass, None));
            let (places, share) = (last_places(model, &micro.batch), pairs(micro) / total);
            let device = model.device();
            let batch = &micro.batch;
            model.backward(batch, noise, self.activations, gradients, |hidden, gradients| {
                let found = self.pass(micro, &numbers(model.scores(hidden.clone(), &places)));
                loss += share * found.loss;
                means.add(share, found.metrics);
                let by = found.gradient.iter().flatten().map(|by| (share * by) as f32);
                let by = TensorData::new(by.collect::<Vec<f32>>(), [places.len(), 1]);
                let by = Tensor::from_data(by, &device);
                model.scores_backward(hidden, &places, by, gradients)
            });
        }
        let extra = Extras::new(means.finish())?;
        Ok(StepMetrics { loss, extra, ..window.metrics() })
    }

    fn evaluate(
        &mut self,
        model: &Decoder,
        step: u64,
        epoch: f64,
    ) -> Result<Option<EvalMetrics>, Error> {
        let Some(rows) = self.validation else { return Ok(None) };
        let (started, mut loss, mut means) = (Instant::now(), 0.0, Means::default());
        let (mut pairs, mut tokens, mut total) = (Vec::new(), 0, 0.0);
        for micro in rows.pass() {
            let micro = micro?;
            let scores = scores(model, &micro);
            let found = self.pass(&micro, &scores);
            let share = micro.batch.texts().len() as f64;
            loss += share * found.loss;
            total += share;
            means.add(share, found.metrics);
            tokens += micro.batch.tokens() as u64;
            pairs.extend(scored(&micro, &scores));
        }
        let mut extra = Extras::new(means.finish())?;
        let report = ScoreReport::new(&pairs)?;
        for (name, value) in report.metrics() {
            extra.insert(name, value)?;
        }
        Ok(Some(EvalMetrics {
            step,
            epoch,
            eval_loss: loss / f64::max(total, 1.0),
            tokens,
            trained_tokens: 2 * pairs.len() as u64,
            seconds: started.elapsed().as_secs_f64(),
            extra,
            details: report.html(),
            ..EvalMetrics::default()
        }))
    }
}

/// The scores of the answers of pairs under a model, in numbers: how many are in order, calibration, and
/// what length says by itself.
///
/// # Errors
/// [`Error::Model`] for rows that the model cannot take, [`Error::Data`] for rows that are no pairs and for
/// scores that are not finite.
pub fn score_pairs(model: &Decoder, rows: &Batches) -> Result<ScoreReport, Error> {
    rows.answers()?.check(RowKind::Pairs)?;
    let separated =
        model.config().rotates_by_length().then(|| rows.clone().without_shared_prompts());
    let mut pairs = Vec::new();
    for micro in separated.as_ref().unwrap_or(rows).pass() {
        let micro = micro?;
        pairs.extend(scored(&micro, &scores(model, &micro)));
    }
    ScoreReport::new(&pairs)
}

fn scores(model: &Decoder, micro: &MicroBatch) -> Vec<f32> {
    let places = last_places(model, &micro.batch);
    numbers(model.scores(model.forward(&micro.batch), &places))
}

fn scored(micro: &MicroBatch, scores: &[f32]) -> Vec<ScoredPair> {
    let mut tokens = vec![0; scores.len()];
    micro.targets.texts().iter().for_each(|&text| tokens[text] += 1);
    let pairs = scores.chunks_exact(2).zip(tokens.chunks_exact(2));
    pairs
        .map(|(scores, tokens)| ScoredPair {
            chosen: scores[0].into(),
            rejected: scores[1].into(),
            chosen_tokens: tokens[0],
            rejected_tokens: tokens[1],
        })
        .collect()
}

/// Where each text is scored.
fn last_places(model: &Decoder, batch: &Batch) -> Vec<usize> {
    let place = |[stem, own]: [std::ops::Range<usize>; 2]| {
        let places: Vec<usize> = stem.chain(own).collect();
        let ids: Vec<u32> = places.iter().map(|&place| batch.ids()[place]).collect();
        places[model.config().pooled(&ids)]
    };
    batch.places().into_iter().map(place).collect()
}

pub(super) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let numbers = tensor.into_data().convert::<f32>().try_into_vec::<f32>();
    numbers.expect("numbers as they were asked for")
}
