//! Bars, for histograms.

use std::fmt::Write as _;

use super::draw::Frame;
use super::escape;
use super::line::SIZE;
use super::scale::Scale;

/// A row of bars, each with its label below.
///
/// ```
/// use posttrain_train::watch::chart::Bars;
/// let bars = Bars {
///     title: "Lengths".into(),
///     across: "tokens".into(),
///     bars: vec![("0–63".into(), 12.0), ("64–127".into(), 30.0)],
/// };
/// assert!(bars.to_svg().contains("64–127: 30"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// What the labels are.
    pub across: String,
    /// Label and height; heights that are negative or not finite are drawn as 0.
    pub bars: Vec<(String, f64)>,
}

impl Bars {
    /// A picture that stands alone.
    pub fn to_svg(&self) -> String {
        let frame = Frame::new(SIZE);
        let mut out = String::new();
        let most = self.bars.iter().map(|bar| bar.1).filter(|y| y.is_finite()).fold(0.0, f64::max);
        let scale = Scale { low: 0.0, high: if most > 0.0 { most } else { 1.0 }, log: false };
        let counts = self.bars.iter().all(|bar| bar.1.fract() == 0.0);
        let ticks = if counts { scale.whole_ticks(4) } else { scale.ticks(4) }.into_iter();
        let ticks: Vec<_> = ticks.map(|(value, label)| (scale.place(value), label)).collect();
        let share = 1.0 / self.bars.len().max(1) as f64;
        // Every label has about 60 units of room.
        let every = self.bars.len().div_ceil(9).max(1);
        let labels: Vec<_> = self
            .bars
            .iter()
            .enumerate()
            .step_by(every)
            .map(|(i, (label, _))| ((i as f64 + 0.5) * share, label.clone()))
            .collect();
        frame.axes(&mut out, &ticks, &labels, &self.across);
        for (i, (label, value)) in self.bars.iter().enumerate() {
            let height = if value.is_finite() { value.max(0.0) } else { 0.0 };
            let left = frame.across((i as f64 + 0.08) * share);
            let right = frame.across((i as f64 + 0.92) * share);
            let top = frame.up(scale.place(height));
            _ = write!(
                out,
                r#"<rect class="bar" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"><title>{}: {value}</title></rect>"#,
                right - left,
                frame.bottom - top,
                escape(label)
            );
        }
        frame.standalone(&self.title, &out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two bars, each 84 % of half of the 574 units between 52 and 626; the first half as high as the
    /// second, which fills the 218 units between 12 and 230.
    #[test]
    fn places() {
        let bars = Bars {
            title: "t".into(),
            across: "x".into(),
            bars: vec![("a".into(), 2.0), ("<b>".into(), 4.0)],
        };
        let svg = bars.to_svg();
        assert!(svg.contains(r#"x="75.0" y="121.0" width="241.1" height="109.0""#), "{svg}");
        assert!(
            svg.contains(r#"y="12.0" width="241.1" height="218.0"><title>&lt;b&gt;: 4<"#),
            "{svg}"
        );
    }

    #[test]
    fn none_and_nothing() {
        let empty = Bars { title: String::new(), across: String::new(), bars: vec![] };
        assert!(empty.to_svg().ends_with("</svg>"));
        let zero = Bars { bars: vec![("a".into(), 0.0), ("b".into(), f64::NAN)], ..empty };
        assert_eq!(zero.to_svg().matches(r#"height="0.0""#).count(), 2);
    }
}
