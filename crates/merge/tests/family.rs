//! Family trees: who is recognised how, whose share is what, and the drawings.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use posttrain_merge::Error;
use posttrain_merge::family::share::{Model, Shared, of_tensor};
use posttrain_merge::family::{
    Basis, Edge, Kind, Link, Node, Note, Tree, gather, mermaid, svg, text,
};
use posttrain_merge::manifest::Role;
use serde_json::json;
use support::{contents, input, manifest};

/// A folder of models.
struct Models(tempfile::TempDir);

impl Models {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn base(&self, name: &str) -> &Self {
        self.file(&format!("{name}/config.json"), r#"{"model_type": "llama"}"#)
    }

    fn merge(&self, name: &str, yaml: &str) -> &Self {
        self.file(&format!("{name}/mergekit_config.yml"), yaml)
    }

    fn card(&self, name: &str, matter: &str) -> &Self {
        self.file(&format!("{name}/README.md"), &format!("---\n{matter}\n---\n# Text\n"))
    }

    fn tree(&self) -> Tree {
        gather(&[self.0.path()]).unwrap()
    }
}

fn node(tree: &Tree, name: &str) -> usize {
    let found = tree.nodes.iter().position(|node| node.name == name);
    found.unwrap_or_else(|| panic!("{name} in {:?}", tree.nodes))
}

fn shares<'a>(tree: &'a Tree, name: &str) -> BTreeMap<&'a str, f64> {
    let all = tree.shares();
    all[node(tree, name)].iter().map(|(n, share)| (&tree.nodes[*n].name[..], *share)).collect()
}

fn check(tree: &Tree, name: &str, expected: &[(&str, f64)]) {
    let found = shares(tree, name);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (ancestor, share) in expected {
        assert!((found[ancestor] - share).abs() < 1e-12, "{name} from {ancestor}: {found:?}");
    }
}

fn links(tree: &Tree, name: &str) -> Vec<(String, Link)> {
    let parents = tree.parents(node(tree, name));
    parents.map(|edge| (tree.nodes[edge.parent].name.clone(), edge.link)).collect()
}

const BASE: Model = Model { base: true, weight: None };
const NONE: Model = Model { base: false, weight: None };
const PLAIN: Shared = Shared { t: None, lambda: None, normalize: None };

const fn with(weight: f64) -> Model {
    Model { base: false, weight: Some(weight) }
}

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

/// Writes the linear merge, half and half, of two inputs.
fn halves(models: &Models, name: &str, inputs: [(&str, &Path, &str); 2], salt: &str) {
    let tensors = [("w", 4)];
    let config = json!({
        "merge_method": "linear",
        "models": inputs.map(|(name, ..)| json!({"model": name})),
        "parameters": {"weight": 1},
    });
    let inputs =
        inputs.map(|(name, path, salt)| input(name, path, Role::Input, contents(salt, &tensors)));
    fs::create_dir_all(models.path(name)).unwrap();
    manifest(config, inputs.into(), contents(salt, &tensors)).write(models.path(name)).unwrap();
}

#[test]
fn content_then_path_then_name() {
    let models = Models::new();
    models.base("x").base("store/moved");
    // `first` was at another path, under another name, when `second` was merged from it.
    halves(
        &models,
        "deep/first",
        [("x", &models.path("x"), "x"), ("y", Path::new("/gone/y"), "y")],
        "first",
    );
    let inputs = [
        ("old", Path::new("/gone/old"), "first"),
        ("org/moved", Path::new("/gone/moved"), "moved"),
    ];
    halves(&models, "second", inputs, "second");
    let tree = models.tree();
    assert!(tree.notes.is_empty(), "{:?}", tree.notes);
    let expected = |pairs: &[(&str, Link)]| {
        pairs.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect::<Vec<_>>()
    };
    assert_eq!(links(&tree, "first"), expected(&[("x", Link::Path), ("y", Link::Mention)]));
    assert_eq!(
        links(&tree, "second"),
        expected(&[("first", Link::Content), ("moved", Link::Name)])
    );
    check(&tree, "second", &[("first", 0.5), ("moved", 0.5), ("x", 0.25), ("y", 0.25)]);
}

