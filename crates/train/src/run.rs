//! What surrounds the steps of a run: evaluations, checkpoints, observers. The loop owns the model and
//! calls; of the recipe it is asked here to evaluate and to save.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use posttrain_model::{Decoder, Parameter};
use serde::{Deserialize, Serialize};

use crate::bad_batch::{BAD_BATCH, lines};
use crate::checkpoint::{Checkpoints, numbered, read_state, write_file};
use crate::config::{Resume, TrainingArguments, When};
use crate::data::{Batches, Position, Window};
use crate::error::Error;
use crate::memory::all_parameters;
use crate::optim::{Ema, Optimizer, OptimizerConfig};
use crate::recipe::Recipe;
use crate::resume::changed;
use crate::watch::{
    Checkpoint, Detector, METRICS, Observer, RunInfo, Selection, SelectionState, StepMetrics, Stop,
    Summary, flops_per_token,
};
use crate::weights::Weights;

/// Names of the files of a checkpoint beside its weights.
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";

/// A run in its folder.
pub struct Run<'a> {
    arguments: TrainingArguments,
    checkpoints: Checkpoints,
    observer: &'a mut dyn Observer,
    resumed: Option<(PathBuf, State)>,
    state: State,
    selection: Selection,
    /// Whether the observer has been told of the start.
    begun: bool,
    changed: Vec<String>,
    total_steps: u64,
    /// Operations for a token.
    flops: f64,
    started: Instant,
    step_started: Instant,
    loss_sum: f64,
    summary: Summary,
}

/// What a checkpoint says beside weights and optimizer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    step: u64,
    position: Option<Position>,
    selection: SelectionState,
    detector: Detector,
    seed: u64,
    /// Whether the run was stopped early: there is nothing more to learn.
    stopped: bool,
    /// The settings, as JSON in a text.
    settings: String,
}

/// What a step changes besides the model.
#[derive(Debug)]
pub struct Learner {
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The average of the weights, if one is wanted.
    pub ema: Option<Ema>,
}

impl RunInfo {
    /// Of a model with its settings; name and data report are the caller's to say.
    pub fn of(model: &Decoder, config: serde_json::Value) -> Self {
        let (all, trained) = counts(model);
        let share = 100.0 * trained as f64 / all.max(1) as f64;
        let facts = [
            ("architecture", model.config().architecture.model_type().to_owned()),
            ("parameters", all.to_string()),
            ("trained", format!("{trained} ({share:.2} %)")),
            ("device", posttrain_model::device::name_of(&model.device())),
        ];
        let facts = facts.map(|(name, value)| (name.to_owned(), value)).into();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let started = since.map_or(0, |since| since.as_secs());
        Self { config, facts, started, ..Self::default() }
    }
}

/// Numbers of a model, those in few bits and those of its adapter included, and how many are trained.
fn counts(model: &Decoder) -> (u64, u64) {
    let sum = |parameters: &mut dyn Iterator<Item = &Parameter>| {
        parameters.map(|parameter| parameter.count() as u64).sum::<u64>()
    };
    let (base, parameters) = (all_parameters(model.config()), model.parameters());
    let names: BTreeSet<&str> = base.iter().map(|parameter| parameter.name.as_str()).collect();
    let added = sum(&mut parameters.iter().filter(|p| !names.contains(p.name.as_str())));
    (sum(&mut base.iter()) + added, sum(&mut parameters.iter().filter(|p| p.trainable)))
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// With the next step.
    On,
    /// No further.
    Stop,
}

impl<'a> Run<'a> {
    /// Opens the folder of a run. Where an earlier run left checkpoints, `resume_from_checkpoint` goes
    /// on with one of them and `overwrite_output_dir` moves the folder aside.
    ///
    /// # Errors
    /// [`Error::Config`] when the folder holds checkpoints and neither is set, [`Error::Checkpoint`] when
    /// there is none to go on with, [`Error::Io`].
    pub fn open(
        arguments: &TrainingArguments,
        observer: &'a mut dyn Observer,
    ) -> Result<Self, Error> {
        let folder = &arguments.output_dir;
        let wanted = match &arguments.resume_from_checkpoint {
            Resume::From(path) => Some(path.clone()),
            Resume::Newest(_) => None,
        };
        let resume = arguments.resume_from_checkpoint != Resume::Newest(false);
        let mut checkpoints = Checkpoints::open(folder)?;
        if !resume && !is_new(folder)? {
            if !arguments.overwrite_output_dir {
                return Err(Error::config(
                    "output_dir",
                    format!("{} with what an earlier run left", folder.display()),
                    "an empty folder, or `resume_from_checkpoint: true` to go on, or \
                     `overwrite_output_dir: true` to move it aside",
                ));
            }
            fs::rename(folder, numbered(folder)).map_err(Error::io(folder))?;
            checkpoints = Checkpoints::open(folder)?;
        }
        let newest = || -> Result<Option<PathBuf>, Error> {
            Ok(checkpoints.list()?.pop().map(|(_, path)| path))
        };
        let from = match wanted {
            Some(path) => Some(path),
            None if resume => newest()?,
            None => None,
        };
        let resumed =
            from.map(|path| Ok::<_, Error>((path.clone(), read_state(&path)?))).transpose()?;
        let now = Instant::now();
        let state =
            resumed.as_ref().map(|(_, state): &(_, State)| state.clone()).unwrap_or_default();
        let selection = arguments.selection()?.with_state(state.selection.clone());
        let summary = Summary { step: state.step, ..Summary::default() };
        Ok(Self {
            arguments: arguments.clone(),
            checkpoints,
            observer,
            resumed,
            state,
            selection,
            begun: false,
            changed: Vec::new(),
            total_steps: 0,
            flops: 0.0,
            started: now,
            step_started: now,
            loss_sum: 0.0,
            summary,
        })
    }

