//! Rows of answers from `tests/fixtures/preference_runs`.

use posttrain_train::data::{Answers, RowId, Sample};
use posttrain_train::watch::StepMetrics;

use super::{ids, lines};

/// A prompt with an answer, of which the answer is trained.
pub(crate) fn text(prompt: &[u32], answer: &[u32], line: u64) -> Sample {
    let trained = [vec![false; prompt.len()], vec![true; answer.len()]].concat();
    Sample { ids: [prompt, answer].concat(), trained, row: RowId::new("rows.jsonl", line) }
}

/// Rows of the fixtures, those given, made of a prompt, its better and its worse answer.
pub(crate) fn made(
    rows: std::ops::Range<usize>,
    texts: impl Fn(&[Vec<u32>; 3], u64) -> Vec<(Sample, Vec<f64>)>,
) -> Answers {
    let mut answers = Answers::default();
    let all = lines("preference_runs/encoded_dpo.jsonl");
    for line in rows {
        let row = ["prompt_ids", "chosen_ids", "rejected_ids"].map(|key| ids(&all[line], key));
        answers.push(&texts(&row, line as u64 + 1)).unwrap();
    }
    answers
}

pub(crate) fn pairs(rows: std::ops::Range<usize>) -> Answers {
    made(rows, |[prompt, chosen, rejected], line| {
        vec![(text(prompt, chosen, line), vec![]), (text(prompt, rejected, line), vec![])]
    })
}

/// Pairs with the margin of each.
pub(crate) fn with_margins(rows: std::ops::Range<usize>, margins: &[f64]) -> Answers {
    let first = rows.start as u64 + 1;
    made(rows, |[prompt, chosen, rejected], line| {
        let margin = margins[(line - first) as usize];
        vec![(text(prompt, chosen, line), vec![margin]), (text(prompt, rejected, line), vec![])]
    })
}

pub(crate) fn extra(step: &StepMetrics, name: &str) -> f64 {
    step.extra.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", step.extra))
}

/// What is learned in a step: loss, gradient and every metric, bit by bit.
pub(crate) fn numbers(step: &StepMetrics) -> Vec<(String, u64)> {
    let all = [("step", step.step as f64), ("loss", step.loss), ("gradient", step.grad_norm)];
    let all = all.into_iter().chain([("rate", step.learning_rate)]).chain(step.extra.iter());
    all.map(|(name, value)| (name.to_owned(), value.to_bits())).collect()
}
