//! Optimizers with the names, settings and numbers of transformers' Trainer, gradient clipping and
//! averages of weights.

mod adafactor;
mod adamw;
mod adamw8;
mod arguments;
mod clip;
mod config;
mod dynamic;
mod ema;
mod factored;
mod groups;
mod lion;
mod muon;
mod rule;
mod sgd;
mod slices;
mod store;
mod sums;
mod tensor_file;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor};
use posttrain_model::{Decoder, Gradients, Parameter};

pub use clip::{clip_global_norm, global_norm};
pub use config::{OptimizerConfig, OptimizerName, RateGroup};
pub use ema::Ema;

use crate::Error;
use groups::Treatment;
use rule::{Kept, Part, Rule, Step};

/// Changes the trainable parameters of a model by their gradients.
///
/// Weights that are narrower than f32 have a master in f32 here, of which the parameter is the
/// rounded image: small steps are not lost.
///
/// ```no_run
/// use posttrain_train::optim::{Optimizer, OptimizerConfig, clip_global_norm};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut model = posttrain_model::Decoder::load("x", &posttrain_model::device::open("flex")?)?;
/// # let mut gradients = posttrain_model::Gradients::default();
/// let config = OptimizerConfig { weight_decay: 0.01, ..OptimizerConfig::default() };
/// let mut optimizer = Optimizer::new(&config, 2e-5, &model)?;
/// // ... gradients from Decoder::backward ...
/// let norm = clip_global_norm(&mut gradients, 1.0);
/// model = optimizer.step(2e-5, model, gradients);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Optimizer {
    optim: OptimizerName,
    slots: BTreeMap<String, Slot>,
    steps: u64,
}

/// What is known of one parameter.
#[derive(Debug)]
struct Slot {
    shape: Vec<usize>,
    rule: Rule,
    treatment: Treatment,
    /// Steps that this parameter has taken: those without a gradient do not count.
    steps: u64,
    /// The weight in f32 where the parameter is narrower.
    master: Option<Tensor<2>>,
    kept: Vec<Kept>,
}

impl Optimizer {
    /// For the trainable parameters of a model. `learning_rate` is the one of the configuration,
    /// before any schedule; only [`OptimizerConfig::loraplus_lr_embedding`] is seen against it.
    ///
    /// # Errors
    /// Those of [`OptimizerConfig::validate`], and [`Error::Config`] for a pattern that matches no
    /// trainable parameter, when nothing is trainable, or when the device has no integers of one
    /// byte for `adamw_8bit`.
    pub fn new(
        config: &OptimizerConfig,
        learning_rate: f64,
        model: &Decoder,
    ) -> Result<Self, Error> {
        let mut weights = Vec::new();
        // Clones of tensors are handles.
        let _ = model.clone().map_trainable(&mut |parameter, weight| {
            weights.push((parameter.clone(), weight.clone()));
            weight
        });
        Self::of(config, learning_rate, weights, &model.device())
    }

    fn of(
        config: &OptimizerConfig,
        learning_rate: f64,
        weights: Vec<(Parameter, Tensor<2>)>,
        device: &Device,
    ) -> Result<Self, Error> {
        config.validate()?;
        if weights.is_empty() {
            return Err(Error::config("optim", "for no parameter", "a trainable parameter"));
        }
        let rule = config.rule()?;
        if matches!(rule, Rule::AdamW8Bit(_)) && !device.supports_dtype(DType::U8) {
            let (found, expected) = (config.optim.name(), "a device with integers of one byte");
            return Err(Error::config("optim", found, expected));
        }
        let (parameters, weights): (Vec<Parameter>, Vec<Tensor<2>>) = weights.into_iter().unzip();
        let treatments = groups::treatments(config, learning_rate, &parameters)?;
        let slots = parameters.into_iter().zip(weights).zip(treatments);
        let slots = slots.map(|((parameter, weight), treatment)| {
            let rule = rule.of(&parameter);
            let kept = rule.parts(&parameter.shape).iter().map(|part| zero(part, device)).collect();
            let master = (weight.dtype() != DType::F32).then(|| weight.cast(DType::F32));
            let Parameter { name, shape, .. } = parameter;
            (name, Slot { shape, rule, treatment, steps: 0, master, kept })
        });
        Ok(Self { optim: config.optim, slots: slots.collect(), steps: 0 })
    }