#[test]
fn what_cannot_be_told_is_noted() {
    let models = Models::new();
    models.base("one/same").base("two/same").base("x");
    models.merge("m", "merge_method: karcher\nmodels: [{model: org/same}, {model: x}]");
    // x held other tensors for `n` than for `o`, and `copy` is `n` again.
    halves(&models, "n", [("x", &models.path("x"), "x1"), ("y", Path::new("/gone/y"), "y")], "n");
    halves(&models, "o", [("x", &models.path("x"), "x2"), ("n", Path::new("/gone/n"), "n")], "o");
    halves(
        &models,
        "p/copy",
        [("x", &models.path("x"), "x1"), ("y", Path::new("/gone/y"), "y")],
        "n",
    );
    // A merge that gives back its input.
    halves(&models, "q", [("y", Path::new("/gone/y"), "y"), ("x", &models.path("x"), "x1")], "y");
    models.file("broken/merge.json", "{").card("worse", "base_model: [");
    models.base("worse");
    let tree = models.tree();
    let mut notes: Vec<String> = tree.notes.iter().map(ToString::to_string).collect();
    notes.sort();
    let at = |name: &str| models.path(name).display().to_string();
    assert_eq!(notes.len(), 6, "{notes:#?}");
    assert_eq!(
        notes[0],
        format!(
            "ambiguous: `org/same`, a parent of `m`, could be any of {}, {}",
            at("one/same"),
            at("two/same")
        )
    );
    assert_eq!(
        notes[1],
        format!("changed: {} held other tensors when `o` was made of it", at("x"))
    );
    assert_eq!(notes[2], format!("copy: {} holds the same tensors as `n`", at("p/copy")));
    assert_eq!(notes[3], format!("copy: {} holds the same tensors as `y`", at("q")));
    assert!(
        notes[4]
            .starts_with(&format!("unreadable: {}: EOF while parsing", at("broken/merge.json")))
    );
    assert!(notes[5].starts_with(&format!("unreadable: {}: front matter", at("worse/README.md"))));
    assert_eq!(tree.notes.iter().filter(|note| matches!(note, Note::Copy { .. })).count(), 2);
    check(&tree, "o", &[("x (earlier)", 0.5), ("n", 0.5), ("x", 0.25), ("y", 0.25)]);
    assert_eq!(tree.nodes[node(&tree, "worse")].kind, Kind::Unknown);
    // Equal names have a part of their path.
    node(&tree, "one/same");
    node(&tree, "two/same");
}

#[test]
fn circles_are_errors_by_name() {
    let models = Models::new();
    models.merge("a", "merge_method: karcher\nmodels: [{model: c}, {model: x}]");
    models.merge("b", "merge_method: karcher\nmodels: [{model: a}]");
    models.merge("c", "merge_method: karcher\nmodels: [{model: b}]");
    models.merge("d", "merge_method: karcher\nmodels: [{model: c}]");
    let error = gather(&[models.0.path()]).unwrap_err();
    let Error::Cycle { models } = &error else { panic!("{error}") };
    assert_eq!(models.len(), 4);
    let text = error.to_string();
    assert!("a -> b -> c -> a -> b -> c".contains(&models.join(" -> ")), "{text}");
    // A model whose base has its name is no circle.
    let models = Models::new();
    models.card("llama", "base_model: meta/llama");
    assert_eq!(links(&models.tree(), "llama"), [("meta/llama".to_owned(), Link::Mention)]);
    assert!(gather(&["/no/such/folder"]).is_err());
}

