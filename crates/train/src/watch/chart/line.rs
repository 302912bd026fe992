//! Lines over a number.

use std::fmt::Write as _;

use super::draw::Frame;
use super::escape;
use super::scale::{Scale, Tick};

/// Columns into which a line is thinned out; each keeps its extremes, so no peak is lost.
const COLUMNS: f64 = 400.0;

/// Width and height of half a page.
pub(super) const SIZE: (f64, f64) = (640.0, 270.0);

/// A chart of lines.
///
/// Points that are not finite cannot be drawn; the chart says how many there are.
///
/// ```
/// use posttrain_train::watch::chart::{Chart, Series};
/// let squares = (0..10).map(|x| (f64::from(x), f64::from(x * x))).collect();
/// let chart = Chart::new("Squares", "x").with(Series::line("x²", 1, squares));
/// assert!(chart.to_svg().starts_with("<svg"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What the horizontal axis counts.
    pub across: String,
    /// The lines, the first at the back.
    pub series: Vec<Series>,
    /// Places that deserve attention.
    pub marks: Vec<Mark>,
    /// Width and height in units of which a letter has 11.
    pub size: (f64, f64),
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// A colour of the palette, from 1 to 6.
    pub color: u8,
    /// How it is drawn.
    pub look: Look,
    /// `(x, y)` by rising `x`.
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A line.
    Line,
    /// A thin pale line, to lie behind its smoothed form.
    Faint,
    /// A line with a dot at each point, for few points.
    Dots,
}

/// A vertical line at a place that deserves attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// Why; shown under the pointer.
    pub text: String,
}

impl Series {
    /// A series as a plain line.
    pub fn line(name: impl Into<String>, color: u8, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), color, look: Look::Line, points }
    }

    /// The same with another look.
    #[must_use]
    pub fn looking(self, look: Look) -> Self {
        Self { look, ..self }
    }
}

impl Chart {
    /// Without lines.
    pub fn new(title: impl Into<String>, across: impl Into<String>) -> Self {
        let (title, across) = (title.into(), across.into());
        Self { title, across, series: Vec::new(), marks: Vec::new(), size: SIZE }
    }

