//! The loop that every way of training shares, and what a way of training adds to it.

use std::collections::BTreeMap;
use std::path::Path;

use posttrain_model::device::in_pool;
use posttrain_model::{Decoder, Gradients};

use crate::config::{Method, Settings};
use crate::data::{Batches, Window};
use crate::error::Error;
use crate::optim::clip_global_norm;
use crate::run::{Go, Run};
use crate::schedule::Schedule;
use crate::watch::{EvalMetrics, RunInfo, StepMetrics};
use crate::weights::Weights;

/// What a way of training does in a step. Whatever it remembers from step to step, it writes into
/// checkpoints and reads from the one that the run goes on with.
pub trait Recipe: Send {
    /// Adds the gradients of a window. Each pass has its share of the window's rows or tokens, so that
    /// the sum over the passes is the gradient of one mean.
    ///
    /// # Errors
    /// Those of the model and the data.
    fn learn(
        &mut self,
        model: &Decoder,
        window: &Window,
        gradients: &mut Gradients,
    ) -> Result<StepMetrics, Error>;

    /// Measures the model on the validation rows, if there are any.
    ///
    /// # Errors
    /// Those of the model and the data.
    fn evaluate(
        &mut self,
        model: &Decoder,
        step: u64,
        epoch: f64,
    ) -> Result<Option<EvalMetrics>, Error>;

    /// Hears of the model after a step.
    ///
    /// # Errors
    /// Those of the model.
    fn stepped(&mut self, model: &Decoder, step: u64) -> Result<(), Error> {
        let _ = (model, step);
        Ok(())
    }

    /// Writes what it remembers into the folder of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn save(&self, folder: &Path) -> Result<(), Error> {
        let _ = folder;
        Ok(())
    }
}

/// Lets each answer have its prompt to itself; the validation rows are the caller's, so that their copy
/// is changed.
pub(crate) fn separate_prompts(
    batches: &mut Batches,
    validation: Option<&Batches>,
) -> Option<Batches> {
    batches.separate_prompts();
    validation.map(|rows| rows.clone().without_shared_prompts())
}

/// Means over the passes of a step, as TRL takes them: of each metric over the passes that have it. Sums
/// and shares by name.
#[derive(Debug, Default)]
pub(crate) struct Means(BTreeMap<String, (f64, f64)>);

impl Means {
    /// Adds the metrics of a pass with its share of the step.
    pub(crate) fn add<N: Into<String>>(
        &mut self,
        share: f64,
        metrics: impl IntoIterator<Item = (N, f64)>,
    ) {
        for (name, value) in metrics {
            let (sum, shares) = self.0.entry(name.into()).or_default();
            (*sum, *shares) = (*sum + share * value, *shares + share);
        }
    }

    /// The means by name.
    pub(crate) fn finish(self) -> impl Iterator<Item = (String, f64)> {
        self.0.into_iter().map(|(name, (sum, shares))| (name, sum / shares))
    }
}

/// Trains a model, and returns it as it is after the last step, or as it was at its best where
/// `load_best_model_at_end` wants that.
///
/// # Errors
/// [`Error::NotFinite`] for a loss or gradient that is not a number, and those of [`Run`] and of the
/// recipe.
pub fn train<M: Method + Sync>(
    recipe: &mut dyn Recipe,
    mut model: Decoder,
    weights: &Weights,
    batches: &mut Batches,
    settings: &Settings<M>,
    info: RunInfo,
    run: &mut Run<'_>,
) -> Result<Decoder, Error> {
    let (device, training) = (model.device(), &settings.training);
    in_pool(&device, || {
        let (highest, steps) = (training.learning_rate, batches.total_steps());
        let schedule = Schedule::new(&settings.schedule, highest, steps)?;
        let mut learner = run.start(info, &model, &settings.optim, batches)?;

        while !run.stopped()
            && let Some(window) = batches.next_window()?
        {
            let mut gradients = Gradients::default();
            let metrics = recipe.learn(&model, &window, &mut gradients)?;
            let grad_norm = clip_global_norm(&mut gradients, training.max_norm());
            run.check(&window, metrics.loss, grad_norm)?;
            let learning_rate = schedule.rate(window.step - 1);
            model = learner.optimizer.step(learning_rate, model, gradients);
            if let Some(ema) = &mut learner.ema {
                ema.update(&model);
            }
            recipe.stepped(&model, window.step)?;
            let metrics = StepMetrics { grad_norm, learning_rate, ..metrics };
            if run.end_step(metrics, &model, weights, &learner, batches, recipe)? == Go::Stop {
                break;
            }
        }
        if training.load_best_model_at_end
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
