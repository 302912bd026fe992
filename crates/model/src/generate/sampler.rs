//! Draws the tokens of one request from the logits of the model.
//!
//! The order is that of transformers: repetition penalty → presence and frequency penalties →
//! temperature → top-k → top-p → min-p → draw. With logits `l`, temperature `T` and kept set `K`,
//! the probability of token `i` is `exp(l_i / T) / Σ_{j∈K} exp(l_j / T)`.
//!
//! - Repetition (Keskar et al. 2019, arXiv:1909.05858): `l / ρ` where `l ≥ 0`, `l · ρ` elsewhere,
//!   for tokens of the prompt and of the answer.
//! - Presence and frequency (`OpenAI`, vLLM; not in transformers): `l − α_f · count − α_p`, for
//!   tokens of the answer.
//! - top-k keeps every token that ties with the k-th.
//! - top-p (Holtzman et al. 2020, arXiv:1904.09751): the smallest set whose probability reaches
//!   `p`, at least one token.
//! - min-p (Nguyen et al. 2024, arXiv:2407.01082): tokens of at least `min_p` times the highest
//!   probability.
//!
//! Where vLLM differs: it cuts min-p before top-k and top-p, so that its top-p counts only what
//! min-p left; it takes temperatures below 1e-5 as greedy. Where transformers differs: it draws
//! among tokens that tie for `top_k = 1`, which here is greedy.
//!
//! All three cuts keep a prefix of the tokens in the order of falling logits, then rising ids, so one
//! [`Cut`] describes them together and the vocabulary is never sorted. The draw walks the
//! distribution function in the order of the ids with a number that depends on (seed, step) alone:
//! neighbours in a batch change nothing.

mod cut;
mod penalties;
mod random;
mod softmax;
#[cfg(test)]
mod tests;

use posttrain_core::Sampling;

use self::cut::{Cut, Nucleus};
use self::penalties::Penalties;
use self::random::Random;
use self::softmax::Weights;
use crate::error::Error;

/// One drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampled {
    /// The token.
    pub(crate) token: u32,
    /// Its natural-log probability under the model itself, before penalties, temperature and
    /// cuts; `None` unless asked for.
    pub(crate) logprob: Option<f32>,
}

/// Draws the tokens of one request, and remembers those it drew.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    greedy: bool,
    temperature: f32,
    top_k: usize,
    top_p: Option<Nucleus>,
    min_p: f32,
    logprobs: bool,
    penalties: Penalties,
    random: Random,
    step: u64,
    vocab_size: usize,
    weights: Weights,
    /// Candidates of top-k and top-p; kept for its memory.
    keys: Vec<u64>,
}

impl Sampler {
    /// A sampler for one request; `vocab_size` is the length of the logits, which may exceed the
    /// tokenizer's vocabulary. `sampling` is taken as valid. Ids of the prompt outside the
    /// vocabulary have no logit to penalise.
    pub(crate) fn new(sampling: &Sampling, prompt: &[u32], vocab_size: usize) -> Self {
        Self {
            greedy: sampling.is_greedy(),
            temperature: sampling.temperature,
            top_k: sampling.top_k as usize,
            top_p: Nucleus::new(sampling.top_p),
            min_p: sampling.min_p,
            logprobs: sampling.logprobs,
            penalties: Penalties::new(sampling, prompt, vocab_size),
            random: Random::new(sampling.seed),
            step: 0,
            vocab_size,
            weights: Weights::default(),
            keys: Vec::new(),
        }
    }

    /// Draws the next token. The logits are altered on the way and restored before the return.
    ///
    /// # Errors
    /// [`Error::Input`] for logits of another length, with NaN or +∞, or all −∞: the model is
    /// broken, and a token drawn from them would hide it.
    pub(crate) fn next(&mut self, logits: &mut [f32]) -> Result<Sampled, Error> {
        self.check_length(logits)?;
        let raw_max = self.maximum(logits)?;
        let raw_sum = self.logprobs.then(|| self.weights.sum(logits, raw_max, 1.0, Cut::NONE));

        let penalised = self.penalties.apply(logits);
        let max = if penalised { self.maximum(logits)? } else { raw_max };
        let token = if self.greedy {
            self.weights.argmax(logits, max)
        } else {
            let cut = self.cut(logits, max);
            let reusable = !penalised && self.temperature == 1.0 && cut == Cut::NONE;
            let sum = match raw_sum {
                Some(sum) if reusable => sum,
                _ => self.weights.sum(logits, max, self.temperature, cut),
            };
            let target = self.random.uniform(self.step) * sum;
            self.weights.find(logits, max, self.temperature, cut, target)
        };
        self.penalties.restore(logits);

        let logprob =
            raw_sum.map(|sum| (f64::from(logits[token]) - f64::from(raw_max) - sum.ln()) as f32);
        self.step += 1;
        let token = token as u32;
        self.penalties.record(token);
        Ok(Sampled { token, logprob })
    }

    /// The distribution that the next token would be drawn from.
    #[cfg(test)]
    fn probabilities(&mut self, logits: &mut [f32]) -> Result<Vec<f64>, Error> {
        self.check_length(logits)?;
        self.penalties.apply(logits);
        let max = self.maximum(logits)?;
        let probabilities = if self.greedy {
            let best = self.weights.argmax(logits, max);
            (0..logits.len()).map(|id| f64::from(u8::from(id == best))).collect()
        } else {
            let cut = self.cut(logits, max);
            let sum = self.weights.sum(logits, max, self.temperature, cut);
            let probability = |(id, &logit): (usize, &f32)| {
                let kept = cut.keeps(logit, id as u32);
                if kept { softmax::weight(logit, max, self.temperature) / sum } else { 0.0 }
            };
            logits.iter().enumerate().map(probability).collect()
        };
        self.penalties.restore(logits);
        Ok(probabilities)
    }

    fn check_length(&self, logits: &[f32]) -> Result<(), Error> {
        if logits.len() == self.vocab_size && !logits.is_empty() {
            return Ok(());
        }
        let (found, expected) = (logits.len().to_string(), self.vocab_size.max(1).to_string());
        Err(Error::Input { what: "the number of logits".into(), found, expected })
    }

    fn maximum(&mut self, logits: &[f32]) -> Result<f32, Error> {
        let max = self.weights.maximum(logits);
        if max.is_finite() {
            return Ok(max);
        }
        let found = if max == f32::NEG_INFINITY {
            "-inf everywhere".into()
        } else {
            let at = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY).unwrap_or(0);
            format!("{} for token {at}", logits[at])
        };
        let what = format!("the logits of answer token {}", self.step);
        let expected = "finite numbers; the model computed nonsense (broken weights or overflow)";
        Err(Error::Input { what, found, expected: expected.into() })
    }

    fn cut(&mut self, logits: &[f32], max: f32) -> Cut {
        let (weights, keys) = (&mut self.weights, &mut self.keys);
        let mut cut = Cut::NONE;
        if self.top_k > 0 && self.top_k < logits.len() {
            cut = cut::top_k(logits, weights.chunk_maxima(), self.top_k, keys);
        }
        if let Some(nucleus) = self.top_p {
            cut = nucleus.cut(logits, max, self.temperature, cut, weights, keys);
        }
        if self.min_p > 0.0 {
            cut = cut.stricter(cut::min_p(max, self.temperature, self.min_p));
        }
        cut
    }
}
