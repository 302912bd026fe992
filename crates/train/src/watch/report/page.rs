//! The page.

use std::fmt::Write as _;

use super::History;
use super::words::{bytes, duration, number, percent, time};
use crate::watch::chart::{self, Chart, Look, Mark, Series, escape};
use crate::watch::html::{leaves, table};
use crate::watch::{EvalMetrics, StepMetrics, Stop, Warning};

/// Rows of a batch that a warning lists; the rest is counted.
const ROWS: usize = 50;

pub(super) fn page(history: &History) -> String {
    let mut out = String::new();
    let name = if history.run.name.is_empty() { "Training run" } else { &history.run.name };
    _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{name}</title><style>{}{}</style></head><body>",
        chart::STYLE,
        include_str!("page.css"),
        name = escape(name),
    );
    header(&mut out, history, name);
    tiles(&mut out, history);
    warnings(&mut out, &history.warnings);
    charts(&mut out, history);
    evaluations(&mut out, &history.evaluations);
    section(&mut out, "data", "Data", &history.run.data_report);
    if !history.run.facts.is_empty() {
        let facts = history.run.facts.iter().map(|(name, value)| (name, value));
        section(
            &mut out,
            "model",
            "Model",
            &format!("<div class=\"columns\">{}</div>", table(facts)),
        );
    }
    if !history.run.config.is_null() {
        let settings = format!("<div class=\"columns\">{}</div>", leaves(&history.run.config));
        section(&mut out, "settings", "Settings", &settings);
    }
    _ = writeln!(
        out,
        "<footer>posttrain {}</footer><script>{}</script></body></html>",
        env!("CARGO_PKG_VERSION"),
        chart::SCRIPT
    );
    out
}

fn section(out: &mut String, id: &str, title: &str, content: &str) {
    if !content.is_empty() {
        _ = write!(out, "<section id=\"{id}\"><h2>{title}</h2>{content}</section>");
    }
}

fn header(out: &mut String, history: &History, name: &str) {
    let last = history.steps.last().map_or(0, |step| step.step);
    let (class, state) = match &history.summary {
        None => ("running", format!("running, as of step {last}")),
        Some(summary) => {
            let class = match summary.stop {
                Stop::Finished | Stop::Early => "finished",
                Stop::Interrupted => "interrupted",
                Stop::Failed(_) => "failed",
            };
            (class, summary.stop.to_string())
        }
    };
    _ = write!(
        out,
        "<header><h1>{}</h1><span class=\"state {class}\">{}</span><p>",
        escape(name),
        escape(&state)
    );
    let mut notes = Vec::new();
    if history.run.started > 0 {
        notes.push(format!("started {}", time(history.run.started)));
    }
    if let Some(step) = history.run.resumed_from {
        notes.push(format!("resumed after step {step}"));
    }
    if let Some(summary) = &history.summary {
        notes.push(format!("took {}", duration(summary.seconds)));
        if let Some(output) = &summary.output {
            notes.push(format!("written to {}", output.display()));
        }
    } else if let Some(checkpoint) = &history.checkpoint {
        notes.push(format!("last checkpoint {}", checkpoint.path.display()));
    }
    _ = write!(out, "{}</p></header>", escape(&notes.join(" · ")));
}

