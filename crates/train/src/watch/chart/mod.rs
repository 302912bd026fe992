//! Charts as SVG: lines over a number, and bars. Knows nothing of training.
//!
//! [`Chart::to_svg`] and [`Bars::to_svg`] stand alone, as a file or on a page. [`Chart::to_html`] is a figure with
//! a legend, a switch to a logarithmic scale and the numbers under the pointer; a page has [`STYLE`] and
//! [`SCRIPT`] once for all its figures. Both follow the reader's choice of light or dark.

mod bars;
mod draw;
mod line;
mod scale;

pub use bars::Bars;
pub use line::{Chart, Look, Mark, Series};

/// What figures look like; for a `<style>` element.
pub const STYLE: &str = concat!(include_str!("plot.css"), include_str!("figure.css"));

/// What pictures that stand alone look like.
const PLOT_STYLE: &str = include_str!("plot.css");

/// What figures do under a pointer; for a `<script>` element at the end of the body.
pub const SCRIPT: &str = include_str!("chart.js");

/// Text for HTML and SVG, also inside attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}
