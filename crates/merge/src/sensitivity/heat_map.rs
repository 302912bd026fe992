//! A heat map, layer by kind of module, as SVG whose colours are the page's.

use std::fmt::Write as _;

use super::measures::Measures;
use super::style::STEPS;
use super::{Part, Sensitivity};
use crate::markup::escape;

const ROW: f64 = 20.0;
const TOP: f64 = 6.0;
/// Width of a character of a label.
const CHARACTER: f64 = 6.3;
/// The width that the layers of a stack share.
const WIDTH: f64 = 460.0;
/// Between the layers and what is outside of them.
const GAP: f64 = 8.0;
const TICKS: usize = 16;

/// How values become colours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// From the smallest to the largest positive value, by their logarithms if these are far apart.
    Sequential { low: f64, high: f64 },
    /// From the one end over a middle to the other.
    Diverging { low: f64, middle: f64, high: f64 },
}

impl Scale {
    /// For all positive values.
    pub(super) fn sequential(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Self::Sequential { low: 0.0, high: 1.0 };
        }
        Self::Sequential { low: if high / low > 10.0 { low } else { 0.0 }, high }
    }

    /// The class of a colour: `s3`, `d12`, `zero`.
    fn class(self, value: f64) -> String {
        let t = match self {
            Self::Sequential { .. } if value == 0.0 => return "zero".to_owned(),
            Self::Sequential { low, high } if low > 0.0 => (value / low).ln() / (high / low).ln(),
            Self::Sequential { high, .. } => value / high,
            Self::Diverging { low, middle, .. } if (value < middle) == (low < middle) => {
                0.5 - 0.5 * (value - middle) / (low - middle)
            }
            Self::Diverging { middle, high, .. } => 0.5 + 0.5 * (value - middle) / (high - middle),
        };
        let step = (t.clamp(0.0, 1.0) * (STEPS - 1) as f64).round() as usize;
        let ramp = if matches!(self, Self::Sequential { .. }) { 's' } else { 'd' };
        format!("{ramp}{step}")
    }

    /// The colours with the values at the ends and in the middle.
    pub(super) fn legend(self, show: fn(f64) -> String, words: [&str; 3]) -> String {
        let (ramp, values) = match self {
            Self::Sequential { low, high } if low > 0.0 => ('s', [low, (low * high).sqrt(), high]),
            Self::Sequential { low, high } => ('s', [low, f64::midpoint(low, high), high]),
            Self::Diverging { low, middle, high } => ('d', [low, middle, high]),
        };
        let mut svg =
            "<svg width=\"420\" height=\"34\" role=\"img\"><title>Legend</title>".to_owned();
        for step in 0..STEPS {
            let x = 10 + step * 400 / STEPS;
            let _ = write!(
                svg,
                "<rect class=\"{ramp}{step}\" x=\"{x}\" y=\"2\" width=\"{}\" height=\"12\"/>",
                400 / STEPS + 1
            );
        }
        let places = [(10, "start"), (210, "middle"), (410, "end")];
        for (((x, anchor), value), word) in places.iter().zip(values).zip(words) {
            let text = escape(format!("{} {word}", show(value)).trim());
            let _ = write!(svg, "<text x=\"{x}\" y=\"28\" text-anchor=\"{anchor}\">{text}</text>");
        }
        svg.push_str("</svg>");
        svg
    }
}

/// What a map shows of each cell.
pub(super) struct Map<'a> {
    pub(super) title: String,
    pub(super) scale: Scale,
    pub(super) value: &'a dyn Fn(&Measures) -> Option<f64>,
    pub(super) show: fn(f64) -> String,
}

