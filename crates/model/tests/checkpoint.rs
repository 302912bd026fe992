//! Checkpoints that transformers wrote: read, saved again, broken and interrupted.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use posttrain_model::Error;
use posttrain_model::checkpoint::{
    Checkpoint, Dtype, Expected, SaveOptions, TensorSpec, copy_companions, is_derived_buffer,
    read_companions, save,
};
use tempfile::TempDir;

const VARIANTS: [&str; 3] = ["single_f32", "single_f16", "sharded_bf16"];
const INDEX: &str = "model.safetensors.index.json";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/checkpoints").join(name)
}

/// A copy that a test may break.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in weights(&fixture(name)) {
        fs::write(folder.path().join(file), content).unwrap();
    }
    folder
}

/// Every weight file and the index.
fn weights(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files
        .filter(|path| name(path).contains(".safetensors"))
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .collect()
}

/// The tensors in the order in which transformers met them.
fn specs(folder: &Path, checkpoint: &Checkpoint) -> Vec<TensorSpec> {
    let order = fs::read(folder.join("state_dict_order.json")).unwrap();
    let order: Vec<String> = serde_json::from_slice(&order).unwrap();
    let spec = |name: String| {
        let tensor = checkpoint.get(&name).unwrap();
        TensorSpec { dtype: tensor.dtype, shape: tensor.shape.to_vec(), name }
    };
    order.into_iter().map(spec).collect()
}

fn sorted_specs(checkpoint: &Checkpoint) -> Vec<TensorSpec> {
    let spec = |name: &str| {
        let tensor = checkpoint.get(name).unwrap();
        TensorSpec { dtype: tensor.dtype, shape: tensor.shape.to_vec(), name: name.to_owned() }
    };
    checkpoint.names().map(spec).collect()
}

fn bytes<'a>(checkpoint: &'a Checkpoint) -> impl FnMut(&str) -> Result<Cow<'a, [u8]>, Error> {
    |name| Ok(Cow::Borrowed(checkpoint.get(name).unwrap().bytes))
}

fn message(folder: &Path) -> String {
    Checkpoint::open(folder).unwrap_err().to_string()
}

#[test]
fn saving_as_transformers_does_gives_its_bytes() {
    for variant in VARIANTS {
        let folder = fixture(variant);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let max_shard_size = if variant.starts_with("sharded") { 4_000 } else { 50_000_000_000 };
        let options = SaveOptions { max_shard_size, ..SaveOptions::default() };
        let target = tempfile::tempdir().unwrap();
        let specs = specs(&folder, &checkpoint);
        let saved = save(target.path(), &specs, bytes(&checkpoint), &options).unwrap();
        assert_eq!(weights(target.path()), weights(&folder), "{variant}");
        assert_eq!(saved.files.len(), weights(&folder).len());
        let elements: usize = specs.iter().map(|s| s.shape.iter().product::<usize>()).sum();
        let width = if variant == "single_f32" { 4 } else { 2 };
        assert_eq!(saved.total_size, (elements * width) as u64);
    }
}

#[test]
fn saving_like_a_checkpoint_gives_its_bytes_in_any_order() {
    for variant in VARIANTS {
        let folder = fixture(variant);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let target = tempfile::tempdir().unwrap();
        let options = SaveOptions::like(&checkpoint);
        let specs = sorted_specs(&checkpoint);
        save(target.path(), &specs, bytes(&checkpoint), &options).unwrap();
        assert_eq!(weights(target.path()), weights(&folder), "{variant}");
        // And once more from what was saved.
        let again = Checkpoint::open(target.path()).unwrap();
        save(target.path(), &specs, bytes(&again), &SaveOptions::like(&again)).unwrap();
        assert_eq!(weights(target.path()), weights(&folder), "{variant}");
    }
}

#[test]
fn a_changed_tensor_is_spread_anew() {
    let checkpoint = Checkpoint::open(fixture("sharded_bf16")).unwrap();
    let mut specs = sorted_specs(&checkpoint);
    specs.pop();
    let target = tempfile::tempdir().unwrap();
    save(target.path(), &specs, bytes(&checkpoint), &SaveOptions::like(&checkpoint)).unwrap();
    assert_eq!(weights(target.path()).into_keys().collect::<Vec<_>>(), ["model.safetensors"]);
    let saved = Checkpoint::open(target.path()).unwrap();
    assert_eq!(saved.metadata(), &[("format".to_owned(), "pt".to_owned())]);
}

