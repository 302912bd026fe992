//! What the tests of adapters share.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use posttrain_merge::Source;
use posttrain_merge::adapter::{Adapter, Folded};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge/adapters").join(name)
}

pub(crate) fn read(source: &Source) -> Vec<f32> {
    let mut values = vec![0.0; source.numel()];
    source.read(0, &mut values);
    values
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, x| if x.is_nan() { x } else { most.max(x) })
}

/// Numbers that are no multiples of one another.
fn some_numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 7 * seed) * 2_654_435_761) as f32 * 0.001).sin()).collect()
}

pub(crate) fn write_values(path: &Path, tensors: &[(&str, &[usize], Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views: BTreeMap<&str, TensorView<'_>> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        })
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

pub(crate) fn write_tensors(path: &Path, tensors: &[(&str, &[usize])]) {
    let filled: Vec<_> = tensors
        .iter()
        .enumerate()
        .map(|(seed, (name, shape))| (*name, *shape, some_numbers(shape.iter().product(), seed)))
        .collect();
    write_values(path, &filled);
}

pub(crate) fn write_adapter(folder: &Path, config: &Value, tensors: &[(&str, &[usize])]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    write_tensors(&folder.join("adapter_model.safetensors"), tensors);
}

/// `s B A` of each module, as its weight is stored if it is (out, in) or an embedding.
pub(crate) fn deltas(adapter: &Adapter) -> BTreeMap<String, Vec<f32>> {
    adapter
        .modules()
        .iter()
        .map(|(name, module)| {
            let (m, n) = module.delta.dims();
            let transposed = module.delta.embedding;
            let shape = if transposed { vec![n, m] } else { vec![m, n] };
            let folded = Folded::new(Source::Zeros(shape), module.delta.clone(), transposed, None);
            (format!("{name}.weight"), read(&Source::Folded(folded.into())))
        })
        .collect()
}
