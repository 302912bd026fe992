//! What is going to be trained on, to be looked at before the first step.

use std::fmt::{self, Write as _};

use posttrain_chat::ChatTokenizer;
use serde::Serialize;

use super::{
    Answers, AnswersReport, Bar, Batches, Lengths, MarkedSample, Marks, RowCounts, RowKind, Samples,
};
use crate::watch::chart::Bars;
use crate::watch::html::{escape, table};

/// The rows of a run in numbers. Serialises to JSON, displays as text, and makes a piece of HTML.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataReport {
    /// Rows that are trained on.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Those of them that are trained. Where packing joins or cuts rows it is a few more or less.
    pub trained_tokens: usize,
    /// How long the rows are.
    pub lengths: Lengths,
    /// What happened while they were encoded, the rows held out for validation included.
    #[serde(flatten)]
    pub counts: RowCounts,
    /// Whether some row trains a token that ends a generation. A model that never sees one trained
    /// does not learn to stop. None where nothing learns to write.
    pub stop_token_trained: Option<bool>,
    /// The rows to validate on.
    pub validation: Option<SetSize>,
    /// How the rows share sequences.
    pub packing: Option<PackingReport>,
    /// Rows of answers: how the better and the worse ones differ.
    pub answers: Option<AnswersReport>,
    /// The texts of the first row, with what of them is trained.
    pub first: Vec<MarkedSample>,
}

/// The size of a set of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetSize {
    /// Rows.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Those of them that are trained.
    pub trained_tokens: usize,
}

/// How rows share sequences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PackingReport {
    /// Sequences of an epoch.
    pub sequences: usize,
    /// Tokens of all of them, divided by the room in all of them.
    pub fill: f64,
    /// Tokens of parts of rows that nothing is learned from, and so are in no sequence.
    pub left_out: usize,
}

impl DataReport {
    /// Of the rows that are trained on, with what was counted while they were encoded.
    pub fn new(samples: &Samples, counts: &RowCounts, tokenizer: &ChatTokenizer) -> Self {
        Self {
            rows: samples.len(),
            tokens: samples.tokens(),
            trained_tokens: samples.trained_tokens(),
            lengths: Lengths::new(samples),
            counts: counts.clone(),
            stop_token_trained: Some(counts.stop_trained > 0),
            validation: None,
            packing: None,
            answers: None,
            first: (0..samples.len().min(1))
                .map(|index| MarkedSample::new(samples, index, tokenizer))
                .collect(),
        }
    }

    /// Of rows of answers.
    pub fn of_answers(
        rows: &Answers,
        kind: RowKind,
        counts: &RowCounts,
        tokenizer: &ChatTokenizer,
    ) -> Self {
        let first = (0..rows.len().min(1)).flat_map(|row| rows.row(row));
        Self {
            rows: rows.len(),
            answers: Some(AnswersReport::new(rows, kind)),
            first: first.map(|text| MarkedSample::new(rows.texts(), text, tokenizer)).collect(),
            ..Self::new(rows.texts(), counts, tokenizer)
        }
    }

    /// Of a model that scores and does not write.
    #[must_use]
    pub fn of_scores(self) -> Self {
        Self { stop_token_trained: None, ..self }
    }

    /// With the rows to validate on.
    #[must_use]
    pub fn with_validation(self, samples: &Samples) -> Self {
        let validation = SetSize {
            rows: samples.len(),
            tokens: samples.tokens(),
            trained_tokens: samples.trained_tokens(),
        };
        Self { validation: Some(validation), ..self }
    }

    /// With how the rows are packed, where they are.
    #[must_use]
    pub fn with_packing(self, batches: &Batches) -> Self {
        Self { packing: batches.packing(), ..self }
    }

