//! The charts of the page.

use super::History;
use super::families::{Family, families};
use crate::watch::chart::{Chart, Look, Mark, Series};
use crate::watch::{EvalMetrics, StepMetrics};

/// Of the members of a family: the first and the second are most often the chosen and the rejected.
const COLORS: [u8; 6] = [3, 5, 1, 2, 4, 6];

pub(super) fn charts(out: &mut String, history: &History) {
    let (steps, evaluations) = (&history.steps, &history.evaluations);
    let measured = |of: fn(&EvalMetrics) -> Option<f64>| measured(evaluations, of);

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
    let accuracy = known(steps, |step| step.mean_token_accuracy);
    if !accuracy.is_empty() {
        let validation = measured(|e| e.eval_mean_token_accuracy);
        charts.push(("accuracy", with_smoothed("Token accuracy", 1, accuracy, validation)));
    }
    let entropy = known(steps, |step| step.entropy);
    if !entropy.is_empty() {
        let validation = measured(|e| e.eval_entropy);
        charts.push(("entropy", with_smoothed("Entropy", 1, entropy, validation)));
    }
    out.push_str("<div class=\"charts\">");
    for (id, chart) in charts {
        out.push_str(&chart.to_html(id));
    }
    for (number, family) in families(steps, evaluations).iter().enumerate() {
        out.push_str(&of_family(family, steps, evaluations).to_html(&format!("metric-{number}")));
    }
    out.push_str("</div>");
}

pub(super) fn points(steps: &[StepMetrics], of: impl Fn(&StepMetrics) -> f64) -> Vec<(f64, f64)> {
    steps.iter().map(|step| (step.step as f64, of(step))).collect()
}

/// The same where it is known.
pub(super) fn known(
    steps: &[StepMetrics],
    of: impl Fn(&StepMetrics) -> Option<f64>,
) -> Vec<(f64, f64)> {
    steps.iter().filter_map(|step| Some((step.step as f64, of(step)?))).collect()
}

fn measured(
    evaluations: &[EvalMetrics],
    of: impl Fn(&EvalMetrics) -> Option<f64>,
) -> Vec<(f64, f64)> {
    evaluations.iter().filter_map(|e| Some((e.step as f64, of(e)?))).collect()
}

/// Each step, their mean, and the validation where there is one.
fn with_smoothed(
    title: &str,
    color: u8,
    raw: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
) -> Chart {
    let (smooth, over) = smoothed(&raw);
    let mut chart = Chart::new(title, "step")
        .with(Series::line("each step", color, raw).looking(Look::Faint))
        .with(Series::line(format!("mean of about {over} steps"), color, smooth));
    if !validation.is_empty() {
        chart = chart.with(Series::line("validation", 2, validation).looking(Look::Dots));
    }
    chart
}

/// The metrics of a family in one picture, each with a colour of its own, which its validation shares.
fn of_family(family: &Family<'_>, steps: &[StepMetrics], evaluations: &[EvalMetrics]) -> Chart {
    let title = family.title();
    let lines = |name: &str| {
        let raw = known(steps, |step| step.extra.get(name));
        (raw, measured(evaluations, |e| e.extra.get(name)))
    };
    if let [(name, _)] = family.members[..] {
        let (raw, validation) = lines(name);
        if !raw.is_empty() {
            return with_smoothed(&title, 1, raw, validation);
        }
    }
    let mut chart = Chart::new(title, "step");
    for (i, (name, member)) in family.members.iter().enumerate() {
        let (color, (raw, validation)) = (COLORS[i % COLORS.len()], lines(name));
        if !raw.is_empty() {
            let (smooth, over) = smoothed(&raw);
            let mean = format!("{member}, mean of about {over} steps");
            chart = chart
                .with(Series::line(format!("{member}, each step"), color, raw).looking(Look::Faint))
                .with(Series::line(mean, color, smooth));
        }
        if !validation.is_empty() {
            let name = format!("{member}, validation");
            chart = chart.with(Series::line(name, color, validation).looking(Look::Dots));
        }
    }
    chart
}

/// An exponential mean over about `n` values, without the bias of its start: `s_i / (1 - β^i)` with
/// `s_i = β s_(i-1) + (1 - β) y_i` and `β = (n - 1) / (n + 1)`. `n` is a twentieth of the run, at most 100.
pub(super) fn smoothed(points: &[(f64, f64)]) -> (Vec<(f64, f64)>, usize) {
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
