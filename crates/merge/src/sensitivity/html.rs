//! The report as one page of HTML that needs nothing else.

use std::fmt::Write as _;

use super::heat_map::{Map, Scale};
use super::measures::Measures;
use super::number::{cosine, count, percent, several, short};
use super::style::css;
use super::{Sensitivity, tables};
use crate::markup::escape;

/// Maps of pairs that are shown before the others are folded.
const PAIRS: usize = 6;

const GLOSSARY: [(&str, &str); 8] = [
    (
        "distance",
        "‖x − b‖ / ‖b‖: how far a model x went from the base b, in norms of the base. Without a base, ‖x − y‖ over the geometric mean of both norms.",
    ),
    (
        "cosine",
        "Of the angle between two task vectors d = x − b: 1 for the same direction, 0 for unrelated ones, −1 for opposite ones. Without a base, between the weights themselves.",
    ),
    (
        "conflict",
        "The share of elements, of those that at least two models changed, where one model went up and another down. If signs were tossed it would be the share “by chance”. “By size” counts each element by the sum of all |d| there.",
    ),
    (
        "cancelled",
        "1 − Σ|Σd| / ΣΣ|d|: the share of all changes that is lost when the task vectors are added.",
    ),
    (
        "top 10 %, top 20 %",
        "The share of Σ|d| that the largest tenth or fifth of each tensor's elements holds: what a density of 0.1 or 0.2 keeps. A normal distribution has 26 % and 44 %. Tables of parts show the least of all models.",
    ),
    (
        "stable rank",
        "‖d‖²_F / ‖d‖²₂ of a matrix, never above its rank; the mean over matrices that changed. The spectral norm is estimated (exact up to 16 rows or columns), which errs towards a higher rank. Tables of parts show the most of all models.",
    ),
    ("unchanged", "Elements with exactly the base's value."),
    ("layers and kinds", "Measured as if all their tensors were one vector."),
];

