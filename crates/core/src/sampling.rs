//! How tokens are chosen.

use serde::{Deserialize, Serialize};

use crate::Error;

/// Sampling parameters, with the names and the neutral values that vLLM and `OpenAI` use.
///
/// The default samples from the model's own distribution: temperature 1, nothing cut, no penalty.
///
/// ```
/// use posttrain_core::Sampling;
///
/// let sampling = Sampling { temperature: 0.7, top_p: 0.95, ..Sampling::default() };
/// sampling.validate()?;
/// assert!(Sampling::greedy().is_greedy());
/// # Ok::<(), posttrain_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy decoding.
    pub temperature: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this times the most likely one; 0 drops none.
    pub min_p: f32,
    /// Divides (positive) or multiplies (negative) the logits of tokens seen in the prompt or the
    /// answer (Keskar et al. 2019, arXiv:1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens that occur in the answer; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens for each time they occur in the answer; 0 is off.
    pub frequency_penalty: f32,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// Generation ends before any of these texts, which are not part of the answer.
    pub stop: Vec<String>,
    /// Token ids that end the generation, besides those of the model.
    pub stop_token_ids: Vec<u32>,
    /// Seed of this request. The same seed gives the same answer, whatever else is in the batch.
    pub seed: u64,
    /// Whether the log-probability of each sampled token is returned.
    pub logprobs: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            max_tokens: 1024,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            seed: 0,
            logprobs: false,
        }
    }
}

impl Sampling {
    /// The most likely token at each step.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether the most likely token is taken at each step.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for the first field out of range (`NaN` always is).
    pub fn validate(&self) -> Result<(), Error> {
        let checks: [(&'static str, f32, bool, &'static str); 6] = [
            ("temperature", self.temperature, self.temperature >= 0.0, "a number of at least 0"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
                "above 0",
            ),
            (
                "presence_penalty",
                self.presence_penalty,
                (-2.0..=2.0).contains(&self.presence_penalty),
                "between -2 and 2",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                (-2.0..=2.0).contains(&self.frequency_penalty),
                "between -2 and 2",
            ),
        ];
        for (field, found, valid, expected) in checks {
            if !valid || found.is_infinite() {
                return Err(Error::InvalidValue { field, found: found.to_string(), expected });
            }
        }
        if self.max_tokens == 0 {
            let (field, found) = ("max_tokens", "0".into());
            return Err(Error::InvalidValue { field, found, expected: "at least 1" });
        }
        if self.stop.iter().any(String::is_empty) {
            let (field, found) = ("stop", "an empty string".into());
            return Err(Error::InvalidValue { field, found, expected: "non-empty strings" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        let bad = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            sampling.validate().unwrap_err().to_string()
        };
        assert_eq!(bad(|s| s.top_p = 0.0), "`top_p` is 0, expected above 0, at most 1");
        assert_eq!(
            bad(|s| s.temperature = f32::NAN),
            "`temperature` is NaN, expected a number of at least 0"
        );
        assert_eq!(
            bad(|s| s.temperature = f32::INFINITY),
            "`temperature` is inf, expected a number of at least 0"
        );
        assert_eq!(bad(|s| s.max_tokens = 0), "`max_tokens` is 0, expected at least 1");
        assert_eq!(
            bad(|s| s.stop = vec![String::new()]),
            "`stop` is an empty string, expected non-empty strings"
        );
    }

    #[test]
    fn misspelt_fields_are_refused() {
        let error = serde_json::from_str::<Sampling>(r#"{"temprature": 0.5}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `temprature`"), "{error}");
    }
}