fn tiles(out: &mut String, history: &History) {
    let mut tiles: Vec<(&str, String, String)> = Vec::new();
    let steps = &history.steps;
    if let Some(last) = steps.last() {
        let total = match history.run.total_steps {
            0 => String::new(),
            total => format!("of {total}"),
        };
        tiles.push(("step", last.step.to_string(), format!("{total} · epoch {:.2}", last.epoch)));
        let (loss, over) = smoothed(&points(steps, |step| step.loss));
        let loss = loss.last().map_or(f64::NAN, |point| point.1);
        tiles.push(("train loss", number(loss), format!("smoothed over {over} steps")));
    }
    let lowest = history.evaluations.iter().min_by(|a, b| a.eval_loss.total_cmp(&b.eval_loss));
    if let Some(best) = lowest {
        let note =
            format!("lowest, at step {} · perplexity {}", best.step, number(best.perplexity()));
        tiles.push(("validation loss", number(best.eval_loss), note));
    }
    if !steps.is_empty() {
        let speeds: Vec<f64> = steps.iter().map(StepMetrics::tokens_per_second).collect();
        let mfu: Vec<f64> = steps.iter().filter_map(|step| step.mfu).collect();
        let note = if mfu.is_empty() {
            "median".into()
        } else {
            format!("median · MFU {}", percent(median(mfu)))
        };
        tiles.push(("tokens/s", number(median(speeds)), note));
        let (tokens, trained) = steps.iter().fold((0, 0), |(tokens, trained), step| {
            (tokens + step.tokens, trained + step.trained_tokens)
        });
        let share = percent(trained as f64 / (tokens as f64).max(1.0));
        tiles.push(("tokens", number(tokens as f64), format!("{share} of them trained")));
    }
    if let Some(peak) = steps.iter().filter_map(|step| step.peak_memory).max() {
        tiles.push(("peak memory", bytes(peak), String::new()));
    }
    out.push_str("<div class=\"tiles\">");
    for (name, value, note) in tiles {
        let note = note.trim_start_matches(" · ");
        _ = write!(
            out,
            "<div><span>{name}</span><strong>{value}</strong><small>{note}</small></div>"
        );
    }
    out.push_str("</div>");
}

fn warnings(out: &mut String, warnings: &[Warning]) {
    if warnings.is_empty() {
        return;
    }
    let mut list = String::from("<ul>");
    for warning in warnings {
        _ = write!(list, "<li>{}", escape(&warning.to_string()));
        let rows = warning.rows();
        if !rows.is_empty() {
            let shown =
                rows.iter().take(ROWS).map(|row| escape(row)).collect::<Vec<_>>().join("\n");
            let more = match rows.len().saturating_sub(ROWS) {
                0 => String::new(),
                more => format!("\nand {more} more"),
            };
            let count = rows.len();
            _ = write!(
                list,
                "<details><summary>{count} rows</summary><pre>{shown}{more}</pre></details>"
            );
        }
        list.push_str("</li>");
    }
    list.push_str("</ul>");
    let title = format!("Warnings <small>{}</small>", warnings.len());
    section(out, "warnings", &title, &list);
}

fn charts(out: &mut String, history: &History) {
    let (steps, evaluations) = (&history.steps, &history.evaluations);
    let with_smoothed = |title, color, raw: Vec<(f64, f64)>, validation: Vec<(f64, f64)>| {
        let (smooth, over) = smoothed(&raw);
        let mut chart = Chart::new(title, "step")
            .with(Series::line("each step", color, raw).looking(Look::Faint))
            .with(Series::line(format!("mean of about {over} steps"), color, smooth));
        if !validation.is_empty() {
            chart = chart.with(Series::line("validation", 2, validation).looking(Look::Dots));
        }
        chart
    };
    let known = |of: fn(&StepMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        steps.iter().filter_map(|step| Some((step.step as f64, of(step)?))).collect()
    };
    let measured = |of: fn(&EvalMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        evaluations.iter().filter_map(|e| Some((e.step as f64, of(e)?))).collect()
    };

    let mut loss =
        with_smoothed("Loss", 1, points(steps, |step| step.loss), measured(|e| Some(e.eval_loss)));
    loss.size = (1_200.0, 330.0);
    loss.marks = history
        .warnings
        .iter()
        .filter(|warning| warning.step() > 0)
        .map(|warning| Mark { x: warning.step() as f64, text: warning.to_string() })
        .collect();
    let grad_norm = points(steps, |step| step.grad_norm);
    let rate = Series::line("learning rate", 3, points(steps, |step| step.learning_rate));
    let speed = points(steps, StepMetrics::tokens_per_second);
    let mut charts = vec![
        ("loss", loss),
        ("grad-norm", with_smoothed("Gradient norm", 1, grad_norm, vec![])),
        ("learning-rate", Chart::new("Learning rate", "step").with(rate)),
        ("speed", with_smoothed("Tokens per second", 4, speed, vec![])),
    ];
    let accuracy = known(|step| step.mean_token_accuracy);
    if !accuracy.is_empty() {
        let validation = measured(|e| e.eval_mean_token_accuracy);
        charts.push(("accuracy", with_smoothed("Token accuracy", 1, accuracy, validation)));
    }
    let entropy = known(|step| step.entropy);
    if !entropy.is_empty() {
        let validation = measured(|e| e.eval_entropy);
        charts.push(("entropy", with_smoothed("Entropy", 1, entropy, validation)));
    }
    out.push_str("<div class=\"charts\">");
    for (id, chart) in charts {
        out.push_str(&chart.to_html(id));
    }
    out.push_str("</div>");
}

