//! The windows of a run: what one step of the optimizer sees.

use posttrain_model::{Batch, Targets};

use super::order::{Purpose, grouped, shuffled};
use super::pack::Sequences;
use super::source::Source;
use super::{Answers, Packing, PackingReport, Position, RowId, Samples, SamplingStrategy};
use crate::error::Error;

/// How rows become batches. Fields have the names and defaults of transformers and TRL.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Sequences of one pass.
    pub per_device_train_batch_size: usize,
    /// Passes of one step.
    pub gradient_accumulation_steps: usize,
    /// How often each row is seen, where `max_steps` is `None`; may be a fraction.
    pub num_train_epochs: f64,
    /// The number of steps.
    pub max_steps: Option<u64>,
    /// The length of packed sequences; without packing it only says what is too long here.
    pub max_length: Option<usize>,
    /// Whether and how rows share a sequence.
    pub packing: Option<Packing>,
    /// Whether the sequences of a pass stand in one row, without seeing each other, so that there
    /// is no padding.
    pub padding_free: bool,
    /// Whether rows are shuffled once before everything else: another packing, and with
    /// [`SamplingStrategy::Sequential`] another order.
    pub shuffle_dataset: bool,
    /// The order of each epoch.
    pub train_sampling_strategy: SamplingStrategy,
    /// Of all random orders.
    pub seed: u64,
    /// Fills short sequences; no model sees it.
    pub pad_token_id: u32,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            per_device_train_batch_size: 8,
            gradient_accumulation_steps: 1,
            num_train_epochs: 3.0,
            max_steps: None,
            max_length: Some(1024),
            packing: None,
            padding_free: false,
            shuffle_dataset: false,
            train_sampling_strategy: SamplingStrategy::Random,
            seed: 42,
            pad_token_id: 0,
        }
    }
}

/// What one pass sees.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatch {
    /// The token ids.
    pub batch: Batch,
    /// Those that are trained; at least one.
    pub targets: Targets,
    /// For each text of the batch, counted as [`Targets::texts`] does, the rows it is made of: one,
    /// but for [`Packing::Wrapped`].
    pub rows: Vec<Vec<RowId>>,
    /// For each text of a batch of answers its number among [`Answers::texts`],
    pub samples: Vec<usize>,
    /// and what the data says of it, as [`Answers::push`] was told.
    pub values: Vec<Vec<f64>>,
    /// For the same texts the tokens that truncation took from them.
    pub(crate) lost: Vec<Vec<u32>>,
}

/// What one step of the optimizer sees: passes whose gradients are added and divided once, by the
/// number of trained tokens of them all.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The passes; at least one.
    pub micro_batches: Vec<MicroBatch>,
    /// The divisor: number of targets of all passes; at least one.
    pub trained_tokens: usize,
    /// Number of tokens of all passes, without padding.
    pub tokens: usize,
    /// Number of tokens of all passes, with padding.
    pub padded_tokens: usize,
    /// The step, from 1 on.
    pub step: u64,
    /// Epochs done after this step, by passes: 1.5 is the middle of the second.
    pub epoch: f64,
}

/// Gives the windows of a run, one after the other.
#[derive(Clone, Debug)]
pub struct Batches {
    source: Source,
    options: BatchOptions,
    position: Position,
    /// The order of the current epoch, with its number.
    order: Option<(u64, Vec<u32>)>,
}

impl Batches {
    /// Packs the rows, where that is wanted.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range or that contradict each other, [`Error::Data`] for
    /// no rows, for a row without a trained token, and for one that is longer than `max_length`.
    pub fn new(samples: Samples, options: BatchOptions) -> Result<Self, Error> {
        check(&options)?;
        let joined = options.packing == Some(Packing::Wrapped);
        let split = options.packing == Some(Packing::BfdSplit);
        check_rows(&samples, options.max_length.filter(|_| !joined && !split), joined)?;
        let order = if options.shuffle_dataset {
            shuffled(samples.len(), options.seed, Purpose::Packing)
        } else {
            (0..samples.len() as u32).collect()
        };
        let sequences = match (options.packing, options.max_length) {
            (Some(packing), Some(length)) => Sequences::packed(&samples, &order, packing, length),
            _ => Sequences::rows(&samples, &order),
        };
        if sequences.len() == 0 {
            return Err(no_rows("no sequence with a trained token is left after packing"));
        }
        let position = Position::new(samples.len(), samples.fingerprint(), &options);
        let source = Source::Texts { samples, sequences };
        Ok(Self { source, options, position, order: None })
    }

