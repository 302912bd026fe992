//! Tensors of an adapter into the layers and out of them again. They are moved, never copied: an
//! optimizer may change them in place.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use super::state::{Active, Adapter, magnitude, names};
use crate::decoder::{AnyTensor, Decoder, Embedding, Factor, Linear, ModuleMut, Weight};

/// Tensors of the base of which an adapter trains copies, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aside {
    weights: BTreeMap<String, Weight>,
    embeddings: BTreeMap<String, Param<Tensor<2>>>,
    vectors: BTreeMap<String, Param<Tensor<1>>>,
}

/// Tensors on their way.
#[derive(Default)]
struct Moving {
    matrices: BTreeMap<String, Tensor<2>>,
    vectors: BTreeMap<String, Tensor<1>>,
}

impl Moving {
    fn new(tensors: BTreeMap<String, AnyTensor>, device: &Device) -> Self {
        let mut moving = Self::default();
        for (name, tensor) in tensors {
            match tensor {
                AnyTensor::Matrix(t) => _ = moving.matrices.insert(name, t.to_device(device)),
                AnyTensor::Vector(t) => _ = moving.vectors.insert(name, t.to_device(device)),
            }
        }
        moving
    }

    fn matrix(&mut self, name: &str) -> Option<Param<Tensor<2>>> {
        self.matrices.remove(name).map(trained)
    }

    fn vector(&mut self, name: &str) -> Option<Param<Tensor<1>>> {
        self.vectors.remove(name).map(trained)
    }

    fn into_tensors(self) -> BTreeMap<String, AnyTensor> {
        let matrices = self.matrices.into_iter().map(|(name, t)| (name, AnyTensor::Matrix(t)));
        let vectors = self.vectors.into_iter().map(|(name, t)| (name, AnyTensor::Vector(t)));
        matrices.chain(vectors).collect()
    }
}

fn trained<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(tensor).set_require_grad(true)
}

/// The tensor of a parameter that nobody else holds.
fn moved<const D: usize>(param: Param<Tensor<D>>) -> Tensor<D> {
    let (_, tensor, _) = param.consume();
    tensor
}

impl Decoder {
    /// Puts the tensors of an adapter into the layers, where they are all that is trained.
    pub(crate) fn put_adapter(&mut self, name: &str) {
        debug_assert!(self.adapters.active.is_none(), "one adapter at a time");
        *self = self.clone().with_trainable(|_| false);
        let mut adapter = self.adapters.known.remove(name).expect("a known adapter");
        let untied = self.is_tied() && adapter.parts_head_from_embeddings();
        if untied {
            self.untie();
        }
        let device = self.device();
        let mut moving = Moving::new(std::mem::take(&mut adapter.tensors), &device);
        let mut base = Aside::default();
        self.each_module(&mut |path, module| match module {
            ModuleMut::Linear(linear) => {
                put_linear(linear, path, &adapter, &mut moving, &mut base, &device);
            }
            ModuleMut::Embedding(embedding) => {
                put_embedding(embedding, path, &adapter, &mut moving, &mut base);
            }
            ModuleMut::Norm(norm) => {
                let name = format!("{path}.weight");
                if let Some(new) = moving.vector(&name) {
                    base.vectors.insert(name, std::mem::replace(&mut norm.weight, new));
                }
            }
        });
        debug_assert!(moving.into_tensors().is_empty(), "every tensor has a place");
        self.adapters.known.insert(name.into(), adapter);
        self.adapters.active = Some(Active { name: name.into(), base, untied });
    }

    /// Takes the tensors of the active adapter, if there is one, out of the layers; what they
    /// replaced is put back. Nothing is trained then.
    pub(crate) fn take_adapter(&mut self) {
        let Some(active) = self.adapters.active.take() else { return };
        let Active { name, mut base, untied } = active;
        let mut moving = Moving::default();
        self.each_module(&mut |path, module| match module {
            ModuleMut::Linear(linear) => take_linear(linear, path, &mut moving, &mut base),
            ModuleMut::Embedding(embedding) => {
                take_embedding(embedding, path, &mut moving, &mut base);
            }
            ModuleMut::Norm(norm) => {
                let name = format!("{path}.weight");
                if let Some(old) = base.vectors.remove(&name) {
                    let new = std::mem::replace(&mut norm.weight, old);
                    moving.vectors.insert(name, moved(new));
                }
            }
        });
        if untied {
            self.lm_head = None;
        }
        if let Some(adapter) = self.adapters.known.get_mut(&name) {
            adapter.tensors = moving.into_tensors();
        }
        *self = self.clone().with_trainable(|_| false);
    }
}

