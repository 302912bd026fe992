//! Against scikit-learn and scipy, and the report as a whole.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;

use super::calibration::brier_of_pairs;
use super::*;
use crate::watch::Extras;

#[derive(Deserialize)]
struct Fixture {
    pairs: Vec<Pairs>,
    labelled: Vec<Labelled>,
    wilson: Vec<Wilson>,
}

#[derive(Deserialize)]
struct Pairs {
    name: String,
    chosen: Vec<f64>,
    rejected: Vec<f64>,
    accuracy: f64,
    auc: f64,
    brier: f64,
    ece: f64,
}

#[derive(Deserialize)]
struct Labelled {
    name: String,
    probabilities: Vec<f64>,
    labels: Vec<bool>,
    bins: usize,
    auc: f64,
    brier: f64,
    ece: f64,
    bin_confidence: Vec<f64>,
    bin_accuracy: Vec<f64>,
}

#[derive(Deserialize)]
struct Wilson {
    successes: u32,
    trials: usize,
    low: f64,
    high: f64,
}

fn fixture() -> Fixture {
    let text = include_str!("../../../../tests/fixtures/scores/scores.json");
    serde_json::from_str(text).unwrap()
}

fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-12, "{what}: {found}, expected {expected}");
}

#[test]
fn pairs_as_scikit_learn() {
    let cases = fixture().pairs;
    assert_eq!(cases.len(), 4);
    for case in cases {
        let scores = case.chosen.iter().zip(&case.rejected);
        let pairs: Vec<ScoredPair> = scores
            .map(|(&chosen, &rejected)| ScoredPair { chosen, rejected, ..ScoredPair::default() })
            .collect();
        near(PairOrder::of(&pairs).unwrap().accuracy.value, case.accuracy, &case.name);
        near(auc(&case.chosen, &case.rejected).unwrap(), case.auc, &case.name);
        near(brier_of_pairs(&pairs).unwrap(), case.brier, &case.name);
        near(Calibration::of_pairs(&pairs).unwrap().ece, case.ece, &case.name);
    }
}

#[test]
fn labelled_probabilities_as_scikit_learn() {
    let cases = fixture().labelled;
    assert_eq!(cases.len(), 4);
    for case in cases {
        let both = || case.probabilities.iter().copied().zip(case.labels.iter().copied());
        let those =
            |label| both().filter(|(_, is)| *is == label).map(|(p, _)| p).collect::<Vec<_>>();
        near(auc(&those(true), &those(false)).unwrap(), case.auc, &case.name);
        near(brier(&both().collect::<Vec<_>>()).unwrap(), case.brier, &case.name);
        let outcomes: Vec<(f64, f64)> =
            both().map(|(p, is)| (p, f64::from(u8::from(is)))).collect();
        let found = Calibration::of(&outcomes, case.bins).unwrap();
        near(found.ece, case.ece, &case.name);
        assert_eq!(found.bins.len(), case.bin_confidence.len(), "{}", case.name);
        let expected = case.bin_confidence.iter().zip(&case.bin_accuracy);
        for (bin, (confidence, accuracy)) in found.bins.iter().zip(expected) {
            near(bin.confidence, *confidence, &case.name);
            near(bin.accuracy.value, *accuracy, &case.name);
        }
    }
}

#[test]
fn intervals_as_scipy() {
    let cases = fixture().wilson;
    assert_eq!(cases.len(), 8);
    for case in cases {
        let found = Share::wilson(f64::from(case.successes), case.trials).unwrap();
        let what = format!("{} of {}", case.successes, case.trials);
        near(found.low, case.low, &what);
        near(found.high, case.high, &what);
    }
}

/// A model that likes length: margins of a hundred tokens' worth, half of the time right for another reason.
fn length_model() -> Vec<ScoredPair> {
    let pair = |i: usize| {
        let longer = i % 10 < 7;
        let (chosen_tokens, rejected_tokens) =
            if longer { (60 + i, 20 + i) } else { (20 + i, 60 + i) };
        let margin = if longer {
            1.0
        } else if i % 10 == 9 {
            0.5
        } else {
            -1.0
        };
        ScoredPair { chosen: margin, rejected: 0.0, chosen_tokens, rejected_tokens }
    };
    (0..200).map(pair).collect()
}

#[test]
fn a_report() {
    let report = ScoreReport::new(&length_model()).unwrap();
    // By hand: 7 of 10 are longer and right, of the other 3 one is right.
    assert_eq!((report.all.order.wins, report.all.order.pairs), (160, 200));
    near(report.length.longer.value, 0.7, "longer");
    near(report.length.model_where_shorter.unwrap().value, 1.0 / 3.0, "shorter");
    assert_eq!(report.buckets.iter().map(|b| b.measures.order.pairs).collect::<Vec<_>>(), [50; 4]);
    // From 80 on in steps of 2, 50 pairs a bucket.
    assert_eq!((report.buckets[0].from, report.buckets[0].to), (80, 178));

    let json = serde_json::to_string(&report).unwrap();
    let read: ScoreReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read.all.order.wins, 160);
    let text = report.to_string();
    for part in [
        "pairs                     200, 160 in order, 0 tied\n",
        "accuracy                  80.0 % (73.9 to 85.0)\n",
        "  80–178:  pairs 50  accuracy 80.0 % (67.0 to 88.8)",
        "Length alone does not explain the preferences",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let extras = Extras::new(report.metrics()).unwrap();
    assert_eq!(extras.get("length_baseline"), Some(0.7));
    assert!(extras.get("auc").is_some() && extras.get("ece").is_some());
}

#[test]
fn a_page() {
    let report = ScoreReport::new(&length_model()).unwrap();
    let chosen = std::env::var_os("POSTTRAIN_WATCH_DIR");
    let temporary = tempfile::tempdir().unwrap();
    let folder = chosen.as_deref().map_or(temporary.path(), std::path::Path::new).join("scores");
    report.save(&folder, "<RM>").unwrap();
    let page = std::fs::read_to_string(folder.join(SCORES_HTML)).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for part in ["<title>&lt;RM&gt;</title>", r#"id="reliability""#, "<td>80–178</td>"] {
        assert!(page.contains(part), "{part}");
    }
    let json = std::fs::read(folder.join(SCORES_JSON)).unwrap();
    assert!(serde_json::from_slice::<ScoreReport>(&json).is_ok());
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let message = |pairs: &[ScoredPair]| ScoreReport::new(pairs).unwrap_err().to_string();
    assert_eq!(message(&[]), "the scores: there are no pairs");
    let pair = ScoredPair { rejected: f64::NAN, ..ScoredPair::default() };
    assert_eq!(
        message(&[ScoredPair::default(), pair]),
        "pair 1: the score of its rejected answer is NaN"
    );
    // One pair alone has a report.
    assert_eq!(ScoreReport::new(&[ScoredPair::default()]).unwrap().all.order.ties, 1);
}
