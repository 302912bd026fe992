//! Texts through a model that scores: many at a time, and what they begin with once.
//!
//! A pass reads runs of several texts one behind the other, each behind the keys and values of what
//! stands before it, so unequal lengths cost no padding. On the CPU a row is computed in an order that
//! depends on that row alone: what is kept changes no score, to the bit.

use std::sync::{Mutex, MutexGuard};

use burn::module::Module as _;
use burn::tensor::Tensor;

use super::prefix::{Prefixes, Run};
use crate::decoder::{Decoder, KvCache};
use crate::device::in_pool;
use crate::error::Error;

/// Tokens of a pass, were all its runs as long as the longest; a bound for the memory.
const PASS: usize = 2048;
/// Keys of a pass, were all its texts as long as the longest.
const KEYS: usize = 32_768;

/// One number of a head for each hidden state: `[rows, hidden_size]` to `[rows]`.
type Read = Box<dyn Fn(&Decoder, Tensor<2>) -> Tensor<1> + Send + Sync>;

/// A text as token ids, and the places of the tokens that are asked about, in ascending order.
pub(super) type Asked = (Vec<u32>, Vec<usize>);

/// A model that gives each token of a text a number.
pub(super) struct Scorer {
    model: Decoder,
    read: Read,
    /// Tokens that are kept for the next call.
    cache_tokens: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    prefixes: Prefixes,
    computed: u64,
}

impl std::fmt::Debug for Scorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scorer").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Scorer {
    pub(super) fn new(model: Decoder, cache_tokens: usize, read: Read) -> Self {
        // Scoring wants no graph of gradients.
        let model = if model.device().is_autodiff() { model.valid() } else { model };
        Self { model, read, cache_tokens, state: Mutex::default() }
    }

    pub(super) fn model(&self) -> &Decoder {
        &self.model
    }

    /// Tokens that went through the model so far.
    pub(super) fn computed(&self) -> u64 {
        self.state().computed
    }

    /// The numbers of some tokens of each text, whose places ascend. A text that cannot be read is an
    /// error of its own.
    pub(super) fn score(&self, texts: &[Asked]) -> Vec<Result<Vec<f32>, Error>> {
        in_pool(&self.model.device(), || self.score_in_pool(texts))
    }

    fn score_in_pool(&self, texts: &[Asked]) -> Vec<Result<Vec<f32>, Error>> {
        let mut results: Vec<_> =
            texts.iter().map(|(text, _)| self.check(text).map(|()| vec![])).collect();
        let readable = |&i: &usize| results[i].is_ok() && !texts[i].1.is_empty();
        let mut order: Vec<usize> = (0..texts.len()).filter(readable).collect();
        let length = |index: usize| texts[index].0.len();
        // Neighbours begin alike.
        order.sort_by(|&a, &b| texts[a].0.cmp(&texts[b].0));
        let state = &mut *self.state();
        // Where frequencies depend on the length of the text, no two texts share anything.
        let by_length = self.model.config().rotates_by_length();
        if by_length {
            order.sort_by_key(|&index| length(index));
            for chunk in chunks(&order, length, PASS, true) {
                let parts: Vec<&Asked> = chunk.iter().map(|&index| &texts[index]).collect();
                let scores = self.whole(&parts, state);
                for (&index, scores) in chunk.iter().zip(scores) {
                    results[index] = scores;
                }
            }
            return results;
        }
        let most = self.cache_tokens.max(2 * PASS);
        for chunk in chunks(&order, length, most, false) {
            for &index in chunk {
                let (ids, asked) = &texts[index];
                state.prefixes.insert(ids, asked, PASS);
            }
            let done = self.learn(state);
            for &index in chunk {
                results[index] = match &done {
                    Ok(()) => Ok(state.prefixes.scores(&texts[index].0, &texts[index].1)),
                    Err(error) => Err(Error::Unscorable(error.to_string())),
                };
            }
            // After an error runs are left that nobody knows.
            state.prefixes.shrink(if done.is_ok() { self.cache_tokens } else { 0 });
        }
        results
    }

    /// Makes every run known.
    fn learn(&self, state: &mut State) -> Result<(), Error> {
        loop {
            let ready = state.prefixes.ready();
            if ready.is_empty() {
                return Ok(());
            }
            let mut rest = &ready[..];
            while !rest.is_empty() {
                let pass = fitting(rest, &state.prefixes);
                self.pass(&rest[..pass], state)?;
                rest = &rest[pass..];
            }
        }
    }

    fn pass(&self, runs: &[Run], state: &mut State) -> Result<(), Error> {
        let State { prefixes, computed } = state;
        let keys = runs.iter().map(|&run| prefixes.before(run) + prefixes.ids(run).len()).max();
        let mut cache = KvCache::with_capacity(&self.model, runs.len(), keys.unwrap_or(0));
        for (sequence, &run) in runs.iter().enumerate() {
            for segment in prefixes.segments(run) {
                cache.put(sequence, segment);
            }
        }
        let parts = runs.iter().enumerate().map(|(row, &run)| (row, prefixes.ids(run)));
        let parts: Vec<(usize, &[u32])> = parts.collect();
        let lengths: Vec<usize> = parts.iter().map(|(_, ids)| ids.len()).collect();
        let starts = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end - length)
        });
        let asked = starts
            .zip(runs)
            .flat_map(|(start, &run)| prefixes.asked(run).map(move |place| start + place));
        let asked: Vec<usize> = asked.collect();
        let scores = self.forward(&parts, &asked, &mut cache)?;
        let mut rest = &scores[..];
        for (sequence, (&run, length)) in runs.iter().zip(lengths).enumerate() {
            let end = cache.len(sequence);
            let segment = cache.segment(sequence, end - length..end);
            let (own, others) = rest.split_at(prefixes.asked(run).count());
            prefixes.learn(run, segment, own);
            rest = others;
            *computed += length as u64;
        }
        Ok(())
    }

    /// Texts by themselves.
    fn whole(&self, texts: &[&Asked], state: &mut State) -> Vec<Result<Vec<f32>, Error>> {
        let longest = texts.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
        let mut cache = KvCache::with_capacity(&self.model, texts.len(), longest);
        let parts = texts.iter().enumerate().map(|(row, (ids, _))| (row, &ids[..]));
        let parts: Vec<(usize, &[u32])> = parts.collect();
        let starts = texts.iter().scan(0, |end, (ids, _)| {
            *end += ids.len();
            Some(*end - ids.len())
        });
        let asked = starts.zip(texts);
        let asked = asked.flat_map(|(start, (_, asked))| asked.iter().map(move |at| start + at));
        let asked: Vec<usize> = asked.collect();
        let scores = self.forward(&parts, &asked, &mut cache).map_err(|error| error.to_string());
        let mut from = 0;
        let of = |(ids, asked): &&Asked| {
            let part = from..from + asked.len();
            (from, state.computed) = (part.end, state.computed + ids.len() as u64);
            let scores = scores.as_ref().map_err(|error| Error::Unscorable(error.clone()))?;
            Ok(scores[part].to_vec())
        };
        texts.iter().map(of).collect()
    }

    /// The numbers of some of the new tokens; the keys and values of all go into the cache.
    fn forward(
        &self,
        parts: &[(usize, &[u32])],
        asked: &[usize],
        cache: &mut KvCache,
    ) -> Result<Vec<f32>, Error> {
        if asked.is_empty() {
            self.model.forward_cached_at(parts, &[0], cache)?;
            return Ok(Vec::new());
        }
        let hidden = self.model.forward_cached_at(parts, asked, cache)?;
        let scores = (self.read)(&self.model, hidden).into_data().convert::<f32>();
        scores.try_into_vec().map_err(|error| Error::Unscorable(format!("{error:?}")))
    }

    fn check(&self, text: &[u32]) -> Result<(), Error> {
        let input = |what: &str, found: String, expected: String| {
            Err(Error::Input { what: what.into(), found, expected })
        };
        let config = self.model.config();
        if let Some(id) = text.iter().find(|&&id| id as usize >= config.vocab_size) {
            let expected = format!("below {}", config.vocab_size);
            return input("a token id of a text to score", id.to_string(), expected);
        }
        let (length, context) = (text.len(), config.context_length());
        if length > context {
            let expected = format!("at most the context of {context} tokens");
            return input("the length of a text to score", length.to_string(), expected);
        }
        Ok(())
    }

    /// What a call that panicked left is forgotten.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.prefixes = Prefixes::default();
            state
        })
    }
}