#[test]
fn adapters_quantised_models_and_the_hubs_cache() {
    let models = Models::new();
    models.base("models--org--base/snapshots/0123");
    models.file("lora/adapter_config.json", r#"{"base_model_name_or_path": "org/base"}"#);
    models.file("loose/adapter_config.json", r#"{"base_model_name_or_path": null}"#);
    models.card("four-bit", "base_model: org/base\nbase_model_relation: quantized");
    models.merge(
        "m",
        "merge_method: linear\nmodels:\n- {model: org/base+lora, parameters: {weight: 1}}\n\
         - {model: other/base, parameters: {weight: 1}}",
    );
    let tree = models.tree();
    assert!(tree.notes.is_empty(), "{:?}", tree.notes);
    check(&tree, "lora", &[("org/base", 1.0)]);
    check(&tree, "four-bit", &[("org/base", 1.0)]);
    check(&tree, "m", &[("org/base + lora", 0.5), ("org/base", 0.5), ("other/base", 0.5)]);
    let both: Vec<_> = tree
        .parents(node(&tree, "org/base + lora"))
        .map(|e| (e.method.as_str(), e.share))
        .collect();
    assert_eq!(both, [("base", Some(1.0)), ("lora", None)]);
    assert_eq!(tree.nodes[node(&tree, "four-bit")].kind, Kind::Quantized);
    assert_eq!(tree.nodes[node(&tree, "loose")].kind, Kind::Adapter);
}

#[test]
fn mergekits_card_alone_and_models_elsewhere() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge/family");
    let card = fs::read_to_string(fixture.join("mergekit_card.md")).unwrap();
    let (models, elsewhere) = (Models::new(), Models::new());
    models.file("chat-maths/README.md", &card);
    let tree = models.tree();
    check(
        &tree,
        "chat-maths",
        &[("org/base-7B", 0.15), ("org/chat-7B", 0.6), ("other/maths-7B", 0.25)],
    );
    // A parent by its path is read too, and its parent, though nobody named their folders.
    elsewhere.base("z").card("y", &format!("base_model: {}", elsewhere.path("z").display()));
    let yaml =
        format!("merge_method: karcher\nmodels: [{{model: {}}}]", elsewhere.path("y").display());
    models.merge("up", &yaml);
    check(&models.tree(), "up", &[("y", 1.0), ("z", 1.0)]);
}

#[test]
fn no_broken_card_or_configuration_panics() {
    let yaml = "merge_method: slerp\nbase_model: o/x+l\nslices:\n- sources:\n  - {model: o/x, layer_range: [0, 2]}\n\
                \x20 - {model: o/y, layer_range: [0, 2], parameters: {weight: [1, 2]}}\nparameters:\n  t: [{filter: a, value: [0, 1]}, 1]\n";
    let models = Models::new();
    for end in (0..yaml.len()).step_by(7) {
        for byte in ["", "[", ":", "9"] {
            let text =
                format!("{}{byte}{}", &yaml[..end], &yaml[(end + byte.len()).min(yaml.len())..]);
            for text in [&text, &text[..end]] {
                models.merge("m", text).file("n/README.md", &format!("```yaml\n{text}\n```"));
                models.card("p", text);
                if let Ok(tree) = gather(&[models.0.path()]) {
                    svg(&tree);
                    mermaid(&tree);
                }
            }
        }
    }
}

fn by_hand() -> Tree {
    let node = |name: &str, kind, basis| Node {
        name: name.to_owned(),
        paths: Vec::new(),
        content: (kind == Kind::Merge).then(|| blake3::hash(name.as_bytes())),
        kind,
        basis,
    };
    let nodes = vec![
        node("org/base-7B", Kind::Base, Basis::Weights),
        node("chat", Kind::Finetune, Basis::Weights),
        node("say \"hi\" <b>&amp; 🦙\u{1}", Kind::Unknown, Basis::Weights),
        node("merged", Kind::Merge, Basis::Tensors),
        node("of_merges", Kind::Merge, Basis::Equal),
        node("lora", Kind::Adapter, Basis::Weights),
    ];
    let edge = |parent, child, method: &str, weight, share, link| Edge {
        parent,
        child,
        method: method.to_owned(),
        weight,
        share,
        link,
    };
    let edges = vec![
        edge(0, 1, "finetune", None, Some(1.0), Link::Name),
        edge(1, 3, "ties", Some(0.25), Some(0.2), Link::Content),
        edge(2, 3, "ties", Some(0.75), Some(0.6), Link::Mention),
        edge(0, 3, "ties", None, Some(0.2), Link::Path),
        edge(3, 4, "model_stock", None, Some(0.5), Link::Content),
        edge(0, 4, "model_stock", None, Some(0.5), Link::Path),
        edge(5, 4, "lora", None, None, Link::Path),
    ];
    Tree::new(nodes, edges, Vec::new()).unwrap()
}

#[test]
fn the_text_by_hand() {
    let found = text(&by_hand());
    let hash = |name: &str| blake3::hash(name.as_bytes()).to_hex()[..8].to_owned();
    let (merged, of) = (hash("merged"), hash("of_merges"));
    let odd = "say \"hi\" <b>&amp; 🦙\u{fffd}";
    let expected = format!(
        "of_merges (merge · {of}) = ~70% org/base-7B + ~30% {odd}\n\
         ├─   ~50%  merged (merge · {merged}) = 60% {odd} + 40% org/base-7B  [model_stock, by content hash]\n\
         │  ├─    20%  chat (finetune) = 100% org/base-7B  [ties 0.25, by content hash]\n\
         │  │  └─   100%  org/base-7B (base)  [finetune, by name]\n\
         │  ├─    60%  {odd} (unknown)  [ties 0.75, only mentioned]\n\
         │  └─    20%  org/base-7B (base)  [ties, by path]\n\
         ├─   ~50%  org/base-7B (base)  [model_stock, by path]\n\
         └─   with  lora (adapter)  [lora, by path]\n"
    );
    assert_eq!(found, expected, "{found}");
}

#[test]
fn the_mermaid_by_hand() {
    let found = mermaid(&by_hand());
    let odd = "say #34;hi#34; #60;b#62;#38;amp#59; 🦙 ";
    assert!(
        found.starts_with("flowchart LR\n    m0[\"org/base-7B<br/>base\"]:::base\n"),
        "{found}"
    );
    for line in [
        &format!("    m2[\"{odd}<br/>unknown\"]:::unknown\n")[..],
        "    m1 -->|\"ties 0.25 · 20%\"| m3\n",
        "    m3 -->|\"model#95;stock · #126;50%\"| m4\n",
        "    m5 -.->|\"lora\"| m4\n",
        "    classDef merge ",
    ] {
        assert!(found.contains(line), "{line} in {found}");
    }
}

/// Every element closed, every attribute quoted, every special character escaped, no control character.
fn well_formed(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        let end = tag.find('>').unwrap();
        let (tag, after) = (&tag[1..end], &tag[end + 1..]);
        for entity in text.split('&').skip(1).chain(tag.split('&').skip(1)) {
            let name = entity.split_once(';').unwrap().0;
            assert!(["amp", "lt", "gt", "quot", "#10"].contains(&name), "&{name}");
        }
        assert!(!text.contains('>') && !tag.contains('<'));
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
        rest = after;
    }
    assert!(open.is_empty() && xml.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn the_svg_is_the_one_that_was_looked_at() {
    let found = svg(&by_hand());
    well_formed(&found);
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge/family/small.svg");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &found).unwrap();
    }
    assert!(
        found == fs::read_to_string(path).unwrap(),
        "the drawing has changed: see the fixture's README"
    );
    well_formed(&svg(&Tree::default()));
}

#[test]
fn two_hundred_merges_of_merges_are_drawn() {
    let models = Models::new();
    for n in 0..20 {
        models.base(&format!("base-{n}"));
    }
    let name = |n: usize| if n < 20 { format!("base-{n}") } else { format!("merge-{n}") };
    for n in 20..200 {
        let sources = [n * 7 % n, n * 13 / 17 % n, n - 1].map(name);
        let list: Vec<String> = sources
            .iter()
            .map(|s| format!("- {{model: {s}, parameters: {{weight: 1}}}}"))
            .collect();
        models.merge(&name(n), &format!("merge_method: linear\nmodels:\n{}", list.join("\n")));
    }
    let tree = models.tree();
    assert!(tree.nodes.len() == 200 && tree.notes.is_empty());
    for shares in tree.shares().iter().filter(|shares| !shares.is_empty()) {
        let roots: f64 = tree.roots(shares).map(|(_, share)| share).sum();
        assert!((roots - 1.0).abs() < 1e-9);
    }
    well_formed(&svg(&tree));
}