    /// The checkpoint with which the run goes on.
    pub fn resumed_from(&self) -> Option<&Path> {
        self.resumed.as_ref().map(|(path, _)| path.as_path())
    }

    /// Settings that are not those of the checkpoint, one line each; known after the start.
    pub fn changed_settings(&self) -> &[String] {
        &self.changed
    }

    /// Whether the checkpoint was written when the run was stopped early.
    pub fn stopped(&self) -> bool {
        self.state.stopped && self.arguments.early_stopping_patience.is_some()
    }

    /// Tells the observer how far long work before the first step has come.
    ///
    /// # Errors
    /// Those of the observer.
    pub fn progress(&mut self, what: &str, done: u64, total: u64) -> Result<(), Error> {
        self.observer.progress(what, done, total)
    }

    /// Steps made so far.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Makes the optimizer, or reads it from the checkpoint, puts the data where that left it, and tells
    /// the observer that the run begins.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the checkpoint is of another run: other data, seed or optimizer; those
    /// of [`Optimizer::new`].
    pub fn start(
        &mut self,
        mut info: RunInfo,
        model: &Decoder,
        optim: &OptimizerConfig,
        batches: &mut Batches,
    ) -> Result<Learner, Error> {
        let (rate, decay) = (self.arguments.learning_rate, self.arguments.ema_decay);
        let learner = match &self.resumed {
            None => {
                // A run that was killed before its first checkpoint starts anew.
                let killed = self.arguments.output_dir.join(METRICS).exists();
                info.resumed_from = killed.then_some(0);
                Learner {
                    optimizer: Optimizer::new(optim, rate, model)?,
                    ema: decay.map(|decay| Ema::new(decay, model)).transpose()?,
                }
            }
            Some((path, state)) => {
                let fail = |reason: String| Error::Checkpoint { path: path.clone(), reason };
                if state.seed != self.arguments.seed {
                    let (found, now) = (state.seed, self.arguments.seed);
                    return Err(fail(format!("it was made with seed {found}, not {now}")));
                }
                self.changed = changed(path, &state.settings, &info.config)?;
                let position = state.position.as_ref();
                batches.resume(position.ok_or_else(|| fail("no place in the data".into()))?)?;
                info.resumed_from = Some(state.step);
                let average = |decay| Ema::load(path.join(EMA), decay, model);
                Learner {
                    optimizer: Optimizer::load(path.join(OPTIMIZER), optim, rate, model)?,
                    ema: decay.map(average).transpose()?,
                }
            }
        };
        if let Some((path, state)) = &self.resumed {
            // Of steps that this run is about to make anew.
            self.checkpoints.set_aside_after(state.step, path)?;
        }
        if self.stopped() {
            self.summary.stop = Stop::Early;
        }
        self.state.settings = info.config.to_string();
        let (all, trained) = counts(model);
        self.flops = flops_per_token(all, trained);
        self.state.seed = self.arguments.seed;
        self.total_steps = batches.total_steps();
        info.total_steps = self.total_steps;
        self.started = Instant::now();
        self.step_started = self.started;
        self.begun = true;
        self.observer.start(&info)?;
        Ok(learner)
    }

    /// Refuses a step whose loss or gradient is not finite, before it reaches the weights.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; the rows of the window are written beside the run's other files.
    pub fn check(&self, window: &Window, loss: f64, grad_norm: f64) -> Result<(), Error> {
        let found = [("the loss", loss), ("the gradient norm", grad_norm)];
        let Some((what, found)) = found.into_iter().find(|(_, value)| !value.is_finite()) else {
            return Ok(());
        };
        let batch = self.arguments.output_dir.join(BAD_BATCH);
        write_file(&batch, lines(window).as_bytes())?;
        Err(Error::NotFinite { step: window.step, what, found, batch })
    }

