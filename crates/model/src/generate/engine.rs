//! Continuous batching: a sequence that ends gives its place to the next request at once.
//!
//! Every prompt is read in a pass of its own. On the CPU a decoding pass computes each row on its own
//! too, so what a request gets does not depend on its neighbours, to the bit. GPUs choose their
//! kernels by the size of the batch: there the last bits of a logit may depend on it.

use std::collections::VecDeque;

use burn::module::Module as _;
use burn::tensor::Tensor;
use posttrain_core::{FinishReason, Sampling};

use super::sampler::{Sampled, Sampler};
use crate::decoder::{Decoder, KvCache};
use crate::error::Error;
use crate::rope::Rope;

/// Tokens of a prompt in one pass; a bound for the memory of long prompts.
const PREFILL: usize = 1024;

/// A prompt as token ids, and how to sample its continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRequest {
    /// The prompt.
    pub ids: Vec<u32>,
    /// How to sample. Stop strings are texts and do nothing here.
    pub sampling: Sampling,
}

/// A continuation as token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCompletion {
    /// The sampled ids, the end token included.
    pub ids: Vec<u32>,
    /// Natural-log probability of each under the model; empty unless asked for.
    pub logprobs: Vec<f32>,
    /// Why the generation ended.
    pub finish_reason: FinishReason,
}

/// What to do after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Continue,
    /// End this answer: it is complete.
    Stop,
    /// Give this request up.
    Cancel,
    /// Give all requests up.
    CancelAll,
}

/// What the engine tells while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// This token was drawn.
    Token(u32),
    /// The request has ended; what is answered does not matter.
    End,
}

/// A request that has a sequence of the cache.
struct Running {
    request: usize,
    sequence: usize,
    sampler: Sampler,
    length: usize,
    completion: TokenCompletion,
}

/// The parts that stay the same while requests come and go.
struct Engine<'a> {
    model: &'a Decoder,
    requests: &'a [TokenRequest],
    stop_ids: &'a [u32],
    context: usize,
    observer: &'a mut dyn FnMut(usize, Event) -> Next,
    cancelled: bool,
}

impl Decoder {
    /// Continues token ids, `batch_size` requests at a time, until one of `stop_ids` is drawn:
    /// what reinforcement learning samples. `observer` hears of every token with the number of its
    /// request and says what to do next. Results stand in the order of the requests, and a request
    /// that fails fails alone.
    ///
    /// ```no_run
    /// use posttrain_core::Sampling;
    /// use posttrain_model::{Decoder, Next, TokenRequest, device};
    /// let model = Decoder::load("path/to/checkpoint", &device::open("flex")?)?;
    /// let request = TokenRequest { ids: vec![1, 15, 27], sampling: Sampling::greedy() };
    /// let stop_ids = &model.config().eos_token_ids;
    /// let answers = model.continue_ids(&[request], stop_ids, 8, &mut |_, _| Next::Continue);
    /// # Ok::<(), posttrain_model::Error>(())
    /// ```
    pub fn continue_ids(
        &self,
        requests: &[TokenRequest],
        stop_ids: &[u32],
        batch_size: usize,
        observer: &mut dyn FnMut(usize, u32) -> Next,
    ) -> Vec<Result<TokenCompletion, Error>> {
        run(self, requests, stop_ids, batch_size, &mut |request, event| match event {
            Event::Token(token) => observer(request, token),
            Event::End => Next::Continue,
        })
    }
}

/// As [`Decoder::continue_ids`], with an observer that also hears of the end of each request.
pub(super) fn run(
    model: &Decoder,
    requests: &[TokenRequest],
    stop_ids: &[u32],
    batch: usize,
    observer: &mut dyn FnMut(usize, Event) -> Next,
) -> Vec<Result<TokenCompletion, Error>> {
    // Sampling wants no graph of gradients.
    let plain;
    let model = if model.device().is_autodiff() {
        plain = model.valid();
        &plain
    } else {
        model
    };
    let context = model.config().context_length();
    let mut engine = Engine { model, requests, stop_ids, context, observer, cancelled: false };
    let mut results: Vec<Option<Result<TokenCompletion, Error>>> =
        requests.iter().map(|_| None).collect();
    let mut waiting = VecDeque::new();
    for (index, request) in requests.iter().enumerate() {
        match engine.check(request) {
            Ok(()) => waiting.push_back(index),
            Err(error) => results[index] = Some(Err(error)),
        }
    }
    let places = batch.clamp(1, waiting.len().max(1));
    let mut cache = KvCache::new(model, places);
    let mut free: Vec<usize> = (0..places).rev().collect();
    let mut running: Vec<Running> = Vec::with_capacity(places);
    loop {
        while let Some(sequence) = free.last().copied() {
            let Some(request) = waiting.pop_front() else { break };
            if engine.cancelled {
                results[request] = Some(Ok(nothing()));
                continue;
            }
            cache.truncate(sequence, 0);
            let result = match engine.start(request, sequence, &mut cache) {
                Ok((next, true)) => {
                    free.pop();
                    running.push(next);
                    continue;
                }
                Ok((ended, false)) => Ok(ended.completion),
                Err(error) => {
                    cache.clear(sequence);
                    Err(error)
                }
            };
            results[request] = Some(result);
            (engine.observer)(request, Event::End);
        }
        if running.is_empty() {
            break;
        }
        let outcomes = engine.step(&mut running, &mut cache);
        for (at, outcome) in outcomes.into_iter().enumerate().rev() {
            if matches!(outcome, Ok(true)) {
                continue;
            }
            let Running { request, sequence, completion, .. } = running.swap_remove(at);
            if outcome.is_err() {
                cache.clear(sequence);
            }
            results[request] = Some(outcome.map(|_| completion));
            (engine.observer)(request, Event::End);
            free.push(sequence);
        }
    }
    results.into_iter().map(|result| result.expect("every request has ended")).collect()
}

