//! Metrics that only some recipes have, under TRL's names: `rewards/chosen`, `logps/rejected`, `kl`.
//!
//! They stand beside the fields of an event in its line of JSON, so none may be called as a field or as what
//! the writers derive from fields. Those of evaluations are written with transformers' `eval_` before the name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// What stands before the names of an evaluation's metrics in files.
pub(super) const EVAL: &str = "eval_";

/// Names of fields and of what is derived from them, in lines of JSON or as tags.
const TAKEN: [&str; 20] = [
    "step",
    "epoch",
    "loss",
    "grad_norm",
    "learning_rate",
    "tokens",
    "trained_tokens",
    "seconds",
    "nll",
    "entropy",
    "mean_token_accuracy",
    "mfu",
    "peak_memory",
    "rows",
    "tokens_per_second",
    "trained_share",
    "perplexity",
    "runtime",
    "train_loss",
    "train_runtime",
];

/// Further metrics of a step or an evaluation, by name.
///
/// ```
/// use posttrain_train::watch::Extras;
///
/// let mut extra = Extras::new([("rewards/accuracies", 0.75), ("rewards/margins", 0.5)])?;
/// extra.insert("kl", 0.125)?;
/// assert_eq!((extra.get("kl"), extra.accuracy()), (Some(0.125), Some(0.75)));
/// assert!(extra.insert("loss", 1.0).is_err());
/// # Ok::<(), posttrain_train::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extras(BTreeMap<String, f64>);

impl Extras {
    /// Of names and values, as losses report them.
    ///
    /// # Errors
    /// Those of [`Extras::insert`], and [`Error::Metric`] for a name that is there twice.
    pub fn new<N: Into<String>>(
        metrics: impl IntoIterator<Item = (N, f64)>,
    ) -> Result<Self, Error> {
        let mut extras = Self::default();
        for (name, value) in metrics {
            extras.add(name.into(), value)?;
        }
        Ok(extras)
    }

    /// Sets a value. The name is one for steps and evaluations alike, without `eval_`.
    ///
    /// # Errors
    /// [`Error::Metric`] for a name that a field or a derived number has, that begins with `eval_`, or that is
    /// not of letters, digits and `/ _ - .`.
    pub fn insert(&mut self, name: impl Into<String>, value: f64) -> Result<(), Error> {
        let name = name.into();
        check(&name)?;
        self.0.insert(name, value);
        Ok(())
    }

    fn add(&mut self, name: String, value: f64) -> Result<(), Error> {
        check(&name)?;
        match self.0.entry(name) {
            Entry::Occupied(entry) => Err(refused(entry.key(), "it is there twice")),
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The share of pairs in the right order: `rewards/accuracies` of preference recipes, `accuracy` of reward
    /// models.
    pub fn accuracy(&self) -> Option<f64> {
        self.get("rewards/accuracies").or_else(|| self.get("accuracy"))
    }

    /// The mean distance of the two rewards of a pair: `rewards/margins` or `margin`.
    pub fn margin(&self) -> Option<f64> {
        self.get("rewards/margins").or_else(|| self.get("margin"))
    }
}

/// That a metric may have this name.
pub(super) fn check(name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        Err(refused(name, "a name has letters, digits and / _ - . only"))
    } else if TAKEN.contains(&name) {
        Err(refused(name, "a field or a derived number has this name"))
    } else if name.starts_with(EVAL) {
        Err(refused(name, "`eval_` is put before it where it is written"))
    } else {
        Ok(())
    }
}

fn refused(name: &str, reason: &str) -> Error {
    Error::Metric { name: name.into(), reason: reason.into() }
}

/// For steps; what is not finite becomes `null`.
impl Serialize for Extras {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self, "", serializer)
    }
}

/// For steps: `null` is NaN, derived numbers are passed over.
impl<'de> Deserialize<'de> for Extras {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader(""))
    }
}

/// For evaluations: names with `eval_`.
pub(super) mod prefixed {
    use super::{Deserializer, EVAL, Extras, Reader, Serializer, write};

    pub(in crate::watch) fn serialize<S: Serializer>(
        extras: &Extras,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        write(extras, EVAL, serializer)
    }

    pub(in crate::watch) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Extras, D::Error> {
        deserializer.deserialize_map(Reader(EVAL))
    }
}