#[test]
fn variants_hold_the_same_weights() {
    let open = |name| Checkpoint::open(fixture(name)).unwrap();
    let (single, sharded, half) = (open("single_f32"), open("sharded_bf16"), open("single_f16"));
    assert_eq!(single.dtype(), Some(Dtype::F32));
    assert_eq!(sharded.dtype(), Some(Dtype::BF16));
    assert_eq!(half.dtype(), Some(Dtype::F16));
    assert_eq!(single.files().len(), 1);
    assert_eq!(sharded.files().len(), 3);
    assert_eq!(single.names().collect::<Vec<_>>(), sharded.names().collect::<Vec<_>>());
    for name in single.names() {
        let (a, b, c) =
            (single.get(name).unwrap(), sharded.get(name).unwrap(), half.get(name).unwrap());
        assert_eq!((a.shape, a.shape), (b.shape, c.shape));
        // The rounding of torch.
        assert_eq!(a.to_bf16().unwrap(), b.to_bf16().unwrap(), "{name}");
        assert_eq!(a.to_f16().unwrap(), c.to_f16().unwrap(), "{name}");
        assert_eq!(a.to_f32().unwrap().len(), a.shape.iter().product::<usize>());
    }
    assert!(single.get("no.such").is_none() && single.shared("no.such").is_none());
    let name = "model.layers.1.mlp.up_proj.weight";
    let expected = sharded.get(name).unwrap().bytes.to_vec();
    let shared = sharded.shared(name).unwrap();
    drop(sharded);
    let moved = std::thread::spawn(move || shared.clone().to_vec()).join().unwrap();
    assert_eq!(moved, expected);
}

#[test]
fn all_differences_from_the_model_are_listed() {
    let checkpoint = Checkpoint::open(fixture("single_f32")).unwrap();
    let mut expected: Vec<Expected> = checkpoint
        .names()
        .map(|name| Expected {
            name: name.to_owned(),
            shape: checkpoint.get(name).unwrap().shape.to_vec(),
        })
        .collect();
    checkpoint.check(&expected, is_derived_buffer).unwrap();
    assert_eq!(expected[0].name, "lm_head.weight");
    let head = expected.remove(0);
    checkpoint.check(&expected, |name| name == "lm_head.weight").unwrap();
    expected[0].shape = vec![49, 16];
    let norm = expected.pop().unwrap();
    expected.push(Expected { name: "model.extra".to_owned(), shape: vec![1] });
    let error = checkpoint.check(&expected, is_derived_buffer).unwrap_err();
    let text = error.to_string();
    let Error::TensorMismatch { missing, unexpected, misshaped, .. } = error else { panic!() };
    assert_eq!(missing, ["model.extra"]);
    assert_eq!(unexpected, [head.name, norm.name]);
    assert_eq!(misshaped, [("model.embed_tokens.weight".into(), vec![48, 16], vec![49, 16])]);
    assert!(text.contains("found [48, 16], expected [49, 16]"), "{text}");
}

#[test]
fn broken_folders_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert!(message(&missing).contains("missing"));
    let text = message(folder.path());
    assert!(text.contains("neither model.safetensors nor model.safetensors.index.json"), "{text}");
    fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
    let text = message(folder.path());
    assert!(text.contains("found only pytorch_model.bin; convert them"), "{text}");
    fs::write(
        folder.path().join("model.safetensors"),
        "version https://git-lfs.github.com/spec/v1",
    )
    .unwrap();
    assert!(message(folder.path()).contains("git lfs pull"));
    fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(message(folder.path()).contains("has 0 bytes"));
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fs::write(folder.path().join(INDEX), "{\n  \"weight_map\": {\n    \"a\": }\n").unwrap();
    let text = message(folder.path());
    assert!(text.contains(INDEX) && text.contains("line 3 column"), "{text}");
    fs::write(folder.path().join(INDEX), r#"{"weight_map": {"a": "../b.safetensors"}}"#).unwrap();
    assert!(message(folder.path()).contains("no file name"));
}

#[test]
fn shards_must_agree_with_the_index() {
    let second = "model-00002-of-00003.safetensors";
    let folder = copy("sharded_bf16");
    fs::remove_file(folder.path().join(second)).unwrap();
    assert!(message(folder.path()).contains(&format!("missing shards: {second}")));

    let folder = copy("sharded_bf16");
    let content = fs::read(folder.path().join(second)).unwrap();
    fs::write(folder.path().join(second), &content[..content.len() - 9]).unwrap();
    let text = message(folder.path());
    assert!(text.contains(second) && text.contains("truncated"), "{text}");

    let folder = copy("sharded_bf16");
    let index = fs::read_to_string(folder.path().join(INDEX)).unwrap();
    let renamed = index.replace("model.norm.weight", "model.morn.weight");
    fs::write(folder.path().join(INDEX), renamed).unwrap();
    let text = message(folder.path());
    assert!(text.contains("`model.morn.weight` is not in model-0000"), "{text}");
    assert!(text.contains("`model.norm.weight` is in model-0000"), "{text}");

    let folder = copy("sharded_bf16");
    fs::copy(folder.path().join("model-00001-of-00003.safetensors"), folder.path().join(second))
        .unwrap();
    let text = message(folder.path());
    assert!(text.contains("is also in model-00001-of-00003.safetensors"), "{text}");
}