impl Map<'_> {
    /// One map for each stack of layers; what is outside of them below the first.
    pub(super) fn figures(&self, of: &Sensitivity) -> String {
        let mut stacks: Vec<Option<&String>> = Vec::new();
        for part in &of.cells {
            if part.stack.is_some() && !stacks.contains(&part.stack.as_ref()) {
                stacks.push(part.stack.as_ref());
            }
        }
        // The one with the most cells, usually the language model's, comes first.
        let size = |stack: Option<&String>| {
            of.cells.iter().filter(|part| part.stack.as_ref() == stack).count()
        };
        stacks.sort_by_key(|stack| std::cmp::Reverse(size(*stack)));
        let several = stacks.len() > 1;
        let outside: Vec<&Part> = of.cells.iter().filter(|part| part.stack.is_none()).collect();
        if stacks.is_empty() {
            stacks.push(None);
        }
        let mut out = String::new();
        for (index, stack) in stacks.into_iter().enumerate() {
            let cells: Vec<&Part> = of
                .cells
                .iter()
                .filter(|part| part.stack.is_some() && part.stack.as_ref() == stack)
                .collect();
            let title = match stack {
                Some(stack) if several => format!("{} · {stack}", self.title),
                _ => self.title.clone(),
            };
            let below = if index == 0 { &outside[..] } else { &[] };
            let _ = write!(
                out,
                "<figure><h3>{}</h3>{}</figure>",
                escape(&title),
                self.svg(&title, &cells, below)
            );
        }
        out
    }

    fn svg(&self, title: &str, cells: &[&Part], outside: &[&Part]) -> String {
        let mut kinds: Vec<&str> = Vec::new();
        let mut layers: Vec<usize> = Vec::new();
        for part in cells {
            let kind = part.kind.as_deref().unwrap_or_default();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
            layers.extend(part.layer.filter(|layer| !layers.contains(layer)));
        }
        layers.sort_unstable();
        let names = kinds.iter().copied().chain(outside.iter().filter_map(|p| p.kind.as_deref()));
        let longest = names.map(|name| name.chars().count().min(40)).max().unwrap_or(0);
        let left = longest as f64 * CHARACTER + 12.0;
        let cell = (WIDTH / layers.len().max(1) as f64).clamp(6.0, 34.0);
        let axis = if layers.is_empty() { 0.0 } else { 22.0 + GAP };
        let below = TOP + kinds.len() as f64 * ROW + axis;
        let height = below + outside.len() as f64 * ROW + 4.0;
        let width = left + (cell * layers.len() as f64).max(110.0) + 12.0;
        let mut svg = format!(
            "<svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             aria-label=\"{}\">",
            escape(title)
        );
        let label = |svg: &mut String, y: f64, name: &str| {
            let cut: String = name.chars().take(40).collect();
            let _ = write!(
                svg,
                "<text class=\"label\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + ROW * 0.5 + 4.0,
                escape(&cut)
            );
        };
        for (row, kind) in kinds.iter().enumerate() {
            label(&mut svg, TOP + row as f64 * ROW, kind);
        }
        for part in cells {
            let row = kinds.iter().position(|kind| Some(*kind) == part.kind.as_deref());
            let column = part.layer.and_then(|layer| layers.iter().position(|l| *l == layer));
            let (Some(row), Some(column)) = (row, column) else { continue };
            self.cell(&mut svg, part, left + column as f64 * cell, TOP + row as f64 * ROW, cell);
        }
        let every = layers.len().div_ceil(TICKS).max(1);
        let axis = TOP + kinds.len() as f64 * ROW + 13.0;
        for (column, layer) in layers.iter().enumerate().step_by(every) {
            let x = left + (column as f64 + 0.5) * cell;
            let _ = write!(
                svg,
                "<text x=\"{x:.1}\" y=\"{axis:.1}\" text-anchor=\"middle\">{layer}</text>"
            );
        }
        for (row, part) in outside.iter().enumerate() {
            let y = below + row as f64 * ROW;
            label(&mut svg, y, part.kind.as_deref().unwrap_or_default());
            self.cell(&mut svg, part, left, y, 34.0);
            let text = (self.value)(&part.measures).map_or_else(|| "–".to_owned(), self.show);
            let _ = write!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.1}\">{}</text>",
                left + 42.0,
                y + ROW * 0.5 + 4.0,
                escape(&text)
            );
        }
        svg.push_str("</svg>");
        svg
    }

    fn cell(&self, svg: &mut String, part: &Part, x: f64, y: f64, width: f64) {
        let value = (self.value)(&part.measures);
        let class = value.map_or_else(|| "none".to_owned(), |value| self.scale.class(value));
        let text = value.map_or_else(|| "does not exist".to_owned(), self.show);
        let inset = if class == "zero" { 1.5 } else { 0.0 };
        let _ = write!(
            svg,
            "<rect class=\"cell {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: {}</title></rect>",
            x + inset,
            y + inset,
            width - 2.0 * inset,
            ROW - 2.0 * inset,
            escape(&part.label()),
            escape(&text)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_by_hand() {
        let scale = Scale::sequential([0.0, 0.01, 1.0].into_iter());
        let classes = [0.0, 0.01, 0.1, 1.0].map(|value| scale.class(value));
        assert_eq!(classes, ["zero", "s0", "s6", "s12"]);
        let scale = Scale::sequential([0.5, 1.0].into_iter());
        assert_eq!(scale.class(0.5), "s6");
        let scale = Scale::Diverging { low: 1.0, middle: 0.0, high: -1.0 };
        assert_eq!(
            [1.0, 0.0, -1.0, 0.5].map(|value| scale.class(value)),
            ["d0", "d6", "d12", "d3"]
        );
        let scale = Scale::Diverging { low: 0.0, middle: 0.75, high: 1.0 };
        assert_eq!([0.0, 0.75, 1.0].map(|value| scale.class(value)), ["d0", "d6", "d12"]);
    }
}
