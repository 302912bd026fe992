//! What a user says about the learning rate over the run, and what that means.

use serde::{Deserialize, Serialize};

use super::Shape;
use crate::Error;

/// The shape of a schedule, by the name that transformers has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerType {
    /// Down to 0 in a line.
    #[default]
    Linear,
    /// Down to 0 along half a cosine. `num_cycles` (0.5).
    Cosine,
    /// Several halves of a cosine, each from the top. `num_cycles` (1).
    CosineWithRestarts,
    /// Down to `lr_end` (1e-7) along a power. `power` (1).
    Polynomial,
    /// Always the same, without a warmup.
    Constant,
    /// Always the same after the warmup.
    ConstantWithWarmup,
    /// With the inverse of the square root of the step. `timescale` (the steps of the warmup, or
    /// 10,000 without one).
    InverseSqrt,
    /// Along half a cosine down to `min_lr`, or to `min_lr_rate` times the learning rate; one of the
    /// two has to be given. `num_cycles` (0.5).
    CosineWithMinLr,
    /// The same with a warmup that does not start at 0 but at `warmup_lr_rate` times the learning
    /// rate, and is one step ahead.
    CosineWarmupWithMinLr,
    /// Warmup, a plain, and a decay of `num_decay_steps` (which has to be given) at the end or
    /// after `num_stable_steps`. `warmup_type` (linear), `decay_type` (cosine), `min_lr_ratio` (0),
    /// `num_cycles` (0.5).
    WarmupStableDecay,
}

/// How a learning rate goes up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Curve {
    /// In a line.
    #[serde(rename = "linear")]
    Linear,
    /// Along a cosine.
    #[serde(rename = "cosine")]
    Cosine,
    /// One minus the square root.
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

/// What belongs to one schedule or another: `lr_scheduler_kwargs`. Which schedule has which, and
/// the defaults, stand at [`SchedulerType`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are transformers', explained at the schedules")]
pub struct SchedulerArguments {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_cycles: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_end: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timescale: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_lr_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decay_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_stable_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_type: Option<Curve>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_type: Option<Curve>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_ratio: Option<f64>,
}

/// What a user says about the learning rate over the run. Names and defaults are those of
/// transformers' `TrainingArguments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The shape.
    pub lr_scheduler_type: SchedulerType,
    /// Settings of that shape.
    pub lr_scheduler_kwargs: SchedulerArguments,
    /// Steps of the warmup; below 1 their share in all steps.
    pub warmup_steps: f64,
    /// The share of the warmup in all steps, another way to say it.
    pub warmup_ratio: Option<f64>,
}

/// A whole number of steps, or the share of all steps, rounded up.
pub(super) fn warmup_steps(config: &ScheduleConfig, total: u64) -> Result<u64, Error> {
    let steps = config.warmup_steps;
    if !(steps >= 0.0 && steps.is_finite()) {
        return Err(Error::config("warmup_steps", steps, "at least 0"));
    }
    let share = |share: f64| (total as f64 * share).ceil() as u64;
    match config.warmup_ratio {
        None if steps >= 1.0 && steps.fract() != 0.0 => {
            let expected = "a whole number, or a share of all steps below 1";
            Err(Error::config("warmup_steps", steps, expected))
        }
        None if steps >= 1.0 => Ok(steps as u64),
        None => Ok(share(steps)),
        Some(_) if steps != 0.0 => {
            let expected = "0 beside warmup_ratio: one of the two says how long the warmup is";
            Err(Error::config("warmup_steps", steps, expected))
        }
        Some(ratio) if !(0.0..=1.0).contains(&ratio) => {
            Err(Error::config("warmup_ratio", ratio, "from 0 to 1"))
        }
        Some(ratio) => Ok(share(ratio)),
    }
}

