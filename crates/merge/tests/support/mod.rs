//! Manifests made by hand.

use std::collections::BTreeMap;
use std::path::Path;

use posttrain_merge::dtype::Dtype;
use posttrain_merge::manifest::{
    Contents, Coverage, FORMAT, InputRecord, Manifest, Options, OutputRecord, Role, TensorRecord,
};
use serde_json::Value;

/// Tensors by name and number of elements; `salt` makes their bytes.
pub(crate) fn contents(salt: &str, tensors: &[(&str, usize)]) -> Contents {
    let record = |(name, size): &(&str, usize)| {
        let blake3 = blake3::hash(format!("{salt} {name}").as_bytes());
        ((*name).to_owned(), TensorRecord { dtype: Dtype::BF16, shape: vec![*size], blake3 })
    };
    let files = BTreeMap::from([("model.safetensors".to_owned(), 1000)]);
    Contents::new(files, Some(blake3::hash(b"{}")), tensors.iter().map(record).collect())
}

pub(crate) fn input(name: &str, path: &Path, role: Role, contents: Contents) -> InputRecord {
    InputRecord {
        name: name.to_owned(),
        path: path.to_owned(),
        lora: None,
        role,
        contents,
        adapter: None,
    }
}

/// A manifest whose output tensors are each from all inputs.
pub(crate) fn manifest(config: Value, inputs: Vec<InputRecord>, output: Contents) -> Manifest {
    let all: Vec<usize> = (0..inputs.len()).collect();
    let from = output.tensors.keys().map(|name| (name.clone(), all.clone())).collect();
    Manifest {
        format: FORMAT,
        version: "0.1.0".to_owned(),
        created: "2026-01-02T03:04:05Z".to_owned(),
        seed: u64::MAX,
        method: config["merge_method"].as_str().unwrap().to_owned(),
        config,
        options: Options {
            arithmetic: "float32".to_owned(),
            shard_size: 5_000_000_000,
            dtype: None,
            out_dtype: Some(Dtype::BF16),
        },
        inputs,
        coverage: Coverage { merged: output.tensors.len() as u64, ..Coverage::default() },
        output: OutputRecord { contents: output, from },
    }
}
