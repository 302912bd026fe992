//! Which metrics of a recipe belong into one picture.

use std::collections::{BTreeMap, BTreeSet};

use crate::watch::{EvalMetrics, StepMetrics};

/// What two answers of a pair have each.
const SIDES: [&str; 2] = ["chosen", "rejected"];
/// What one quantity has several of: `min_reward`, `mean_reward`, `max_reward`.
const SUMMARIES: [&str; 3] = ["min_", "mean_", "max_"];

/// Metrics that are drawn together.
#[derive(Debug, PartialEq)]
pub(super) struct Family<'a> {
    name: String,
    /// The whole name of each, and what it is called within the family.
    pub(super) members: Vec<(&'a str, &'a str)>,
}

impl Family<'_> {
    /// Its name in words, where there are better ones.
    pub(super) fn title(&self) -> String {
        let words = match self.name.as_str() {
            "rewards" => "Rewards",
            "reward" => "Reward",
            "rewards/accuracies" | "accuracy" => "Pairs in order",
            "rewards/margins" | "margin" => "Margin",
            "logps" => "Log-probabilities",
            "logits" => "Logits",
            "kl" => "KL divergence",
            name => name,
        };
        words.to_owned()
    }
}

/// The families of all metrics there are, by name.
pub(super) fn families<'a>(
    steps: &'a [StepMetrics],
    evaluations: &'a [EvalMetrics],
) -> Vec<Family<'a>> {
    let of_steps = steps.iter().flat_map(|step| step.extra.iter());
    let of_evaluations = evaluations.iter().flat_map(|evaluation| evaluation.extra.iter());
    let names: BTreeSet<&str> = of_steps.chain(of_evaluations).map(|(name, _)| name).collect();
    let mut found: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for name in names {
        let (family, member) = place(name);
        found.entry(family).or_default().push((name, member));
    }
    found.into_iter().map(|(name, members)| Family { name, members }).collect()
}

/// The family of a metric and its name there.
fn place(name: &str) -> (String, &str) {
    let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
    if SIDES.contains(&last) && !path.is_empty() {
        return (path.to_owned(), last);
    }
    let summary = SUMMARIES.iter().find_map(|start| Some((start, last.strip_prefix(start)?)));
    match summary {
        Some((start, rest)) if !rest.is_empty() => {
            let slash = if path.is_empty() { "" } else { "/" };
            (format!("{path}{slash}{rest}"), start.trim_end_matches('_'))
        }
        _ => (name.to_owned(), last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Extras;

    #[test]
    fn what_belongs_together() {
        let extra = |names: &[&str]| Extras::new(names.iter().map(|name| (*name, 0.5))).unwrap();
        let step = StepMetrics {
            extra: extra(&["rewards/chosen", "rewards/rejected", "rewards/margins", "kl"]),
            ..StepMetrics::default()
        };
        let evaluation = EvalMetrics {
            extra: extra(&[
                "rewards/chosen",
                "min_reward",
                "max_reward",
                "completions/mean_length",
            ]),
            ..EvalMetrics::default()
        };
        let (steps, evaluations) = ([step], [evaluation]);
        let found = families(&steps, &evaluations);
        let shown: Vec<(String, Vec<&str>)> = found
            .iter()
            .map(|family| (family.title(), family.members.iter().map(|m| m.1).collect()))
            .collect();
        let expected: [(&str, &[&str]); 5] = [
            ("completions/length", &["mean"]),
            ("KL divergence", &["kl"]),
            ("Reward", &["max", "min"]),
            ("Rewards", &["chosen", "rejected"]),
            ("Margin", &["margins"]),
        ];
        let expected = expected.map(|(title, members)| (title.to_owned(), members.to_vec()));
        assert_eq!(shown, expected);
        assert_eq!(found[3].members[0].0, "rewards/chosen");
    }
}
