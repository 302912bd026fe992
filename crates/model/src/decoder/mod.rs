//! One decoder for every family.
//!
//! Modules and fields have the names of the Hugging Face tensors, so that the path of a parameter
//! (`model.layers.0.self_attn.q_proj.weight`) is its key in a checkpoint. What differs between
//! families stands in [`Config`]; no code here asks for the family.

mod attention;
mod backward;
mod batch;
mod block;
mod cache;
mod cross_entropy;
mod gradients;
mod head;
mod head_scores;
mod heads;
mod layers;
mod load;
mod logprobs;
mod modules;
mod parameters;
mod places;
mod save;
mod target_logprobs;
mod token_logits;
mod weight;
mod weights;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

pub use attention::Attention;
pub use backward::{Activations, Noise};
pub use batch::{Batch, Branches};
pub use block::Block;
pub use cache::KvCache;
pub(crate) use cache::{Segment, part};
pub use cross_entropy::CrossEntropy;
pub use gradients::Gradients;
pub use heads::{Score, ValueHead};
pub use layers::{Embedding, Factor, Linear, Mlp, Norm};
pub use load::LoadOptions;
pub use logprobs::{Targets, TokenLogprobs};
pub(crate) use modules::ModuleMut;
pub use parameters::Parameter;
pub(crate) use save::AnyTensor;
pub use target_logprobs::Scored;
pub use weight::Weight;
pub(crate) use weight::plain;

use crate::adapter::Adapters;
use crate::checkpoint::Dtype;
use crate::config::Config;
use crate::error::Error;
use crate::kernel;
use places::{Few, Layout, Places};

/// A decoder-only language model, or one that scores texts.
///
/// ```no_run
/// use posttrain_model::{Batch, Decoder, device};
/// let device = device::open("flex")?;
/// let model = Decoder::load("path/to/checkpoint", &device)?;
/// let hidden = model.forward(&Batch::padded(&[&[1, 15, 27], &[1, 9]], 0)?); // [2, 3, hidden_size]
/// let logits = model.logits(hidden); // [2, 3, vocab_size]
/// # Ok::<(), posttrain_model::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct Decoder {
    /// Everything below the output head.
    pub model: Body,
    /// The output head; absent where it is the embedding matrix, and under most heads that score.
    pub lm_head: Option<Linear>,
    /// The head that scores.
    pub score: Option<Score>,
    /// The head that scores beside a language model.
    pub v_head: Option<ValueHead>,
    #[module(skip)]
    pub(crate) config: Config,
    /// The type of the hidden states.
    #[module(skip)]
    compute: DType,
    /// The types in which the weights are saved, by name; f32 for others.
    #[module(skip)]
    pub(crate) stored: BTreeMap<String, Dtype>,
    #[module(skip)]
    pub(crate) adapters: Adapters,
}

/// Embedding, layers, last norm.
#[derive(Module, Debug)]
pub struct Body {
    /// The embedding matrix.
    pub embed_tokens: Embedding,
    /// The layers.
    pub layers: Vec<Block>,
    /// The norm before the output head.
    pub norm: Norm,
}

