//! Text, Mermaid and SVG.

use crate::Models;
use posttrain_merge::family::{Basis, Edge, Kind, Link, Node, Tree, mermaid, svg, text};
use std::fs;
use std::path::Path;

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
