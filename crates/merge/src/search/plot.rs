//! The best score so far by trial, as one SVG without anything from elsewhere.

use std::fmt::Write as _;

use super::report::short;
use super::run::Search;
use super::store::State;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 360.0;

impl Search {
    /// Every trial as a dot, failed ones as crosses on the axis, the best so far as a line and the
    /// score of the start as a dashed one.
    pub fn to_svg(&self) -> String {
        let scored: Vec<(usize, f64)> =
            self.trials().filter_map(|record| Some((record.number, record.score?))).collect();
        let last = self.trials().last().map_or(1, |record| record.number.max(1));
        let (low, high) = range(&scored);
        let x = |number: usize| LEFT + (RIGHT - LEFT) * number as f64 / last as f64;
        let y = |score: f64| BOTTOM - (BOTTOM - TOP) * (score - low) / (high - low);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<title>Best score so far by \
             trial</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let mut draw = |line: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(svg, "{line}");
        };
        for tick in ticks(low, high) {
            let y = y(tick);
            draw(format!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>"));
            draw(text(LEFT - 8.0, y + 4.0, "end", &short(tick)));
        }
        for tick in ticks(0.0, last as f64).into_iter().filter(|tick| tick.fract() == 0.0) {
            let x = x(tick as usize);
            draw(format!("<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"black\"/>"));
            draw(text(x, BOTTOM + 20.0, "middle", &short(tick)));
        }
        draw(format!(
            "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"black\"/>"
        ));
        draw(text(f64::midpoint(LEFT, RIGHT), BOTTOM + 44.0, "middle", "trial"));
        let middle = f64::midpoint(TOP, BOTTOM);
        draw(format!(
            "<text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">score</text>"
        ));
        if let Some((_, start)) = scored.iter().find(|(number, _)| *number == 0) {
            let y = y(*start);
            draw(format!(
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#888\" stroke-dasharray=\"6 4\"/>"
            ));
            draw(text(RIGHT, y - 5.0, "end", &format!("start {}", short(*start))));
        }
        for (number, score) in &scored {
            draw(format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"#4c78a8\" fill-opacity=\"0.5\"/>",
                x(*number),
                y(*score)
            ));
        }
        for record in self.trials().filter(|record| record.state == State::Failed) {
            let (x, y) = (x(record.number) - 3.0, BOTTOM - 3.0);
            draw(format!("<path d=\"M{x:.1} {y:.1}l6 6m0 -6l-6 6\" stroke=\"#d62728\"/>"));
        }
        if let Some((first, score)) = scored.first() {
            let mut best = *score;
            let mut line = format!("M{:.1} {:.1}", x(*first), y(best));
            for (number, score) in &scored {
                if *score > best {
                    best = *score;
                    let _ = write!(line, "H{:.1}V{:.1}", x(*number), y(best));
                }
            }
            let _ = write!(line, "H{:.1}", x(last));
            draw(format!(
                "<path d=\"{line}\" fill=\"none\" stroke=\"#e45756\" stroke-width=\"2\"/>"
            ));
            draw(text(LEFT, TOP - 20.0, "start", &format!("best so far: {}", short(best))));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>")
}

/// Of the scores, with some air; a range of one for one score or none.
fn range(scored: &[(usize, f64)]) -> (f64, f64) {
    let low = scored.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    let high = scored.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    let air = (high - low) * 0.05;
    if scored.is_empty() {
        (0.0, 1.0)
    } else if air > 0.0 && air.is_finite() {
        (low - air, high + air)
    } else {
        let half = low.abs().max(1.0) * 0.5;
        (low - half, high + half)
    }
}

/// Round numbers from `low` to `high`, four to ten of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|by| by * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil();
    (0..20).map(|i| (first + f64::from(i)) * step).take_while(|tick| *tick <= high).collect()
}