fn write<S: Serializer>(extras: &Extras, prefix: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(extras.0.len()))?;
    for (name, value) in &extras.0 {
        map.serialize_entry(&format!("{prefix}{name}"), value)?;
    }
    map.end()
}

/// Reads what the fields of an event have left of its line.
struct Reader(&'static str);

impl<'de> Visitor<'de> for Reader {
    type Value = Extras;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names and numbers")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Extras, M::Error> {
        let mut extras = Extras::default();
        while let Some(key) = map.next_key::<String>()? {
            if TAKEN.contains(&key.as_str()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Some(name) = key.strip_prefix(self.0) else {
                return Err(M::Error::custom(refused(&key, "the metrics here begin with `eval_`")));
            };
            let value: Option<f64> = map.next_value()?;
            extras.add(name.into(), value.unwrap_or(f64::NAN)).map_err(M::Error::custom)?;
        }
        Ok(extras)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{EvalMetrics, StepMetrics};

    #[test]
    fn fields_and_what_is_no_name_are_refused() {
        let mut step = serde_json::to_value(StepMetrics {
            nll: Some(1.0),
            entropy: Some(1.0),
            mean_token_accuracy: Some(1.0),
            mfu: Some(1.0),
            peak_memory: Some(1),
            ..StepMetrics::default()
        })
        .unwrap();
        let evaluation = serde_json::to_value(EvalMetrics {
            perplexity: Some(1.0),
            eval_entropy: Some(1.0),
            eval_mean_token_accuracy: Some(1.0),
            ..EvalMetrics::default()
        })
        .unwrap();
        step.as_object_mut().unwrap().extend(evaluation.as_object().unwrap().clone());
        for field in step.as_object().unwrap().keys() {
            assert!(Extras::new([(field.as_str(), 1.0)]).is_err(), "{field}");
            let name = field.strip_prefix(EVAL).unwrap_or(field);
            assert!(Extras::new([(name, 1.0)]).is_err(), "{name}");
        }
        let message = |name: &str| Extras::new([(name, 1.0)]).unwrap_err().to_string();
        assert_eq!(message("loss"), "the metric `loss`: a field or a derived number has this name");
        assert!(message("").contains("letters") && message("a b").contains("letters"));
        assert!(message("eval_kl").contains("`eval_` is put before it"));
        let twice = Extras::new([("kl", 1.0), ("kl", 2.0)]).unwrap_err().to_string();
        assert_eq!(twice, "the metric `kl`: it is there twice");
    }

    #[test]
    fn they_stand_beside_the_fields_and_come_back() {
        let extra = Extras::new([("rewards/chosen", 0.5), ("kl", f64::NAN)]).unwrap();
        let step = StepMetrics { step: 3, extra: extra.clone(), ..StepMetrics::default() };
        let text = serde_json::to_string(&step).unwrap();
        assert!(text.ends_with(r#""seconds":0.0,"kl":null,"rewards/chosen":0.5}"#), "{text}");
        let read: StepMetrics = serde_json::from_str(&text).unwrap();
        assert_eq!(read.extra.get("rewards/chosen"), Some(0.5));
        assert!(read.extra.get("kl").is_some_and(f64::is_nan));

        let evaluation = EvalMetrics { step: 3, extra, ..EvalMetrics::default() };
        let text = serde_json::to_string(&evaluation).unwrap();
        assert!(text.ends_with(r#""eval_kl":null,"eval_rewards/chosen":0.5}"#), "{text}");
        let read: EvalMetrics = serde_json::from_str(&text).unwrap();
        assert_eq!(read.extra.get("rewards/chosen"), Some(0.5));
        assert!(read.extra.get("kl").is_some_and(f64::is_nan));
    }

    #[test]
    fn what_is_no_metric_is_told() {
        let line = |more: &str| {
            let text = format!(
                r#"{{"step":1,"epoch":0,"eval_loss":1,"tokens":1,"trained_tokens":1,"seconds":1,{more}}}"#
            );
            serde_json::from_str::<EvalMetrics>(&text).map_err(|error| error.to_string())
        };
        assert_eq!(line(r#""eval_kl":2"#).unwrap().extra.get("kl"), Some(2.0));
        assert!(line(r#""kl":2"#).unwrap_err().contains("`kl`: the metrics here begin with"));
        assert!(line(r#""eval_kl":"much""#).unwrap_err().contains("invalid type: string"));
    }
}
