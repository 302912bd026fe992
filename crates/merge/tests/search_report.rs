//! Confirmation on held-out items, and what is written about a search.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;

use posttrain_merge::search::{Confirm, Number, Search, Space, Strategy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A grid over one weight, at its best at 0.75; the trial at 0 fails.
fn searched() -> (TempDir, Search) {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "weight": 0.5 });
    let space = Space::new(&config, [Number::real("weight", 0.0..=1.0).named("a|b")]).unwrap();
    let path = folder.path().join("search.sqlite");
    let mut search = Search::open(path, space, config, Strategy::Grid(5), 3).unwrap();
    search
        .run(
            |trial| match weight(&trial.config) {
                0.0 => Err("no\nweight | at all"),
                weight => Ok(0.75 - (weight - 0.75).abs()),
            },
            99,
        )
        .unwrap();
    (folder, search)
}

fn weight(config: &Value) -> f64 {
    config["weight"].as_f64().unwrap()
}

fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{name}-{i}")).collect()
}

fn confirm(candidates: usize) -> Confirm {
    Confirm { searched: ids("s", 50), held_out: ids("h", 100), parents: vec![], candidates }
}

/// Item i is solved when it is easier than the weight: i < 100 w.
fn solved(config: &Value) -> Result<Vec<f64>, String> {
    Ok((0..100).map(|i| f64::from(u8::from(f64::from(i) < 100.0 * weight(config)))).collect())
}

#[test]
fn a_gain_that_holds_and_one_that_does_not() {
    let (_folder, search) = searched();
    let confirmed = search.confirm(&confirm(1), solved).unwrap();
    assert_eq!((confirmed.baseline.as_str(), confirmed.baseline_mean), ("start", 0.5));
    let [gain] = confirmed.candidates.as_slice() else { panic!("one candidate") };
    // 25 of 100 items more: a share of 0.25, whose standard error is 0.0433.
    assert_eq!((gain.mean, gain.gain, gain.search_score), (0.75, 0.25, 0.75));
    assert!((gain.low - (0.25 - 1.96 * 0.0433)).abs() < 0.015, "{gain:?}");
    assert!((gain.high - (0.25 + 1.96 * 0.0433)).abs() < 0.015, "{gain:?}");
    assert!(gain.is_confirmed());
    assert_eq!(search.confirm(&confirm(1), solved).unwrap(), confirmed, "seeded");
    // The same shift of every item has no spread; no gain is none.
    let exact = search.confirm(&confirm(1), |c| Ok::<_, String>(vec![weight(c); 100])).unwrap();
    assert_eq!((exact.candidates[0].low, exact.candidates[0].high), (0.25, 0.25));
    let none = search.confirm(&confirm(1), |_| Ok::<_, String>(vec![1.0; 100])).unwrap();
    assert!(!none.candidates[0].is_confirmed());

    // A parent that is better than the start is the one to beat.
    let parents = vec![("b".to_owned(), json!({ "weight": 0.6 }))];
    let harder = search.confirm(&Confirm { parents, ..confirm(1) }, solved).unwrap();
    assert_eq!(harder.baseline, "b");
    assert!((harder.candidates[0].gain - 0.15).abs() < 1e-12);
}

#[test]
fn several_candidates_share_the_level() {
    let (_folder, search) = searched();
    let asked = RefCell::new(Vec::new());
    let confirmed = search
        .confirm(&confirm(3), |config| {
            asked.borrow_mut().push(weight(config));
            solved(config)
        })
        .unwrap();
    // The start first, then the best of the search; the start is no candidate.
    assert_eq!(*asked.borrow(), [0.5, 0.75, 0.5, 1.0]);
    assert!((confirmed.level - (1.0 - 0.05 / 3.0)).abs() < 1e-15);
    let one = search.confirm(&confirm(1), solved).unwrap();
    assert!(confirmed.candidates[0].low < one.candidates[0].low);
    assert!(confirmed.candidates[0].high > one.candidates[0].high);
    let text = confirmed.to_markdown();
    assert!(text.contains("Baseline on 100 held-out items: start with 0.5."), "{text}");
    assert!(text.contains("| 4 | 0.75 | 0.75 | 0.25 |"), "{text}");
    assert!(text.contains("| confirmed |") && text.contains("| not confirmed |"), "{text}");
}