/// How many of the first runs fit into a pass; at least one.
fn fitting(runs: &[Run], prefixes: &Prefixes) -> usize {
    let (mut longest, mut keys) = (0, 0);
    let fits = runs.iter().enumerate().take_while(|&(index, &run)| {
        let length = prefixes.ids(run).len();
        longest = longest.max(length);
        keys = keys.max(prefixes.before(run) + length);
        index == 0 || (index + 1) * longest <= PASS && (index + 1) * keys <= KEYS
    });
    fits.count()
}

/// Runs of neighbours that have together, or were each as long as the longest, at most `most` tokens;
/// one at least.
fn chunks(
    order: &[usize],
    length: impl Fn(usize) -> usize,
    most: usize,
    filled: bool,
) -> Vec<&[usize]> {
    let (mut found, mut rest) = (Vec::new(), order);
    while !rest.is_empty() {
        let (mut sum, mut longest) = (0, 0);
        let fits = rest.iter().enumerate().take_while(|&(index, &item)| {
            sum += length(item);
            longest = longest.max(length(item));
            index == 0 || (if filled { (index + 1) * longest } else { sum }) <= most
        });
        let (chunk, others) = rest.split_at(fits.count());
        found.push(chunk);
        rest = others;
    }
    found
}

/// σ(x)
pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A score that says something.
pub(super) fn finite(score: f32) -> Result<f64, Error> {
    if score.is_finite() {
        return Ok(f64::from(score));
    }
    Err(Error::Unscorable(format!("the model's score is {score}")))
}