    /// Batches of answers: a sequence is a row with all of its texts. Nothing is padded, and what the
    /// texts of a row begin with is computed once.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range and for packing, [`Error::Data`] for no rows, and for
    /// a text without a trained token or longer than `max_length`.
    pub fn of_answers(rows: Answers, options: BatchOptions) -> Result<Self, Error> {
        check(&options)?;
        if options.packing.is_some() {
            let expected = "none: answers lie one behind the other without padding anyway";
            return Err(Error::config("packing", "given", expected));
        }
        check_rows(rows.texts(), options.max_length, false)?;
        let order = if options.shuffle_dataset {
            shuffled(rows.len(), options.seed, Purpose::Packing)
        } else {
            (0..rows.len() as u32).collect()
        };
        let position = Position::new(rows.len(), rows.fingerprint(), &options);
        let source = Source::Answers { rows, order, shared: true };
        Ok(Self { source, options, position, order: None })
    }

    /// Computes what answers begin with for each of them: for models and settings with which it is not
    /// the same for all (a rotation that depends on the length of the text, dropout).
    #[must_use]
    pub fn without_shared_prompts(mut self) -> Self {
        self.separate_prompts();
        self
    }

    /// The same in place.
    pub(crate) fn separate_prompts(&mut self) {
        if let Source::Answers { shared, .. } = &mut self.source {
            *shared = false;
        }
    }

    /// The texts.
    pub fn samples(&self) -> &Samples {
        self.source.samples()
    }

    /// The rows of answers.
    ///
    /// # Errors
    /// [`Error::Data`] where they are texts.
    pub(crate) fn answers(&self) -> Result<&Answers, Error> {
        match &self.source {
            Source::Answers { rows, .. } => Ok(rows),
            Source::Texts { .. } => {
                Err(no_rows("they are texts, expected answers (`Batches::of_answers`)"))
            }
        }
    }

