//! Rows that are held out to validate on.

use std::collections::HashMap;

use super::counts::RowCounts;
use super::hash::fold;
use super::{Answers, Reason, RowId, Samples};
use crate::error::Error;

/// Rows to train on and rows to validate on.
#[derive(Clone, Debug)]
pub struct Split<T = Samples> {
    /// To train on, in their order.
    pub train: T,
    /// To validate on, in their order.
    pub validation: T,
}

/// Holds out a share of the rows, at least one. Which ones follows from the seed and the texts, not
/// from their order. Rows with the same token ids stay on one side, so that nothing that is
/// validated on is trained on; where all of them together are too many, they are trained on.
///
/// # Errors
/// [`Error::Config`] for a ratio that is not between 0 and 1, [`Error::Data`] when there are not two
/// different rows.
pub fn split(samples: &Samples, ratio: f64, seed: u64) -> Result<Split, Error> {
    let held = held_out(&samples.hashes(), ratio, seed, "rows")?;
    let kept = (0..samples.len()).filter(|index| held.binary_search(index).is_err());
    Ok(Split { train: samples.select(kept), validation: samples.select(held.iter().copied()) })
}

/// As [`split`], with all answers to a prompt on one side.
///
/// # Errors
/// [`Error::Config`] for a ratio that is not between 0 and 1, [`Error::Data`] when there are not two
/// different prompts.
pub fn split_answers(rows: &Answers, ratio: f64, seed: u64) -> Result<Split<Answers>, Error> {
    let held = held_out(&rows.prompt_hashes(), ratio, seed, "prompts")?;
    let kept = (0..rows.len()).filter(|index| held.binary_search(index).is_err());
    Ok(Split { train: rows.select(kept), validation: rows.select(held.iter().copied()) })
}

/// The indices that are held out, sorted; those with the same hash together.
fn held_out(hashes: &[u64], ratio: f64, seed: u64, what: &str) -> Result<Vec<usize>, Error> {
    if !(ratio > 0.0 && ratio < 1.0) {
        return Err(Error::config(
            "val_set_size",
            ratio,
            "as a share of the rows above 0 and below 1",
        ));
    }
    let mut groups: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, hash) in hashes.iter().enumerate() {
        groups.entry(fold(seed, [*hash])).or_default().push(index);
    }
    if groups.len() < 2 {
        return Err(Error::Data {
            row: "the training rows".into(),
            reason: format!(
                "{} different {what}, expected at least 2 to hold one out (or `val_set_size: 0`)",
                groups.len()
            ),
        });
    }
    let mut groups: Vec<(u64, Vec<usize>)> = groups.into_iter().collect();
    groups.sort_unstable_by_key(|(order, _)| *order);
    let wanted = ((hashes.len() as f64 * ratio).round() as usize).max(1);
    let mut held: Vec<usize> = Vec::with_capacity(wanted);
    for (_, group) in &groups {
        if held.len() + group.len() <= wanted {
            held.extend(group);
        }
    }
    if held.is_empty() {
        // Every text is there more often than rows are wanted: the rarest, then.
        let rarest = groups.iter().min_by_key(|(_, group)| group.len());
        held.extend(rarest.into_iter().flat_map(|(_, group)| group));
    }
    held.sort_unstable();
    Ok(held)
}

/// Takes the rows out of the training set that are in a validation set of its own, and counts them
/// as dropped.
///
/// # Errors
/// [`Error::Data`] when no row is left.
pub fn without_validation(
    train: Samples,
    validation: &Samples,
    counts: &mut RowCounts,
) -> Result<Samples, Error> {
    let same = |row, twin| train.ids(row) == validation.ids(twin);
    let twins = twins(&train.hashes(), &validation.hashes(), same);
    let kept = kept(&twins, |row| train.row(row), |twin| validation.row(twin), counts)?;
    Ok(if kept.len() == train.len() { train } else { train.select(kept) })
}

/// As [`without_validation`]. Rows whose prompt alone is in the validation set stay, and are counted
/// as a warning.
///
/// # Errors
/// [`Error::Data`] when no row is left.
pub fn answers_without_validation(
    train: Answers,
    validation: &Answers,
    counts: &mut RowCounts,
) -> Result<Answers, Error> {
    let same = |row, twin| {
        let (ours, theirs) = (train.row(row), validation.row(twin));
        ours.map(|text| train.texts().ids(text)).eq(theirs.map(|text| validation.texts().ids(text)))
    };
    let rows = twins(&train.hashes(), &validation.hashes(), same);
    let prompts = twins(&train.prompt_hashes(), &validation.prompt_hashes(), |_, _| true);
    for (row, twin) in prompts.iter().enumerate().filter(|(row, _)| rows[*row].is_none()) {
        if let Some(twin) = twin {
            let warned = counts.warnings.entry("prompt_in_validation").or_default();
            warned.add(&train.id(row), || format!("the prompt of {}", validation.id(*twin)));
        }
    }
    let kept = kept(&rows, |row| train.id(row), |twin| validation.id(twin), counts)?;
    Ok(if kept.len() == train.len() { train } else { train.select(kept) })
}

