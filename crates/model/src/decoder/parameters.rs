//! The parameters by name: which of them are trained, and how they are replaced.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::Decoder;

/// A parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its key in a checkpoint: `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// `[out, in]` of a matrix, `[width]` of a vector.
    pub shape: Vec<usize>,
    /// Whether it gets a gradient.
    pub trainable: bool,
}

impl Parameter {
    /// Number of its numbers.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Decoder {
    /// Every parameter, in the order of the checkpoint.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut walk = List::default();
        self.visit(&mut walk);
        walk.found
    }

    /// Trains the parameters whose name `trainable` says, and no others.
    #[must_use]
    pub fn with_trainable(self, trainable: impl FnMut(&str) -> bool) -> Self {
        self.map(&mut Choose { path: Vec::new(), trainable })
    }

    /// Replaces every trainable parameter by what `change` makes of it. Vectors come and go as
    /// matrices of one row. No gradient runs through the change; the model is on a device without
    /// autodiff ([`Decoder::backward`] says why).
    #[must_use]
    pub fn map_trainable(self, change: &mut dyn FnMut(&Parameter, Tensor<2>) -> Tensor<2>) -> Self {
        self.map(&mut Change { path: Vec::new(), change })
    }
}

fn describe<const D: usize>(path: &[String], param: &Param<Tensor<D>>) -> Parameter {
    let shape = param.lazy_shape().to_vec();
    Parameter { name: path.join("."), shape, trainable: trains(param) }
}

/// Whether a parameter gets a gradient. On a device without autodiff only [`Module::train`] tells.
pub(super) fn trains<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let tensor = param.val();
    if tensor.device().is_autodiff() {
        return tensor.is_require_grad();
    }
    param.clone().train().val().is_require_grad()
}

#[derive(Default)]
struct List {
    path: Vec<String>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for List {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(describe(&self.path, param));
    }
}

struct Choose<F> {
    path: Vec<String>,
    trainable: F,
}

impl<F: FnMut(&str) -> bool> ModuleMapper for Choose<F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trainable = (self.trainable)(&self.path.join("."));
        param.set_require_grad(trainable)
    }
}

struct Change<'a> {
    path: Vec<String>,
    change: &'a mut dyn FnMut(&Parameter, Tensor<2>) -> Tensor<2>,
}

impl ModuleMapper for Change<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let about = describe(&self.path, &param);
        if !about.trainable {
            return param;
        }
        // Moved out, so that nobody else holds the numbers and they can be changed in place.
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let columns = shape.last().copied().unwrap_or(1);
        let matrix = tensor.reshape([about.count() / columns.max(1), columns]);
        let tensor = (self.change)(&about, matrix).reshape(shape);
        Param::from_mapped_value(id, tensor, mapper)
    }
}
