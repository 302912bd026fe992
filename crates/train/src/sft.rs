//! Supervised fine-tuning: the next token of given answers.
//!
//! ```text
//! L = Σᵢ ℓ(xᵢ | x<ᵢ) / N     over the N trained tokens of a step, however many passes it takes
//! ```
//!
//! with ℓ of [`Objective`]. Full, LoRA, QLoRA and continued pretraining are this recipe on other weights
//! and rows.

use std::time::Instant;

use posttrain_model::{Activations, Decoder, Gradients, Noise, Objective};

use crate::config::SftConfig;
use crate::data::{Batches, MicroBatch, Window, fold};
use crate::error::Error;
use crate::found::Found;
use crate::recipe::{Recipe, train};
use crate::run::Run;
use crate::watch::{EvalMetrics, RunInfo, StepMetrics};
use crate::weights::Weights;

/// Trains a model on rows, and returns it as it is after the last step.
///
/// # Errors
/// Those of [`train`].
pub fn sft(
    model: Decoder,
    weights: &Weights,
    batches: &mut Batches,
    validation: Option<&Batches>,
    config: &SftConfig,
    info: RunInfo,
    run: &mut Run<'_>,
) -> Result<Decoder, Error> {
    let mut recipe = Sft {
        objective: config.method.objective()?,
        activations: config.training.activations(),
        neftune_alpha: config.method.neftune_noise_alpha,
        seed: config.training.seed,
        validation,
    };
    train(&mut recipe, model, weights, batches, config, info, run)
}

struct Sft<'a> {
    objective: Objective,
    activations: Activations,
    neftune_alpha: Option<f32>,
    seed: u64,
    validation: Option<&'a Batches>,
}

impl Recipe for Sft<'_> {
    fn learn(
        &mut self,
        model: &Decoder,
        window: &Window,
        gradients: &mut Gradients,
    ) -> Result<StepMetrics, Error> {
        let mut found = Found::default();
        for (pass, MicroBatch { batch, targets, .. }) in window.micro_batches.iter().enumerate() {
            let noise = noise(self.seed, window.step, pass, self.neftune_alpha);
            let weights = vec![1.0 / window.trained_tokens as f32; targets.len()];
            model.backward(batch, Some(noise), self.activations, gradients, |hidden, gradients| {
                let loss =
                    model.cross_entropy(hidden, targets, &weights, self.objective, Some(gradients));
                found.add(&loss);
                loss.by_hidden.expect("gradients were asked for")
            });
        }
        Ok(found.metrics(window))
    }

    fn evaluate(
        &mut self,
        model: &Decoder,
        step: u64,
        epoch: f64,
    ) -> Result<Option<EvalMetrics>, Error> {
        self.validation.map(|rows| evaluate(model, rows, step, epoch)).transpose()
    }
}

/// The noise of a pass follows from seed, step and pass alone, so that a resumed run has the same.
pub(crate) fn noise(seed: u64, step: u64, pass: usize, neftune_alpha: Option<f32>) -> Noise {
    Noise { seed: fold(seed, [step, pass as u64]), neftune_alpha }
}

/// Mean −log p over the trained tokens of the validation rows.
///
/// # Errors
/// [`Error::Model`] for rows that the model cannot take.
pub fn evaluate(
    model: &Decoder,
    rows: &Batches,
    step: u64,
    epoch: f64,
) -> Result<EvalMetrics, Error> {
    let (started, mut found, mut tokens) = (Instant::now(), Found::default(), 0);
    for batch in rows.pass() {
        let MicroBatch { batch, targets, .. } = batch?;
        tokens += batch.tokens() as u64;
        let hidden = model.forward(&batch);
        let weights = vec![1.0; targets.len()];
        found.add(&model.cross_entropy(hidden, &targets, &weights, Objective::Nll, None));
    }
    let (eval_loss, entropy, accuracy) = found.means();
    Ok(EvalMetrics {
        step,
        epoch,
        eval_loss,
        tokens,
        trained_tokens: found.targets,
        seconds: started.elapsed().as_secs_f64(),
        eval_entropy: Some(entropy),
        eval_mean_token_accuracy: Some(accuracy),
        perplexity: Some(eval_loss.exp()),
        ..EvalMetrics::default()
    })
}
