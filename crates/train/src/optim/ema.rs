//! Exponential moving averages of the trained weights (Polyak & Juditsky 1992; as in Izmailov et
//! al. 2018, arXiv:1803.05407, they often evaluate better than the last ones).
//!
//! ```text
//! a ← d a + (1 − d) θ   after every step, in f32; a = θ before the first
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor};
use posttrain_model::Decoder;
use rayon::prelude::*;

use super::config::check;
use super::slices::{InPlace, PART, in_place};
use super::store;
use crate::Error;

/// The averages of a model's trainable parameters.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    pub(super) averages: BTreeMap<String, Tensor<2>>,
}

impl Ema {
    /// Starts with the weights as they are.
    ///
    /// # Errors
    /// [`Error::Config`] when the decay is not above 0 and below 1.
    pub fn new(decay: f64, model: &Decoder) -> Result<Self, Error> {
        check(decay > 0.0 && decay < 1.0, "ema_decay", decay, "above 0 and below 1")?;
        let mut averages = BTreeMap::new();
        let _ = model.clone().map_trainable(&mut |parameter, weight| {
            // A copy: the model's own numbers stay its own, to be changed in place.
            let average = weight.clone().cast(DType::F32);
            let average = if weight.dtype() == DType::F32 { average * 1.0 } else { average };
            averages.insert(parameter.name.clone(), average);
            weight
        });
        Ok(Self { decay, averages })
    }

    /// Takes up the weights after a step.
    ///
    /// # Panics
    /// When the trainable parameters are not those of [`Ema::new`].
    pub fn update(&mut self, model: &Decoder) {
        let blend = (1.0 - self.decay) as f32;
        let _ = model.clone().map_trainable(&mut |parameter, weight| {
            let average = self.averages.get_mut(&parameter.name);
            let average = average.unwrap_or_else(|| panic!("`{}` has no average", parameter.name));
            let old = std::mem::replace(average, Tensor::empty([0, 0], &weight.device()));
            *average = blended(old, weight.clone().cast(DType::F32), blend);
            weight
        });
    }

    /// The model with the averages in place of its trainable weights, each in the type of the
    /// weight. Everything else is shared with `model`, which is not changed.
    ///
    /// # Panics
    /// When the trainable parameters are not those of [`Ema::new`].
    #[must_use]
    pub fn applied_to(&self, model: &Decoder) -> Decoder {
        model.clone().map_trainable(&mut |parameter, weight| {
            let average = self.averages.get(&parameter.name);
            let average = average.unwrap_or_else(|| panic!("`{}` has no average", parameter.name));
            average.clone().cast(weight.dtype())
        })
    }

    /// Writes the averages into one safetensors file, by the names of the parameters.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        store::save_ema(self, path.as_ref())
    }

    /// The averages that [`Ema::save`] wrote, bit for bit.
    ///
    /// # Errors
    /// Those of [`Ema::new`], [`Error::Io`], and [`Error::Checkpoint`] for a file that is broken or
    /// has other tensors than the model has trainable parameters; all of them are listed.
    pub fn load(path: impl AsRef<Path>, decay: f64, model: &Decoder) -> Result<Self, Error> {
        let mut ema = Self::new(decay, model)?;
        store::load_ema(&mut ema, path.as_ref(), &model.device())?;
        Ok(ema)
    }
}

fn blended(average: Tensor<2>, weight: Tensor<2>, blend: f32) -> Tensor<2> {
    let changed = in_place([average], [], weight, |[a], [], w| {
        a.par_chunks_mut(PART).zip(w.par_chunks(PART)).for_each(|(a, w)| {
            a.iter_mut().zip(w).for_each(|(a, w)| *a += blend * (w - *a));
        });
    });
    match changed {
        InPlace::Changed([average], []) => average,
        InPlace::Elsewhere([average], [], weight) => average.clone() + (weight - average) * blend,
    }
}
