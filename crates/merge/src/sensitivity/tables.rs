//! The tables of the page.

use std::fmt::Write as _;

use super::measures::{Measures, OfModel, Signs};
use super::number::{cosine, count, percent, short};
use super::{Sensitivity, Tensor};
use crate::markup::escape;

/// Rows that are shown before the rest is folded.
const SHOWN: usize = 20;

/// A row: its cells, and how long the bar of each column that has one is, from 0 to 1.
struct Row {
    cells: Vec<String>,
    /// Column and length.
    bar: Option<(usize, f64)>,
}

fn table(headings: &[String], rows: &[Row]) -> String {
    let mut out = "<div class=\"table\"><table><thead><tr>".to_owned();
    for heading in headings {
        let _ = write!(out, "<th>{}</th>", escape(heading));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (column, cell) in row.cells.iter().enumerate() {
            let bar = row.bar.filter(|(at, _)| *at == column);
            let bar = bar.map_or_else(String::new, |(_, length)| {
                format!(" class=\"bar\" style=\"--w:{:.0}%\"", length.clamp(0.0, 1.0) * 88.0)
            });
            let _ = write!(out, "<td{bar}>{}</td>", escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// The first rows, and the others to unfold.
fn folded(headings: &[String], rows: &[Row]) -> String {
    let (first, rest) = rows.split_at(rows.len().min(SHOWN));
    let mut out = table(headings, first);
    if !rest.is_empty() {
        let _ = write!(
            out,
            "<details><summary>{} more</summary>{}</details>",
            rest.len(),
            table(headings, rest)
        );
    }
    out
}

fn or_none(value: Option<f64>, show: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), show)
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// The measures of each whole model.
pub(super) fn models(of: &Sensitivity) -> String {
    let with_base = of.base.is_some();
    let headings: Vec<String> = if with_base {
        strings([
            "model",
            "distance",
            "‖d‖",
            "norm ratio",
            "cos to base",
            "unchanged",
            "mean |d|",
            "max |d|",
            "top 10 %",
            "top 20 %",
            "stable rank",
        ])
    } else {
        strings(["model", "norm"])
    };
    let cells = |name: &str, model: &OfModel| {
        let mut cells = vec![name.to_owned()];
        if with_base {
            cells.extend([
                or_none(model.distance, short),
                or_none(model.delta, short),
                or_none(model.norm_ratio, short),
                or_none(model.cosine_to_base, cosine),
                or_none(model.unchanged, percent),
                or_none(model.mean_change, short),
                or_none(model.largest_change, short),
                or_none(model.top_tenth, percent),
                or_none(model.top_fifth, percent),
                or_none(model.stable_rank, short),
            ]);
        } else {
            cells.push(short(model.norm));
        }
        cells
    };
    let models = of.models.iter().zip(&of.overall.models);
    let rows: Vec<Row> =
        models.map(|(model, m)| Row { cells: cells(&model.name, m), bar: None }).collect();
    table(&headings, &rows)
}

/// The measures of each pair of whole models, and of all.
pub(super) fn pairs(of: &Sensitivity) -> String {
    let headings = strings([
        "models",
        "cosine",
        "distance",
        "both changed",
        "conflict",
        "by chance",
        "by size",
        "cancelled",
    ]);
    let signs = |signs: &Signs| {
        [
            percent(signs.shared),
            or_none(signs.conflict, percent),
            or_none(signs.chance, percent),
            or_none(signs.conflict_by_size, percent),
            or_none(signs.cancelled, percent),
        ]
    };
    let mut rows = Vec::new();
    for pair in &of.overall.pairs {
        let mut cells =
            vec![of.pair_name(pair), or_none(pair.cosine, cosine), or_none(pair.distance, short)];
        cells.extend(signs(&pair.signs));
        rows.push(Row { cells, bar: None });
    }
    if let Some(all) = of.overall.together.as_ref().filter(|_| of.overall.pairs.len() > 1) {
        let mut cells = strings(["all", "", ""]);
        cells.extend(signs(all));
        rows.push(Row { cells, bar: None });
    }
    if rows.is_empty() { String::new() } else { folded(&headings, &rows) }
}

/// What all tables of parts say of each.
fn part_headings(of: &Sensitivity, first: [&str; 2]) -> Vec<String> {
    let mut headings = strings(first);
    if of.base.is_some() {
        headings.extend(of.models.iter().map(|model| format!("distance {}", model.name)));
    } else {
        headings.push("largest distance".to_owned());
    }
    if of.models.len() > 1 {
        headings.extend(strings(["least cosine", "conflict", "by size", "cancelled"]));
    }
    if of.base.is_some() {
        headings.extend(strings(["top 20 %", "stable rank"]));
    }
    headings
}

fn part_cells(of: &Sensitivity, first: [String; 2], measures: &Measures) -> Vec<String> {
    let mut cells = first.to_vec();
    if of.base.is_some() {
        cells.extend(measures.models.iter().map(|model| or_none(model.distance, short)));
    } else {
        cells.push(or_none(measures.largest_distance(), short));
    }
    if let Some(signs) = &measures.together {
        let least = measures.pairs.iter().filter_map(|pair| pair.cosine).reduce(f64::min);
        cells.extend([
            or_none(least, cosine),
            or_none(signs.conflict, percent),
            or_none(signs.conflict_by_size, percent),
            or_none(signs.cancelled, percent),
        ]);
    }
    if of.base.is_some() {
        let least = measures.models.iter().filter_map(|model| model.top_fifth).reduce(f64::min);
        let most = measures.models.iter().filter_map(|model| model.stable_rank).reduce(f64::max);
        cells.extend([or_none(least, percent), or_none(most, short)]);
    }
    cells
}

/// Rows of parts, those with the largest distance first.
fn part_rows<'a>(
    of: &Sensitivity,
    parts: impl Iterator<Item = ([String; 2], &'a Measures)>,
) -> Vec<Row> {
    let mut parts: Vec<_> = parts.collect();
    let distance = |measures: &Measures| measures.largest_distance().unwrap_or(-1.0);
    parts.sort_by(|a, b| distance(b.1).total_cmp(&distance(a.1)));
    let largest = parts.first().map_or(0.0, |(_, measures)| distance(measures));
    parts
        .into_iter()
        .map(|(first, measures)| {
            let length = if largest > 0.0 { distance(measures) / largest } else { 0.0 };
            Row { cells: part_cells(of, first, measures), bar: Some((0, length)) }
        })
        .collect()
}

/// Each kind of module over all layers, the farthest first.
pub(super) fn kinds(of: &Sensitivity) -> String {
    let stacks: std::collections::BTreeSet<_> =
        of.kinds.iter().filter_map(|part| part.stack.as_ref()).collect();
    let name = |stack: Option<&String>, kind: &str| match stack {
        Some(stack) if stacks.len() > 1 => format!("{stack} {kind}"),
        _ => kind.to_owned(),
    };
    let rows = of.kinds.iter().map(|part| {
        let name = name(part.stack.as_ref(), part.kind.as_deref().unwrap_or_default());
        ([name, count(part.measures.elements)], &part.measures)
    });
    folded(&part_headings(of, ["kind of module", "parameters"]), &part_rows(of, rows))
}

/// Each layer, the farthest first.
pub(super) fn layers(of: &Sensitivity) -> String {
    let rows = of
        .layers
        .iter()
        .map(|part| ([part.label(), count(part.measures.elements)], &part.measures));
    let rows = part_rows(of, rows);
    if rows.is_empty() {
        return String::new();
    }
    folded(&part_headings(of, ["layer", "parameters"]), &rows)
}

/// Each tensor, the farthest first.
pub(super) fn tensors(of: &Sensitivity) -> String {
    let shape =
        |tensor: &Tensor| tensor.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ");
    let rows = of.tensors.iter().map(|t| ([t.name.clone(), shape(t)], &t.measures));
    folded(&part_headings(of, ["tensor", "shape"]), &part_rows(of, rows))
}

/// What was not compared, and why.
pub(super) fn left_out(of: &Sensitivity) -> String {
    let row = |(name, reason): (&String, &String)| Row {
        cells: vec![name.clone(), reason.clone()],
        bar: None,
    };
    let rows: Vec<Row> = of.left_out.iter().map(|left| row((&left.name, &left.reason))).collect();
    if rows.is_empty() { String::new() } else { folded(&strings(["tensor", "why"]), &rows) }
}