/// For each row of the one set a row of the other that is the same.
fn twins(rows: &[u64], others: &[u64], same: impl Fn(usize, usize) -> bool) -> Vec<Option<usize>> {
    let mut known: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, hash) in others.iter().enumerate() {
        known.entry(*hash).or_default().push(index);
    }
    let twin = |(index, hash): (usize, &u64)| {
        known.get(hash).into_iter().flatten().copied().find(|&other| same(index, other))
    };
    rows.iter().enumerate().map(twin).collect()
}

/// The rows without a twin; the others are counted.
fn kept(
    twins: &[Option<usize>],
    row: impl Fn(usize) -> RowId,
    other: impl Fn(usize) -> RowId,
    counts: &mut RowCounts,
) -> Result<Vec<usize>, Error> {
    let mut kept = Vec::with_capacity(twins.len());
    for (index, twin) in twins.iter().enumerate() {
        match twin {
            None => kept.push(index),
            Some(twin) => {
                let dropped = counts.dropped.entry(Reason::InValidation).or_default();
                dropped.add(&row(index), || format!("the text of {}", other(*twin)));
            }
        }
    }
    if kept.is_empty() {
        let reason = "every row is in the validation set, too".into();
        return Err(Error::Data { row: "the training rows".into(), reason });
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::data::Sample;

    fn samples(texts: impl IntoIterator<Item = u32>) -> Samples {
        let mut samples = Samples::default();
        for (line, text) in (1..).zip(texts) {
            let ids = vec![1, text, text % 7];
            let row = RowId::new("a.jsonl", line);
            samples.push(&Sample { ids, trained: vec![true; 3], row }).unwrap();
        }
        samples
    }

    fn texts(samples: &Samples) -> Vec<u32> {
        (0..samples.len()).map(|index| samples.ids(index)[1]).collect()
    }

    #[test]
    fn two_percent_of_the_rows_whatever_their_order() {
        let all = samples(0..1000);
        let Split { train, validation } = split(&all, 0.02, 7).unwrap();
        assert_eq!((train.len(), validation.len()), (980, 20));
        let mut both = [texts(&train), texts(&validation)].concat();
        assert!(texts(&validation).is_sorted() && texts(&train).is_sorted());
        both.sort_unstable();
        assert_eq!(both, texts(&all));

        let turned = split(&samples((0..1000).rev()), 0.02, 7).unwrap();
        let set = |samples| texts(samples).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(set(&turned.validation), set(&validation));
        let other = split(&all, 0.02, 8).unwrap();
        assert_ne!(set(&other.validation), set(&validation));
    }

    #[test]
    fn the_same_text_is_never_on_both_sides() {
        // 50 texts, each 1 to 8 times.
        let all = samples((0..50).flat_map(|text| vec![text; 1 + text as usize % 8]));
        for seed in 0..50 {
            let Split { train, validation } = split(&all, 0.1, seed).unwrap();
            let held: BTreeSet<u32> = texts(&validation).into_iter().collect();
            assert!(texts(&train).iter().all(|text| !held.contains(text)));
            assert_eq!(train.len() + validation.len(), all.len());
            assert!((1..=22).contains(&validation.len()), "{}", validation.len());
        }
    }

    #[test]
    fn at_least_one_row_is_held_out() {
        let Split { train, validation } = split(&samples([3, 4]), 0.01, 0).unwrap();
        assert_eq!((train.len(), validation.len()), (1, 1));
        // Two texts, three and two times: the rarer is held out, though one row was wanted.
        let doubled = split(&samples([3, 4, 3, 4, 3]), 0.2, 0).unwrap();
        assert_eq!((texts(&doubled.train), texts(&doubled.validation)), (vec![3; 3], vec![4; 2]));
        let one = split(&samples([3, 3]), 0.5, 0).unwrap_err();
        assert_eq!(
            one.to_string(),
            "the training rows: 1 different rows, expected at least 2 to hold one out (or `val_set_size: 0`)"
        );
        for ratio in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(matches!(split(&samples([3, 4]), ratio, 0), Err(Error::Config { .. })));
        }
    }

    #[test]
    fn rows_of_a_validation_file_are_not_trained_on() {
        let mut counts = RowCounts::default();
        let left =
            without_validation(samples([3, 4, 5, 4]), &samples([9, 4]), &mut counts).unwrap();
        assert_eq!(texts(&left), [3, 5]);
        let dropped = &counts.dropped[&Reason::InValidation];
        assert_eq!(dropped.rows, 2);
        assert_eq!(dropped.examples[1].row.to_string(), "a.jsonl:4");
        assert_eq!(dropped.examples[1].detail, "the text of a.jsonl:2");
        let none = without_validation(samples([3]), &samples([3]), &mut counts).unwrap_err();
        assert!(none.to_string().contains("every row"), "{none}");
    }
}
