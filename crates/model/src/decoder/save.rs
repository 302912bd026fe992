//! From a decoder to a checkpoint folder.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};

use super::Decoder;
use crate::checkpoint::{Dtype, SaveOptions, Saved, TensorSpec, save};
use crate::error::Error;

impl Decoder {
    /// Writes the weights in the layout of Hugging Face, in the type of the checkpoint that they
    /// came from. `config.json` and the tokenizer's files are [`SaveOptions::companions`];
    /// [`crate::checkpoint::read_companions`] reads them from the folder of the original.
    ///
    /// A save that is cut short leaves what stood in the folder before.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, options: &SaveOptions) -> Result<Saved, Error> {
        self.save_as(folder, self.stored, options)
    }

    /// As [`Decoder::save`], in another type: f32, f16 or bf16.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written, [`Error::Input`] for another type.
    pub fn save_as(
        &self,
        folder: impl AsRef<Path>,
        dtype: Dtype,
        options: &SaveOptions,
    ) -> Result<Saved, Error> {
        let target = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(Error::Input {
                    what: "the type to save in".into(),
                    found: other.to_string(),
                    expected: "F32, F16 or BF16".into(),
                });
            }
        };
        let tensors = self.named_tensors();
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, tensor)| TensorSpec { name: name.clone(), dtype, shape: tensor.shape() })
            .collect();
        let by_name: HashMap<&str, &AnyTensor> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let bytes = |name: &str| {
            let data = by_name[name].data().convert_dtype(target);
            Ok(Cow::Owned(data.as_bytes().to_vec()))
        };
        save(folder, &specs, bytes, options)
    }

    /// Every tensor with its name in a checkpoint, in the order of transformers' state dict.
    pub(crate) fn named_tensors(&self) -> Vec<(String, AnyTensor)> {
        let mut names = Names::default();
        self.visit(&mut names);
        names.found
    }
}

/// A matrix or a vector of weights.
#[derive(Clone, Debug)]
pub(crate) enum AnyTensor {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

impl AnyTensor {
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(tensor) => tensor.dims().to_vec(),
            Self::Matrix(tensor) => tensor.dims().to_vec(),
        }
    }

    fn data(&self) -> TensorData {
        match self {
            Self::Vector(tensor) => tensor.clone().into_data(),
            Self::Matrix(tensor) => tensor.clone().into_data(),
        }
    }
}

/// Walks a module; the path of a parameter is its name.
#[derive(Default)]
struct Names {
    path: Vec<String>,
    found: Vec<(String, AnyTensor)>,
}

impl ModuleVisitor for Names {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let tensor = if D == 1 {
            AnyTensor::Vector(tensor.reshape([-1]))
        } else {
            let [rows, columns] = [tensor.dims()[0], tensor.dims()[1]];
            AnyTensor::Matrix(tensor.reshape([rows, columns]))
        };
        self.found.push((self.path.join("."), tensor));
    }
}