pub(super) fn shape(
    config: &ScheduleConfig,
    learning_rate: f64,
    warmup: u64,
    total: u64,
) -> Result<Shape, Error> {
    use SchedulerType as Type;
    let (kind, given) = (config.lr_scheduler_type, &config.lr_scheduler_kwargs);
    only(kind, given)?;
    let number = |name: &str, value: Option<f64>, default: f64| {
        let value = value.unwrap_or(default);
        if value >= 0.0 && value.is_finite() {
            return Ok(value);
        }
        Err(Error::config(format!("lr_scheduler_kwargs.{name}"), value, "at least 0"))
    };
    let cycles = |default| number("num_cycles", given.num_cycles, default);
    let least = || match (given.min_lr, given.min_lr_rate) {
        (Some(least), None) => Ok(number("min_lr", Some(least), 0.0)? / learning_rate),
        (None, Some(rate)) => number("min_lr_rate", Some(rate), 0.0),
        (found, _) => {
            let found = if found.is_some() { "beside min_lr_rate" } else { "missing" };
            let expected = "either this or min_lr_rate";
            Err(Error::config("lr_scheduler_kwargs.min_lr", found, expected))
        }
    };
    Ok(match kind {
        Type::Constant => Shape::Constant,
        Type::ConstantWithWarmup => Shape::ConstantWithWarmup,
        Type::Linear => Shape::Linear,
        Type::Cosine => Shape::Cosine { cycles: cycles(0.5)?, least: 0.0 },
        Type::CosineWithMinLr => Shape::Cosine { cycles: cycles(0.5)?, least: least()? },
        Type::CosineWarmupWithMinLr => {
            let start = given.warmup_lr_rate;
            let start = start.map(|rate| number("warmup_lr_rate", Some(rate), 0.0)).transpose()?;
            Shape::CosineWarmup { cycles: cycles(0.5)?, least: least()?, start }
        }
        Type::CosineWithRestarts => Shape::Restarts { cycles: cycles(1.0)? },
        Type::Polynomial => {
            let end = number("lr_end", given.lr_end, 1e-7)?;
            if end >= learning_rate {
                let expected = format!("below the learning rate {learning_rate}");
                return Err(Error::config("lr_scheduler_kwargs.lr_end", end, expected));
            }
            if warmup >= total {
                let expected = format!("below the {total} steps of the run");
                return Err(Error::config("warmup_steps", warmup, expected));
            }
            Shape::Polynomial { end, power: number("power", given.power, 1.0)? }
        }
        Type::InverseSqrt => {
            let timescale = given.timescale.unwrap_or(if warmup == 0 { 10_000 } else { warmup });
            if timescale == 0 {
                return Err(Error::config("lr_scheduler_kwargs.timescale", 0, "above 0"));
            }
            Shape::InverseSqrt { timescale }
        }
        Type::WarmupStableDecay => {
            let key = "lr_scheduler_kwargs.num_decay_steps";
            let decay = given.num_decay_steps;
            let decay =
                decay.ok_or_else(|| Error::config(key, "missing", "the steps of the decay"))?;
            let room = total.checked_sub(warmup + decay);
            let Some(stable) = given.num_stable_steps.or(room) else {
                let expected = format!("at most {}", total.saturating_sub(warmup));
                return Err(Error::config(key, decay, expected));
            };
            Shape::StableDecay {
                stable,
                decay,
                up: given.warmup_type.unwrap_or(Curve::Linear),
                down: given.decay_type.unwrap_or(Curve::Cosine),
                least: number("min_lr_ratio", given.min_lr_ratio, 0.0)?,
                cycles: cycles(0.5)?,
            }
        }
    })
}

/// That nothing is given which the schedule does not have.
fn only(kind: SchedulerType, given: &SchedulerArguments) -> Result<(), Error> {
    use SchedulerType as Type;
    let allowed: &[&str] = match kind {
        Type::Linear | Type::Constant | Type::ConstantWithWarmup => &[],
        Type::Cosine | Type::CosineWithRestarts => &["num_cycles"],
        Type::Polynomial => &["lr_end", "power"],
        Type::InverseSqrt => &["timescale"],
        Type::CosineWithMinLr => &["num_cycles", "min_lr", "min_lr_rate"],
        Type::CosineWarmupWithMinLr => &["num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"],
        Type::WarmupStableDecay => &[
            "num_decay_steps",
            "num_stable_steps",
            "warmup_type",
            "decay_type",
            "min_lr_ratio",
            "num_cycles",
        ],
    };
    let name = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let kind = name(&serde_json::to_value(kind).expect("JSON in memory"));
    let given = serde_json::to_value(given).expect("JSON in memory");
    let foreign =
        given.as_object().into_iter().flatten().find(|(key, _)| !allowed.contains(&key.as_str()));
    let Some((key, value)) = foreign else { return Ok(()) };
    let expected = if allowed.is_empty() {
        format!("nothing: {kind} has no arguments")
    } else {
        format!("nothing: {kind} has only {}", allowed.join(", "))
    };
    Err(Error::config(format!("lr_scheduler_kwargs.{key}"), value, expected))
}