/// Names that only a checkpoint's own files may have.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_interrupted_save_leaves_the_former_checkpoint() {
    for variant in VARIANTS {
        let folder = copy(variant);
        let before = weights(folder.path());
        let source = Checkpoint::open(fixture("sharded_bf16")).unwrap();
        let specs = sorted_specs(&source);
        for max_shard_size in [4_000, 50_000_000_000] {
            let mut left = 8;
            let failing = |name: &str| {
                left -= 1;
                if left == 0 {
                    let what = "the device".to_owned();
                    return Err(Error::Input {
                        what,
                        found: "lost".into(),
                        expected: "one".into(),
                    });
                }
                Ok(Cow::Borrowed(source.get(name).unwrap().bytes))
            };
            let options = SaveOptions { max_shard_size, ..SaveOptions::default() };
            assert!(save(folder.path(), &specs, failing, &options).is_err());
            assert_eq!(weights(folder.path()), before);
            assert_eq!(names(folder.path()), before.keys().cloned().collect::<Vec<_>>());
            Checkpoint::open(folder.path()).unwrap();

            // A kill leaves the stage; the next save removes it.
            fs::create_dir_all(folder.path().join(".posttrain-saving")).unwrap();
            fs::write(folder.path().join(".posttrain-saving/model.safetensors"), "half").unwrap();
            Checkpoint::open(folder.path()).unwrap();
            assert_eq!(weights(folder.path()), before);
        }
        save(folder.path(), &specs, bytes(&source), &SaveOptions::default()).unwrap();
        assert_eq!(names(folder.path()), ["model.safetensors"]);
    }
}

#[test]
fn every_layout_replaces_every_other() {
    let source = Checkpoint::open(fixture("sharded_bf16")).unwrap();
    let specs = sorted_specs(&source);
    let sizes = [1, 4_000, 9_000, 50_000_000_000];
    for first in sizes {
        for second in sizes {
            let folder = tempfile::tempdir().unwrap();
            let fresh = tempfile::tempdir().unwrap();
            let options = |max_shard_size| SaveOptions { max_shard_size, ..SaveOptions::default() };
            save(folder.path(), &specs, bytes(&source), &options(first)).unwrap();
            fs::write(folder.path().join("optimizer.pt"), "not ours").unwrap();
            // From its own map, as a trainer that saves over its base would.
            let own = Checkpoint::open(folder.path()).unwrap();
            save(folder.path(), &specs, bytes(&own), &options(second)).unwrap();
            save(fresh.path(), &specs, bytes(&source), &options(second)).unwrap();
            assert_eq!(weights(folder.path()), weights(fresh.path()), "{first} {second}");
            assert!(folder.path().join("optimizer.pt").exists());
            Checkpoint::open(folder.path()).unwrap();
        }
    }
}

#[test]
fn wrong_bytes_are_refused() {
    let source = Checkpoint::open(fixture("single_f32")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let short = |_: &str| Ok(Cow::Owned(vec![0; 3]));
    let error = save(folder.path(), &sorted_specs(&source), short, &SaveOptions::default());
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("`lm_head.weight` is 3, expected 3072 for F32 of shape [48, 16]"),
        "{text}"
    );
    assert!(names(folder.path()).is_empty());
}

#[test]
fn companions_travel_with_the_weights() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("additional_chat_templates")).unwrap();
    for name in
        ["tokenizer.json", "merges.txt", "additional_chat_templates/tool_use.jinja", "config.json"]
    {
        fs::write(from.path().join(name), name).unwrap();
    }
    fs::write(from.path().join("model.safetensors"), "weights").unwrap();
    let mut companions = read_companions(from.path()).unwrap();
    let found: Vec<&str> = companions.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, ["additional_chat_templates/tool_use.jinja", "merges.txt", "tokenizer.json"]);
    companions.push(("config.json".to_owned(), b"{}".to_vec()));

    let source = Checkpoint::open(fixture("single_f16")).unwrap();
    let options = SaveOptions { companions, ..SaveOptions::default() };
    let to = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        save(to.path(), &sorted_specs(&source), bytes(&source), &options).unwrap();
        let template = to.path().join("additional_chat_templates/tool_use.jinja");
        assert_eq!(
            fs::read_to_string(template).unwrap(),
            "additional_chat_templates/tool_use.jinja"
        );
        assert_eq!(fs::read_to_string(to.path().join("config.json")).unwrap(), "{}");
        let expected = [
            "additional_chat_templates",
            "config.json",
            "merges.txt",
            "model.safetensors",
            "tokenizer.json",
        ];
        assert_eq!(names(to.path()), expected);
    }
    let copied = tempfile::tempdir().unwrap();
    copy_companions(from.path(), copied.path()).unwrap();
    assert_eq!(names(copied.path()), ["additional_chat_templates", "merges.txt", "tokenizer.json"]);
}