impl Decoder {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.model.embed_tokens.weight.val().device()
    }

    /// Hidden states after the last norm, `[batch, time, hidden_size]`. Those of padding mean
    /// nothing.
    ///
    /// # Panics
    /// When an id of the batch, padding included, is not below `vocab_size`.
    pub fn forward(&self, batch: &Batch) -> Tensor<3> {
        self.forward_with(batch, None)
    }

    /// As [`Decoder::forward`], with the noise of training.
    ///
    /// # Panics
    /// When an id of the batch, padding included, is not below `vocab_size`.
    pub fn forward_with(&self, batch: &Batch, noise: Option<Noise>) -> Tensor<3> {
        self.assert_tokens(batch.ids());
        self.run(batch.ids(), &batch.layout(), None, noise, None)
    }

    /// Appends tokens to sequences of the cache: each part is a sequence and its new ids, as many
    /// as there are. Returns the hidden states of all new tokens, part after part,
    /// `[tokens, hidden_size]`.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no part, an id is not below `vocab_size`, or a sequence has
    /// no new ids, stands twice or is not in the cache.
    pub fn forward_cached(
        &self,
        parts: &[(usize, &[u32])],
        cache: &mut KvCache,
    ) -> Result<Tensor<2>, Error> {
        let hidden = self.append(parts, cache, None)?;
        let [batch, time, width] = hidden.dims();
        Ok(hidden.reshape([batch * time, width]))
    }

    /// As [`Decoder::forward_cached`], with the hidden states of some of the new tokens alone,
    /// `[tokens, hidden_size]`: `tokens` are their numbers among all new tokens, in ascending order. The
    /// last layer computes no others; the cache has the keys of all.
    ///
    /// # Errors
    /// As [`Decoder::forward_cached`], and [`Error::Input`] for no token, one that is not new, or another
    /// order.
    pub fn forward_cached_at(
        &self,
        parts: &[(usize, &[u32])],
        tokens: &[usize],
        cache: &mut KvCache,
    ) -> Result<Tensor<2>, Error> {
        let count: usize = parts.iter().map(|(_, ids)| ids.len()).sum();
        let ascending = tokens.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || tokens.last().is_none_or(|&last| last >= count) {
            let (what, found) = ("the tokens that are wanted".into(), format!("{tokens:?}"));
            let expected = format!("some below {count}, in ascending order");
            return Err(Error::Input { what, found, expected });
        }
        let hidden = self.append(parts, cache, Some(tokens))?;
        Ok(hidden.reshape([tokens.len() as isize, -1]))
    }

    fn append(
        &self,
        parts: &[(usize, &[u32])],
        cache: &mut KvCache,
        few: Option<&[usize]>,
    ) -> Result<Tensor<3>, Error> {
        let ids: Vec<u32> = parts.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
        let vocab = self.config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            let (what, found) = ("a token id".into(), id.to_string());
            return Err(Error::Input { what, found, expected: format!("below {vocab}") });
        }
        let layout = cache.append(parts)?;
        Ok(self.run(&ids, &layout, Some(cache), None, few))
    }

    /// Devices do not all check indices: a wrong one would give plausible numbers.
    fn assert_tokens(&self, ids: &[u32]) {
        let vocab = self.config.vocab_size;
        let wrong = ids.iter().find(|&&id| id as usize >= vocab);
        assert!(wrong.is_none(), "token id {wrong:?} is not below the vocabulary's {vocab}");
    }

    fn run(
        &self,
        ids: &[u32],
        layout: &Layout,
        mut cache: Option<&mut KvCache>,
        noise: Option<Noise>,
        few: Option<&[usize]>,
    ) -> Tensor<3> {
        let device = self.device();
        let few = few.map(|few| Few::new(&self.config, layout, few, self.compute, &device));
        let last = self.model.layers.len() - 1;
        let places = Places::new(&self.config, layout, noise, self.compute, &device);
        let mut x = self.embed(ids, layout.shape(), noise);
        for (index, block) in self.model.layers.iter().enumerate() {
            let kv = cache.as_mut().map(|cache| cache.layer(index));
            let few = few.as_ref().filter(|_| index == last);
            x = block.forward(x, &self.config, index, &places, kv, few);
        }
        self.model.norm.forward(x, &self.config)
    }

    fn embed(&self, ids: &[u32], [batch, time]: [usize; 2], noise: Option<Noise>) -> Tensor<3> {
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let count = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &self.device());
        let x = self.model.embed_tokens.forward(ids);
        let x = if x.dtype() == self.compute { x } else { x.cast(self.compute) };
        let x = x.reshape([batch, time, self.config.hidden_size]);
        let scale = self.config.embedding_multiplier;
        let x = if scale == 1.0 { x } else { x.mul_scalar(scale) };
        match noise.and_then(|noise| Some((noise.seed, noise.neftune_alpha?))) {
            Some((seed, alpha)) => neftune(x, seed, alpha),
            None => x,
        }
    }

    /// How logits come from hidden states and the output matrix.
    fn logits_form(&self) -> kernel::Logits {
        kernel::Logits {
            scale: 1.0 / self.config.logits_scaling,
            softcap: self.config.final_logit_softcapping,
        }
    }

    /// All logits: `[.., hidden_size]` to `[.., vocab_size]`. For whole sequences this is large;
    /// log-probabilities need no logits ([`Decoder::logprobs`]).
    ///
    /// # Panics
    /// When the model has a head that scores and no output matrix ([`Config::has_logits`] tells).
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        self.assert_logits();
        let z = match self.adapted_head() {
            Some(head) => head.forward(hidden),
            None => kernel::linear(hidden, self.head()),
        };
        self.formed(z)
    }

    /// Logits from the products of hidden states and output matrix.
    fn formed<const D: usize>(&self, z: Tensor<D>) -> Tensor<D> {
        let kernel::Logits { scale, softcap, .. } = self.logits_form();
        let z = if scale == 1.0 { z } else { z.mul_scalar(scale) };
        match softcap {
            Some(cap) => z.div_scalar(cap).tanh().mul_scalar(cap),
            None => z,
        }
    }
}

/// Adds uniform noise of the size α / √(tokens · width) (Jain et al. 2023, arXiv:2310.05914), with
/// the tokens of a row of the batch, padding included, as transformers counts them.
fn neftune(x: Tensor<3>, seed: u64, alpha: f32) -> Tensor<3> {
    let [_, time, width] = x.dims();
    let size = alpha / ((time * width) as f32).sqrt();
    let stream = kernel::random::Stream::new(seed, "neftune");
    let noise = kernel::lora::uniform_like(plain(x.clone()), stream).mul_scalar(size);
    if x.is_autodiff() { x + Tensor::from_inner(noise) } else { x + noise }
}
