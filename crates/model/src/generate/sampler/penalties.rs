//! Penalties on tokens that were seen: repetition, presence and frequency.

use posttrain_core::Sampling;

/// The penalties of one request with the tokens they fall on.
#[derive(Clone, Debug)]
pub(super) struct Penalties {
    repetition: f32,
    presence: f32,
    frequency: f32,
    /// Every penalised token with its count in the answer, by rising id. Tokens of the prompt
    /// count 0.
    seen: Vec<(u32, u32)>,
    /// The logits before the penalties, in the order of `seen`.
    original: Vec<f32>,
}

impl Penalties {
    pub(super) fn new(sampling: &Sampling, prompt: &[u32], vocab_size: usize) -> Self {
        let repetition = sampling.repetition_penalty;
        let mut seen: Vec<(u32, u32)> = Vec::new();
        if repetition != 1.0 {
            let inside = prompt.iter().filter(|&&id| (id as usize) < vocab_size);
            seen.extend(inside.map(|&id| (id, 0)));
            seen.sort_unstable();
            seen.dedup();
        }
        Self {
            repetition,
            presence: sampling.presence_penalty,
            frequency: sampling.frequency_penalty,
            seen,
            original: Vec::new(),
        }
    }

    /// Alters the logits; whether there was anything to alter.
    pub(super) fn apply(&mut self, logits: &mut [f32]) -> bool {
        self.original.clear();
        for &(id, count) in &self.seen {
            let logit = &mut logits[id as usize];
            self.original.push(*logit);
            *logit = if *logit < 0.0 { *logit * self.repetition } else { *logit / self.repetition };
            if count > 0 {
                *logit -= self.frequency * count as f32;
                *logit -= self.presence;
            }
        }
        !self.seen.is_empty()
    }

    /// Undoes the last [`Penalties::apply`].
    pub(super) fn restore(&self, logits: &mut [f32]) {
        for (&(id, _), &logit) in self.seen.iter().zip(&self.original) {
            logits[id as usize] = logit;
        }
    }

    /// Counts a token of the answer.
    pub(super) fn record(&mut self, token: u32) {
        if self.repetition == 1.0 && self.presence == 0.0 && self.frequency == 0.0 {
            return;
        }
        match self.seen.binary_search_by_key(&token, |&(id, _)| id) {
            Ok(at) => self.seen[at].1 += 1,
            Err(at) => self.seen.insert(at, (token, 1)),
        }
    }
}
