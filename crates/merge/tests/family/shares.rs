//! Whose share is what.

use crate::support::{contents, input, manifest};
use crate::{BASE, Models, NONE, PLAIN, check, links, node, with};
use posttrain_merge::family::share::{Model, Shared, of_tensor};
use posttrain_merge::family::{Basis, Kind, Link};
use posttrain_merge::manifest::Role;
use serde_json::json;
use std::fs;
use std::path::Path;

/// Method, models, parameters, shares, and whether they are equal for want of better.
type Case = (&'static str, &'static [Model], Shared, &'static [f64], bool);

#[test]
fn shares_by_method() {
    const CASES: &[Case] = &[
        ("linear", &[with(1.0), with(3.0)], PLAIN, &[0.25, 0.75], false),
        ("linear", &[with(1.0), with(-1.0)], PLAIN, &[0.5, 0.5], false),
        ("linear", &[with(0.0), with(0.0)], PLAIN, &[0.5, 0.5], true),
        ("linear", &[with(1.0), NONE], PLAIN, &[0.5, 0.5], true),
        ("linear", &[with(2.0)], PLAIN, &[1.0], false),
        // y = b + 0.3 (x - b).
        ("task_arithmetic", &[BASE, with(0.3)], PLAIN, &[0.7, 0.3], false),
        // y = x1 + x2 - b: the base is only taken away.
        ("task_arithmetic", &[BASE, with(1.0), with(1.0)], PLAIN, &[0.0, 0.5, 0.5], false),
        // y = b - 0.5 (x - b) = 1.5 b - 0.5 x.
        ("task_arithmetic", &[BASE, with(-0.5)], PLAIN, &[0.75, 0.25], false),
        // Normalised by default, lambda 0.8.
        (
            "ties",
            &[with(1.0), BASE, with(3.0)],
            Shared { lambda: Some(0.8), ..PLAIN },
            &[0.2, 0.2, 0.6],
            false,
        ),
        (
            "ties",
            &[BASE, with(0.25), with(0.25)],
            Shared { normalize: Some(false), ..PLAIN },
            &[0.5, 0.25, 0.25],
            false,
        ),
        ("dare_ties", &[BASE, with(0.25), with(0.25)], PLAIN, &[0.5, 0.25, 0.25], false),
        ("della", &[BASE, with(0.25), with(0.25)], PLAIN, &[0.0, 0.5, 0.5], false),
        ("slerp", &[with(1.0), BASE], Shared { t: Some(0.25), ..PLAIN }, &[0.25, 0.75], false),
        ("slerp", &[NONE, BASE], PLAIN, &[0.5, 0.5], true),
        ("nuslerp", &[BASE, with(1.0), with(3.0)], PLAIN, &[0.0, 0.25, 0.75], false),
        ("karcher", &[NONE, NONE], PLAIN, &[0.5, 0.5], false),
        ("sce", &[BASE, NONE, NONE], PLAIN, &[0.0, 0.5, 0.5], true),
        ("model_stock", &[BASE, NONE, NONE], PLAIN, &[1.0 / 3.0; 3], true),
        ("passthrough", &[NONE], PLAIN, &[1.0], false),
        ("anybodys", &[BASE, NONE], PLAIN, &[0.5, 0.5], true),
        ("sce", &[BASE], PLAIN, &[1.0], false),
        ("linear", &[], PLAIN, &[], false),
    ];
    for (method, models, shared, expected, equal) in CASES {
        let (found, told) = of_tensor(method, models, *shared);
        assert_eq!(found.len(), expected.len());
        let near = found.iter().zip(*expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near && told == *equal, "{method} {models:?}: {found:?} {told}");
    }
}

#[test]
fn a_diamond_of_merges() {
    let models = Models::new();
    models.base("base").card("a", "base_model: org/base\nbase_model_relation: finetune");
    models.card("b", "base_model: [base]").base("c");
    models.merge(
        "left",
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- {model: b, parameters: {weight: '3e0'}}",
    );
    models.merge("right", "merge_method: slerp\nbase_model: b\nmodels: [{model: b}, {model: c}]\nparameters: {t: 0.4}");
    models.merge(
        "top",
        "merge_method: task_arithmetic\nbase_model: base\nmodels:\n- {model: left, parameters: {weight: 0.5}}\n\
         - {model: right, parameters: {weight: 0.3}}",
    );
    let tree = models.tree();
    assert!(tree.notes.is_empty(), "{:?}", tree.notes);
    check(&tree, "left", &[("a", 0.25), ("b", 0.75), ("base", 1.0)]);
    check(&tree, "right", &[("b", 0.6), ("c", 0.4), ("base", 0.6)]);
    // base: 0.2 by itself, 0.5 through left, 0.3 * 0.6 through right.
    let top = [
        ("left", 0.5),
        ("right", 0.3),
        ("base", 0.88),
        ("a", 0.125),
        ("b", 0.375 + 0.18),
        ("c", 0.12),
    ];
    check(&tree, "top", &top);
    let all = tree.shares();
    let roots: f64 = tree.roots(&all[node(&tree, "top")]).map(|(_, share)| share).sum();
    assert!((roots - 1.0).abs() < 1e-12);
    let kinds: Vec<Kind> =
        ["base", "a", "b", "left"].map(|n| tree.nodes[node(&tree, n)].kind).into();
    assert_eq!(kinds, [Kind::Base, Kind::Finetune, Kind::Finetune, Kind::Merge]);
    assert_eq!(links(&tree, "a"), [("base".to_owned(), Link::Name)]);
    assert_eq!(links(&tree, "b"), [("base".to_owned(), Link::Path)]);
}

#[test]
fn slices_gradients_and_modules_without_a_manifest() {
    let models = Models::new();
    models.merge(
        "slices",
        "merge_method: passthrough\nslices:\n- sources: [{model: o/x, layer_range: [0, 24]}]\n\
         - sources: [{model: o/y, layer_range: [8, 16]}]\n- sources: [{model: o/x, layer_range: [24, 32]}]",
    );
    // The mean of the gradient is 0.5, of both filters 0.375.
    models.merge(
        "gradient",
        "merge_method: slerp\nbase_model: o/x\nmodels: [{model: o/x}, {model: o/y}]\nparameters:\n  t:\n\
         \x20 - {filter: mlp, value: [0, 0.5, 1]}\n  - {value: 0.25}",
    );
    models.merge(
        "modules",
        "merge_method: linear\nmodules:\n  text:\n    models: [{model: o/x}, {model: o/y}]\n    parameters: {weight: 1}\n\
         \x20 vision:\n    models: [{model: {model: {path: o/x}}}]\nparameters: {weight: 2}",
    );
    models.merge("moe", "base_model: o/x\ngate_mode: hidden\nexperts:\n- {source_model: o/y}\n- {source_model: o/z}");
    let tree = models.tree();
    assert!(tree.notes.is_empty(), "{:?}", tree.notes);
    check(&tree, "slices", &[("o/x", 0.8), ("o/y", 0.2)]);
    check(&tree, "gradient", &[("o/x", 0.625), ("o/y", 0.375)]);
    check(&tree, "modules", &[("o/x", 0.75), ("o/y", 0.25)]);
    check(&tree, "moe", &[("o/x", 1.0 / 3.0), ("o/y", 1.0 / 3.0), ("o/z", 1.0 / 3.0)]);
    assert_eq!(tree.nodes[node(&tree, "moe")].basis, Basis::Equal);
    assert_eq!(tree.nodes[node(&tree, "gradient")].basis, Basis::Weights);
}

#[test]
fn a_manifest_counts_each_tensor() {
    let tensors =
        [("embed", 100), ("layers.0.mlp.w", 10), ("layers.0.attn.w", 20), ("layers.1.mlp.w", 10)];
    let models = Models::new();
    let config = json!({
        "merge_method": "slerp", "base_model": "x", "models": [{"model": "x"}, {"model": "y"}],
        "parameters": {"t": [{"filter": "mlp", "value": [0.2, 0.6]}, {"value": 0.5}]},
    });
    let x = input("x", Path::new("/gone/x"), Role::Base, contents("x", &tensors));
    let y = input("y", Path::new("/gone/y"), Role::Input, contents("y", &tensors));
    let mut merged = manifest(config, vec![x, y], contents("z", &tensors));
    merged.output.from.insert("embed".to_owned(), vec![0]);
    fs::create_dir(models.path("z")).unwrap();
    merged.write(models.path("z")).unwrap();
    let tree = models.tree();
    // The embedding is x's alone; y has 0.2 of 10, 0.5 of 20 and 0.6 of 10.
    check(&tree, "z", &[("x", 122.0 / 140.0), ("y", 18.0 / 140.0)]);
    assert_eq!(tree.nodes[node(&tree, "z")].basis, Basis::Tensors);

    // Slices: the second begins again at t = 0, a slice of one layer is at t = 1; the head is the last slice's.
    let models = Models::new();
    let layers: Vec<String> = (0..3).map(|n| format!("layers.{n}.w")).collect();
    let tensors = [("lm_head", 4), (&layers[0], 1), (&layers[1], 1), (&layers[2], 1)];
    let config = json!({
        "merge_method": "linear",
        "slices": [
            {"sources": [{"model": "x", "layer_range": [0, 2], "parameters": {"weight": [1, 3]}},
                         {"model": "y", "layer_range": [2, 4], "parameters": {"weight": 1}}]},
            {"sources": [{"model": "x", "layer_range": [5, 6], "parameters": {"weight": [9, 1]}},
                         {"model": "y", "layer_range": [5, 6], "parameters": {"weight": 1}}]},
        ],
    });
    let x = input("x", Path::new("/gone/x"), Role::Input, contents("x", &tensors));
    let y = input("y", Path::new("/gone/y"), Role::Input, contents("y", &tensors));
    fs::create_dir(models.path("z")).unwrap();
    manifest(config, vec![x, y], contents("z", &tensors)).write(models.path("z")).unwrap();
    // lm_head 0.9 of 4; the layers 1/2, 3/4 and 1/2.
    let x = (3.6 + 0.5 + 0.75 + 0.5) / 7.0;
    check(&models.tree(), "z", &[("x", x), ("y", 1.0 - x)]);
}
