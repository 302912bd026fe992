//! Preference alignment: answers that are better become likelier than those that are worse.
//!
//! ```text
//! L = Σ over passes of (rows of the pass / rows of the step) · loss of the pass
//! ```
//!
//! with a loss of [`PreferenceLoss`]. Full, LoRA and QLoRA are this recipe on other weights.
//!
//! | metric | is |
//! |---|---|
//! | `rewards/chosen`, `rewards/rejected` | what the loss compares, times β: mostly β (log π − log `π_ref`) |
//! | `rewards/accuracies`, `rewards/margins` | pairs in order, and chosen less rejected |
//! | `logps/chosen`, `logps/rejected` | log π of the answers, in nats |
//! | `reference_kl` | (log π − log `π_ref`) / tokens of the data's answers, in nats, a mean over answers |
//! | `kl`, `delta` | KTO's reference point, BCO's running mean |
//! | `length/chosen`, `length/rejected` | tokens of the answers |
//! | `nll_loss`, `log_odds_ratio`, ... | parts of the losses that have them |

use std::fs;
use std::path::Path;
use std::time::Instant;

use posttrain_chat::Truncation;
use posttrain_model::checkpoint::resolve;
use posttrain_model::config::Config;
use posttrain_model::device::in_pool;
use posttrain_model::{Activations, Decoder, Gradients, Noise, Targets};

use super::choice::{Scores, named};
use super::reference::{Reference, Set};
use super::tokens::{answers, by_target, logprobs, mismatched, prompts, top1};
use super::{Answer, KtoType, PreferenceLoss, Shift, reference_point};
use crate::checkpoint::read_json;
use crate::config::PreferenceConfig;
use crate::data::{Batches, MicroBatch, Window};
use crate::error::Error;
use crate::found::Found;
use crate::recipe::{Means, Recipe, separate_prompts, train};
use crate::run::Run;
use crate::sft::noise;
use crate::watch::{EvalMetrics, Extras, RunInfo, StepMetrics};
use crate::weights::Weights;

const ACCURACY: &str = "mean_token_accuracy";
/// BCO's running mean in a checkpoint.
const SHIFT: &str = "shift.json";

/// Trains a model on rows of answers ([`Batches::of_answers`]), and returns it as it is after the last
/// step. The reference follows from the configuration: with a new adapter it is the base with the
/// adapter off, else the model as it was before the first step.
///
/// # Errors
/// Those of [`train`], of loading a reference, [`Error::Data`] for rows of another kind than the loss
/// wants, and [`Error::Checkpoint`] for stored log-probabilities of another reference.
pub fn preference(
    model: Decoder,
    weights: &Weights,
    batches: &mut Batches,
    validation: Option<&Batches>,
    config: &PreferenceConfig,
    info: RunInfo,
    run: &mut Run<'_>,
) -> Result<Decoder, Error> {
    for rows in [Some(&*batches), validation].into_iter().flatten() {
        rows.answers()?.check(config.method.loss.rows())?;
    }
    let shift = match run.resumed_from() {
        Some(folder) if matches!(config.method.loss, PreferenceLoss::Bco(_)) => {
            read_json(&folder.join(SHIFT))?
        }
        _ => Shift::default(),
    };
    let dropout = !config.method.disable_dropout && model.dropout() > 0.0;
    let other = match &config.method.ref_model {
        Some(name) => Config::from_model(&resolve(name)?)?.rotates_by_length(),
        None => false,
    };
    let apart = dropout || other || model.config().rotates_by_length();
    let separated = apart.then(|| separate_prompts(batches, validation)).flatten();
    let validation = separated.as_ref().or(validation);
    let reference = in_pool(&model.device(), || {
        Reference::new(&model, weights, [Some(batches), validation], config, run)
    })?;
    let mut recipe = Alignment {
        loss: &config.method.loss,
        reference,
        shift,
        activations: config.training.activations(),
        seed: dropout.then_some(config.training.seed),
        max_length: config.data.max_length,
        truncation: config.data.truncation_mode,
        validation,
    };
    train(&mut recipe, model, weights, batches, config, info, run)
}

struct Alignment<'a> {
    loss: &'a PreferenceLoss,
    reference: Reference,
    shift: Shift,
    activations: Activations,
    /// Of dropout, where there is some.
    seed: Option<u64>,
    max_length: usize,
    truncation: Truncation,
    validation: Option<&'a Batches>,
}

/// What a pass found: its loss, its answers, and entropy and accuracy of its tokens.
struct Passed {
    loss: f64,
    scores: Scores,
    found: Found,
}

