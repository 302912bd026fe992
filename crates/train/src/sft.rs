//! Supervised fine-tuning: the next token of given answers.
//!
//! ```text
//! L = Σᵢ ℓ(xᵢ | x<ᵢ) / N     over the N trained tokens of a step, however many passes it takes
//! ```
//!
//! with ℓ of [`Objective`]. Full, LoRA, QLoRA and continued pretraining are this recipe on other weights
//! and rows.

use std::time::Instant;

use posttrain_model::device::in_pool;
use posttrain_model::{Activations, Decoder, Gradients, Noise, Objective};

use crate::config::SftConfig;
use crate::data::{Batches, MicroBatch, fold};
use crate::error::Error;
use crate::optim::clip_global_norm;
use crate::run::{Found, Go, Run};
use crate::schedule::Schedule;
use crate::watch::{EvalMetrics, RunInfo, StepMetrics};
use crate::weights::Weights;

/// Trains a model on rows, and returns it as it is after the last step.
///
/// # Errors
/// [`Error::NotFinite`] for a loss or gradient that is not a number, and those of [`Run`].
pub fn sft(
    mut model: Decoder,
    weights: &Weights,
    batches: &mut Batches,
    validation: Option<&Batches>,
    config: &SftConfig,
    info: RunInfo,
    run: &mut Run<'_>,
) -> Result<Decoder, Error> {
    let device = model.device();
    in_pool(&device, || {
        let pass = Pass::new(config)?;
        let schedule =
            Schedule::new(&config.schedule, config.training.learning_rate, batches.total_steps())?;
        let mut learner = run.start(info, &model, &config.optim, batches)?;

        while !run.stopped()
            && let Some(window) = batches.next_window()?
        {
            let (mut gradients, mut found) = (Gradients::default(), Found::default());
            for (number, batch) in window.micro_batches.iter().enumerate() {
                let noise = pass.noise(window.step, number);
                pass.add(&model, batch, window.trained_tokens, noise, &mut gradients, &mut found);
            }
            let grad_norm = clip_global_norm(&mut gradients, config.training.max_norm());
            run.check(&window, found.loss, grad_norm)?;
            let learning_rate = schedule.rate(window.step - 1);
            model = learner.optimizer.step(learning_rate, model, gradients);
            if let Some(ema) = &mut learner.ema {
                ema.update(&model);
            }

            let metrics = StepMetrics { grad_norm, learning_rate, ..found.metrics(&window) };
            let evaluation = |model: &Decoder| {
                validation.map(|rows| evaluate(model, rows, window.step, window.epoch)).transpose()
            };
            let go = run.end_step(metrics, &model, weights, &learner, batches, evaluation)?;
            if go == Go::Stop {
                break;
            }
        }
        if config.training.load_best_model_at_end
            && let Some(best) = run.best(&model, weights)?
        {
            return Ok(best);
        }
        Ok(match learner.ema {
            Some(ema) => ema.applied_to(&model),
            None => model,
        })
    })
}

/// How a pass adds to a step.
struct Pass {
    objective: Objective,
    activations: Activations,
    neftune_alpha: Option<f32>,
    seed: u64,
}

impl Pass {
    fn new(config: &SftConfig) -> Result<Self, Error> {
        Ok(Self {
            objective: config.sft.objective()?,
            activations: config.training.activations(),
            neftune_alpha: config.sft.neftune_noise_alpha,
            seed: config.training.seed,
        })
    }

    /// The noise follows from seed, step and pass alone, so that a resumed run has the same.
    fn noise(&self, step: u64, pass: usize) -> Noise {
        let seed = fold(self.seed, [step, pass as u64]);
        Noise { seed, neftune_alpha: self.neftune_alpha }
    }

    fn add(
        &self,
        model: &Decoder,
        MicroBatch { batch, targets, .. }: &MicroBatch,
        trained_tokens: usize,
        noise: Noise,
        gradients: &mut Gradients,
        found: &mut Found,
    ) {
        let weights = vec![1.0 / trained_tokens as f32; targets.len()];
        model.backward(batch, Some(noise), self.activations, gradients, |hidden, gradients| {
            let loss =
                model.cross_entropy(hidden, targets, &weights, self.objective, Some(gradients));
            found.add(&loss);
            loss.by_hidden.expect("gradients were asked for")
        });
    }
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
        tokens += batch.texts().iter().flatten().sum::<usize>() as u64;
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
    })
}
