//! Adapter folders of PEFT, written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor};

use super::Initial;
use super::config::{Init, LoraConfig};
use super::folder::{CONFIG, WEIGHTS, key, second_copy};
use super::state::{Adapter, names};
use crate::checkpoint::{Dtype, TensorSpec, save_file};
use crate::decoder::{AnyTensor, Decoder};
use crate::error::Error;

/// How to save an adapter.
#[derive(Clone, Debug, Default)]
pub struct AdapterSave {
    /// Folder or name of the base model; `None` keeps what the configuration says.
    pub base_model_name_or_path: Option<String>,
    /// Files that appear with the adapter: the tokenizer, a chat template. The name may have folders
    /// in it, separated by `/`.
    pub companions: Vec<(String, Vec<u8>)>,
}

impl Decoder {
    /// Writes an adapter as PEFT does, in f32: `adapter_config.json` and
    /// `adapter_model.safetensors`. A save that is cut short leaves what stood in the folder before.
    /// Returns the two files.
    ///
    /// An adapter that started from `pissa` or `olora` is written as a plain one of twice the rank,
    /// [A; A₀] and [B, −B₀], which fits the unchanged base model: PEFT does the same when it is given
    /// `path_initial_model_for_weight_conversion`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written, [`Error::Input`] for an unknown name.
    pub fn save_adapter(
        &self,
        name: &str,
        folder: impl AsRef<Path>,
        options: &AdapterSave,
    ) -> Result<[PathBuf; 2], Error> {
        let folder = folder.as_ref();
        let adapter = self.known_adapter(name)?;
        let mut tensors = self.adapter_tensors(name, adapter);
        let mut config = adapter.config.clone();
        if adapter.config.init_lora_weights.changes_base() {
            config = as_plain(&config, &mut tensors, adapter);
        }
        if options.base_model_name_or_path.is_some() {
            config.base_model_name_or_path.clone_from(&options.base_model_name_or_path);
        }
        let mut tensors: BTreeMap<String, AnyTensor> =
            tensors.into_iter().map(|(name, tensor)| (key(adapter, &name), tensor)).collect();
        if let Some((copy, first)) = second_copy(adapter) {
            let both = tensors[first].clone();
            tensors.insert(copy.into(), both);
        }
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, tensor)| TensorSpec {
                name: name.clone(),
                dtype: Dtype::F32,
                shape: tensor.shape(),
            })
            .collect();
        let bytes = |name: &str| {
            let data = tensors[name].data().convert_dtype(DType::F32);
            Ok(Cow::Owned(data.as_bytes().to_vec()))
        };
        let json = serde_json::to_vec_pretty(&config.to_json()).expect("JSON in memory");
        let mut companions = options.companions.clone();
        companions.push((CONFIG.into(), json));
        save_file(folder, WEIGHTS, &specs, bytes, &companions)?;
        Ok([folder.join(CONFIG), folder.join(WEIGHTS)])
    }

    /// The tensors of an adapter, wherever they are.
    fn adapter_tensors(&self, name: &str, adapter: &Adapter) -> BTreeMap<String, AnyTensor> {
        if self.active_adapter() != Some(name) {
            return adapter.tensors.clone();
        }
        let all: BTreeMap<String, AnyTensor> = self.named_tensors().into_iter().collect();
        let mut wanted: Vec<String> = adapter.whole.clone();
        for target in &adapter.targets {
            let (a, b) = names(&target.path, target.kind);
            wanted.extend([a, b]);
            if adapter.config.use_dora {
                wanted.push(super::state::magnitude(&target.path));
            }
        }
        let find = |name: String| {
            let tensor = all.get(&name).expect("a tensor of the active adapter").clone();
            (name, tensor)
        };
        wanted.into_iter().map(find).collect()
    }
}

/// The same update as a plain one of twice the rank on the unchanged base, with the same scale.
fn as_plain(
    config: &LoraConfig,
    tensors: &mut BTreeMap<String, AnyTensor>,
    adapter: &Adapter,
) -> LoraConfig {
    for target in &adapter.targets {
        let (a, b) = names(&target.path, target.kind);
        let mut twice = |name: String, axis: usize, other: &dyn Fn(&Tensor<2>) -> Tensor<2>| {
            if let Some(AnyTensor::Matrix(tensor)) = tensors.get_mut(&name) {
                let other = other(tensor);
                *tensor = Tensor::cat(vec![tensor.clone(), other], axis);
            }
        };
        if let Some(Initial { a: a0, b: b0 }) = adapter.initial.get(&target.path) {
            twice(a, 0, &|like| a0.clone().to_device(&like.device()));
            twice(b, 1, &|like| b0.clone().neg().to_device(&like.device()));
        } else {
            // An embedding took nothing out: its second half is zero.
            twice(a, 0, &Tensor::zeros_like);
            twice(b, 1, &Tensor::zeros_like);
        }
    }
    // s = α / r or α / √r stays.
    let factor = if config.use_rslora { std::f64::consts::SQRT_2 } else { 2.0 };
    let ranks = config.rank_pattern.iter().map(|(name, rank)| (name.clone(), 2 * rank));
    let alphas = config.alpha_pattern.iter().map(|(name, alpha)| (name.clone(), factor * alpha));
    LoraConfig {
        r: 2 * config.r,
        lora_alpha: factor * config.lora_alpha,
        rank_pattern: ranks.collect(),
        alpha_pattern: alphas.collect(),
        init_lora_weights: Init::Default,
        ..config.clone()
    }
}
