//! Words, numbers and colours that the drawings have in common.

use super::{Basis, Edge, Tree};

/// A tree with what the drawings say of it.
pub(super) struct Drawn<'a> {
    pub(super) tree: &'a Tree,
    pub(super) shares: Vec<Vec<(usize, f64)>>,
    /// Whether a node's shares rest on equal ones that nothing tells.
    estimated: Vec<bool>,
}

impl<'a> Drawn<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        let mut estimated = vec![false; tree.nodes.len()];
        for &node in tree.order() {
            let mut parents = tree.parents(node).filter(|edge| edge.share.is_some());
            estimated[node] = tree.nodes[node].basis == Basis::Equal
                || parents.any(|edge| estimated[edge.parent]);
        }
        Self { tree, shares: tree.shares(), estimated }
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.tree.nodes[node].name
    }

    /// A node's roots with their shares, largest first.
    pub(super) fn roots(&self, node: usize) -> Vec<(usize, f64)> {
        self.tree.roots(&self.shares[node]).collect()
    }

    /// A share of `node`, with `~` if it rests on shares that nothing tells.
    pub(super) fn percent(&self, node: usize, share: f64) -> String {
        format!("{}{}", if self.estimated[node] { "~" } else { "" }, percent(share))
    }

    /// `ties 0.5`.
    pub(super) fn method(edge: &Edge) -> String {
        match edge.weight {
            Some(weight) => format!("{} {}", edge.method, number(weight)),
            None => edge.method.clone(),
        }
    }

    /// `ties 0.5 · 50%`.
    pub(super) fn edge(&self, edge: &Edge) -> String {
        let method = Self::method(edge);
        let share = edge.share.map(|share| self.edge_percent(edge, share));
        share.map_or_else(|| method.clone(), |share| format!("{method} · {share}"))
    }

    /// The share of an edge; what is above the parent has no part in it.
    pub(super) fn edge_percent(&self, edge: &Edge, share: f64) -> String {
        let equal = self.tree.nodes[edge.child].basis == Basis::Equal;
        format!("{}{}", if equal { "~" } else { "" }, percent(share))
    }

    /// `merge · 0f3a5b7c`.
    pub(super) fn kind(&self, node: usize) -> String {
        let node = &self.tree.nodes[node];
        match node.content {
            Some(content) => format!("{} · {}", node.kind, &content.to_hex()[..8]),
            None => node.kind.to_string(),
        }
    }
}

/// A share with at most one decimal.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.05 {
        return "<0.1%".to_owned();
    }
    let text = format!("{percent:.1}");
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}

/// A weight with at most four decimals.
pub(super) fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-4 {
        return format!("{value:e}");
    }
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Colours that are told apart, also by most colour-blind people, on light and dark ground; then more by hue.
pub(super) fn colour(place: usize) -> String {
    const FIRST: [&str; 8] =
        ["#4c8bd6", "#e69f00", "#2aa583", "#d1609f", "#d55e00", "#8a6fd1", "#8c9a2e", "#56b4e9"];
    if let Some(colour) = FIRST.get(place) {
        return (*colour).to_owned();
    }
    // Hues a golden angle apart, with saturation 0.5 and lightness 0.55: c is half the chroma.
    let hue = place as f64 * 137.507_764 % 360.0 / 60.0;
    let channel = |shift: f64| {
        let k = (hue + shift) % 6.0;
        let ramp = (k.min(4.0 - k)).clamp(0.0, 1.0);
        ((0.775 - 0.45 * ramp) * 255.0).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(5.0), channel(3.0), channel(1.0))
}