    /// What should be looked at before training: one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.stop_token_trained == Some(false) {
            all.push(
                "no stop token is trained in any row: the model will not learn to stop".into(),
            );
        }
        let cut = &self.counts.truncated;
        if cut.rows > 0 {
            all.push(format!(
                "{} rows were longer than max_length and lost {} tokens, {} of them trained; {} \
                 lost the end of what they teach",
                cut.rows, cut.tokens, cut.trained_tokens, cut.ends_lost
            ));
        }
        if let Some(sentence) = self.answers.as_ref().and_then(AnswersReport::length_explains) {
            all.push(sentence);
        }
        for (reason, counted) in &self.counts.dropped {
            all.push(format!("{} rows dropped: {reason}", counted.rows));
        }
        for (kind, counted) in &self.counts.warnings {
            let example = counted.examples.first();
            let example = example.map_or(String::new(), |e| format!(": {}: {}", e.row, e.detail));
            all.push(format!("{} rows with {kind}{example}", counted.rows));
        }
        all
    }

    /// As text, with the first row marked.
    pub fn text(&self, marks: Marks) -> String {
        let mut out = String::new();
        for (name, value) in self.lines() {
            let _ = writeln!(out, "{name:<16} {value}");
        }
        let most = self.lengths.histogram.iter().map(|bar| bar.rows).max().unwrap_or(0).max(1);
        for bar in &self.lengths.histogram {
            let width = (bar.rows * 40).div_ceil(most) as usize;
            let range = format!("{} to {}", bar.from, bar.to);
            let _ = writeln!(out, "{range:>16} {:<40} {}", "█".repeat(width), bar.rows);
        }
        for warning in self.warnings() {
            let _ = writeln!(out, "warning: {warning}");
        }
        for (index, first) in self.first.iter().enumerate() {
            let which = self.which(index);
            let _ = writeln!(out, "first row{which} ({}, trained text marked):", first.row);
            let _ = writeln!(out, "{}", first.marked(marks));
        }
        out
    }

    /// As a piece of HTML for a larger page, without scripts; only the picture has a style of its own.
    pub fn html(&self) -> String {
        let mut out = String::from("<section class=\"data-report\">\n");
        out.push_str(&table(self.lines()));
        out.push_str(&self.bars());
        for warning in self.warnings() {
            let _ = writeln!(out, "<p class=\"warning\">{}</p>", escape(&warning));
        }
        for (index, first) in self.first.iter().enumerate() {
            let (row, which) = (escape(&first.row.to_string()), self.which(index));
            let _ = writeln!(out, "<p>First row{which} ({row}), trained text marked:</p>");
            let _ = writeln!(out, "<pre>{}</pre>", first.html());
        }
        out.push_str("</section>\n");
        out
    }

    /// Of several texts of a row which one it is.
    fn which(&self, index: usize) -> String {
        if self.first.len() > 1 { format!(", answer {}", index + 1) } else { String::new() }
    }

    /// The histogram as a picture.
    fn bars(&self) -> String {
        let bar = |bar: &Bar| (format!("{}–{}", bar.from, bar.to), bar.rows as f64);
        let bars = self.lengths.histogram.iter().map(bar).collect();
        Bars { title: "Rows by length".into(), across: "tokens".into(), bars }.to_svg()
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let share = 100.0 * self.trained_tokens as f64 / self.tokens.max(1) as f64;
        let Lengths { min, max, mean, median, p95, .. } = &self.lengths;
        let mut lines = vec![
            ("rows read", self.counts.read.to_string()),
            ("rows", self.rows.to_string()),
            ("tokens", self.tokens.to_string()),
            ("trained tokens", format!("{} ({share:.1} %)", self.trained_tokens)),
            (
                "lengths",
                format!("{min} to {max}, mean {mean:.1}, median {median}, 95 % up to {p95}"),
            ),
        ];
        if let Some(answers) = &self.answers {
            lines.extend(answers.lines());
        }
        if let Some(SetSize { rows, tokens, trained_tokens }) = &self.validation {
            let value = format!("{rows} rows, {tokens} tokens, {trained_tokens} trained");
            lines.push(("validation", value));
        }
        if let Some(PackingReport { sequences, fill, left_out }) = &self.packing {
            let fill = 100.0 * fill;
            let value =
                format!("{sequences} sequences, {fill:.1} % full, {left_out} tokens left out");
            lines.push(("packed", value));
        }
        lines
    }
}

/// With plain marks.
impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Marks::Plain))
    }
}
