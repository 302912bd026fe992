//! The heads that score, and a new one on a language model.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param,
};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_distr::{Distribution, Normal};

use super::{Decoder, Linear};
use crate::checkpoint::Dtype;
use crate::config::{Head, initializer_range};
use crate::error::Error;

/// `score`: hidden states `[.., hidden_size]` to scores `[.., labels]`.
///
/// Walks over a module meet the parameters of the linear layer under the name of the field, those of
/// the perceptron behind `0` and `2`, as in torch's `Sequential`.
#[derive(Clone, Debug)]
pub enum Score {
    /// One layer.
    Linear(Box<Linear>),
    /// Linear, `ReLU`, linear.
    Perceptron(Box<[Linear; 2]>),
}

/// Names of the layers of a perceptron; 1 is its activation.
const LAYERS: [&str; 2] = ["0", "2"];

impl Score {
    /// `[.., hidden_size]` to `[.., labels]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Perceptron(layers) => layers[1].forward(relu(layers[0].forward(x))),
        }
    }

    /// Its layers with the ends of their paths.
    pub(super) fn layers_mut(&mut self) -> Vec<(&'static str, &mut Linear)> {
        match self {
            Self::Linear(linear) => vec![("score", linear)],
            Self::Perceptron(layers) => {
                let [first, last] = &mut **layers;
                vec![("score.0", first), ("score.2", last)]
            }
        }
    }

    fn each(self, change: impl Fn(Linear) -> Linear) -> Self {
        match self {
            Self::Linear(linear) => Self::Linear(Box::new(change(*linear))),
            Self::Perceptron(layers) => Self::Perceptron(Box::new(layers.map(change))),
        }
    }

    fn layers(&self) -> &[Linear] {
        match self {
            Self::Linear(linear) => std::slice::from_ref(linear),
            Self::Perceptron(layers) => &layers[..],
        }
    }
}

impl Module for Score {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.layers().iter().fold(devices, |devices, layer| layer.collect_devices(devices))
    }
    fn fork(self, device: &Device) -> Self {
        self.each(|layer| layer.fork(device))
    }
    fn to_device(self, device: &Device) -> Self {
        self.each(|layer| layer.to_device(device))
    }
    fn train(self) -> Self {
        self.each(Module::train)
    }
    fn valid(&self) -> Self {
        self.clone().each(|layer| layer.valid())
    }
    fn materialize(self) -> Self {
        self.each(Module::materialize)
    }
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::Linear(linear) => Module::visit(&**linear, visitor),
            Self::Perceptron(layers) => {
                for (name, layer) in LAYERS.iter().zip(layers.iter()) {
                    visitor.enter_module(name, "Score");
                    Module::visit(layer, visitor);
                    visitor.exit_module(name, "Score");
                }
            }
        }
    }
    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::Linear(linear) => Self::Linear(Box::new(Module::map(*linear, mapper))),
            Self::Perceptron(layers) => {
                let [first, last] = *layers;
                let mut step = |name: &str, layer: Linear| {
                    mapper.enter_module(name, "Score");
                    let layer = Module::map(layer, mapper);
                    mapper.exit_module(name, "Score");
                    layer
                };
                Self::Perceptron(Box::new([step(LAYERS[0], first), step(LAYERS[1], last)]))
            }
        }
    }
}

impl ModuleDisplayDefault for Score {
    fn content(&self, content: Content) -> Option<Content> {
        let layers = self.layers().iter().zip(LAYERS);
        layers.fold(content, |content, (layer, name)| content.add(name, layer)).optional()
    }
}

impl ModuleDisplay for Score {}

/// `v_head`: hidden states `[.., hidden_size]` to one score `[.., 1]`.
#[derive(Module, Debug)]
pub struct ValueHead {
    /// `[1, hidden_size]`, with a bias.
    pub summary: Linear,
}

impl Decoder {
    /// Puts another head on the model: matrices from a normal distribution with standard deviation
    /// `initializer_range`, biases at zero, as transformers starts them. The same seed gives the same
    /// weights. The output matrix goes, except beside a `Value` head.
    ///
    /// The configuration says so afterwards: `architectures`, `id2label` and `label2id`, and where
    /// there is no `pad_token_id`, the end token is taken, as TRL does. transformers loads what is
    /// saved with nothing missing or left over; for a `Perceptron` it needs the code of the Qwen team,
    /// and beside a `Value` head it reads the language model alone.
    ///
    /// # Errors
    /// [`Error::Input`] for a head that transformers does not have for the family, and while there are
    /// adapters; [`Error::ConfigField`] for an `initializer_range` that is not a positive number.
    pub fn with_head(mut self, head: Head, seed: u64) -> Result<Self, Error> {
        if let Some(name) = self.adapters().next() {
            return Err(Error::Input {
                what: "the adapters of a model that gets another head".into(),
                found: format!("`{name}`"),
                expected: "none: `merge_and_unload` or `unload` first".into(),
            });
        }
        let config = self.config.with_head(head)?;
        let range = initializer_range(&self.config)?;
        let normal = Normal::new(0.0, range).ok().filter(|_| range > 0.0);
        let normal = normal.ok_or_else(|| Error::ConfigField {
            path: "config.json".into(),
            field: "initializer_range".into(),
            found: range.to_string(),
            expected: "a positive number".into(),
        })?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (device, dtype, width) = (self.device(), self.compute, config.hidden_size);
        let mut linear = |out: usize, bias: bool| {
            let numbers: Vec<f32> = normal.sample_iter(&mut random).take(out * width).collect();
            let numbers = TensorData::new(numbers, [out, width]);
            let weight = Param::from_tensor(Tensor::<2>::from_data(numbers, (&device, dtype)));
            let zeros = || Param::from_tensor(Tensor::zeros([out], (&device, dtype)));
            Linear::new(weight, bias.then(zeros))
        };
        (self.score, self.v_head) = match head {
            Head::Sequence { labels } => {
                (Some(Score::Linear(Box::new(linear(labels, false)))), None)
            }
            Head::Token { labels, bias } => {
                (Some(Score::Linear(Box::new(linear(labels, bias)))), None)
            }
            Head::Perceptron { labels, .. } => {
                let layers = [linear(width, true), linear(labels, true)];
                (Some(Score::Perceptron(Box::new(layers))), None)
            }
            Head::Value { .. } => (None, Some(ValueHead { summary: linear(1, true) })),
            Head::Language => (None, None),
        };
        if !config.stores_lm_head() {
            self.lm_head = None;
            self.stored.remove("lm_head.weight");
        }
        let saved = self.stored.get("model.embed_tokens.weight").copied().unwrap_or(Dtype::F32);
        self.config = config;
        let names = self.parameters().into_iter().map(|parameter| parameter.name);
        let new: Vec<String> = names
            .filter(|name| name.starts_with("score.") || name.starts_with("v_head."))
            .collect();
        self.stored.extend(new.into_iter().map(|name| (name, saved)));
        Ok(self)
    }

    /// The same model with another token for padding, also in the `config.json` to be written: a
    /// `Sequence` head reads the last token that is not this one.
    #[must_use]
    pub fn with_pad_token(mut self, id: u32) -> Self {
        self.config.pad_token_id = Some(id);
        if let Some(json) = self.config.json.as_object_mut() {
            json.insert("pad_token_id".into(), id.into());
        }
        self
    }
}
