//! The tree as text.

use std::fmt::Write as _;

use super::Tree;
use super::style::Drawn;

/// The tree as text: each model without children, with its parents below it, and theirs. The share before a parent
/// is its part of the model above it; `~` marks shares that nothing tells. The models that a line repeats are left out with
/// `(above)`.
pub fn text(tree: &Tree) -> String {
    let drawn = Drawn::new(tree);
    let mut out = String::new();
    let mut seen = vec![false; tree.nodes.len()];
    for node in 0..tree.nodes.len() {
        if tree.children(node).next().is_none() {
            let _ = writeln!(out, "{}", line(&drawn, node));
            parents(&drawn, node, "", &mut seen, &mut out);
        }
    }
    out
}

fn parents(drawn: &Drawn<'_>, node: usize, indent: &str, seen: &mut [bool], out: &mut String) {
    seen[node] = true;
    let edges: Vec<_> = drawn.tree.parents(node).collect();
    for (place, edge) in edges.iter().enumerate() {
        let last = place + 1 == edges.len();
        let (branch, below) = if last { ("└─", "   ") } else { ("├─", "│  ") };
        let share = edge.share.map(|share| drawn.edge_percent(edge, share));
        let share = share.unwrap_or_else(|| "with".to_owned());
        let method = Drawn::method(edge);
        let repeated = seen[edge.parent] && drawn.tree.parents(edge.parent).next().is_some();
        let (name, above) = if repeated {
            (plain(drawn.name(edge.parent)), " (above)")
        } else {
            (line(drawn, edge.parent), "")
        };
        let _ =
            writeln!(out, "{indent}{branch} {share:>6}  {name}  [{method}, {}]{above}", edge.link);
        if !repeated {
            parents(drawn, edge.parent, &format!("{indent}{below}"), seen, out);
        }
    }
}

/// Name, kind and the shares of the roots.
fn line(drawn: &Drawn<'_>, node: usize) -> String {
    let mut line = format!("{} ({})", plain(drawn.name(node)), drawn.kind(node));
    let roots: Vec<String> = drawn
        .roots(node)
        .iter()
        .map(|(root, share)| {
            format!("{} {}", drawn.percent(node, *share), plain(drawn.name(*root)))
        })
        .collect();
    if !roots.is_empty() {
        let _ = write!(line, " = {}", roots.join(" + "));
    }
    line
}

/// A name without what a terminal would obey.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
