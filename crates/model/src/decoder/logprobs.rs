//! Log-probabilities of given tokens, without the logits of whole sequences.

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{Batch, Decoder};
use crate::error::Error;
use crate::kernel;
use crate::kernel::cpu::logprobs::rows_at_a_time;

/// Which tokens of a batch are scored, each by the hidden state of the token before it.
///
/// ```
/// use posttrain_model::{Batch, Targets};
/// let batch = Batch::padded(&[&[5, 6, 7], &[8, 9]], 0)?;
/// assert_eq!(Targets::all(&batch).tokens(), [6, 7, 9]);
/// // Only the last token of each row is trained.
/// let mask = [false, false, true, false, true, false];
/// assert_eq!(Targets::masked(&batch, &mask)?.tokens(), [7, 9]);
/// # Ok::<(), posttrain_model::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Place of the token before, in `[batch * time]`.
    places: Vec<usize>,
    tokens: Vec<u32>,
    /// Its own place.
    own: Vec<usize>,
    /// Number of the text, counted through the batch.
    texts: Vec<usize>,
    /// Number of texts.
    count: usize,
}

impl Targets {
    /// Every token but the first of each text.
    pub fn all(batch: &Batch) -> Self {
        Self::chosen(batch, |_, _, _| true)
    }

    /// The tokens whose mask is set, `[batch * time]`. The first token of a text has nothing
    /// before it, so its mask does not matter; nor does that of padding.
    ///
    /// # Errors
    /// [`Error::Input`] for a mask of another length.
    pub fn masked(batch: &Batch, mask: &[bool]) -> Result<Self, Error> {
        if mask.len() != batch.ids().len() {
            return Err(Error::Input {
                what: "the length of the mask".into(),
                found: mask.len().to_string(),
                expected: format!("that of the batch, {}", batch.ids().len()),
            });
        }
        Ok(Self::chosen(batch, |_, _, place| mask[place]))
    }

    /// `wanted` hears the number of the text, the place in it and the place in the batch.
    fn chosen(batch: &Batch, wanted: impl Fn(usize, usize, usize) -> bool) -> Self {
        let mut targets = Self::default();
        for [stem, own] in batch.places() {
            let places = stem.chain(own);
            for (index, (before, place)) in places.clone().zip(places.skip(1)).enumerate() {
                if wanted(targets.count, index + 1, place) {
                    targets.places.push(before);
                    targets.tokens.push(batch.ids()[place]);
                    targets.own.push(place);
                    targets.texts.push(targets.count);
                }
            }
            targets.count += 1;
        }
        targets
    }

    /// The tokens of which `wanted` says so, given the number of their text and their place in it,
    /// from 1 on. Of texts that share a stem each has the stem's tokens, too.
    ///
    /// ```
    /// use posttrain_model::{Batch, Targets};
    /// let batch = Batch::branched(&[(&[5, 6], &[&[7], &[8, 9]])])?;
    /// let targets = Targets::of_texts(&batch, |_, place| place >= 2);
    /// assert_eq!((targets.tokens(), targets.texts()), (&[7, 8, 9][..], &[0, 1, 1][..]));
    /// # Ok::<(), posttrain_model::Error>(())
    /// ```
    pub fn of_texts(batch: &Batch, wanted: impl Fn(usize, usize) -> bool) -> Self {
        Self::chosen(batch, |text, index, _| wanted(text, index))
    }

    /// For each token the place of the one before it, in `[batch * time]`.
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// Panics where hidden states of `count` tokens are not those of the batch.
    pub(super) fn assert_of(&self, count: usize) {
        let inside = self.places.iter().all(|&place| place < count);
        assert!(inside, "the targets are of another batch than the hidden states");
    }

    /// For each token its own place, in `[batch * time]`: where a head that scores reads it
    /// ([`Decoder::scores`]).
    pub fn own_places(&self) -> &[usize] {
        &self.own
    }

    /// The tokens, text after text.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// For each token the number of its text, counted through the batch.
    pub fn texts(&self) -> &[usize] {
        &self.texts
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no token is scored.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// What a model says about given tokens. Both are differentiable.
#[derive(Clone, Debug)]
pub struct TokenLogprobs {
    /// Natural-log probability of each target, `[targets]`.
    pub logprobs: Tensor<1>,
    /// Entropy of the distribution that each target was drawn from, in nats, `[targets]`.
    pub entropy: Tensor<1>,
    texts: Vec<usize>,
    count: usize,
}

impl TokenLogprobs {
    /// The log-probability of the targets of each text, `[texts]`; 0 for a text without targets.
    pub fn sums(&self) -> Tensor<1> {
        let zeros = Tensor::zeros([self.count], (&self.logprobs.device(), self.logprobs.dtype()));
        if self.texts.is_empty() {
            return zeros;
        }
        let texts = indices(self.texts.iter().copied(), &self.logprobs.device());
        zeros.select_assign(0, texts, self.logprobs.clone(), IndexingUpdateOp::Add)
    }
}

impl Decoder {
    /// Log-probabilities and entropies from the hidden states of [`Decoder::forward`],
    /// `[batch, time, hidden_size]`. Logits exist for a few rows at a time, in the backward pass
    /// as well, which computes them anew.
    ///
    /// # Panics
    /// When the hidden states are not those of the targets' batch, or a target is no token of the
    /// vocabulary.
    pub fn logprobs(&self, hidden: Tensor<3>, targets: &Targets) -> TokenLogprobs {
        let [batch, time, width] = hidden.dims();
        targets.assert_of(batch * time);
        self.assert_tokens(&targets.tokens);
        let (texts, count) = (targets.texts.clone(), targets.count);
        if targets.is_empty() {
            let none = TensorData::new(Vec::<f32>::new(), [0]);
            let none = Tensor::<1>::from_data(none, (&hidden.device(), DType::F32));
            return TokenLogprobs { logprobs: none.clone(), entropy: none, texts, count };
        }
        let hidden = hidden.reshape([batch * time, width]);
        let device = hidden.device();
        let places = indices(targets.places.iter().copied(), &device);
        let tokens = indices(targets.tokens.iter().map(|&token| token as usize), &device);
        let h = hidden.select(0, places);
        let (h, w) = self.projected(h);
        let both = kernel::logprobs(h, w, tokens, self.logits_form());
        let column = |index| both.clone().narrow(1, index, 1).reshape([-1]);
        TokenLogprobs { logprobs: column(0), entropy: column(1), texts, count }
    }
}

impl Decoder {
    /// log Σᵥ π(v)² of the distribution that each target was drawn from, in nats: the log-probability
    /// that two draws agree. Logits exist for a few rows at a time.
    ///
    /// # Panics
    /// As [`Decoder::logprobs`].
    pub fn log_sum_squares(&self, hidden: Tensor<3>, targets: &Targets) -> Vec<f32> {
        let rows = self.targeted(hidden, targets).chosen();
        let at_a_time = rows_at_a_time(self.config.vocab_size);
        let mut found = Vec::with_capacity(targets.len());
        for start in (0..targets.len()).step_by(at_a_time) {
            let count = at_a_time.min(targets.len() - start);
            let z = self.logits(rows.clone().narrow(0, start, count)).cast(DType::F32);
            let p = (z.clone() - z.max_dim(1)).exp();
            let [ones, squares] = [p.clone(), p.clone() * p].map(|p| p.sum_dim(1).log());
            let logs = (squares - ones.mul_scalar(2.0)).into_data();
            found.extend(logs.try_into_vec::<f32>().expect("f32 as it was cast"));
        }
        found
    }
}

pub(super) fn indices(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.map(|value| value as i32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