    /// Number of sequences of an epoch: texts, packed ones, or rows of answers.
    pub fn sequences(&self) -> usize {
        self.source.len()
    }

    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        (0..self.source.len()).map(|index| self.source.length(index)).max().unwrap_or(0)
    }

    /// How rows share sequences, where they do.
    pub fn packing(&self) -> Option<PackingReport> {
        let Source::Texts { sequences: packed, .. } = &self.source else { return None };
        self.options.packing?;
        let sequences = packed.len();
        let tokens: usize = (0..sequences).map(|index| packed.length(index)).sum();
        let room = sequences * self.options.max_length?;
        let (fill, left_out) = (tokens as f64 / room as f64, packed.left_out);
        Some(PackingReport { sequences, fill, left_out })
    }

    /// Steps of an epoch. The last may be a smaller one: no row is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        self.source.len().div_ceil(self.window()) as u64
    }

    /// Steps of the run: `max_steps`, or the smallest number that makes `num_train_epochs`.
    pub fn total_steps(&self) -> u64 {
        self.options.max_steps.unwrap_or_else(|| {
            (self.options.num_train_epochs * self.steps_per_epoch() as f64).ceil() as u64
        })
    }

    /// Where the run is: after the last window given.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Goes on from a stored position.
    ///
    /// # Errors
    /// [`Error::Config`] when the options give another order than those of the stored position,
    /// [`Error::Data`] when the rows are others.
    pub fn resume(&mut self, stored: &Position) -> Result<(), Error> {
        self.position.check(stored)?;
        self.position.step = stored.step;
        Ok(())
    }

    /// The next window; `None` at the end of the run.
    ///
    /// # Errors
    /// Those of [`Batch::packed`] and [`Targets::masked`].
    pub fn next_window(&mut self) -> Result<Option<Window>, Error> {
        if self.position.step >= self.total_steps() {
            return Ok(None);
        }
        let (per_epoch, size) = (self.steps_per_epoch(), self.window());
        let (epoch, index) = (self.position.step / per_epoch, self.position.step % per_epoch);
        if self.order.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.order = Some((epoch, self.epoch_order(epoch)));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order);
        let from = index as usize * size;
        let until = order.len().min(from + size);
        let mut chosen = order[from..until].to_vec();
        let sequential = self.options.train_sampling_strategy == SamplingStrategy::Sequential;
        if self.source.pads() && !sequential {
            // The gradient of a window does not depend on who shares a pass, so rows of like length
            // do: less padding.
            self.sort_by_length(&mut chosen);
        }
        let passes =
            |sequences: usize| sequences.div_ceil(self.options.per_device_train_batch_size);
        let micro_batches: Vec<MicroBatch> = chosen
            .chunks(self.options.per_device_train_batch_size)
            .map(|pass| self.source.micro_batch(pass, &self.options))
            .collect::<Result<_, _>>()?;
        self.position.step += 1;
        let sum = |count: &dyn Fn(&MicroBatch) -> usize| micro_batches.iter().map(count).sum();
        Ok(Some(Window {
            trained_tokens: sum(&|pass| pass.targets.len()),
            tokens: sum(&|pass| pass.batch.tokens()),
            padded_tokens: sum(&|pass| pass.batch.ids().len()),
            step: self.position.step,
            epoch: epoch as f64 + passes(until) as f64 / passes(order.len()) as f64,
            micro_batches,
        }))
    }

    /// Every sequence once, for an evaluation: in the order of their length, the longest first, where
    /// sequences are filled up, else as they come.
    pub fn pass(&self) -> impl Iterator<Item = Result<MicroBatch, Error>> + '_ {
        let mut order: Vec<u32> = (0..self.source.len() as u32).collect();
        if self.source.pads() {
            self.sort_by_length(&mut order);
        }
        let size = self.options.per_device_train_batch_size;
        let starts = (0..order.len()).step_by(size);
        starts.map(move |from| {
            let until = order.len().min(from + size);
            self.source.micro_batch(&order[from..until], &self.options)
        })
    }

    /// Sequences of a window.
    fn window(&self) -> usize {
        self.options.per_device_train_batch_size * self.options.gradient_accumulation_steps
    }

    /// The longest first.
    fn sort_by_length(&self, sequences: &mut [u32]) {
        let length = |&sequence: &u32| self.source.length(sequence as usize);
        sequences.sort_by_key(|sequence| std::cmp::Reverse(length(sequence)));
    }

    fn epoch_order(&self, epoch: u64) -> Vec<u32> {
        let count = self.source.len();
        let random = || shuffled(count, self.options.seed, Purpose::Epoch(epoch));
        match self.options.train_sampling_strategy {
            SamplingStrategy::Random => random(),
            SamplingStrategy::Sequential => (0..count as u32).collect(),
            SamplingStrategy::GroupByLength => {
                grouped(random(), self.window(), |sequence| self.source.length(sequence as usize))
            }
        }
    }
}

fn no_rows(reason: &str) -> Error {
    Error::Data { row: "the training rows".into(), reason: reason.into() }
}

fn check(options: &BatchOptions) -> Result<(), Error> {
    let positive = [
        ("per_device_train_batch_size", options.per_device_train_batch_size),
        ("gradient_accumulation_steps", options.gradient_accumulation_steps),
        ("max_length", options.max_length.unwrap_or(1)),
    ];
    if let Some((key, found)) = positive.into_iter().find(|(_, found)| *found == 0) {
        return Err(Error::config(key, found, "at least 1"));
    }
    if options.max_steps == Some(0) {
        return Err(Error::config("max_steps", 0, "at least 1, or none for num_train_epochs"));
    }
    let epochs = options.num_train_epochs;
    if options.max_steps.is_none() && !(epochs > 0.0 && epochs.is_finite()) {
        return Err(Error::config("num_train_epochs", epochs, "a number above 0"));
    }
    if options.packing.is_some() && options.max_length.is_none() {
        return Err(Error::config("max_length", "none", "a length, which packing needs"));
    }
    Ok(())
}

fn check_rows(samples: &Samples, max_length: Option<usize>, joined: bool) -> Result<(), Error> {
    if samples.is_empty() {
        return Err(no_rows("there are none"));
    }
    if u32::try_from(samples.len()).is_err() {
        return Err(no_rows(&format!("{} rows, expected less than 2^32", samples.len())));
    }
    for index in 0..samples.len() {
        let fault = |reason| Err(Error::Data { row: samples.row(index).to_string(), reason });
        let length = samples.length(index);
        if let Some(max) = max_length.filter(|&max| max < length) {
            return fault(format!("{length} tokens, expected at most max_length, {max}"));
        }
        if u32::try_from(length).is_err() {
            return fault(format!("{length} tokens, expected less than 2^32"));
        }
        if !joined && samples.targets(index) == 0 {
            return fault("no token is trained, expected at least one behind the first".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
