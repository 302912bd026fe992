//! Manifests: what is written is read, what is broken is refused, and every difference is told; and the card.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use posttrain_merge::card::card;
use posttrain_merge::dtype::Dtype;
use posttrain_merge::manifest::{
    Difference, FILE, Found, Manifest, Role, Unused, Whose, content_hash, verify,
};
use posttrain_merge::{Error, family};
use serde_json::{Value, json};
use support::{contents, input, manifest};

const TENSORS: &[(&str, usize)] = &[("model.embed", 6), ("model.layers.0.w", 4), ("lm_head", 2)];

fn example() -> Manifest {
    let config = json!({
        "merge_method": "linear",
        "models": [
            {"model": "org/a", "parameters": {"weight": 0.25}},
            {"model": "b", "parameters": {"weight": 0.75}},
        ],
    });
    let a = input("org/a", Path::new("/cache/1"), Role::Input, contents("a", TENSORS));
    let b = input("b", Path::new("/models/b"), Role::Input, contents("b", TENSORS));
    let mut manifest = manifest(config, vec![a, b], contents("y", TENSORS));
    manifest.coverage.unused.push(Unused {
        input: 1,
        tensor: "lm_head".to_owned(),
        reason: "tied".to_owned(),
    });
    manifest
}

/// The error for the example's text after `change`, without the file's name.
fn refused(change: impl Fn(&mut Value)) -> String {
    let mut value = serde_json::to_value(example()).unwrap();
    change(&mut value);
    text_refused(&serde_json::to_string_pretty(&value).unwrap())
}

fn text_refused(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), text).unwrap();
    let error = Manifest::read(folder.path()).unwrap_err().to_string();
    let file = folder.path().join(FILE).display().to_string();
    error.strip_prefix(&format!("{file}: ")).unwrap_or_else(|| panic!("{error}")).to_owned()
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = example();
    manifest.write(folder.path()).unwrap();
    manifest.write(folder.path()).unwrap();
    assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
    assert_eq!(Manifest::read(folder.path().join(FILE)).unwrap(), manifest);
    let files: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, [FILE]);
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    assert!(
        matches!(example().write(&gone), Err(Error::Io { path, .. }) if path == gone.join(FILE))
    );
    let mut wrong = example();
    wrong.created = "yesterday".to_owned();
    let error = wrong.write(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`created` is `yesterday`, expected RFC 3339"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_content_hash_by_hand() {
    let hash = |text: &str| blake3::hash(text.as_bytes());
    let (x, y) = (hash("x"), hash("y"));
    let lines = format!("a\tBF16\t4096,32\t{}\nb\\tc\\\\\tF32\t\t{}\n", x.to_hex(), y.to_hex());
    let two = [("b\tc\\", Dtype::F32, &[][..], y), ("a", Dtype::BF16, &[4096, 32][..], x)];
    assert_eq!(content_hash(two), hash(&lines));
    assert_eq!(content_hash(two.into_iter().rev()), hash(&lines));
    assert_eq!(content_hash([]), hash(""));
    // Neither files nor the configuration have a part in it.
    let mut other = contents("a", TENSORS);
    other.files.insert("more".to_owned(), 1);
    let other = posttrain_merge::manifest::Contents::new(other.files, None, other.tensors);
    assert_eq!(other.content, contents("a", TENSORS).content);
    assert_ne!(other.content, contents("b", TENSORS).content);
}

