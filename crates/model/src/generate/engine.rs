//! Continuous batching: a sequence that ends gives its place to the next request at once.
//!
//! Prompts that wait are read several in a pass, one behind the other. On the CPU a pass computes each
//! row on its own, so what a request gets does not depend on its neighbours, to the bit. GPUs choose
//! their kernels by the size of the batch: there the last bits of a logit may depend on it.

use std::collections::VecDeque;

use burn::module::Module as _;
use burn::tensor::{Int, Tensor, TensorData};
use posttrain_core::{FinishReason, Sampling};

use super::sampler::{Sampled, Sampler};
use crate::decoder::{Decoder, KvCache};
use crate::error::Error;

/// Tokens of prompts in one pass, were all its prompts as long as the longest; a bound for the
/// memory. Longer prompts are read in parts of this many.
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

/// A request that has a sequence of the cache, and of whose prompt some tokens were read.
struct Reading {
    request: usize,
    sequence: usize,
    read: usize,
}

/// A request whose prompt was read.
struct Running {
    request: usize,
    sequence: usize,
    sampler: Sampler,
    length: usize,
    completion: TokenCompletion,
}

/// A request that has ended, and what is wrong with it.
type Ended = (Running, Result<(), Error>);

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
    let mut reading: VecDeque<Reading> = VecDeque::new();
    let mut running: Vec<Running> = Vec::with_capacity(places);
    loop {
        if engine.cancelled {
            let unread = reading.drain(..).map(|reading| reading.request);
            unread.chain(waiting.drain(..)).for_each(|r| results[r] = Some(Ok(nothing())));
        }
        while let Some(sequence) = free.pop() {
            let Some(request) = waiting.pop_front() else {
                free.push(sequence);
                break;
            };
            cache.truncate(sequence, 0);
            reading.push_back(Reading { request, sequence, read: 0 });
        }
        let ended: Vec<Ended> = if reading.is_empty() && running.is_empty() {
            break;
        } else if engine.cancelled {
            running.drain(..).map(|running| (running, Ok(()))).collect()
        } else if reading.is_empty() {
            engine.step(&mut running, &mut cache)
        } else {
            engine.read(&mut reading, &mut running, &mut cache)
        };
        for (Running { request, sequence, completion, .. }, outcome) in ended {
            if outcome.is_err() {
                cache.clear(sequence);
            }
            results[request] = Some(outcome.map(|()| completion));
            (engine.observer)(request, Event::End);
            free.push(sequence);
        }
    }
    results.into_iter().map(|result| result.expect("every request has ended")).collect()
}

/// Hidden states of new tokens.
fn pass(model: &Decoder, parts: &[(usize, &[u32])], cache: &mut KvCache) -> Tensor<2> {
    // Prompts were checked: the engine's own lists would be at fault, not a request.
    let hidden = model.forward_cached(parts, cache);
    hidden.unwrap_or_else(|error| panic!("the engine's pass: {error}"))
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
        if !self.model.config().has_logits() {
            let head = self.model.config().head;
            return Err(Error::NoLogits { path: "the model".into(), head });
        }
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

    /// Reads the next part of the first prompts, as many as fit in a pass, and draws the first
    /// token of those that are read; returns those that have ended with it.
    fn read(
        &mut self,
        reading: &mut VecDeque<Reading>,
        running: &mut Vec<Running>,
        cache: &mut KvCache,
    ) -> Vec<Ended> {
        // Where frequencies depend on the length of the text, all of it is rotated alike.
        let by_length = self.model.config().rotates_by_length();
        let most = if by_length { usize::MAX } else { PREFILL };
        let (mut parts, mut longest) = (Vec::new(), 0);
        for Reading { request, sequence, read } in reading.iter() {
            let rest = &self.requests[*request].ids[*read..];
            let part = &rest[..rest.len().min(most)];
            longest = longest.max(part.len());
            if !parts.is_empty() && (parts.len() + 1) * longest > PREFILL {
                break;
            }
            parts.push((*sequence, part));
        }
        let hidden = pass(self.model, &parts, cache);
        // Only a part of a lone prompt leaves tokens unread; of the others the last one counts.
        let (from, mut tokens, mut last) = (running.len(), 0, Vec::new());
        for (_, part) in parts {
            tokens += part.len();
            let Some(mut next) = reading.pop_front() else { unreachable!("it has a part") };
            next.read += part.len();
            let TokenRequest { ids, sampling } = &self.requests[next.request];
            if next.read < ids.len() {
                reading.push_front(next);
                continue;
            }
            last.push(tokens as i32 - 1);
            running.push(Running {
                request: next.request,
                sequence: next.sequence,
                sampler: Sampler::new(sampling, ids, self.model.config().vocab_size),
                length: ids.len(),
                completion: nothing(),
            });
        }
        if last.is_empty() {
            return Vec::new();
        }
        let count = last.len();
        let last = Tensor::<1, Int>::from_data(TensorData::new(last, [count]), &hidden.device());
        self.draw_all(running, from, hidden.select(0, last))
    }

    /// One token for each running request; returns those that have ended with it.
    fn step(&mut self, running: &mut Vec<Running>, cache: &mut KvCache) -> Vec<Ended> {
        let ids: Vec<[u32; 1]> = running
            .iter()
            .map(|r| [*r.completion.ids.last().expect("a token was drawn")])
            .collect();
        let parts = running.iter().zip(&ids).map(|(r, id)| (r.sequence, &id[..]));
        let hidden = pass(self.model, &parts.collect::<Vec<_>>(), cache);
        self.draw_all(running, 0, hidden)
    }

    /// Draws a token for each request from `from` on, of which `hidden` has a row each, and takes
    /// out those that have ended with it.
    fn draw_all(
        &mut self,
        running: &mut Vec<Running>,
        from: usize,
        hidden: Tensor<2>,
    ) -> Vec<Ended> {
        let logits = self.model.logits(hidden).into_data().convert::<f32>();
        let mut logits: Vec<f32> = logits.try_into_vec().expect("converted to f32");
        let rows = logits.chunks_mut(self.model.config().vocab_size);
        let drawn = running[from..].iter_mut().zip(rows);
        let outcomes: Vec<_> = drawn.map(|(running, row)| self.draw(running, row)).collect();
        let mut ended = Vec::new();
        for (at, outcome) in outcomes.into_iter().enumerate().rev() {
            if !matches!(outcome, Ok(true)) {
                ended.push((running.swap_remove(from + at), outcome.map(|_| ())));
            }
        }
        ended
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
