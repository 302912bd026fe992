//! From a decoder to a checkpoint folder.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};

use super::Decoder;
use crate::checkpoint::{Checkpoint, Dtype, SaveOptions, Saved, TensorSpec, save};
use crate::error::Error;

impl Decoder {
    /// Writes the weights in the layout of Hugging Face, each in the type of the checkpoint that it
    /// came from, and `config.json`. The tokenizer's files are [`SaveOptions::companions`]:
    /// [`crate::checkpoint::read_companions`] reads them from the folder of the original. A
    /// `config.json` among them is written as it stands.
    ///
    /// A save that is cut short leaves what stood in the folder before.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written, [`Error::Input`] while an adapter is active or
    /// weights are quantised.
    pub fn save(&self, folder: impl AsRef<Path>, options: &SaveOptions) -> Result<Saved, Error> {
        let dtype = |name: &str| self.stored.get(name).copied().unwrap_or(Dtype::F32);
        let majority = dtype("model.embed_tokens.weight");
        self.save_in(folder.as_ref(), dtype, majority, options)
    }

    /// As [`Decoder::save`], all weights in one type: f32, f16 or bf16. `config.json` says so, also
    /// one that is among the companions.
    ///
    /// # Errors
    /// As [`Decoder::save`], [`Error::Input`] also for another type,
    /// [`Error::Json`] for a companion `config.json` that is none.
    pub fn save_as(
        &self,
        folder: impl AsRef<Path>,
        dtype: Dtype,
        options: &SaveOptions,
    ) -> Result<Saved, Error> {
        on_device(dtype)?;
        let mut options = options.clone();
        for (name, content) in &mut options.companions {
            if name == CONFIG {
                let json = serde_json::from_slice(content)
                    .map_err(|source| Error::Json { path: CONFIG.into(), source })?;
                *content = config_json(json, dtype);
            }
        }
        self.save_in(folder.as_ref(), |_| dtype, dtype, &options)
    }

    /// Will be saved in the types that this checkpoint has: for a model that was loaded from a copy in
    /// another type, such as the checkpoint of a training run. What the checkpoint does not have, such as
    /// a new head, is saved in the type of most of its tensors.
    #[must_use]
    pub fn saved_like(mut self, checkpoint: &Checkpoint) -> Self {
        let most = checkpoint.dtype().unwrap_or(Dtype::F32);
        for (name, dtype) in &mut self.stored {
            *dtype = checkpoint.get(&self.config.key(name)).map_or(most, |view| view.dtype);
        }
        self
    }

    fn save_in(
        &self,
        folder: &Path,
        dtype: impl Fn(&str) -> Dtype,
        majority: Dtype,
        options: &SaveOptions,
    ) -> Result<Saved, Error> {
        self.check_saved_whole()?;
        let mut options = options.clone();
        if !options.companions.iter().any(|(name, _)| name == CONFIG) {
            let json = config_json(self.config.json.clone(), majority);
            options.companions.push((CONFIG.into(), json));
        }
        let tensors = self.named_tensors();
        let key = |name: &String| self.config.key(name).into_owned();
        let spec = |(name, tensor): &(String, AnyTensor)| TensorSpec {
            name: key(name),
            dtype: dtype(name),
            shape: tensor.shape(),
        };
        let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
        let by_key: HashMap<String, (&AnyTensor, Dtype)> =
            tensors.iter().map(|(name, tensor)| (key(name), (tensor, dtype(name)))).collect();
        let bytes = |key: &str| {
            let (tensor, dtype) = by_key[key];
            let data = tensor.data().convert_dtype(on_device(dtype)?);
            Ok(Cow::Owned(data.as_bytes().to_vec()))
        };
        save(folder, &specs, bytes, &options)
    }

    /// A checkpoint has no place for an adapter or for quantised weights.
    fn check_saved_whole(&self) -> Result<(), Error> {
        let refuse = |what: &str, found: String, expected: &str| {
            Err(Error::Input { what: what.into(), found, expected: expected.into() })
        };
        if let Some(name) = self.active_adapter() {
            let expected = "none: `merge_and_unload`, `save_adapter` or `without_adapter` first";
            return refuse("the active adapter of a model to save", format!("`{name}`"), expected);
        }
        let quantized = self.quantized_modules();
        if let Some(path) = quantized.first() {
            let expected = "dense ones: `dequantized` makes them so";
            return refuse("the weights to save", format!("quantised in `{path}`"), expected);
        }
        Ok(())
    }

    /// Every tensor with its name in a checkpoint, in the order of transformers' state dict.
    pub(crate) fn named_tensors(&self) -> Vec<(String, AnyTensor)> {
        let mut names = Names::default();
        self.visit(&mut names);
        names.found
    }
}

const CONFIG: &str = "config.json";

/// The configuration with the type of the weights, as transformers lays it out.
fn config_json(mut json: serde_json::Value, dtype: Dtype) -> Vec<u8> {
    let name = match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    };
    if let Some(object) = json.as_object_mut() {
        let key = if object.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        object.insert(key.into(), name.into());
    }
    let mut text = serde_json::to_vec_pretty(&json).expect("JSON in memory");
    text.push(b'\n');
    text
}

fn on_device(dtype: Dtype) -> Result<DType, Error> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        other => Err(Error::Input {
            what: "the type to save in".into(),
            found: other.to_string(),
            expected: "F32, F16 or BF16".into(),
        }),
    }
}

/// A matrix or a vector of weights.
#[derive(Clone, Debug)]
pub(crate) enum AnyTensor {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

impl AnyTensor {
    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(tensor) => tensor.dims().to_vec(),
            Self::Matrix(tensor) => tensor.dims().to_vec(),
        }
    }

    pub(crate) fn data(&self) -> TensorData {
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
