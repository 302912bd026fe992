//! The page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::History;
use super::charts::{charts, known, points, smoothed};
use crate::watch::html::{self, escape, leaves, table};
use crate::watch::words::{bytes, duration, number, percent, time};
use crate::watch::{EvalMetrics, StepMetrics, Stop, Warning};

/// Rows of a batch that a warning lists; the rest is counted.
const ROWS: usize = 50;

pub(super) fn page(history: &History) -> String {
    let mut out = String::new();
    let name = if history.run.name.is_empty() { "Training run" } else { &history.run.name };
    header(&mut out, history, name);
    tiles(&mut out, history);
    warnings(&mut out, &history.warnings);
    charts(&mut out, history);
    evaluations(&mut out, &history.evaluations);
    if let Some(last) = history.evaluations.last() {
        section(&mut out, "details", "Last validation", &last.details);
    }
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
    html::page(name, &out)
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
        let perplexity = best.perplexity.map(|value| format!(" · perplexity {}", number(value)));
        let note = format!("lowest, at step {}{}", best.step, perplexity.unwrap_or_default());
        tiles.push(("validation loss", number(best.eval_loss), note));
    }
    let (accuracy, over) = smoothed(&known(steps, |step| step.extra.accuracy()));
    let of_pairs = history.evaluations.iter().rev().find_map(|e| e.extra.accuracy());
    if let Some((_, accuracy)) = accuracy.last() {
        let note = of_pairs.map_or(format!("smoothed over {over} steps"), |share| {
            format!("in training · {} in the last validation", percent(share))
        });
        tiles.push(("pairs in order", percent(*accuracy), note));
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
        let note = if trained > 0 { format!("{share} of them trained") } else { String::new() };
        tiles.push(("tokens", number(tokens as f64), note));
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

fn evaluations(out: &mut String, evaluations: &[EvalMetrics]) {
    if evaluations.is_empty() {
        return;
    }
    let has = |of: fn(&EvalMetrics) -> Option<f64>| evaluations.iter().any(|e| of(e).is_some());
    let (perplexity, accuracy) = (has(|e| e.perplexity), has(|e| e.eval_mean_token_accuracy));
    let names: BTreeSet<&str> =
        evaluations.iter().flat_map(|e| e.extra.iter()).map(|e| e.0).collect();
    let mut rows =
        String::from("<details><summary>All evaluations</summary><table class=\"numbers\"><tr>");
    let heads = [
        ("step", true),
        ("epoch", true),
        ("loss", true),
        ("perplexity", perplexity),
        ("token accuracy", accuracy),
    ];
    let heads = heads.into_iter().filter(|head| head.1).map(|head| head.0);
    for head in heads.chain(names.iter().copied()).chain(["tokens", "took"]) {
        _ = write!(rows, "<th>{}</th>", escape(head));
    }
    rows.push_str("</tr>");
    for e in evaluations {
        let mut cells =
            vec![e.step.to_string(), format!("{:.2}", e.epoch), format!("{:.4}", e.eval_loss)];
        if perplexity {
            cells.push(e.perplexity.map(number).unwrap_or_default());
        }
        if accuracy {
            cells.push(e.eval_mean_token_accuracy.map(percent).unwrap_or_default());
        }
        cells.extend(names.iter().map(|name| e.extra.get(name).map(number).unwrap_or_default()));
        cells.extend([e.trained_tokens.to_string(), duration(e.seconds)]);
        _ = write!(rows, "<tr><td>{}</td></tr>", cells.join("</td><td>"));
    }
    rows.push_str("</table></details>");
    section(out, "evaluations", "Validation", &rows);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
