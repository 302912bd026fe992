//! Reading the fixtures that transformers made.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test file uses a part"
)]

pub(crate) mod adapted;
pub(crate) mod rewards;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use posttrain_model::checkpoint::Checkpoint;
use posttrain_model::device;
use safetensors::SafeTensors;

pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models")
}

/// The folders with a model, by name; those of `POSTTRAIN_CASES` where a slow device is tested.
pub(crate) fn cases() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(models())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("model.safetensors").exists())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 21, "{names:?}");
    if let Ok(wanted) = std::env::var("POSTTRAIN_CASES") {
        let wanted: Vec<&str> = wanted.split(',').collect();
        assert!(wanted.iter().all(|case| names.iter().any(|name| name == case)), "{wanted:?}");
        names.retain(|name| wanted.contains(&name.as_str()));
    }
    names
}

/// The device under test: that of `POSTTRAIN_DEVICE`, else the CPU.
pub(crate) fn device() -> Device {
    device::choose(None).unwrap()
}

/// A file of tensors.
pub(crate) struct Expected(Vec<u8>);

impl Expected {
    pub(crate) fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(str::to_owned).collect()
    }

    pub(crate) fn floats(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
        let numbers = view.data().chunks_exact(4);
        (numbers.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(), view.shape().into())
    }

    pub(crate) fn ids(&self, name: &str) -> (Vec<u32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(view.dtype(), safetensors::Dtype::I64, "{name}");
        let numbers = view.data().chunks_exact(8);
        let ids = numbers.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        (ids, view.shape().into())
    }
}

pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec::<f32>().unwrap()
}

/// The largest difference, which must not be NaN.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0.0, |worst: f32, (a, b)| {
        let distance = (a - b).abs();
        assert!(!distance.is_nan(), "a NaN");
        worst.max(distance)
    })
}

/// The weights of a case, to be compared or broken.
pub(crate) fn checkpoint(case: &str) -> Checkpoint {
    Checkpoint::open(models().join(case)).unwrap()
}