fn put_linear(
    linear: &mut Linear,
    path: &str,
    adapter: &Adapter,
    moving: &mut Moving,
    base: &mut Aside,
    device: &Device,
) {
    if let Some(target) = adapter.target(path) {
        let (a, b) = names(path, target.kind);
        linear.lora_A = moving.matrix(&a).map(|weight| Factor { weight });
        linear.lora_B = moving.matrix(&b).map(|weight| Factor { weight });
        linear.lora_magnitude_vector = moving.vector(&magnitude(path));
        linear.initial = adapter.initial.get(path).map(|initial| initial.on(device));
        linear.low = Some(adapter.low(target));
    }
    let name = format!("{path}.weight");
    if let Some(new) = moving.matrix(&name) {
        base.weights.insert(name, std::mem::replace(&mut linear.weight, new.into()));
    }
    let name = format!("{path}.bias");
    if let Some(new) = moving.vector(&name) {
        base.vectors.insert(name, linear.bias.replace(new).expect("a bias to be trained"));
    }
}

fn take_linear(linear: &mut Linear, path: &str, moving: &mut Moving, base: &mut Aside) {
    let low = linear.low.take();
    linear.initial = None;
    if low.is_some() {
        let (a, b) = names(path, super::Kind::Linear);
        for (name, factor) in [(a, linear.lora_A.take()), (b, linear.lora_B.take())] {
            let Factor { weight } = factor.expect("factors beside their scale");
            moving.matrices.insert(name, moved(weight));
        }
        if let Some(m) = linear.lora_magnitude_vector.take() {
            moving.vectors.insert(magnitude(path), moved(m));
        }
    }
    let name = format!("{path}.weight");
    if let Some(old) = base.weights.remove(&name)
        && let Weight::Dense(new) = std::mem::replace(&mut linear.weight, old)
    {
        moving.matrices.insert(name, moved(new));
    }
    let name = format!("{path}.bias");
    if let Some(old) = base.vectors.remove(&name)
        && let Some(new) = linear.bias.replace(old)
    {
        moving.vectors.insert(name, moved(new));
    }
}

fn put_embedding(
    embedding: &mut Embedding,
    path: &str,
    adapter: &Adapter,
    moving: &mut Moving,
    base: &mut Aside,
) {
    if let Some(target) = adapter.target(path) {
        let (a, b) = names(path, target.kind);
        embedding.lora_embedding_A = moving.matrix(&a);
        embedding.lora_embedding_B = moving.matrix(&b);
        embedding.lora_magnitude_vector = moving.vector(&magnitude(path));
        embedding.low = Some(adapter.low(target));
    }
    let name = format!("{path}.weight");
    if let Some(new) = moving.matrix(&name) {
        base.embeddings.insert(name, std::mem::replace(&mut embedding.weight, new));
    }
}

fn take_embedding(embedding: &mut Embedding, path: &str, moving: &mut Moving, base: &mut Aside) {
    if embedding.low.take().is_some() {
        let (a, b) = names(path, super::Kind::Embedding);
        let factors =
            [(a, embedding.lora_embedding_A.take()), (b, embedding.lora_embedding_B.take())];
        for (name, factor) in factors {
            moving.matrices.insert(name, moved(factor.expect("factors beside their scale")));
        }
        if let Some(m) = embedding.lora_magnitude_vector.take() {
            moving.vectors.insert(magnitude(path), moved(m));
        }
    }
    let name = format!("{path}.weight");
    if let Some(old) = base.embeddings.remove(&name) {
        let new = std::mem::replace(&mut embedding.weight, old);
        moving.matrices.insert(name, moved(new));
    }
}
