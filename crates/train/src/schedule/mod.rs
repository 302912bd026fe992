//! Learning rates over a run: the schedules of transformers, by their names.
//!
//! A schedule is a pure function of the number of steps that have been taken: `rate(0)` is that of
//! the first step. With a warmup that is 0, as in transformers, so the first step changes nothing.

mod config;
#[cfg(test)]
mod tests;

use std::f64::consts::PI;

pub use config::{Curve, ScheduleConfig, SchedulerArguments, SchedulerType};

use crate::Error;
use config::{shape, warmup_steps};

/// A learning rate for every step.
///
/// ```
/// use posttrain_train::schedule::{Schedule, ScheduleConfig, SchedulerType};
/// let config = ScheduleConfig {
///     lr_scheduler_type: SchedulerType::Cosine,
///     warmup_steps: 0.1,
///     ..ScheduleConfig::default()
/// };
/// let schedule = Schedule::new(&config, 2e-5, 100)?;
/// assert_eq!(schedule.rate(0), 0.0);
/// assert_eq!(schedule.rate(10), 2e-5);
/// assert!((schedule.rate(55) - 1e-5).abs() < 1e-20);
/// # Ok::<(), posttrain_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    learning_rate: f64,
    warmup: u64,
    total: u64,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Constant,
    ConstantWithWarmup,
    Linear,
    Cosine { cycles: f64, least: f64 },
    CosineWarmup { cycles: f64, least: f64, start: Option<f64> },
    Restarts { cycles: f64 },
    Polynomial { end: f64, power: f64 },
    InverseSqrt { timescale: u64 },
    StableDecay { stable: u64, decay: u64, up: Curve, down: Curve, least: f64, cycles: f64 },
}

impl Schedule {
    /// The schedule of a run of `total_steps` steps.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, one that is missing, or one that the chosen
    /// schedule does not have.
    pub fn new(
        config: &ScheduleConfig,
        learning_rate: f64,
        total_steps: u64,
    ) -> Result<Self, Error> {
        if !(learning_rate > 0.0 && learning_rate.is_finite()) {
            return Err(Error::config("learning_rate", learning_rate, "above 0"));
        }
        let warmup = warmup_steps(config, total_steps)?;
        let shape = shape(config, learning_rate, warmup, total_steps)?;
        Ok(Self { learning_rate, warmup, total: total_steps, shape })
    }

    /// The learning rate after `step` steps have been taken.
    pub fn rate(&self, step: u64) -> f64 {
        self.learning_rate * self.factor(step)
    }

    /// The steps of the warmup.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup
    }

    /// Formulas and their order of operations are those of transformers' `optimization.py`.
    fn factor(&self, step: u64) -> f64 {
        let (warmup, total) = (self.warmup as f64, self.total as f64);
        let at = step as f64;
        match self.shape {
            Shape::Constant => return 1.0,
            Shape::CosineWarmup { cycles, least, start } => {
                return self.cosine_warmup(at, cycles, least, start);
            }
            Shape::StableDecay { .. } => return self.stable_decay(step),
            _ if step < self.warmup => return at / warmup.max(1.0),
            _ => {}
        }
        let progress = (at - warmup) / (total - warmup).max(1.0);
        match self.shape {
            Shape::Linear => ((total - at) / (total - warmup).max(1.0)).max(0.0),
            Shape::Cosine { cycles, least } => {
                let factor = 0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos());
                (factor * (1.0 - least) + least).max(0.0)
            }
            Shape::Restarts { .. } if progress >= 1.0 => 0.0,
            Shape::Restarts { cycles } => {
                (0.5 * (1.0 + (PI * ((cycles * progress) % 1.0)).cos())).max(0.0)
            }
            Shape::Polynomial { end, .. } if step > self.total => end / self.learning_rate,
            Shape::Polynomial { end, power } => {
                let range = self.learning_rate - end;
                let left = 1.0 - (at - warmup) / (total - warmup);
                (range * left.powf(power) + end) / self.learning_rate
            }
            Shape::InverseSqrt { timescale } => {
                let timescale = timescale as f64;
                1.0 / ((at + (timescale - warmup)) / timescale).sqrt()
            }
            _ => 1.0,
        }
    }

    fn cosine_warmup(&self, at: f64, cycles: f64, least: f64, start: Option<f64>) -> f64 {
        let (warmup, total) = (self.warmup as f64, self.total as f64);
        if at < warmup {
            return match start {
                None => (at + 1.0) / warmup.max(1.0),
                Some(start) => start + (1.0 - start) * at / (warmup - 1.0).max(1.0),
            };
        }
        let progress = (at - warmup + 1.0) / (total - warmup).max(1.0);
        let factor = 0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos());
        (factor * (1.0 - least) + least).max(0.0)
    }

    fn stable_decay(&self, step: u64) -> f64 {
        let Shape::StableDecay { stable, decay, up, down, least, cycles } = self.shape else {
            return 1.0;
        };
        let above_least = |factor: f64| (factor * (1.0 - least) + least).max(0.0);
        if step < self.warmup {
            let progress = step as f64 / (self.warmup as f64).max(1.0);
            return above_least(match up {
                Curve::Linear => progress,
                Curve::Cosine => 0.5 * (1.0 - (PI * progress).cos()),
                Curve::OneMinusSqrt => 1.0 - (1.0 - progress).sqrt(),
            });
        }
        let Some(into) = (step - self.warmup).checked_sub(stable) else { return 1.0 };
        if into >= decay {
            return least;
        }
        let progress = into as f64 / (decay as f64).max(1.0);
        above_least(match down {
            Curve::Linear => 1.0 - progress,
            Curve::Cosine => 0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos()),
            Curve::OneMinusSqrt => 1.0 - progress.sqrt(),
        })
    }
}