impl Sensitivity {
    /// The report as one HTML file without scripts or anything from elsewhere, readable in light and dark: the
    /// suggestions, the models, heat maps of layers and kinds of modules, tables with the farthest in front.
    pub fn to_html(&self) -> String {
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Sensitivity of {} models</title><style>{}</style></head><body><main>\n",
            self.models.len(),
            css()
        );
        page.push_str(&self.head());
        page.push_str(&self.suggestion_cards());
        let section = |page: &mut String, title: &str, words: &str, content: String| {
            if !content.is_empty() {
                let words = if words.is_empty() {
                    String::new()
                } else {
                    format!("<p class=\"soft\">{words}</p>")
                };
                let _ = writeln!(page, "<section><h2>{title}</h2>{words}{content}</section>");
            }
        };
        let whole = tables::models(self) + &tables::pairs(self);
        section(&mut page, "Whole models", "", whole);
        let words = "Each cell is one kind of module in one layer; dashed where nothing changed, grey where there is no value. \
                     Rest on a cell for its number.";
        section(&mut page, "Distance", words, self.distances());
        section(&mut page, "Cosine", "Whether two models went the same way.", self.cosines());
        let words =
            "Where the models' signs meet: blue below what tossed signs would give, orange above.";
        section(&mut page, "Sign conflict", words, self.conflicts());
        let words = "The farthest first.";
        section(&mut page, "Kinds of modules", words, tables::kinds(self));
        section(&mut page, "Layers", words, tables::layers(self));
        section(&mut page, "Tensors", words, tables::tensors(self));
        section(&mut page, "Not compared", "", tables::left_out(self));
        let glossary = GLOSSARY.map(|(word, meaning)| format!("<dt>{word}</dt><dd>{meaning}</dd>"));
        section(&mut page, "What the numbers are", "", format!("<dl>{}</dl>", glossary.concat()));
        page.push_str("</main></body></html>\n");
        page
    }

    fn head(&self) -> String {
        let names = self.models.iter().map(|model| {
            let path = model.path.display().to_string();
            format!("<span title=\"{}\">{}</span>", escape(&path), escape(&model.name))
        });
        let names = names.collect::<Vec<_>>().join(", ");
        let base = self.base.as_ref().map_or_else(
            || "no base model".to_owned(),
            |base| format!("base <code>{}</code>", escape(&base.display().to_string())),
        );
        format!(
            "<h1>{names}</h1><p class=\"soft\">What merging them would meet · {base} · {}, {} parameters each{}</p>\n",
            several(self.tensors.len(), "tensor"),
            count(self.overall.elements),
            match self.left_out.len() {
                0 => String::new(),
                n => format!(" · {} not compared", several(n, "tensor")),
            }
        )
    }

    fn suggestion_cards(&self) -> String {
        let mut out = "<section><h2>Suggestions</h2><p class=\"soft\">Rules of thumb from the numbers below. None replaces an \
                       evaluation of the merged model.</p><div class=\"cards\">"
            .to_owned();
        for suggestion in &self.suggestions {
            let (class, tag) = if suggestion.check {
                (" check", "<span class=\"tag\">check first</span>")
            } else {
                ("", "")
            };
            let source = suggestion.source.as_ref().map_or_else(
                || "Rule of thumb.".to_owned(),
                |source| format!("After {}.", escape(source)),
            );
            let _ = write!(
                out,
                "<div class=\"card{class}\">{tag}<b>{}</b><p>{}</p><p class=\"soft small\">{source}</p></div>",
                escape(&suggestion.advice),
                escape(&suggestion.because)
            );
        }
        if self.suggestions.is_empty() {
            out.push_str("<p>None: no number stands out.</p>");
        }
        out.push_str("</div></section>\n");
        out
    }

    /// One map for each model; without a base for each pair.
    fn distances(&self) -> String {
        if self.base.is_none() {
            let of = |pair: usize| move |measures: &Measures| measures.pairs[pair].distance;
            let all = (0..self.overall.pairs.len()).flat_map(|pair| self.values(of(pair)));
            let scale = Scale::sequential(all);
            let maps = self.pair_maps(scale, short, |m, pair| m.pairs[pair].distance, None);
            return scale.legend(short, ["", "", ""]) + &maps;
        }
        let of = |model: usize| move |measures: &Measures| measures.models[model].distance;
        let scale = Scale::sequential((0..self.models.len()).flat_map(|m| self.values(of(m))));
        let maps = self.models.iter().enumerate().map(|(index, model)| {
            let title = model.name.clone();
            Map { title, scale, value: &of(index), show: short }.figures(self)
        });
        let maps = maps.collect::<String>();
        format!("{}<div class=\"maps\">{maps}</div>", scale.legend(short, ["", "", ""]))
    }

    fn cosines(&self) -> String {
        if self.overall.pairs.is_empty() {
            return String::new();
        }
        let scale = Scale::Diverging { low: 1.0, middle: 0.0, high: -1.0 };
        let maps = self.pair_maps(scale, cosine, |m, pair| m.pairs[pair].cosine, None);
        scale.legend(cosine, ["same", "unrelated", "opposite"]) + &maps
    }

    fn conflicts(&self) -> String {
        let Some(together) = &self.overall.together else { return String::new() };
        let scale = |chance: Option<f64>| Scale::Diverging {
            low: 0.0,
            middle: chance.unwrap_or(0.5).clamp(0.01, 0.99),
            high: 1.0,
        };
        // For two models the pair is everything.
        let all = (self.models.len() > 2).then(|| {
            let value = |m: &Measures| m.together.as_ref().and_then(|signs| signs.conflict);
            let title =
                format!("all models (by chance {})", percent(together.chance.unwrap_or(0.0)));
            Map { title, scale: scale(together.chance), value: &value, show: percent }.figures(self)
        });
        let pair = scale(Some(0.5));
        let maps = self.pair_maps(pair, percent, |m, pair| m.pairs[pair].signs.conflict, all);
        pair.legend(percent, ["agree", "by chance (of two models)", "contradict"]) + &maps
    }

    fn values<'a>(
        &'a self,
        of: impl Fn(&Measures) -> Option<f64> + 'a,
    ) -> impl Iterator<Item = f64> + 'a {
        self.cells.iter().filter_map(move |part| of(&part.measures))
    }

    /// One map for each pair, behind another one.
    fn pair_maps(
        &self,
        scale: Scale,
        show: fn(f64) -> String,
        of: fn(&Measures, usize) -> Option<f64>,
        before: Option<String>,
    ) -> String {
        let maps: Vec<String> = self
            .overall
            .pairs
            .iter()
            .enumerate()
            .map(|(index, pair)| {
                let value = |measures: &Measures| of(measures, index);
                Map { title: self.pair_name(pair), scale, value: &value, show }.figures(self)
            })
            .collect();
        let (shown, more) = maps.split_at(maps.len().min(PAIRS));
        let before = before.unwrap_or_default();
        let mut out = format!("<div class=\"maps\">{before}{}</div>", shown.concat());
        if !more.is_empty() {
            let _ = write!(
                out,
                "<details><summary>{} more pairs</summary><div class=\"maps\">{}</div></details>",
                more.len(),
                more.concat()
            );
        }
        out
    }
}
