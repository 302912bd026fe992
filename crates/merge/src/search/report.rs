//! What a search has done, as Markdown and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::run::{Search, Strategy};
use super::store::{Record, State};

impl Search {
    /// A summary and a table of all trials.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        let strategy = match self.strategy() {
            Strategy::Cma(settings) => format!("CMA-ES from σ = {}", short(settings.sigma)),
            Strategy::Grid(levels) => format!("grid of {levels} levels"),
        };
        let failed = self.trials().filter(|record| record.state == State::Failed).count();
        let end = self.end().map_or_else(|| "not at its end".to_owned(), |end| end.to_string());
        let seconds: f64 = self.trials().filter_map(|record| record.seconds).sum();
        let lines = [
            format!("{strategy}, seed {}: {end}", self.seed()),
            format!("{} trials finished, {failed} failed, {seconds:.1} s", self.finished()),
        ];
        for line in lines {
            line_to(&mut text, &format!("- {line}"));
        }
        if let (Some(best), Some(score)) = (self.best(), self.best().and_then(|b| b.score)) {
            let start = self.trials().find(|record| record.number == 0).and_then(|r| r.score);
            let over = start.map_or_else(String::new, |start| {
                format!(", {} above the start ({})", short(score - start), short(start))
            });
            line_to(
                &mut text,
                &format!("- best: trial {} with {}{over}", best.number, short(score)),
            );
            for (number, value) in self.space().numbers().iter().zip(&best.point) {
                line_to(&mut text, &format!("    - `{}`: {value}", number.name()));
            }
        }
        let names: Vec<String> =
            self.space().numbers().iter().map(|number| cell(number.name())).collect();
        line_to(&mut text, "");
        line_to(&mut text, &format!("| trial | {} | score | seconds | |", names.join(" | ")));
        line_to(&mut text, &format!("|--:|{}--:|--:|---|", "--:|".repeat(names.len())));
        for record in self.trials() {
            line_to(&mut text, &row(record));
        }
        text
    }

    /// The same with every bit: the space, the strategy, the seed, the end, the best and all trials.
    pub fn to_json(&self) -> Value {
        json!({
            "space": self.space(),
            "strategy": self.strategy(),
            "seed": self.seed(),
            "end": self.end(),
            "best": self.best(),
            "trials": self.trials().collect::<Vec<_>>(),
        })
    }
}

fn row(record: &Record) -> String {
    let values: Vec<String> = record.point.iter().map(|value| short(*value)).collect();
    let score = record.score.map_or_else(|| record.state.name().to_owned(), short);
    let seconds = record.seconds.map_or_else(String::new, |seconds| format!("{seconds:.1}"));
    let words = [&record.error, &record.note].into_iter().flatten();
    let words = words.map(|text| cell(text)).collect::<Vec<_>>().join("; ");
    format!("| {} | {} | {score} | {seconds} | {words} |", record.number, values.join(" | "))
}

fn line_to(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// A text as the cell of a table.
pub(crate) fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Four significant digits.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let places = (3 - size.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}