    /// Ends a step: tells the observer, evaluates and writes a checkpoint where that is due.
    ///
    /// # Errors
    /// Those of the observer, the evaluation and the checkpoint.
    pub fn end_step(
        &mut self,
        metrics: StepMetrics,
        model: &Decoder,
        weights: &Weights,
        learner: &Learner,
        batches: &Batches,
        recipe: &mut dyn Recipe,
    ) -> Result<Go, Error> {
        let (step, epoch) = (metrics.step, metrics.epoch);
        self.state.step = step;
        self.state.position = Some(batches.position().clone());
        let seconds = self.step_started.elapsed().as_secs_f64();
        let mut metrics = StepMetrics { seconds, peak_memory: peak_memory(), ..metrics };
        let rate = self.flops * metrics.tokens_per_second();
        metrics.mfu = self.arguments.device_peak_flops.map(|peak| rate / peak);
        self.loss_sum += metrics.loss;
        self.summary.tokens += metrics.tokens;
        self.summary.trained_tokens += metrics.trained_tokens;
        self.summary.step = step;
        self.summary.peak_memory = metrics.peak_memory;
        self.observer.step(&metrics)?;
        for warning in self.state.detector.step(&metrics) {
            self.observer.warning(&warning)?;
        }

        let (last, epoch_ends) = (step == self.total_steps, epoch.fract() == 0.0);
        let due = |when, every| match when {
            When::No => false,
            When::Steps => step.is_multiple_of(every) || last,
            When::Epoch => epoch_ends || last,
        };
        let mut go = if last { Go::Stop } else { Go::On };
        let mut best = false;
        if due(self.arguments.eval_strategy, self.arguments.eval_every()) {
            let averaged = learner.ema.as_ref().map(|ema| ema.applied_to(model));
            if let Some(found) = recipe.evaluate(averaged.as_ref().unwrap_or(model), step, epoch)? {
                self.observer.evaluation(&found)?;
                let verdict = self.selection.observe(&found)?;
                self.state.selection = self.selection.state().clone();
                best = verdict.best;
                if verdict.stop && !last {
                    self.summary.stop = Stop::Early;
                    self.state.stopped = true;
                    go = Go::Stop;
                }
            }
        }
        let save = due(self.arguments.save_strategy, self.arguments.save_steps);
        if save || (go == Go::Stop && self.arguments.save_strategy != When::No) {
            self.save(model, weights, learner, recipe, best)?;
        }
        self.step_started = Instant::now();
        Ok(go)
    }

    fn save(
        &mut self,
        model: &Decoder,
        weights: &Weights,
        learner: &Learner,
        recipe: &dyn Recipe,
        best: bool,
    ) -> Result<(), Error> {
        let step = self.state.step;
        let path = self.checkpoints.write(step, &self.state, |folder| {
            weights.save_state(model, folder)?;
            learner.optimizer.save(folder.join(OPTIMIZER))?;
            recipe.save(folder)?;
            learner.ema.as_ref().map_or(Ok(()), |ema| ema.save(folder.join(EMA)))
        })?;
        if let Some(keep) = self.arguments.save_total_limit {
            let spare: Vec<u64> = self.selection.best().map(|(_, step)| step).into_iter().collect();
            self.checkpoints.prune(keep, &spare)?;
        }
        self.observer.checkpoint(&Checkpoint { step, path, best })
    }

    /// The model as it was when its evaluation was the best, if a checkpoint was written then.
    ///
    /// # Errors
    /// Those of reading the checkpoint.
    pub fn best(&self, model: &Decoder, weights: &Weights) -> Result<Option<Decoder>, Error> {
        let path = self.selection.best().map(|(_, step)| self.checkpoints.path(step));
        let Some(path) = path.filter(|path| path.is_dir()) else { return Ok(None) };
        let model = weights.reload(model, &path)?;
        Ok(Some(match self.arguments.ema_decay {
            Some(decay) => Ema::load(path.join(EMA), decay, &model)?.applied_to(&model),
            None => model,
        }))
    }

    /// Ends the run, also one that failed: an observer that has seen the start gets the summary.
    ///
    /// # Errors
    /// Those of the observer.
    pub fn end(
        mut self,
        failed: Option<&Error>,
        output: Option<PathBuf>,
    ) -> Result<Summary, Error> {
        if let Some(error) = failed {
            self.summary.stop = Stop::Failed(error.to_string());
        }
        let first = self.resumed.as_ref().map_or(0, |(_, state)| state.step);
        let steps = self.summary.step.saturating_sub(first).max(1);
        self.summary.train_loss = self.loss_sum / steps as f64;
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        self.summary.best = self.selection.best();
        self.summary.output = output;
        if self.begun {
            self.observer.end(&self.summary)?;
        }
        Ok(self.summary)
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The most resident memory of this process so far, where the system says it.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}

/// Whether no run has made a step or a model here.
fn is_new(folder: &Path) -> Result<bool, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        names.push(entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned());
    }
    let of_a_run = |name: &String| {
        name == METRICS || name.starts_with("checkpoint-") || name.ends_with(".safetensors")
    };
    Ok(!names.iter().any(of_a_run))
}
