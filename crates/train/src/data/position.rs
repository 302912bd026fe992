//! How far a run has come in its data, to go on from there.

use serde::{Deserialize, Serialize};

use super::batches::BatchOptions;
use super::{Packing, SamplingStrategy};
use crate::error::Error;

/// The place of a run in its data. The order of an epoch follows from the seed and its number, so
/// the step is all there is to remember; the rest makes sure that it means the same again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Windows given so far: steps of the optimizer.
    pub step: u64,
    /// What the order depends on.
    seed: u64,
    per_device_train_batch_size: usize,
    gradient_accumulation_steps: usize,
    max_length: Option<usize>,
    packing: Option<Packing>,
    shuffle_dataset: bool,
    train_sampling_strategy: SamplingStrategy,
    rows: usize,
    fingerprint: u64,
}

impl Position {
    pub(super) fn new(rows: usize, fingerprint: u64, options: &BatchOptions) -> Self {
        Self {
            step: 0,
            seed: options.seed,
            per_device_train_batch_size: options.per_device_train_batch_size,
            gradient_accumulation_steps: options.gradient_accumulation_steps,
            max_length: options.max_length,
            packing: options.packing,
            shuffle_dataset: options.shuffle_dataset,
            train_sampling_strategy: options.train_sampling_strategy,
            rows,
            fingerprint,
        }
    }

    /// A hash of the rows: their ids and masks, in their order.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether a stored position means the same here.
    pub(super) fn check(&self, stored: &Self) -> Result<(), Error> {
        macro_rules! same {
            ($($field:ident),*) => {$(
                if self.$field != stored.$field {
                    let (found, expected) = (format!("{:?}", self.$field), format!("{:?}", stored.$field));
                    let expected = format!("{expected} as in the checkpoint: another value gives another order");
                    return Err(Error::config(stringify!($field), found, expected));
                }
            )*};
        }
        same!(
            seed,
            per_device_train_batch_size,
            gradient_accumulation_steps,
            max_length,
            packing,
            shuffle_dataset,
            train_sampling_strategy
        );
        if (self.rows, self.fingerprint) != (stored.rows, stored.fingerprint) {
            let rows = |rows, print| format!("{rows} rows with the fingerprint {print:016x}");
            return Err(Error::Data {
                row: "the training rows".into(),
                reason: format!(
                    "{}, expected the {} of the checkpoint: resume with the same data and encoding",
                    rows(self.rows, self.fingerprint),
                    rows(stored.rows, stored.fingerprint)
                ),
            });
        }
        Ok(())
    }
}
