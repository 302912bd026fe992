//! Adapters: small trained additions to a frozen model, in the form of PEFT 0.21.
//!
//! y = x Wᵀ + s (drop(x) Aᵀ) Bᵀ, with s = α / r, or α / √r of rsLoRA; never as a dense W + s B A,
//! and without a gradient of the frozen W. [`LoraConfig`] has PEFT's fields and defaults.
//!
//! A [`Decoder`](crate::Decoder) holds several adapters by name, of which at most one is active. The
//! tensors of the active one are parameters of the layers, with PEFT's keys less the prefix
//! `base_model.model.`:
//!
//! | parameter | shape |
//! |---|---|
//! | `<path>.lora_A.weight` | `[r, in]` |
//! | `<path>.lora_B.weight` | `[out, r]` |
//! | `<path>.lora_magnitude_vector` (DoRA) | `[out]` |
//! | `<path>.lora_embedding_A` | `[r, vocab_size]` |
//! | `<path>.lora_embedding_B` | `[hidden_size, r]` |
//!
//! What is trained as a whole (`modules_to_save`, `bias`) keeps the name of the base's tensor, which
//! stands aside meanwhile, so that the model without its adapter is the base, bit for bit.

mod attach;
mod config;
pub(crate) mod dora;
mod folder;
mod init;
mod matching;
mod merge;
mod parameters;
mod state;
mod svd;
mod switch;
mod write;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

pub use config::{Bias, Init, LoraConfig, Names};
pub(crate) use matching::{Kind, Place};
pub use merge::Merge;
pub(crate) use state::Adapters;
pub use write::AdapterSave;

use crate::kernel;
use crate::kernel::random::{Dropout, Stream};

/// What an update has besides its factors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Low {
    /// The path of the layer.
    pub(crate) name: String,
    /// s.
    pub(crate) scale: f32,
    /// The probability that a number of the input is dropped.
    pub(crate) dropout: f32,
}

impl Low {
    /// The dropout of a pass: each layer has its own stream of random bits.
    pub(crate) fn dropout(&self, seed: u64) -> Option<Dropout> {
        Dropout::new(self.dropout, Stream::new(seed, &self.name))
    }
}

/// The factors that PiSSA or `OLoRA` began with. PEFT subtracts s B₀ A₀ from the matrix; here the
/// matrix stays as it is and x A₀ᵀ B₀ᵀ is subtracted from its product, which is the same.
#[derive(Module, Debug)]
pub(crate) struct Initial {
    /// `[r, in]`
    pub(crate) a: Tensor<2>,
    /// `[out, r]`
    pub(crate) b: Tensor<2>,
}

impl Initial {
    fn on(&self, device: &Device) -> Self {
        Self { a: self.a.clone().to_device(device), b: self.b.clone().to_device(device) }
    }

    /// y − s (x A₀ᵀ) B₀ᵀ
    pub(crate) fn subtract<const D: usize>(
        self,
        y: Tensor<D>,
        x: Tensor<D>,
        scale: f32,
    ) -> Tensor<D> {
        kernel::lora::lora_add(y, x, self.a, self.b, -scale, None)
    }
}