    /// The steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step with the learning rate `lr`, which the schedule gives. A trainable parameter
    /// without a gradient stays as it is, as in PyTorch.
    ///
    /// On the CPU everything is changed in place unless somebody else holds the model's tensors (a
    /// clone of the model does), and the result does not depend on the number of threads.
    ///
    /// # Panics
    /// When the trainable parameters are not those that the optimizer was made for, or a gradient
    /// belongs to none of them.
    #[must_use]
    pub fn step(&mut self, lr: f64, model: Decoder, mut gradients: Gradients) -> Decoder {
        let model =
            model.map_trainable(&mut |parameter, weight| match gradients.take(&parameter.name) {
                Some(gradient) => self.update(lr, &parameter.name, weight, gradient),
                None => weight,
            });
        let left: Vec<&str> = gradients.iter().map(|(name, _)| name).collect();
        assert!(left.is_empty(), "gradients of parameters that are not trained: {left:?}");
        self.steps += 1;
        model
    }

    fn update(&mut self, lr: f64, name: &str, weight: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
        let slot = self.slots.get_mut(name);
        let slot =
            slot.unwrap_or_else(|| panic!("`{name}` is not among the optimizer's parameters"));
        let (shape, dtype) = (rule::matrix(&slot.shape), weight.dtype());
        assert_eq!(weight.dims(), shape, "the shape of `{name}`");
        assert_eq!(gradient.dims(), shape, "the shape of the gradient of `{name}`");
        let narrow = dtype != DType::F32;
        assert_eq!(narrow, slot.master.is_some(), "`{name}` has changed its type to {dtype:?}");

        slot.steps += 1;
        let Treatment { factor, decay } = slot.treatment;
        let step = Step { rate: lr * factor, decay, count: slot.steps };
        let weight = slot.master.take().unwrap_or(weight);
        let kept = std::mem::take(&mut slot.kept);
        let (weight, kept) = slot.rule.step(weight, gradient, kept, step);
        slot.kept = kept;
        if !narrow {
            return weight;
        }
        slot.master = Some(weight.clone());
        weight.cast(dtype)
    }

    /// Writes everything that the optimizer holds into one safetensors file, tensor by tensor:
    /// `NAME.exp_avg` and so on for each parameter, `NAME.step`, and `NAME.master` for the f32
    /// masters of narrower weights.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        store::save_optimizer(self, path.as_ref())
    }

    /// An optimizer as [`Optimizer::new`] makes it, in the state that [`Optimizer::save`] wrote:
    /// the next step is, bit for bit, the one that would have followed.
    ///
    /// # Errors
    /// Those of [`Optimizer::new`], [`Error::Io`], and [`Error::Checkpoint`] for a file that is
    /// broken, was written by another optimizer, or has other tensors; all of them are listed.
    pub fn load(
        path: impl AsRef<Path>,
        config: &OptimizerConfig,
        learning_rate: f64,
        model: &Decoder,
    ) -> Result<Self, Error> {
        let mut optimizer = Self::new(config, learning_rate, model)?;
        store::load_optimizer(&mut optimizer, path.as_ref(), &model.device())?;
        Ok(optimizer)
    }
}

fn zero(part: &Part, device: &Device) -> Kept {
    if part.codes {
        Kept::Codes(Tensor::zeros(part.shape, (device, DType::U8)))
    } else {
        Kept::Numbers(Tensor::zeros(part.shape, (device, DType::F32)))
    }
}
