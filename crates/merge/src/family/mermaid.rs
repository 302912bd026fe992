//! The tree as a Mermaid flowchart.

use std::fmt::Write as _;

use super::style::Drawn;
use super::{Kind, Tree};

/// How many roots a node names.
const ROOTS: usize = 4;

/// The tree as a [Mermaid](https://mermaid.js.org) flowchart, as GitHub and the hub show it in Markdown.
pub fn mermaid(tree: &Tree) -> String {
    let drawn = Drawn::new(tree);
    let mut out = String::from("flowchart LR\n");
    for (place, node) in tree.nodes.iter().enumerate() {
        let mut label = format!("{}<br/>{}", escape(&node.name), escape(&drawn.kind(place)));
        let roots = drawn.roots(place);
        for (root, share) in roots.iter().take(ROOTS) {
            let share = escape(&drawn.percent(place, *share));
            let _ = write!(label, "<br/>{share} {}", escape(drawn.name(*root)));
        }
        if roots.len() > ROOTS {
            let _ = write!(label, "<br/>and {} more", roots.len() - ROOTS);
        }
        let (open, close) = match node.kind {
            Kind::Adapter => ("[/", "/]"),
            Kind::Merge => ("(", ")"),
            _ => ("[", "]"),
        };
        let _ = writeln!(out, "    m{place}{open}\"{label}\"{close}:::{}", node.kind);
    }
    for edge in &tree.edges {
        let label = escape(&drawn.edge(edge));
        let arrow = if edge.share.is_some() { "-->" } else { "-.->" };
        let _ = writeln!(out, "    m{} {arrow}|\"{label}\"| m{}", edge.parent, edge.child);
    }
    // Borders alone, so that both themes keep their own text and ground.
    for (kind, style) in [
        (Kind::Base, "stroke:#4c8bd6,stroke-width:3px"),
        (Kind::Finetune, "stroke:#2aa583,stroke-width:2px"),
        (Kind::Merge, "stroke:#e69f00,stroke-width:2px"),
        (Kind::Adapter, "stroke:#d1609f,stroke-width:2px"),
        (Kind::Quantized, "stroke:#8a6fd1,stroke-width:2px"),
        (Kind::Unknown, "stroke:#888888,stroke-dasharray:4 3"),
    ] {
        if tree.nodes.iter().any(|node| node.kind == kind) {
            let _ = writeln!(out, "    classDef {kind} {style}");
        }
    }
    out
}

/// Text in quotes: what Mermaid, Markdown or HTML would read as more than text goes by its number.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_control() => out.push(' '),
            ' ' | '.' | '-' | '/' | ':' | '%' | '(' | ')' | '@' | ',' if !out.is_empty() => {
                out.push(c);
            }
            c if c.is_ascii_punctuation() => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    // A label that begins as a numbered list is refused.
    let digits = out.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 && out[digits..].starts_with(". ") {
        out.replace_range(digits..=digits, "#46;");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_mermaid_would_read_goes_by_number() {
        assert_eq!(escape("org/a-7B.v1"), "org/a-7B.v1");
        assert_eq!(
            escape("say \"hi\" <b>&amp;#1;"),
            "say #34;hi#34; #60;b#62;#38;amp#59;#35;1#59;"
        );
        assert_eq!(escape("1. list"), "1#46; list");
        assert_eq!(escape("- item"), "#45; item");
        assert_eq!(escape("`a_b`*"), "#96;a#95;b#96;#42;");
        assert_eq!(escape("a\nb🦙"), "a b🦙");
    }
}