fn nothing() -> TokenCompletion {
    let finish_reason = FinishReason::Cancelled;
    TokenCompletion { ids: Vec::new(), logprobs: Vec::new(), finish_reason }
}

impl Engine<'_> {
    fn check(&self, request: &TokenRequest) -> Result<(), Error> {
        let input = |what: &str, found: String, expected: String| {
            Err(Error::Input { what: what.into(), found, expected })
        };
        request.sampling.validate()?;
        let vocab = self.model.config().vocab_size;
        if request.ids.is_empty() {
            return input("the prompt", "empty".into(), "at least one token".into());
        }
        if let Some(id) = request.ids.iter().find(|&&id| id as usize >= vocab) {
            return input("a token id of the prompt", id.to_string(), format!("below {vocab}"));
        }
        if request.ids.len() >= self.context {
            let expected = format!("below the context of {} tokens", self.context);
            return input("the length of the prompt", request.ids.len().to_string(), expected);
        }
        Ok(())
    }

    /// Reads the prompt and draws the first token; tells whether the answer goes on.
    fn start(
        &mut self,
        request: usize,
        sequence: usize,
        cache: &mut KvCache,
    ) -> Result<(Running, bool), Error> {
        let TokenRequest { ids, sampling } = &self.requests[request];
        // Where frequencies depend on the length of the text, all of it is rotated alike.
        let by_length = self.model.config().ropes.iter().any(Rope::depends_on_length);
        let mut last = None;
        for part in ids.chunks(if by_length { ids.len() } else { PREFILL }) {
            last = Some(self.model.forward_cached(part, &[sequence], cache)?);
        }
        let hidden = last.expect("the prompt is not empty");
        let [_, time, _] = hidden.dims();
        let mut logits = self.logits(hidden.narrow(1, time - 1, 1));
        let sampler = Sampler::new(sampling, ids, self.model.config().vocab_size);
        let (completion, length) = (nothing(), ids.len());
        let mut running = Running { request, sequence, sampler, length, completion };
        let goes_on = self.draw(&mut running, &mut logits)?;
        Ok((running, goes_on))
    }

    /// One token for each running request; tells for each whether its answer goes on.
    fn step(&mut self, running: &mut [Running], cache: &mut KvCache) -> Vec<Result<bool, Error>> {
        if self.cancelled {
            return running.iter().map(|_| Ok(false)).collect();
        }
        let ids: Vec<u32> =
            running.iter().map(|r| *r.completion.ids.last().expect("a token was drawn")).collect();
        let sequences: Vec<usize> = running.iter().map(|r| r.sequence).collect();
        let hidden = match self.model.forward_cached(&ids, &sequences, cache) {
            Ok(hidden) => hidden,
            // The engine's own lists are at fault, not one request.
            Err(error) => panic!("decoding pass: {error}"),
        };
        let mut logits = self.logits(hidden);
        let rows = logits.chunks_mut(self.model.config().vocab_size);
        running.iter_mut().zip(rows).map(|(running, row)| self.draw(running, row)).collect()
    }

    fn logits(&self, hidden: Tensor<3>) -> Vec<f32> {
        let logits = self.model.logits(hidden).into_data().convert::<f32>();
        logits.try_into_vec().expect("converted to f32")
    }

    /// Draws a token; tells whether the answer goes on. A completion counts as cancelled until it
    /// has ended otherwise.
    fn draw(&mut self, running: &mut Running, logits: &mut [f32]) -> Result<bool, Error> {
        if self.cancelled {
            return Ok(false);
        }
        let Sampled { token, logprob } = running.sampler.next(logits)?;
        let completion = &mut running.completion;
        completion.ids.push(token);
        completion.logprobs.extend(logprob);
        running.length += 1;
        let sampling = &self.requests[running.request].sampling;
        let ends = self.stop_ids.contains(&token) || sampling.stop_token_ids.contains(&token);
        let next = (self.observer)(running.request, Event::Token(token));
        self.cancelled |= next == Next::CancelAll;
        let full = completion.ids.len() >= sampling.max_tokens || running.length >= self.context;
        let reason = match next {
            Next::Cancel | Next::CancelAll => FinishReason::Cancelled,
            _ if ends || next == Next::Stop => FinishReason::Stop,
            _ if full => FinishReason::Length,
            _ => return Ok(true),
        };
        completion.finish_reason = reason;
        Ok(false)
    }
}