#[test]
fn broken_manifests_are_refused_by_name() {
    assert_eq!(refused(|m| m["format"] = json!(2)), "`format` is 2, this version reads 1");
    let newer = refused(|m| *m = json!({"format": 3, "all": "is other"}));
    assert_eq!(newer, "`format` is 3, this version reads 1");
    let missing = refused(|m| {
        m.as_object_mut().unwrap().remove("format");
    });
    assert!(missing.contains("missing field `format`"), "{missing}");
    let unknown = refused(|m| m["inputs"][0]["colour"] = json!(1));
    assert!(unknown.contains("unknown field `colour`") && unknown.contains("line"), "{unknown}");
    let hash = refused(|m| m["inputs"][0]["contents"]["content"] = json!("12"));
    assert!(hash.contains("`12` is no hash, expected 64 hexadecimal digits"), "{hash}");
    let dtype = refused(|m| m["output"]["contents"]["tensors"]["lm_head"]["dtype"] = json!("F33"));
    assert!(dtype.contains("unknown variant `F33`"), "{dtype}");
    let content = refused(|m| {
        m["inputs"][1]["contents"]["tensors"].as_object_mut().unwrap().remove("model.embed");
    });
    assert!(content.starts_with("`inputs[1].contents.content` is "), "{content}");
    assert!(content.contains("but its tensors give "), "{content}");
    let from = refused(|m| m["output"]["from"]["lm_head"] = json!([0, 2]));
    assert_eq!(
        from,
        "`output.from` of `lm_head` is [0, 2], expected increasing places of 2 inputs"
    );
    let none = refused(|m| {
        m["output"]["from"].as_object_mut().unwrap().remove("lm_head");
    });
    assert_eq!(none, "`output.from` has no `lm_head`, which is a tensor of the output");
    let other = refused(|m| m["output"]["from"]["x"] = json!([0]));
    assert_eq!(other, "`output.from` has `x`, which is no tensor of the output");
    let unused = refused(|m| m["coverage"]["unused"][0]["tensor"] = json!("x"));
    assert_eq!(unused, "`coverage.unused[0]` is `x` of input 1, which has no such tensor");
    let text = serde_json::to_string(&example()).unwrap();
    let doubled = text.replacen("\"lm_head\":{", "\"model.embed\":{", 1);
    let doubled = text_refused(&doubled);
    assert!(doubled.contains("`model.embed` is there twice"), "{doubled}");
}

#[test]
fn every_difference_at_once() {
    let manifest = example();
    let same = |record: &posttrain_merge::manifest::InputRecord| {
        Ok(Some(Found { path: record.path.clone(), contents: record.contents.clone() }))
    };
    let report = verify(&manifest, &manifest.output.contents, same).unwrap();
    assert!(report.is_ok());
    assert_eq!(report.to_string(), "9 tensors compared, 0 differences");

    let mut output = contents("y", &[("model.embed", 7), ("lm_head", 2), ("new", 1)]);
    let other = contents("z", TENSORS);
    output.tensors.insert("lm_head".to_owned(), other.tensors["lm_head"].clone());
    output.files = [("model.safetensors".to_owned(), 999), ("x".to_owned(), 1)].into();
    output.config = None;
    let report = verify(&manifest, &output, |record| {
        let path = PathBuf::from("/new/place");
        let found = Found { path, contents: record.contents.clone() };
        Ok((record.name == "b").then_some(found))
    });
    let report = report.unwrap();
    assert!(!report.is_ok());
    assert_eq!(
        report.to_string(),
        "output: file `model.safetensors` has 999 bytes, had 1000\n\
         output: file `x` is new\n\
         output: `config.json` is another\n\
         output: tensor `lm_head` has other bytes\n\
         output: tensor `model.embed` is BF16 [7], was BF16 [6]\n\
         output: tensor `model.layers.0.w` is gone\n\
         output: tensor `new` is new\n\
         input `org/a`: is no longer at /cache/1\n\
         input `b`: moved from /models/b to /new/place\n\
         6 tensors compared, 9 differences"
    );
    assert!(report.differences.contains(&(Whose::Output, Difference::Config)));
    let failed = verify(&manifest, &output, |_| {
        Err(Error::Manifest { path: "x".into(), reason: "no".to_owned() })
    });
    assert!(failed.is_err());
}

#[test]
fn a_card_has_what_the_hub_and_the_tree_read() {
    let manifest = example();
    let yaml = "merge_method: linear # ``` ours\nmodels:\n\
                - {model: org/a, parameters: {weight: 0.25}}\n- {model: b, parameters: {weight: 0.75}}\n";
    let card = card("My  merge\n", &manifest, yaml);
    let start = "---\nbase_model:\n- \"org/a\"\nlibrary_name: transformers\ntags:\n- mergekit\n- merge\n- posttrain\n\
                 ---\n# My merge\n";
    assert!(card.starts_with(start), "{card}");
    for part in [
        "[Linear](https://arxiv.org/abs/2203.05482) (`linear`).",
        "* [org/a](https://huggingface.co/org/a), content `",
        "* `b`, content `",
        &format!("````yaml\n{yaml}````\n"),
        &format!("| Content hash | `{}` |", manifest.output.contents.content),
        "| Seed | 18446744073709551615 |",
    ] {
        assert!(card.contains(part), "{part} in {card}");
    }
    // Alone it tells the family as well as mergekit's.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("README.md"), card).unwrap();
    let tree = family::gather(&[folder.path()]).unwrap();
    let shares: Vec<_> =
        tree.shares()[0].iter().map(|(n, s)| (&tree.nodes[*n].name[..], *s)).collect();
    assert_eq!(shares, [("b", 0.75), ("org/a", 0.25)]);
}
