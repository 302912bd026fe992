//! Adapter folders of PEFT, read: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor, TensorData};

use super::Initial;
use super::config::{Init, LoraConfig};
use super::init::start;
use super::matching::Kind;
use super::state::Adapter;
use crate::checkpoint::{CheckpointFile, TensorView, interrupted};
use crate::decoder::{AnyTensor, Decoder, Weight};
use crate::error::Error;

/// The configuration of an adapter folder.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// The tensors of an adapter folder.
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// Before every key.
const PREFIX: &str = "base_model.model.";
/// Keys of embeddings and head that are one matrix and trained as a whole: PEFT writes both.
const TOGETHER: [&str; 2] =
    ["base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"];

/// The key of the second copy, where there is one, and of the first.
pub(crate) fn second_copy(adapter: &Adapter) -> Option<(&'static str, &'static str)> {
    adapter.together.then_some((TOGETHER[1], TOGETHER[0]))
}

/// The key of a parameter in a folder: PEFT wraps a module that gets an update, so that its bias lies
/// one step deeper.
pub(crate) fn key(adapter: &Adapter, name: &str) -> String {
    match name.strip_suffix(".bias") {
        Some(path) if adapter.target(path).is_some() => format!("{PREFIX}{path}.base_layer.bias"),
        _ => format!("{PREFIX}{name}"),
    }
}

impl Decoder {
    /// Loads an adapter folder that PEFT or [`Decoder::save_adapter`] wrote, under a name of its own,
    /// and makes it the active one.
    ///
    /// An adapter that PEFT started from `pissa` or `olora` and saved without conversion needs its
    /// start, which is computed from the base as PEFT does.
    ///
    /// # Errors
    /// [`Error::TensorMismatch`] with every tensor that is missing, unexpected or of another shape;
    /// the errors of [`LoraConfig::from_json`] and of files that cannot be read; [`Error::Input`]
    /// for a name that is taken.
    pub fn load_adapter(&mut self, folder: impl AsRef<Path>, name: &str) -> Result<(), Error> {
        let folder = folder.as_ref();
        self.check_new_name(name)?;
        if interrupted(folder) {
            return Err(broken(
                folder,
                "an interrupted save is here; `recover` finishes it".into(),
            ));
        }
        let config = read_config(folder)?;
        let mut base = self.without_adapter();
        let mut adapter = base.plan_adapter(&config, false)?;
        let file = CheckpointFile::open(folder, WEIGHTS)?;
        let found: BTreeMap<&str, TensorView<'_>> =
            file.tensors().map(|tensor| (tensor.name, tensor)).collect();
        let expected = adapter.expected(&base);
        let beside = check_keys(folder, &adapter, &expected, &found)?;
        if let Some((copy, first)) = second_copy(&adapter)
            && found[copy].to_f32()? != found[first].to_f32()?
        {
            let reason = format!("`{copy}` is not `{first}`, while `ensure_weight_tying` is true");
            return Err(broken(&folder.join(WEIGHTS), reason));
        }
        let matrices = base.target_matrices(&adapter);
        for (path, key) in beside {
            check_base(folder, &path, &matrices[&path], &found[key.as_str()])?;
        }
        let device = self.device();
        for (name, shape) in expected {
            let view = found[key(&adapter, &name).as_str()];
            let data = TensorData::new(view.to_f32()?, shape.clone());
            let tensor = match shape.len() {
                1 => AnyTensor::Vector(Tensor::from_data(data, (&device, DType::F32))),
                _ => AnyTensor::Matrix(Tensor::from_data(data, (&device, DType::F32))),
            };
            adapter.tensors.insert(name, tensor);
        }
        if config.init_lora_weights.changes_base() {
            if let Init::PissaNiter(_) = config.init_lora_weights {
                let found = "a start from random numbers that were not saved";
                return Err(Error::ConfigField {
                    path: folder.join(CONFIG),
                    field: "init_lora_weights".into(),
                    found: found.into(),
                    expected: "an adapter saved with `path_initial_model_for_weight_conversion`"
                        .into(),
                });
            }
            for target in adapter.targets.iter().filter(|target| target.kind != Kind::Embedding) {
                let weight = &matrices[&target.path];
                let init = config.init_lora_weights;
                let found = start(target, weight.dims(), init, 0, &device, || weight.numbers())?;
                let initial = Initial { a: found.a, b: found.b };
                adapter.initial.insert(target.path.clone(), initial);
            }
        }
        self.insert_adapter(name, adapter);
        Ok(())
    }
}

/// Refuses a file that has not exactly the expected keys. Returns the matrices of the base that
/// PEFT writes beside updates of embeddings: path and key.
fn check_keys(
    folder: &Path,
    adapter: &Adapter,
    expected: &[(String, Vec<usize>)],
    found: &BTreeMap<&str, TensorView<'_>>,
) -> Result<Vec<(String, String)>, Error> {
    let (mut missing, mut misshaped) = (Vec::new(), Vec::new());
    let mut known: BTreeMap<String, &[usize]> = BTreeMap::new();
    for (name, shape) in expected {
        known.insert(key(adapter, name), shape);
    }
    if let Some((copy, first)) = second_copy(adapter) {
        known.insert(copy.into(), known[first]);
    }
    for (key, shape) in &known {
        match found.get(key.as_str()) {
            None => missing.push(key.clone()),
            Some(view) if view.shape != *shape => {
                misshaped.push((key.clone(), view.shape.to_vec(), shape.to_vec()));
            }
            Some(_) => {}
        }
    }
    let wrapped = adapter.targets.iter().filter(|target| target.kind != Kind::Linear);
    let beside = wrapped
        .map(|target| (target.path.clone(), format!("{PREFIX}{}.base_layer.weight", target.path)));
    let beside: Vec<_> = beside.filter(|(_, key)| found.contains_key(key.as_str())).collect();
    let excused = |name: &str| beside.iter().any(|(_, key)| key == name);
    let unexpected: Vec<String> = found
        .keys()
        .filter(|name| !known.contains_key(**name) && !excused(name))
        .map(|name| (*name).to_owned())
        .collect();
    if missing.is_empty() && unexpected.is_empty() && misshaped.is_empty() {
        return Ok(beside);
    }
    let path = folder.join(WEIGHTS);
    Err(Error::TensorMismatch { path, missing, unexpected, misshaped })
}

fn read_config(folder: &Path) -> Result<LoraConfig, Error> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| Error::Io { path: path.clone(), source })?;
    let json =
        serde_json::from_str(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
    LoraConfig::from_json(&path, &json)
}

/// The base's matrix in an adapter folder has to be that of this base: PEFT also writes it when the
/// vocabulary was resized or the matrix trained.
fn check_base(
    folder: &Path,
    path: &str,
    weight: &Weight,
    view: &TensorView<'_>,
) -> Result<(), Error> {
    let numbers = weight.numbers().into_data().convert::<f32>();
    let numbers = numbers.try_into_vec::<f32>().expect("converted to f32");
    if view.shape == weight.dims() && view.to_f32()? == numbers {
        return Ok(());
    }
    let reason = format!("the matrix of `{path}` beside the adapter is not that of the base model");
    Err(broken(&folder.join(WEIGHTS), reason))
}

fn broken(path: &Path, reason: String) -> Error {
    Error::BrokenCheckpoint { path: path.to_owned(), reason }
}