    /// With one more line.
    #[must_use]
    pub fn with(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// A picture that stands alone, on a linear scale.
    pub fn to_svg(&self) -> String {
        let inner = self.scales(false).map_or(NOTHING.into(), |(x, y)| self.inner(x, y));
        Frame::new(self.size).standalone(&self.title, &inner)
    }

    /// A figure for a page that has [`STYLE`](super::STYLE) and [`SCRIPT`](super::SCRIPT). `id` is its own on
    /// the page: letters, digits and hyphens.
    pub fn to_html(&self, id: &str) -> String {
        let Frame { width, height, left, right, top, bottom } = Frame::new(self.size);
        let mut out = String::new();
        let title = escape(&self.title);
        let positive = self.values().all(|y| y > 0.0 || !y.is_finite());
        let log = if positive { self.scales(true) } else { None };
        _ = write!(
            out,
            r#"<figure class="chart" id="{id}" data-across="{}" data-series="{}">"#,
            escape(&self.across),
            escape(&self.data())
        );
        if log.is_some() {
            _ = write!(
                out,
                r#"<label for="{id}-log">log scale</label><input type="checkbox" id="{id}-log">"#
            );
        }
        _ = write!(out, "<figcaption>{title}</figcaption>{}", self.legend());
        let views = [("linear", self.scales(false)), ("log", log)];
        for (class, scales) in views {
            let Some((x, y)) = scales else { continue };
            _ = write!(
                out,
                r#"<svg class="plot {class}" viewBox="0 0 {width} {height}" role="img" aria-label="{title}" data-frame="[{left},{right},{top},{bottom}]" data-x="[{},{}]" data-y="[{},{}]">{}</svg>"#,
                short(x.low),
                short(x.high),
                short(y.low),
                short(y.high),
                self.inner(x, y)
            );
        }
        if self.scales(false).is_none() {
            _ = write!(out, r#"<svg class="plot" viewBox="0 0 {width} {height}">{NOTHING}</svg>"#);
        }
        let missing = self.values().filter(|y| !y.is_finite()).count();
        if missing > 0 {
            _ = write!(
                out,
                r#"<p class="missing">{missing} values are not finite and not drawn</p>"#
            );
        }
        out.push_str("</figure>");
        out
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.series.iter().flat_map(|series| series.points.iter().map(|point| point.1))
    }

    fn scales(&self, log: bool) -> Option<(Scale, Scale)> {
        let xs = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        Some((Scale::around(xs, 0.0, false)?, Scale::around(self.values(), 0.05, log)?))
    }

    fn inner(&self, x: Scale, y: Scale) -> String {
        let mut out = String::new();
        let place = |scale: Scale, ticks: Vec<Tick>| -> Vec<Tick> {
            ticks.into_iter().map(|(value, label)| (scale.place(value), label)).collect()
        };
        let frame = Frame::new(self.size);
        let wanted = (frame.width / 90.0) as u32;
        let counted =
            self.series.iter().flat_map(|s| &s.points).all(|point| point.0.fract() == 0.0);
        let across = if counted { x.whole_ticks(wanted) } else { x.ticks(wanted) };
        frame.axes(&mut out, &place(y, y.ticks(5)), &place(x, across), &self.across);
        for Mark { x: at, text } in &self.marks {
            let share = x.place(*at);
            if (0.0..=1.0).contains(&share) {
                let (at, text) = (frame.across(share), escape(text));
                _ = write!(
                    out,
                    r#"<g class="mark"><title>{text}</title><path d="M{at:.1} {}V{}"/></g>"#,
                    frame.top, frame.bottom
                );
            }
        }
        for series in &self.series {
            series.draw(&mut out, frame, x, y);
        }
        out
    }

    fn legend(&self) -> String {
        let mut out = String::from(r#"<p class="legend">"#);
        for series in &self.series {
            let (class, name) = (series.class(), escape(&series.name));
            _ = write!(out, r#"<span class="{class}"><i></i>{name}</span>"#);
        }
        out.push_str("</p>");
        out
    }

    /// The points as they are drawn, for the script: `[{"name":..,"color":..,"x":[..],"y":[..]}]`.
    fn data(&self) -> String {
        let mut out = String::from("[");
        for (i, series) in self.series.iter().enumerate() {
            let points = thinned(&series.points);
            let list = |number: fn(&(f64, f64)) -> f64| {
                let numbers: Vec<String> = points.iter().map(|p| short(number(p))).collect();
                numbers.join(",")
            };
            let comma = if i > 0 { "," } else { "" };
            let name = series
                .name
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace(char::is_control, " ");
            _ = write!(
                out,
                r#"{comma}{{"name":"{name}","color":{},"x":[{}],"y":[{}]}}"#,
                series.color,
                list(|point| point.0),
                list(|point| point.1)
            );
        }
        out.push(']');
        out
    }
}

const NOTHING: &str = r#"<text x="320" y="130" text-anchor="middle">nothing to show yet</text>"#;

impl Series {
    fn class(&self) -> String {
        let look = match self.look {
            Look::Line => "line",
            Look::Faint => "faint",
            Look::Dots => "dots",
        };
        format!("{look} c{}", self.color)
    }

    fn draw(&self, out: &mut String, frame: Frame, x: Scale, y: Scale) {
        let points: Vec<(f64, f64)> = thinned(&self.points)
            .into_iter()
            .map(|point| (frame.across(x.place(point.0)), frame.up(y.place(point.1))))
            .collect();
        let class = self.class();
        _ = write!(out, r#"<g class="{class}"><path d=""#);
        for (i, (x, y)) in points.iter().enumerate() {
            _ = write!(out, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
        }
        out.push_str(r#""/>"#);
        if self.look == Look::Dots || points.len() == 1 {
            for (x, y) in &points {
                _ = write!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.6"/>"#);
            }
        }
        out.push_str("</g>");
    }
}

/// The finite points; of many the first, the last, and the lowest and highest of each column of the picture.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
    let points: Vec<(f64, f64)> = points.iter().filter(finite).copied().collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return points };
    if points.len() as f64 <= 2.0 * COLUMNS {
        return points;
    }
    let column = |x: f64| ((x - first.0) / (last.0 - first.0) * COLUMNS) as i64;
    let mut kept = vec![*first];
    for group in points[1..points.len() - 1].chunk_by(|a, b| column(a.0) == column(b.0)) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(low), Some(high)) =
            (group.iter().min_by(by_height), group.iter().max_by(by_height))
        else {
            continue;
        };
        match low.0.total_cmp(&high.0) {
            std::cmp::Ordering::Less => kept.extend([*low, *high]),
            std::cmp::Ordering::Equal => kept.push(*low),
            std::cmp::Ordering::Greater => kept.extend([*high, *low]),
        }
    }
    kept.push(*last);
    kept
}

/// Six significant digits, as JSON.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    let (plain, exponential) = (rounded.to_string(), format!("{rounded:e}"));
    if exponential.len() < plain.len() { exponential } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: x from 0 to 10 lies between 52 and 626, y from 0 to 1 with a margin of 5 % above (an axis of
    /// numbers that are not negative starts at 0) between 230 and 12.
    #[test]
    fn places() {
        let chart = Chart::new("t", "x").with(Series::line("a", 2, vec![(0.0, 0.0), (10.0, 1.0)]));
        let top = 230.0 - 218.0 / 1.05;
        let path = format!(r#"<g class="line c2"><path d="M52.0 230.0L626.0 {top:.1}"/></g>"#);
        assert!(chart.to_svg().contains(&path), "{}", chart.to_svg());
    }

    #[test]
    fn thinning_keeps_ends_and_peaks() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[31_337].1 = 9.0;
        points[77_000].1 = -3.0;
        points[50_000].1 = f64::NAN;
        let kept = thinned(&points);
        assert!(kept.len() <= 2 * 401 + 2, "{}", kept.len());
        assert_eq!((kept[0].0, kept[kept.len() - 1].0), (0.0, 99_999.0));
        assert!(kept.contains(&(31_337.0, 9.0)) && kept.contains(&(77_000.0, -3.0)));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        let few = [(0.0, 1.0), (1.0, f64::INFINITY), (2.0, 2.0)];
        assert_eq!(thinned(&few), [(0.0, 1.0), (2.0, 2.0)]);
    }

    #[test]
    fn numbers_for_the_script() {
        assert_eq!(short(1.0 / 3.0), "0.333333");
        assert_eq!(short(2e-5), "2e-5");
        assert_eq!(short(123_456_789.0), "123457000");
        assert_eq!(short(-0.5), "-0.5");
    }

    #[test]
    fn the_log_switch_is_there_when_all_is_positive() {
        let chart = |points| Chart::new("t", "x").with(Series::line("a", 1, points)).to_html("c");
        assert!(chart(vec![(1.0, 0.1), (2.0, 10.0)]).contains(r#"<svg class="plot log""#));
        assert!(!chart(vec![(1.0, 0.0), (2.0, 10.0)]).contains("log"));
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let chart =
            |points| Chart::new("<t>", "x").with(Series::line("\"a\"", 1, points)).to_html("c");
        let none = chart(vec![]);
        assert!(none.contains("nothing to show yet") && none.contains("&lt;t&gt;"), "{none}");
        assert!(chart(vec![(1.0, f64::NAN), (2.0, 1.0)]).contains("1 values are not finite"));
        // JSON inside an attribute.
        assert!(none.contains(r"&quot;name&quot;:&quot;\&quot;a\&quot;&quot;"), "{none}");
    }
}