impl Alignment<'_> {
    /// What the loss wants to know beside the policy.
    fn given(&mut self, model: &Decoder, micro: &MicroBatch, set: Set) -> Result<Scores, Error> {
        let z = match self.loss {
            PreferenceLoss::Kto(kto) if kto.loss_type == KtoType::Kto => {
                let (batch, targets) = mismatched(micro, self.max_length, self.truncation)?;
                let policy = answers(&batch, &targets, &logprobs(model, &batch, &targets), None);
                let policy: Vec<f64> = policy.iter().map(|answer| answer.sum).collect();
                reference_point(&policy, &self.reference.sums(&batch, &targets))
            }
            _ => 0.0,
        };
        Ok(Scores {
            reference: self.reference.answers(micro, set),
            values: micro.values.clone(),
            rows: micro.batch.texts().iter().map(Vec::len).collect(),
            z,
            ..Scores::default()
        })
    }

    /// The policy's answers, and the prompts where the loss reads them.
    fn read(&mut self, scores: &mut Scores, policy: Vec<Answer>, prompts: &[Answer], set: Set) {
        let firsts = scores.rows.iter().scan(0, |end, texts| {
            *end += texts;
            Some(*end - texts)
        });
        let whole = firsts.zip(prompts).map(|(first, prompt)| {
            let (sum, tokens) = (policy[first].sum, policy[first].tokens);
            Answer { sum: sum + prompt.sum, tokens: tokens + prompt.tokens, ..Answer::default() }
        });
        scores.whole = whole.collect();
        scores.policy = policy;
        if let (PreferenceLoss::Bco(bco), Set::Train) = (self.loss, set) {
            self.shift.update(&bco.rewards(&scores.policy, &scores.reference));
        }
        scores.shift = self.shift;
    }

    fn weighs(&self) -> bool {
        matches!(self.loss, PreferenceLoss::Dpo(dpo) if dpo.use_weighting)
    }

    fn reads_prompts(&self) -> bool {
        matches!(self.loss, PreferenceLoss::Orpo(_))
    }

    /// A pass with gradients, of which `share` is added.
    fn learn_pass(
        &mut self,
        model: &Decoder,
        micro: &MicroBatch,
        share: f64,
        noise: Option<Noise>,
        gradients: &mut Gradients,
    ) -> Result<Passed, Error> {
        let MicroBatch { batch, targets, .. } = micro;
        let mut scores = self.given(model, micro, Set::Train)?;
        let prompt_targets =
            if self.reads_prompts() { prompts(batch, targets) } else { Targets::default() };
        let (mut loss, mut found) = (0.0, Found::default());
        let activations = self.activations;
        model.backward(batch, noise, activations, gradients, |hidden, gradients| {
            let squares = self.weighs().then(|| model.log_sum_squares(hidden.clone(), targets));
            let scored = model.scored(hidden.clone(), targets, true);
            found.add_scored(&scored);
            scores.top1 = top1(batch, targets, &scored.top1);
            let policy = answers(batch, targets, &scored.logprobs, squares.as_deref());
            let prompts = model.scored(hidden, &prompt_targets, true);
            let of_prompts = if prompt_targets.is_empty() {
                Vec::new()
            } else {
                firsts(batch, answers(batch, &prompt_targets, &prompts.logprobs, None))
            };
            self.read(&mut scores, policy, &of_prompts, Set::Train);
            let found = self.loss.loss(&scores);
            loss = found.loss;
            let by = by_target(batch, targets, &found.gradient, share);
            let by_hidden = scored.backward(&by, gradients);
            if prompt_targets.is_empty() {
                return by_hidden;
            }
            let by = vec![(share * found.by_nll_token) as f32; prompt_targets.len()];
            by_hidden + prompts.backward(&by, gradients)
        });
        Ok(Passed { loss, scores, found })
    }

    fn evaluate_pass(&mut self, model: &Decoder, micro: &MicroBatch) -> Result<Passed, Error> {
        let MicroBatch { batch, targets, .. } = micro;
        let mut scores = self.given(model, micro, Set::Validation)?;
        let hidden = model.forward(batch);
        let squares = self.weighs().then(|| model.log_sum_squares(hidden.clone(), targets));
        let of_prompts = if self.reads_prompts() {
            let targets = prompts(batch, targets);
            let scored = model.scored(hidden.clone(), &targets, false);
            firsts(batch, answers(batch, &targets, &scored.logprobs, None))
        } else {
            Vec::new()
        };
        let scored = model.scored(hidden, targets, false);
        let mut found = Found::default();
        found.add_scored(&scored);
        scores.top1 = top1(batch, targets, &scored.top1);
        let policy = answers(batch, targets, &scored.logprobs, squares.as_deref());
        self.read(&mut scores, policy, &of_prompts, Set::Validation);
        Ok(Passed { loss: self.loss.loss(&scores).loss, scores, found })
    }

    /// The share of the better answers' tokens that had the highest probability, as in TRL.
    fn accuracy(&self, scores: &Scores) -> Option<f64> {
        let better = scores.better(self.loss.rows());
        let all = scores.policy.iter().zip(&scores.top1).zip(better);
        let (right, tokens) = all
            .filter(|(_, better)| *better)
            .fold((0, 0), |sums, (text, _)| (sums.0 + text.1, sums.1 + text.0.tokens));
        (tokens > 0).then(|| right as f64 / tokens as f64)
    }

    /// The metrics of all answers together.
    fn metrics(&self, scores: &Scores) -> Vec<(String, f64)> {
        let mut all: Vec<(String, f64)> = named(self.loss.loss(scores).metrics).collect();
        let mean = |numbers: Vec<f64>| numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
        if !scores.reference.is_empty() {
            let ratios = scores.policy.iter().zip(&scores.reference).map(|(policy, reference)| {
                (policy.sum - reference.sum) / policy.tokens.max(1) as f64
            });
            all.push(("reference_kl".into(), mean(ratios.collect())));
        }
        let better = scores.better(self.loss.rows());
        for (name, which) in [("length/chosen", true), ("length/rejected", false)] {
            let lengths = scores.policy.iter().zip(&better).filter(|(_, better)| **better == which);
            let lengths: Vec<f64> = lengths.map(|(answer, _)| answer.tokens as f64).collect();
            if !lengths.is_empty() {
                all.push((name.into(), mean(lengths)));
            }
        }
        all
    }
}

