//! Family trees: who is recognised how, whose share is what, and the drawings.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod drawings;
mod identity;
mod shares;
#[path = "../support/mod.rs"]
mod support;

use posttrain_merge::family::share::{Model, Shared};
use posttrain_merge::family::{Link, Tree, gather};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A folder of models.
pub(crate) struct Models(tempfile::TempDir);

impl Models {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn base(&self, name: &str) -> &Self {
        self.file(&format!("{name}/config.json"), r#"{"model_type": "llama"}"#)
    }

    pub(crate) fn merge(&self, name: &str, yaml: &str) -> &Self {
        self.file(&format!("{name}/mergekit_config.yml"), yaml)
    }

    pub(crate) fn card(&self, name: &str, matter: &str) -> &Self {
        self.file(&format!("{name}/README.md"), &format!("---\n{matter}\n---\n# Text\n"))
    }

    pub(crate) fn tree(&self) -> Tree {
        gather(&[self.0.path()]).unwrap()
    }
}

pub(crate) fn node(tree: &Tree, name: &str) -> usize {
    let found = tree.nodes.iter().position(|node| node.name == name);
    found.unwrap_or_else(|| panic!("{name} in {:?}", tree.nodes))
}

pub(crate) fn shares<'a>(tree: &'a Tree, name: &str) -> BTreeMap<&'a str, f64> {
    let all = tree.shares();
    all[node(tree, name)].iter().map(|(n, share)| (&tree.nodes[*n].name[..], *share)).collect()
}

pub(crate) fn check(tree: &Tree, name: &str, expected: &[(&str, f64)]) {
    let found = shares(tree, name);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (ancestor, share) in expected {
        assert!((found[ancestor] - share).abs() < 1e-12, "{name} from {ancestor}: {found:?}");
    }
}

pub(crate) fn links(tree: &Tree, name: &str) -> Vec<(String, Link)> {
    let parents = tree.parents(node(tree, name));
    parents.map(|edge| (tree.nodes[edge.parent].name.clone(), edge.link)).collect()
}

pub(crate) const BASE: Model = Model { base: true, weight: None };
pub(crate) const NONE: Model = Model { base: false, weight: None };
pub(crate) const PLAIN: Shared = Shared { t: None, lambda: None, normalize: None };

pub(crate) const fn with(weight: f64) -> Model {
    Model { base: false, weight: Some(weight) }
}
