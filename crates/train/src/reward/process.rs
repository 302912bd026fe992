//! Process reward models: each step of a solution gets the probability that it is good.
//!
//! ```text
//! L = mean over all labelled steps of −l log s(x) − (1 − l) log s(−x)
//! ```
//!
//! x are the log-odds that the model has at the mark of the step ([`Reading`]), l is its label from 0 to 1
//! (Lightman et al. 2023, arXiv:2305.20050; soft labels as in Wang et al. 2023, Math-Shepherd,
//! arXiv:2312.08935). For hard labels and two scores it is the cross-entropy of TRL's `PRMTrainer`.

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use posttrain_core::Prompt;
use posttrain_model::reward::{Convention, Reading, RewardTokenizer};
use posttrain_model::{Activations, Decoder, Gradients};

use super::outcome::numbers;
use super::{ScoredStep, StepReport};
use crate::config::RewardConfig;
use crate::data::{
    Answers, Batches, MicroBatch, Reason, Refused, RowCounts, RowId, Sample, Window, each_row,
    fold, nothing_left,
};
use crate::error::Error;
use crate::preference::maths::{sigmoid, softplus};
use crate::recipe::{Recipe, train};
use crate::run::Run;
use crate::sft::noise;
use crate::watch::{EvalMetrics, Extras, RunInfo, StepMetrics};
use crate::weights::Weights;

/// A prompt, the steps of a solution, and for each its label from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// What is asked.
    pub prompt: Prompt,
    /// The steps.
    pub steps: Vec<String>,
    /// How right each of them is.
    pub labels: Vec<f64>,
}

/// Encodes solutions as a convention marks them. A row that is too long is none that can be trained on:
/// the marks at its end would be lost.
///
/// `progress` hears after every few thousand rows how many are done.
///
/// # Errors
/// The first error among the rows; [`Error::Data`] for the first row that cannot be trained on, unless
/// they are dropped, and when all are.
pub fn encode_steps(
    rows: impl IntoIterator<Item = Result<(RowId, StepRow), Error>>,
    tokenizer: &RewardTokenizer,
    convention: &Convention,
    config: &RewardConfig,
    progress: &mut dyn FnMut(u64),
) -> Result<(Answers, RowCounts), Error> {
    let mut answers = Answers::default();
    let max = config.data.max_length;
    let work = |row: &StepRow| {
        if row.steps.is_empty() || row.steps.len() != row.labels.len() {
            let (steps, labels) = (row.steps.len(), row.labels.len());
            let detail = format!("{steps} steps and {labels} labels, expected one for each step");
            return Err(Refused::new(Reason::Encoding, detail));
        }
        let marked = convention.encode(tokenizer, &row.prompt, &row.steps);
        let marked = marked.map_err(|error| Refused::new(Reason::Encoding, error))?;
        if marked.ids.len() > max {
            let detail = format!("{} tokens, max_length is {max}", marked.ids.len());
            return Err(Refused::new(Reason::TooLong, detail));
        }
        let asked = serde_json::to_string(&row.prompt).expect("a prompt is JSON");
        let asked = fold(asked.len() as u64, asked.bytes().map(u64::from));
        Ok((marked, row.labels.clone(), asked))
    };
    let bad_rows = config.data.untrained_rows;
    let counts = each_row(rows, work, bad_rows, progress, |row, (marked, labels, asked), _| {
        let mut trained = vec![false; marked.ids.len()];
        marked.places.iter().for_each(|&place| trained[place] = true);
        answers.push(&[(Sample { ids: marked.ids, trained, row }, labels)])?;
        answers.asks(asked);
        Ok(())
    })?;
    if answers.is_empty() {
        return Err(nothing_left(&counts));
    }
    Ok((answers, counts))
}

/// Trains a process reward model on solutions ([`encode_steps`]), and returns it as it is after the last
/// step.
///
/// # Errors
/// Those of [`train`], and [`Error::Data`] for rows without a label for each mark.
pub fn process_reward(
    model: Decoder,
    weights: &Weights,
    batches: &mut Batches,
    validation: Option<&Batches>,
    read: (&RewardConfig, Reading),
    info: RunInfo,
    run: &mut Run<'_>,
) -> Result<Decoder, Error> {
    let (config, reading) = read;
    for rows in [Some(&*batches), validation].into_iter().flatten() {
        check_labels(rows)?;
    }
    let dropout = !config.method.disable_dropout && model.dropout() > 0.0;
    let mut recipe = Process {
        reading,
        activations: config.training.activations(),
        seed: dropout.then_some(config.training.seed),
        validation,
    };
    train(&mut recipe, model, weights, batches, config, info, run)
}

struct Process<'a> {
    reading: Reading,
    activations: Activations,
    /// Of dropout, where there is some.
    seed: Option<u64>,
    validation: Option<&'a Batches>,
}

/// That there is a label for each mark.
fn check_labels(batches: &Batches) -> Result<(), Error> {
    let rows = batches.answers()?;
    for text in 0..rows.texts().len() {
        let (marks, labels) = (rows.texts().targets(text), rows.values(text).len());
        if marks != labels {
            let reason = format!("{marks} marks and {labels} labels, expected one for each");
            return Err(Error::Data { row: rows.texts().row(text).to_string(), reason });
        }
    }
    Ok(())
}

