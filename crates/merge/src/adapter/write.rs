//! A new adapter as PEFT writes one: all of it under its name, or nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::{Dtype, View};
use serde_json::{Map, Value, json};

use super::tensors::PREFIX;
use crate::checkpoint::Tensor;
use crate::{Error, dtype};

/// A module of a new adapter, with the scale 1.
#[derive(Clone, Debug)]
pub(super) struct NewModule {
    /// `A`, r x n.
    pub(super) a: Vec<f32>,
    /// `B`, m x r.
    pub(super) b: Vec<f32>,
    pub(super) rank: usize,
    pub(super) embedding: bool,
    /// The dimensions of A after the first, and the ones at the end of B's, for convolutions.
    pub(super) kernel: Vec<usize>,
    /// The bias of B.
    pub(super) bias: Option<Vec<f32>>,
}

/// What an adapter is made of.
#[derive(Debug, Default)]
pub(super) struct NewAdapter {
    pub(super) modules: BTreeMap<String, NewModule>,
    /// Tensors that replace those of the base.
    pub(super) whole: BTreeMap<String, Tensor>,
    /// Names in the configuration.
    pub(super) target_modules: Vec<String>,
    pub(super) modules_to_save: Vec<String>,
    pub(super) base_model: Option<String>,
    pub(super) task_type: Option<String>,
    pub(super) fan_in_fan_out: bool,
    /// Trained biases are in `whole`.
    pub(super) trains_bias: bool,
    pub(super) ensure_weight_tying: bool,
}

/// Bytes for a file: made when they are written, or those of another file.
enum Bytes<'a> {
    Numbers(Dtype, Vec<usize>, &'a [f32]),
    Stored(&'a Tensor),
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Numbers(dtype, ..) => *dtype,
            Self::Stored(tensor) => tensor.dtype(),
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Numbers(_, shape, _) => shape,
            Self::Stored(tensor) => tensor.shape(),
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Numbers(dtype, _, values) => {
                let mut bytes = vec![0; values.len() * dtype::size_of(*dtype)];
                dtype::encode(*dtype, values, &mut bytes);
                Cow::Owned(bytes)
            }
            Self::Stored(tensor) => Cow::Borrowed(tensor.bytes()),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Numbers(dtype, _, values) => values.len() * dtype::size_of(*dtype),
            Self::Stored(tensor) => tensor.bytes().len(),
        }
    }
}

/// That a folder may be written: nothing has its name.
pub(super) fn check_free(folder: &Path) -> Result<(), Error> {
    if folder.exists() {
        return Err(Error::checkpoint(folder, "exists already, expected a new folder"));
    }
    Ok(())
}

impl NewAdapter {
    /// Writes the folder, first under another name beside it.
    pub(super) fn write(&self, folder: &Path, dtype: Dtype) -> Result<(), Error> {
        check_free(folder)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.with_file_name(format!(".{name}.{}.part", std::process::id()));
        std::fs::create_dir_all(&draft).map_err(Error::io(&draft))?;
        let written = self.write_files(&draft, dtype).and_then(|()| {
            check_free(folder)?;
            std::fs::rename(&draft, folder).map_err(Error::io(folder))
        });
        if written.is_err() {
            // The first error is the one to tell.
            let _ = std::fs::remove_dir_all(&draft);
        }
        written
    }

    fn write_files(&self, folder: &Path, dtype: Dtype) -> Result<(), Error> {
        let path = folder.join("adapter_config.json");
        let text = serde_json::to_string_pretty(&self.config()).map_err(Error::json(&path))?;
        std::fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        let path = folder.join("adapter_model.safetensors");
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(self.tensors(dtype), Some(metadata), &path)
            .map_err(|error| Error::checkpoint(&path, error.to_string()))?;
        for entry in [&path, folder] {
            std::fs::File::open(entry)
                .and_then(|file| file.sync_all())
                .map_err(Error::io(entry))?;
        }
        Ok(())
    }

    fn tensors(&self, dtype: Dtype) -> BTreeMap<String, Bytes<'_>> {
        let mut tensors = BTreeMap::new();
        for (name, module) in &self.modules {
            let r = module.rank.max(1);
            let a = [&[module.rank][..], &module.kernel].concat();
            let mut b = vec![module.b.len() / r, module.rank];
            b.resize(module.kernel.len() + 1, 1);
            let [of_a, of_b] = if module.embedding {
                ["lora_embedding_A", "lora_embedding_B"]
            } else {
                ["lora_A.weight", "lora_B.weight"]
            };
            tensors.insert(format!("{PREFIX}{name}.{of_a}"), Bytes::Numbers(dtype, a, &module.a));
            tensors.insert(format!("{PREFIX}{name}.{of_b}"), Bytes::Numbers(dtype, b, &module.b));
            if let Some(bias) = &module.bias {
                let bias = Bytes::Numbers(dtype, vec![bias.len()], bias);
                tensors.insert(format!("{PREFIX}{name}.lora_B.bias"), bias);
            }
        }
        for (name, tensor) in &self.whole {
            let (module, end) = name.rsplit_once('.').unwrap_or((name, ""));
            let key = if self.modules.contains_key(module) {
                format!("{PREFIX}{module}.base_layer.{end}")
            } else {
                format!("{PREFIX}{name}")
            };
            tensors.insert(key, Bytes::Stored(tensor));
        }
        tensors
    }

    fn config(&self) -> Value {
        let r = self.modules.values().map(|module| module.rank).max().unwrap_or(1);
        let mut others: Vec<(&String, usize)> = self
            .modules
            .iter()
            .filter(|(_, module)| module.rank != r)
            .map(|(name, module)| (name, module.rank))
            .collect();
        // PEFT takes the first pattern that matches the end of a name: longer names first.
        others.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let patterns: Map<String, Value> =
            others.into_iter().map(|(name, rank)| (name.clone(), json!(rank))).collect();
        json!({
            "alpha_pattern": patterns,
            "base_model_name_or_path": self.base_model,
            "bias": if self.trains_bias { "all" } else { "none" },
            "ensure_weight_tying": self.ensure_weight_tying,
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": r,
            "lora_bias": self.modules.values().any(|module| module.bias.is_some()),
            "lora_dropout": 0.0,
            "modules_to_save": if self.modules_to_save.is_empty() { Value::Null } else { json!(self.modules_to_save) },
            "peft_type": "LORA",
            "peft_version": "0.21.2",
            "r": r,
            "rank_pattern": patterns,
            "target_modules": self.target_modules,
            "task_type": self.task_type,
            "use_dora": false,
            "use_rslora": false,
        })
    }
}