/// The answers of the first text of each row.
fn firsts(batch: &posttrain_model::Batch, all: Vec<Answer>) -> Vec<Answer> {
    let starts = batch.texts().iter().scan(0, |end, row| {
        *end += row.len();
        Some(*end - row.len())
    });
    starts.map(|first| all[first]).collect()
}

impl Recipe for Alignment<'_> {
    fn learn(
        &mut self,
        model: &Decoder,
        window: &Window,
        gradients: &mut Gradients,
    ) -> Result<StepMetrics, Error> {
        let rows = |micro: &MicroBatch| micro.batch.texts().len() as f64;
        let total: f64 = window.micro_batches.iter().map(rows).sum();
        let (mut found, mut means) = (Found::default(), Means::default());
        for (pass, micro) in window.micro_batches.iter().enumerate() {
            let noise = self.seed.map(|seed| noise(seed, window.step, pass, None));
            let share = rows(micro) / total;
            let passed = self.learn_pass(model, micro, share, noise, gradients)?;
            found += Found { loss: share * passed.loss, ..passed.found };
            means.add(share, self.metrics(&passed.scores));
            means.add(share, self.accuracy(&passed.scores).map(|accuracy| (ACCURACY, accuracy)));
        }
        let (accuracy, extra): (Vec<_>, Vec<_>) =
            means.finish().partition(|(name, _)| name == ACCURACY);
        let mean_token_accuracy = accuracy.first().map(|(_, value)| *value);
        let extra = Extras::new(extra)?;
        Ok(StepMetrics { nll: None, mean_token_accuracy, extra, ..found.metrics(window) })
    }

    fn evaluate(
        &mut self,
        model: &Decoder,
        step: u64,
        epoch: f64,
    ) -> Result<Option<EvalMetrics>, Error> {
        let Some(rows) = self.validation else { return Ok(None) };
        let (started, mut tokens, mut loss) = (Instant::now(), 0, 0.0);
        let (mut scores, mut found) = (Scores::default(), Found::default());
        for micro in rows.pass() {
            let micro = micro?;
            tokens += micro.batch.tokens() as u64;
            let passed = self.evaluate_pass(model, &micro)?;
            loss += passed.loss * micro.batch.texts().len() as f64;
            found += passed.found;
            scores.extend(passed.scores);
        }
        let (_, entropy, _) = found.means();
        Ok(Some(EvalMetrics {
            step,
            epoch,
            eval_loss: loss / scores.rows.len().max(1) as f64,
            tokens,
            trained_tokens: found.targets,
            seconds: started.elapsed().as_secs_f64(),
            eval_entropy: Some(entropy),
            eval_mean_token_accuracy: self.accuracy(&scores),
            extra: Extras::new(self.metrics(&scores))?,
            ..EvalMetrics::default()
        }))
    }

    fn stepped(&mut self, model: &Decoder, step: u64) -> Result<(), Error> {
        self.reference.follow(model, step);
        Ok(())
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        if matches!(self.loss, PreferenceLoss::Bco(_)) {
            let (path, text) = (folder.join(SHIFT), serde_json::to_vec(&self.shift));
            fs::write(&path, text.expect("numbers are JSON")).map_err(Error::io(&path))?;
        }
        self.reference.save(folder)
    }
}