#[test]
fn items_of_the_search_confirm_nothing() {
    let (_folder, search) = searched();
    let refused = |confirm: &Confirm| {
        let never = |_: &Value| -> Result<Vec<f64>, String> { panic!("nothing is scored") };
        search.confirm(confirm, never).unwrap_err().to_string()
    };
    let mut leak = confirm(1);
    leak.held_out[7] = "s-31".to_owned();
    leak.held_out[9] = "s-1".to_owned();
    let error = refused(&leak);
    assert!(error.starts_with("`held_out[7]` is `s-31`, expected an item that the search has not"));
    let mut twice = confirm(1);
    twice.held_out[5] = "h-2".to_owned();
    assert_eq!(refused(&twice), "`held_out[5]` is `h-2` again, expected each item once");
    let few = Confirm { held_out: ids("h", 1), ..confirm(1) };
    assert_eq!(refused(&few), "`held_out` is 1 items, expected at least 2");
    assert!(refused(&confirm(0)).contains("at least one trial with a score"));
}

#[test]
fn scores_of_the_items_are_checked() {
    let (_folder, search) = searched();
    let failed = |scores: Result<Vec<f64>, &'static str>| {
        search.confirm(&confirm(1), |_| scores.clone()).unwrap_err().to_string()
    };
    assert_eq!(failed(Err("no GPU")), "scores of start: no GPU");
    assert_eq!(failed(Ok(vec![1.0])), "scores of start: 1 scores, expected 100");
    let mut scores = vec![1.0; 100];
    scores[8] = f64::NAN;
    assert_eq!(failed(Ok(scores)), "scores of start: item `h-8` has the score NaN");
}

#[test]
fn a_summary_as_markdown_and_json() {
    let (_folder, search) = searched();
    let text = search.to_markdown();
    assert!(text.starts_with("- grid of 5 levels, seed 3: complete\n"), "{text}");
    assert!(text.contains("- 6 trials finished, 1 failed, "), "{text}");
    assert!(text.contains("- best: trial 4 with 0.75, 0.25 above the start (0.5)\n"), "{text}");
    assert!(text.contains("    - `a|b`: 0.75\n"), "{text}");
    assert!(
        text.contains("| trial | a\\|b | score | seconds | |\n|--:|--:|--:|--:|---|\n"),
        "{text}"
    );
    assert!(text.contains("| 1 | 0 | failed | 0.0 | no weight \\| at all |"), "{text}");
    assert!(text.contains("| 5 | 1 | 0.5 | 0.0 |  |"), "{text}");

    let summary = search.to_json();
    assert_eq!(summary["end"], "complete");
    assert_eq!(summary["best"]["number"], 4);
    assert_eq!(summary["space"][0]["name"], "a|b");
    assert_eq!(summary["trials"].as_array().unwrap().len(), 6);
    assert_eq!(summary["trials"][1]["error"], "no\nweight | at all");
    assert_eq!(summary["trials"][1]["state"], "failed");
}

#[test]
fn a_picture_of_the_best_so_far() {
    let (_folder, search) = searched();
    let svg = search.to_svg();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox="), "{svg}");
    assert_eq!(svg.matches("<circle").count(), 5, "a dot per score");
    assert_eq!(svg.matches("stroke=\"#d62728\"").count(), 1, "a cross per failure");
    for words in [">trial<", ">score<", ">best so far: 0.75<", ">start 0.5<"] {
        assert!(svg.contains(words), "{words}");
    }
    // The line: from the start (trial 0, x = 80) up at trial 4 of 5 and on to the end.
    let line = svg.lines().find(|line| line.contains("stroke-width")).unwrap();
    assert!(
        line.contains("M80.0 ") && line.contains("H608.0V") && line.contains("H740.0"),
        "{line}"
    );
    assert_eq!(svg.matches("http").count(), 1, "nothing from elsewhere");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn before_the_first_trial_there_is_a_summary_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "weight": 0.5 });
    let space = Space::new(&config, [Number::real("weight", 0.0..=1.0)]).unwrap();
    let path = folder.path().join("search.sqlite");
    let search = Search::open(path, space, config, Strategy::Grid(5), 3).unwrap();
    assert!(search.to_markdown().contains("0 trials finished"));
    assert!(search.to_json()["best"].is_null());
    let svg = search.to_svg();
    assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"));
}
