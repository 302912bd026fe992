//! Who is recognised how.

use crate::support::{contents, input, manifest};
use crate::{Models, check, links, node};
use posttrain_merge::Error;
use posttrain_merge::family::{Kind, Link, Note, gather, mermaid, svg};
use posttrain_merge::manifest::Role;
use serde_json::json;
use std::fs;
use std::path::Path;

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
