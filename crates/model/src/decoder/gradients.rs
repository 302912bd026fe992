//! Gradients by the name of their parameter.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

/// Sums of gradients in f32, on the model's device without autodiff. Those of vectors are matrices
/// of one row.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    sums: BTreeMap<String, Tensor<2>>,
}

impl Gradients {
    /// Adds to the gradient of a parameter.
    pub fn add(&mut self, name: &str, gradient: Tensor<2>) {
        let wide = |g: Tensor<2>| if g.dtype() == DType::F32 { g } else { g.cast(DType::F32) };
        let gradient = wide(gradient);
        let sum = match self.sums.remove(name) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        self.sums.insert(name.into(), sum);
    }

    /// The gradient of a parameter, if it has one.
    pub fn get(&self, name: &str) -> Option<&Tensor<2>> {
        self.sums.get(name)
    }

    /// Takes the gradient of a parameter out.
    pub fn take(&mut self, name: &str) -> Option<Tensor<2>> {
        self.sums.remove(name)
    }

    /// Names and gradients, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<2>)> {
        self.sums.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Replaces every gradient by what `change` makes of it.
    pub fn map(&mut self, mut change: impl FnMut(&str, Tensor<2>) -> Tensor<2>) {
        let sums = std::mem::take(&mut self.sums);
        self.sums = sums
            .into_iter()
            .map(|(name, gradient)| {
                let changed = change(&name, gradient);
                (name, changed)
            })
            .collect();
    }

    /// Takes over what a backward pass found for the parameters of a module, under their names
    /// behind `prefix`.
    pub(super) fn collect<M: Module>(
        &mut self,
        prefix: &str,
        module: &M,
        found: &mut burn::tensor::Gradients,
    ) {
        let path = if prefix.is_empty() { Vec::new() } else { vec![prefix.to_owned()] };
        module.visit(&mut Collect { path, found, sums: self });
    }
}

struct Collect<'a> {
    path: Vec<String>,
    found: &'a mut burn::tensor::Gradients,
    sums: &'a mut Gradients,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(self.found) {
            let shape = gradient.dims();
            let columns = shape.last().copied().unwrap_or(1);
            let rows = shape.iter().product::<usize>() / columns.max(1);
            self.sums.add(&self.path.join("."), gradient.reshape([rows, columns]));
        }
    }
}
