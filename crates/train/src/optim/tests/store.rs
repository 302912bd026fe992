//! Files that are not what they should be.

use super::{config, noise, optimizer, weight};
use crate::optim::store::load_optimizer;
use burn::tensor::Device;

#[test]
fn what_does_not_fit_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let a = weight("model.a", &[2, 3], noise(1, 6));
    let b = weight("model.b", &[4], noise(1, 4));
    let c = weight("model.b", &[5], noise(1, 5));
    let adamw = config("optim: adamw_torch");
    optimizer(&adamw, &[a.clone(), b]).save(&path).unwrap();
    let error = |yaml: &str, weights: &[_]| {
        let mut other = optimizer(&config(yaml), weights);
        load_optimizer(&mut other, &path, &Device::flex()).unwrap_err().to_string()
    };
    let found = error("optim: adamw_torch", std::slice::from_ref(&c));
    let expected = [
        "the tensors are not those of this run",
        "model.b.exp_avg: found F32 [1, 4], expected F32 [1, 5]",
        "model.b.exp_avg_sq: found F32 [1, 4], expected F32 [1, 5]",
        "unexpected: model.a.exp_avg",
        "unexpected: model.a.exp_avg_sq",
        "unexpected: model.a.step",
    ];
    assert_eq!(found, format!("{}: {}", path.display(), expected.join("\n  ")));
    let found = error("optim: sgd", &[c]);
    assert!(found.ends_with("was written by adamw_torch, expected sgd"), "{found}");

    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let found = error("optim: adamw_torch", &[a]);
    assert!(found.contains("the header describes"), "{found}");
}

#[test]
fn the_same_state_is_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = folder.path().join(name);
        let weights = [weight("model.a", &[64, 64], noise(1, 4096))];
        optimizer(&config("optim: adamw_8bit"), &weights).save(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    let bytes = write("a");
    assert_eq!(bytes, write("b"));
    // And other readers take it.
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("model.a.state1").unwrap().shape(), [64, 64]);
    assert_eq!(file.tensor("model.a.absmax2").unwrap().shape(), [1, 16]);
    assert_eq!(file.tensor("model.a.step").unwrap().data(), [0; 8]);
}
