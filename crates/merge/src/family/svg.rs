//! The tree as an SVG picture.

use std::fmt::Write as _;

use super::layout::{self, Graph, Level, PITCH, Rect};
use super::style::{self, Drawn};
use super::{Kind, Tree};
use crate::markup::escape;

/// Around the text of a box.
const PAD: f64 = 12.0;
const NAME: f64 = 14.0;
const SMALL: f64 = 11.0;
/// From one small line to the next.
const LEADING: f64 = 16.0;
/// The widest text of a box.
const WIDEST: f64 = 260.0;
/// How many roots a box names.
const ROOTS: usize = 5;

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:11px;fill:#4b5563}
.name{font-size:14px;font-weight:600;fill:#111827}
.ground{fill:#ffffff}.box{fill:#f8fafc;stroke:#cbd5e1;stroke-width:1}
.merge{stroke:#64748b;stroke-width:1.5}.unknown,.mention{stroke-dasharray:4 3}
.line{fill:none;stroke:#94a3b8;stroke-width:1.5}.uncounted{stroke-dasharray:5 4}.tip{fill:#94a3b8}
g.edge:hover .line{stroke:#2563eb;stroke-width:2.5}
@media (prefers-color-scheme:dark){text{fill:#a7b0bf}.name{fill:#f3f4f6}.ground{fill:#0f1319}
.box{fill:#1a202a;stroke:#3a4453}.merge{stroke:#8492a8}.line{stroke:#5b6779}.tip{fill:#5b6779}}
";

/// The tree as an SVG picture that needs nothing else, on a light or dark ground as the viewer prefers: columns from
/// left to right, the method, weight and share on each line, and in each box the shares of the roots. All of a model's
/// names, paths, hash and ancestors show when the pointer rests on it.
pub fn svg(tree: &Tree) -> String {
    let drawn = Drawn::new(tree);
    let colours = colours(tree);
    let labels: Vec<String> = tree.edges.iter().map(|edge| drawn.edge(edge)).collect();
    let label = |label: &String| width(label, SMALL) + 20.0;
    let ends = tree.edges.iter().zip(&labels);
    let graph = Graph {
        sizes: (0..tree.nodes.len()).map(|node| size(&drawn, node)).collect(),
        edges: ends.map(|(edge, text)| (edge.parent, edge.child, label(text))).collect(),
        order: tree.order().to_vec(),
    };
    let layout = layout::layout(&graph);
    let (w, h) = (layout.width.ceil(), layout.height.ceil());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">\n\
         <title>Family tree of {} models</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{w}\" height=\"{h}\"/>\n",
        tree.nodes.len()
    );
    for ((edge, text), line) in tree.edges.iter().zip(&labels).zip(&layout.lines) {
        let title = format!(
            "{} → {}: {text} ({})",
            drawn.name(edge.parent),
            drawn.name(edge.child),
            edge.link
        );
        let dashed = if edge.share.is_some() { "" } else { " uncounted" };
        let end = line[line.len() - 1];
        let (x, y) = (end.to, end.y);
        let _ = writeln!(
            out,
            "<g class=\"edge\"><title>{}</title><path class=\"line{dashed}\" d=\"{}\"/>\
             <path class=\"tip\" d=\"M{x:.1} {y:.1}l-7 -3.5v7z\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text></g>",
            escape(&title),
            path(line),
            x - 10.0,
            y - 5.0,
            escape(text)
        );
    }
    for (node, rect) in layout.boxes.iter().enumerate() {
        model(&drawn, &colours, node, *rect, &mut out);
    }
    out.push_str("</svg>\n");
    out
}

/// A colour for each root that has a share in a model.
fn colours(tree: &Tree) -> Vec<Option<String>> {
    let mut next = 0;
    let colour = |node: usize| {
        let counted = tree.is_root(node) && tree.children(node).any(|edge| edge.share.is_some());
        counted.then(|| {
            next += 1;
            style::colour(next - 1)
        })
    };
    (0..tree.nodes.len()).map(colour).collect()
}

/// The lines under a box's name: their root, if they are of one, and their text.
fn lines(drawn: &Drawn<'_>, node: usize) -> Vec<(Option<usize>, String)> {
    let roots = drawn.roots(node);
    let shown = if roots.len() > ROOTS { ROOTS - 1 } else { roots.len() };
    let line = |(root, share): &(usize, f64)| {
        (Some(*root), format!("{}  {}", drawn.percent(node, *share), drawn.name(*root)))
    };
    let mut lines: Vec<_> = roots[..shown].iter().map(line).collect();
    if shown < roots.len() {
        let rest = roots[shown..].iter().map(|(_, share)| share).sum();
        let count = roots.len() - shown;
        lines.push((None, format!("{}  {count} others", drawn.percent(node, rest))));
    }
    lines
}

fn size(drawn: &Drawn<'_>, node: usize) -> (f64, f64) {
    let lines = lines(drawn, node);
    let texts = lines.iter().map(|(_, text)| width(text, SMALL) + 15.0);
    let own = [width(drawn.name(node), NAME), width(&drawn.kind(node), SMALL)];
    let widest = texts.chain(own).fold(90.0, f64::max).min(WIDEST);
    let shares = if lines.is_empty() { 0.0 } else { 18.0 + lines.len() as f64 * LEADING };
    let arriving = drawn.tree.parents(node).count() as f64;
    (widest + 2.0 * PAD, (44.0 + shares + PAD - 4.0).max(arriving * PITCH + 6.0))
}

fn model(drawn: &Drawn<'_>, colours: &[Option<String>], node: usize, rect: Rect, out: &mut String) {
    let model = &drawn.tree.nodes[node];
    let class = match model.kind {
        Kind::Merge => " merge",
        Kind::Unknown => " unknown",
        _ => "",
    };
    let Rect { x, y, width: w, height: h } = rect;
    let _ = write!(
        out,
        "<g><title>{}</title><rect class=\"box{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" \
         height=\"{h:.1}\" rx=\"7\"/>",
        escape(&tooltip(drawn, node))
    );
    if let Some(colour) = &colours[node] {
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"4\" height=\"{:.1}\" rx=\"2\" fill=\"{colour}\"/>",
            x + 4.0,
            y + 7.0,
            h - 14.0
        );
    }
    let left = x + PAD + 2.0;
    let inner = w - 2.0 * PAD;
    let name = shortened(&model.name, NAME, inner);
    let kind = drawn.kind(node);
    let _ = write!(
        out,
        "<text class=\"name\" x=\"{left:.1}\" y=\"{:.1}\">{}</text><text x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
        y + 22.0,
        escape(&name),
        y + 38.0,
        escape(&kind)
    );
    let mut from = left;
    for (root, share) in drawn.roots(node) {
        let width = share * (inner - 4.0);
        let colour = colours[root].as_deref().unwrap_or("#888888");
        let title = format!("{}  {}", drawn.percent(node, share), drawn.name(root));
        let _ = write!(
            out,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"7\" fill=\"{colour}\"><title>{}</title></rect>",
            y + 47.0,
            escape(&title)
        );
        from += width;
    }
    for (place, (root, text)) in lines(drawn, node).iter().enumerate() {
        let at = y + 70.0 + place as f64 * LEADING;
        if let Some(colour) = root.and_then(|root| colours[root].as_ref()) {
            let _ = write!(
                out,
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" rx=\"2\" fill=\"{colour}\"/>",
                at - 8.0
            );
        }
        let text = shortened(text, SMALL, inner - 15.0);
        let _ =
            write!(out, "<text x=\"{:.1}\" y=\"{at:.1}\">{}</text>", left + 13.0, escape(&text));
    }
    out.push_str("</g>\n");
}

fn tooltip(drawn: &Drawn<'_>, node: usize) -> String {
    let model = &drawn.tree.nodes[node];
    let mut text = format!("{} ({})", model.name, model.kind);
    for path in &model.paths {
        let _ = write!(text, "\n{}", path.display());
    }
    if let Some(content) = model.content {
        let _ = write!(text, "\ncontent {}", content.to_hex());
    }
    for (ancestor, share) in &drawn.shares[node] {
        let _ = write!(text, "\n{}  {}", drawn.percent(node, *share), drawn.name(*ancestor));
    }
    text
}

/// Level pieces with turns between them.
fn path(line: &[Level]) -> String {
    let mut path = format!("M{:.1} {:.1}", line[0].from, line[0].y);
    for two in line.windows(2) {
        let (from, to) = (two[0], two[1]);
        let middle = f64::midpoint(from.to, to.from);
        let _ = write!(
            path,
            "H{:.1}C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}",
            from.to, from.y, to.y, to.from, to.y
        );
    }
    // Up to the arrow's tip.
    let _ = write!(path, "H{:.1}", line[line.len() - 1].to - 6.0);
    path
}

/// About as wide as `text` is in common fonts of `size`, rather more than less.
fn width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | ' ' | '!' => 0.34,
        'f' | 'r' | 't' | '-' | '(' | ')' | '/' => 0.44,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.98,
        'A'..='Z' | '&' => 0.74,
        c if c.is_ascii() => 0.64,
        '·' => 0.4,
        _ => 1.05,
    };
    // Names are bold.
    let weight = if size == NAME { 1.1 } else { 1.0 };
    text.chars().map(em).sum::<f64>() * size * weight
}

/// The text, or as much of its start and end as has room.
fn shortened(text: &str, size: f64, room: f64) -> String {
    // The room may have come from this width, so rounding is let through.
    let room = room + 0.01;
    if width(text, size) <= room {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    let mut kept = chars.len();
    loop {
        kept = kept.saturating_sub(1);
        let end = kept / 3;
        let short: String = chars[..kept - end].iter().collect();
        let short = short + "…" + &chars[chars.len() - end..].iter().collect::<String>();
        if kept == 0 || width(&short, size) <= room {
            return short;
        }
    }
}
