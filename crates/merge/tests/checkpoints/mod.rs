//! Small checkpoints that tests write, and merges of them.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use posttrain_merge::config::MergeConfig;
use posttrain_merge::dtype::{self, Dtype};
use posttrain_merge::{Error, Execution, Plan, PlanOptions, Report, execute};
use serde_json::{Value, json};

/// `SplitMix64`.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From -1 to 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) -> Self {
        let mut bytes = vec![0; values.len() * dtype::size_of(dtype)];
        dtype::encode(dtype, values, &mut bytes);
        Self { name: name.into(), dtype, shape: shape.to_vec(), bytes }
    }

    pub(crate) fn raw(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), bytes }
    }

    pub(crate) fn random(name: &str, dtype: Dtype, shape: &[usize], random: &mut Random) -> Self {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| random.number()).collect();
        Self::new(name, dtype, shape, &values)
    }
}

/// A file with this header, whatever it says.
pub(crate) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    file
}

pub(crate) fn safetensors(entries: &[Entry]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for entry in entries {
        let end = data.len() + entry.bytes.len();
        let offsets = [data.len(), end];
        let dtype = dtype::stored_name(entry.dtype);
        let place = json!({"dtype": dtype, "shape": entry.shape, "data_offsets": offsets});
        header.insert(entry.name.clone(), place);
        data.extend(&entry.bytes);
    }
    with_header(&Value::Object(header).to_string(), &data)
}

pub(crate) fn write_model(folder: &Path, config: &Value, entries: &[Entry]) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), safetensors(entries)).unwrap();
    folder.to_owned()
}

/// In as many files as there are lists, with an index.
pub(crate) fn write_shards(folder: &Path, config: &Value, shards: &[&[Entry]]) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut map = serde_json::Map::new();
    for (number, entries) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        std::fs::write(folder.join(&file), safetensors(entries)).unwrap();
        map.extend(entries.iter().map(|entry| (entry.name.clone(), Value::from(file.as_str()))));
    }
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    folder.to_owned()
}

/// The settings of the models of [`llama`].
pub(crate) fn config(layers: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": layers,
        "vocab_size": 12, "hidden_size": 8, "intermediate_size": 16, "dtype": "float32",
        "tie_word_embeddings": false,
    })
}

/// A Llama in small: vocabulary 12, hidden 8, intermediate 16.
pub(crate) fn llama(seed: u64, dtype: Dtype, layers: usize) -> Vec<Entry> {
    let mut random = Random(seed);
    let mut entries = Vec::new();
    let mut add = |name: &str, shape: &[usize]| {
        entries.push(Entry::random(name, dtype, shape, &mut random));
    };
    add("model.embed_tokens.weight", &[12, 8]);
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm.weight", &[8][..]),
            ("self_attn.q_proj.weight", &[8, 8]),
            ("mlp.up_proj.weight", &[16, 8]),
        ] {
            add(&format!("model.layers.{layer}.{name}"), shape);
        }
    }
    add("model.norm.weight", &[8]);
    add("lm_head.weight", &[12, 8]);
    entries
}

/// A configuration of `models` with these parameters each.
pub(crate) fn yaml(method: &str, models: &[(&Path, &str)], rest: &str) -> String {
    let mut text = format!("merge_method: {method}\nmodels:\n");
    for (path, parameters) in models {
        let _ = writeln!(text, "- {{model: '{}', parameters: {{{parameters}}}}}", path.display());
    }
    text + rest
}

pub(crate) fn plan_with(text: &str, options: PlanOptions) -> Result<Plan, Error> {
    Plan::new(&MergeConfig::parse("merge.yaml", text)?, options)
}

pub(crate) fn plan(text: &str) -> Result<Plan, Error> {
    plan_with(text, PlanOptions::default())
}

pub(crate) fn merge(text: &str, out: &Path) -> Result<Report, Error> {
    execute(&plan(text)?, out, &Execution::default(), &|_| true)
}

/// The files of weights in a folder, and what is in them.
pub(crate) fn weights(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("safetensors") {
            files.insert(name, std::fs::read(path).unwrap());
        }
    }
    files
}

/// Asserts that a text has all of these parts.
pub(crate) fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge/models")
}