fn evaluations(out: &mut String, evaluations: &[EvalMetrics]) {
    if evaluations.is_empty() {
        return;
    }
    let mut rows = String::from(
        "<details><summary>All evaluations</summary><table class=\"numbers\"><tr><th>step</th><th>epoch</th>\
         <th>loss</th><th>perplexity</th><th>token accuracy</th><th>tokens</th><th>took</th></tr>",
    );
    for e in evaluations {
        let accuracy = e.eval_mean_token_accuracy.map(percent).unwrap_or_default();
        _ = write!(
            rows,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.4}</td><td>{}</td><td>{accuracy}</td><td>{}</td><td>{}</td></tr>",
            e.step,
            e.epoch,
            e.eval_loss,
            number(e.perplexity()),
            e.trained_tokens,
            duration(e.seconds),
        );
    }
    rows.push_str("</table></details>");
    section(out, "evaluations", "Validation", &rows);
}

fn points(steps: &[StepMetrics], of: impl Fn(&StepMetrics) -> f64) -> Vec<(f64, f64)> {
    steps.iter().map(|step| (step.step as f64, of(step))).collect()
}

/// An exponential mean over about `n` values, without the bias of its start: `s_i / (1 - β^i)` with
/// `s_i = β s_(i-1) + (1 - β) y_i` and `β = (n - 1) / (n + 1)`. `n` is a twentieth of the run, at most 100.
fn smoothed(points: &[(f64, f64)]) -> (Vec<(f64, f64)>, usize) {
    let over = (points.len() / 20).clamp(1, 100);
    let beta = (over - 1) as f64 / (over + 1) as f64;
    let (mut sum, mut weight) = (0.0, 0.0);
    let mut smooth = Vec::with_capacity(points.len());
    for (x, y) in points.iter().filter(|point| point.1.is_finite()) {
        sum = beta * sum + (1.0 - beta) * y;
        weight = beta * weight + (1.0 - beta);
        smooth.push((*x, sum / weight));
    }
    (smooth, over)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 60 points are smoothed over 3, so β is a half: (1 + 2 · 3) / 3 after 1 and 3.
    #[test]
    fn smoothing() {
        let mut raw = vec![(0.0, 1.0), (1.0, 3.0), (2.0, f64::NAN)];
        raw.extend((3..60).map(|i| (f64::from(i), 3.0)));
        let (smooth, over) = smoothed(&raw);
        assert_eq!((over, smooth.len()), (3, 59));
        assert_eq!(smooth[0], (0.0, 1.0));
        assert!((smooth[1].1 - 7.0 / 3.0).abs() < 1e-12);
        assert!((smooth[58].1 - 3.0).abs() < 1e-12);
        assert!(smoothed(&[]).0.is_empty());
    }
}