/// The loss of log-odds x for a label, and its slope.
fn step_loss(x: f64, label: f64) -> (f64, f64) {
    (label * softplus(-x) + (1.0 - label) * softplus(x), sigmoid(x) - label)
}

/// The labels of the marks of a batch, in the order of its targets.
fn labels(micro: &MicroBatch) -> Vec<f64> {
    micro.values.iter().flatten().copied().collect()
}

impl Recipe for Process<'_> {
    fn learn(
        &mut self,
        model: &Decoder,
        window: &Window,
        gradients: &mut Gradients,
    ) -> Result<StepMetrics, Error> {
        let share = 1.0 / window.trained_tokens as f64;
        let (mut loss, mut right) = (0.0, 0);
        for (pass, micro) in window.micro_batches.iter().enumerate() {
            let noise = self.seed.map(|seed| noise(seed, window.step, pass, None));
            let (places, labels, reading) =
                (micro.targets.own_places(), labels(micro), self.reading);
            let (batch, activations) = (&micro.batch, self.activations);
            model.backward(batch, noise, activations, gradients, |hidden, gradients| {
                let odds = numbers(reading.log_odds(model, hidden.clone(), places));
                let mut by = Vec::with_capacity(odds.len());
                for (&x, &label) in odds.iter().zip(&labels) {
                    let (value, slope) = step_loss(x.into(), label);
                    loss += share * value;
                    by.push((share * slope) as f32);
                    right += usize::from((x >= 0.0) == (label >= 0.5));
                }
                let by = TensorData::new(by, [places.len()]);
                let by = Tensor::from_data(by, &model.device());
                reading.log_odds_backward(model, hidden, places, by, gradients)
            });
        }
        let extra = Extras::new([("accuracy", right as f64 * share)])?;
        Ok(StepMetrics { loss, extra, ..window.metrics() })
    }

    fn evaluate(
        &mut self,
        model: &Decoder,
        step: u64,
        epoch: f64,
    ) -> Result<Option<EvalMetrics>, Error> {
        let Some(rows) = self.validation else { return Ok(None) };
        let started = Instant::now();
        let (steps, tokens, loss) = scored(model, rows, self.reading)?;
        let report = StepReport::new(&steps)?;
        Ok(Some(EvalMetrics {
            step,
            epoch,
            eval_loss: loss,
            tokens,
            trained_tokens: steps.len() as u64,
            seconds: started.elapsed().as_secs_f64(),
            extra: Extras::new(report.metrics())?,
            details: report.html(),
            ..EvalMetrics::default()
        }))
    }
}

/// The scores of the steps of solutions under a model, in numbers.
///
/// # Errors
/// [`Error::Model`] for rows that the model cannot take, [`Error::Data`] for rows without a label for each
/// mark and for scores that are not finite.
pub fn score_steps(model: &Decoder, rows: &Batches, reading: Reading) -> Result<StepReport, Error> {
    check_labels(rows)?;
    StepReport::new(&scored(model, rows, reading)?.0)
}

/// Every step with its score; the tokens of all; the mean loss.
fn scored(
    model: &Decoder,
    rows: &Batches,
    reading: Reading,
) -> Result<(Vec<ScoredStep>, u64, f64), Error> {
    let (mut steps, mut tokens, mut loss) = (Vec::new(), 0, 0.0);
    for micro in rows.pass() {
        let micro = micro?;
        tokens += micro.batch.tokens() as u64;
        let places = micro.targets.own_places();
        let odds = numbers(reading.log_odds(model, model.forward(&micro.batch), places));
        let starts: Vec<usize> = micro.batch.places().iter().map(|[_, own]| own.start).collect();
        let marks = places.iter().zip(micro.targets.texts());
        for (((&place, &text), &x), label) in marks.zip(&odds).zip(labels(&micro)) {
            let x = f64::from(x);
            loss += step_loss(x, label).0;
            let tokens = place + 1 - starts[text];
            steps.push(ScoredStep { probability: sigmoid(x), label, tokens });
        }
    }
    let mean = loss / steps.len().max(1) as f64;
    Ok((steps, tokens, mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x = log 3: s(x) = ¾.
    #[test]
    fn the_loss_by_hand() {
        let x = 3_f64.ln();
        let near = |(loss, slope): (f64, f64), expected: [f64; 2]| {
            assert!((loss - expected[0]).abs() < 1e-12 && (slope - expected[1]).abs() < 1e-12);
        };
        near(step_loss(x, 1.0), [(4.0_f64 / 3.0).ln(), -0.25]);
        near(step_loss(x, 0.0), [4_f64.ln(), 0.75]);
        near(step_loss(x, 0.75), [0.75 * (4.0_f64 / 3.0).ln() + 0.25 * 4_f64.ln(), 0.0]);
        assert!(step_loss(-1e4, 1.0).0.is_finite());
    }
}
