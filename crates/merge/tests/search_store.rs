//! A search on disk: interruptions, other searches, broken files, failures.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use posttrain_merge::Error;
use posttrain_merge::search::{
    End, Number, Record, Score, Search, Settings, Space, State, Stop, Strategy, Trial,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn config() -> Value {
    json!({ "models": [
        { "model": "a", "parameters": { "weight": 0.5 } },
        { "model": "b", "parameters": { "weight": 0.1 } },
        { "model": "c" }
    ] })
}

fn numbers() -> [Number; 2] {
    [
        Number::real("models[0].parameters.weight", 0.0..=1.0),
        Number::log("models[1].parameters.weight", 0.01..=1.0),
    ]
}

fn space() -> Space {
    Space::new(&config(), numbers()).unwrap()
}

fn cma() -> Strategy {
    Strategy::Cma(Settings::default())
}

fn open(path: &Path, strategy: Strategy) -> Result<Search, Error> {
    Search::open(path, space(), config(), strategy, 7)
}

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("search.sqlite");
    (folder, path)
}

/// Best at 0.8 and 0.3.
fn worth(config: &Value) -> f64 {
    let weight = |i: usize| config["models"][i]["parameters"]["weight"].as_f64().unwrap();
    -(weight(0) - 0.8).powi(2) - (weight(1).ln() - 0.3f64.ln()).powi(2)
}

fn score(trial: &Trial) -> Result<f64, String> {
    Ok(worth(&trial.config))
}

/// What a search knows, but for wall times and attempts.
fn known(search: &Search) -> Vec<Record> {
    search.trials().cloned().map(|r| Record { seconds: None, attempts: 0, ..r }).collect()
}

#[test]
fn it_finds_the_best_and_says_so() {
    let (_folder, path) = file();
    let mut search = open(&path, cma()).unwrap();
    let seeds = RefCell::new(Vec::new());
    let end = search
        .run(
            |trial| {
                seeds.borrow_mut().push(trial.seed);
                let note = format!("trial {}", trial.number);
                Ok::<_, String>(Score::noted(worth(&trial.config), note))
            },
            150,
        )
        .unwrap();
    assert_eq!(end, End::Limit);
    assert_eq!(seeds.borrow().as_slice(), [7; 150], "the same random numbers for all");
    let best = search.best().unwrap();
    assert!(best.score.unwrap() > -1e-3, "{best:?}");
    assert_eq!(best.note.as_ref().unwrap(), &format!("trial {}", best.number));
    let best = search.config_of(best).unwrap();
    assert!((best["models"][0]["parameters"]["weight"].as_f64().unwrap() - 0.8).abs() < 0.05);
    assert_eq!(best["models"][2], config()["models"][2]);
    let first = search.trials().next().unwrap();
    assert_eq!((first.number, first.point.as_slice()), (0, [0.5, 0.1].as_slice()));
    assert_eq!(search.config_of(first).unwrap(), config());
    assert!(search.trials().all(|r| r.attempts == 1 && r.seconds.unwrap() >= 0.0));
    // Finished already: nothing is scored.
    assert_eq!(search.run(|_| Err::<f64, _>("not called"), 150).unwrap(), End::Limit);
}

#[test]
fn it_ends_when_there_is_nothing_more_to_find() {
    let (_folder, path) = file();
    let settings = Settings { tolx: 1e-3, ..Settings::default() };
    let mut search = open(&path, Strategy::Cma(settings.clone())).unwrap();
    assert_eq!(search.run(score, 10_000).unwrap(), End::Stop(Stop::Tolx));
    assert_eq!(search.end().unwrap().to_string(), "tolx");
    assert!(search.ask().unwrap().is_none());
    let before = known(&search);
    drop(search);
    let mut again = open(&path, Strategy::Cma(settings)).unwrap();
    assert_eq!(again.end(), Some(End::Stop(Stop::Tolx)));
    assert_eq!(again.run(score, 10_000).unwrap(), End::Stop(Stop::Tolx));
    assert_eq!(known(&again), before);
}

/// Cut off in every trial in turn, by a panic in the score: the same trials as in one go.
#[test]
fn a_search_that_is_cut_off_goes_on_as_if_it_had_not_been() {
    for strategy in [cma(), Strategy::Grid(4)] {
        let (_folder, path) = file();
        let mut whole = open(&path, strategy.clone()).unwrap();
        whole.run(score, 15).unwrap();

        let (_folder, path) = file();
        let scored = RefCell::new(Vec::new());
        for cut in 0..15 {
            let mut search = open(&path, strategy.clone()).unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| {
                search.run(
                    |trial| {
                        assert!(trial.number < cut, "cut off");
                        scored.borrow_mut().push(trial.number);
                        score(trial)
                    },
                    15,
                )
            }));
            assert!(result.is_err());
            let last = search.trials().last().unwrap();
            assert_eq!((last.number, last.state), (cut, State::Running));
        }
        let mut search = open(&path, strategy).unwrap();
        search
            .run(
                |trial| {
                    scored.borrow_mut().push(trial.number);
                    score(trial)
                },
                15,
            )
            .unwrap();
        assert_eq!(known(&search), known(&whole));
        assert_eq!(*scored.borrow(), (0..15).collect::<Vec<_>>(), "no finished trial again");
        assert!(search.trials().skip(1).all(|record| record.attempts == 2));
    }
}

/// Trials that are out together, told in another order, are the same search.
#[test]
fn in_parallel_it_is_the_same_search() {
    let (_one, path) = file();
    let mut whole = open(&path, cma()).unwrap();
    whole.run(score, 1 + 6 * 4).unwrap();

    let (_two, path) = file();
    let mut search = open(&path, cma()).unwrap();
    for _ in 0..4 {
        let mut trials = Vec::new();
        while let Some(trial) = search.ask().unwrap() {
            trials.push(trial);
        }
        let waiting = search.run(score, 100).unwrap_err().to_string();
        assert!(waiting.contains("each of them told first"), "{waiting}");
        for trial in trials.iter().rev() {
            search.tell(trial, score(trial)).unwrap();
        }
        let twice = search.tell(&trials[0], score(&trials[0])).unwrap_err().to_string();
        assert!(twice.contains("asked for and not told yet"), "{twice}");
    }
    assert_eq!(known(&search), known(&whole));
}

#[test]
fn failures_are_kept_and_rank_last() {
    let (_folder, path) = file();
    let mut search = open(&path, cma()).unwrap();
    let flaky = |trial: &Trial| match trial.number % 3 {
        1 => Err(format!("out of memory in trial {}", trial.number)),
        2 => Ok(f64::NAN),
        _ => Ok(worth(&trial.config)),
    };
    search.run(flaky, 40).unwrap();
    let records: Vec<Record> = search.trials().cloned().collect();
    assert_eq!(records[1].error.as_deref(), Some("out of memory in trial 1"));
    assert_eq!(records[2].error.as_deref(), Some("the score is NaN, expected a finite number"));
    assert_eq!((records[2].state, records[2].score), (State::Failed, None));
    assert_eq!(search.ranked().len(), 14);
    drop(search);
    let search = open(&path, cma()).unwrap();
    assert_eq!(search.trials().cloned().collect::<Vec<_>>(), records);
}

#[test]
fn when_all_of_a_generation_fail_it_ends_and_is_tried_again() {
    let (_folder, path) = file();
    let mut search = open(&path, cma()).unwrap();
    let broken = |trial: &Trial| Err::<f64, _>(format!("no GPU for {}", trial.number));
    let error = search.run(broken, 100).unwrap_err();
    let words = "all of the trials 1 to 6 failed; trial 1: no GPU for 1";
    assert_eq!(error.to_string(), words);
    assert_eq!(search.trials().filter(|record| record.state == State::Failed).count(), 7);
    assert!(search.best().is_none());
    // In the same process and after opening it again.
    assert_eq!(search.run(broken, 100).unwrap_err().to_string(), words);
    drop(search);
    let mut search = open(&path, cma()).unwrap();
    search.run(score, 20).unwrap();
    let (_folder, path) = file();
    let mut whole = open(&path, cma()).unwrap();
    whole.run(score, 20).unwrap();
    assert_eq!(known(&search), known(&whole));
    assert_eq!(search.trials().next().unwrap().attempts, 3);
}

#[test]
fn a_grid_is_tried_in_order_and_once() {
    let (_folder, path) = file();
    let mut search = open(&path, Strategy::Grid(3)).unwrap();
    assert_eq!(search.run(score, 5).unwrap(), End::Limit);
    assert_eq!(search.run(score, usize::MAX).unwrap(), End::Complete);
    assert_eq!(search.finished(), 1 + 9);
    let points: Vec<_> = search.trials().map(|record| record.point.clone()).collect();
    assert_eq!(points[1], [0.0, 0.01]);
    assert_eq!(points[9], [1.0, 1.0]);
    drop(search);
    let mut search = open(&path, Strategy::Grid(3)).unwrap();
    assert_eq!(search.run(|_| Err::<f64, _>("not called"), 99).unwrap(), End::Complete);
}

#[test]
fn listed_values_are_for_grids() {
    let (_folder, path) = file();
    let number = Number::choices("models[0].parameters.weight", [0.5, 1.0]);
    let space = Space::new(&config(), [number]).unwrap();
    let error = Search::open(&path, space, config(), cma(), 7).unwrap_err().to_string();
    assert!(error.contains("a range of real numbers for CMA-ES, or a grid"), "{error}");
    assert!(!path.exists(), "nothing was begun");
}

#[test]
fn another_search_is_refused_by_what_differs() {
    let (_folder, path) = file();
    open(&path, cma()).unwrap().run(score, 3).unwrap();
    let mut other = config();
    other["models"][2]["model"] = json!("d");
    let wider = Space::new(
        &config(),
        [
            Number::real("models[0].parameters.weight", 0.0..=1.5),
            Number::log("models[1].parameters.weight", 0.01..=1.0),
        ],
    )
    .unwrap();
    let sigma = Strategy::Cma(Settings { sigma: 0.3, ..Settings::default() });
    for (space, config, strategy, seed, words) in [
        (space(), other, cma(), 7, "`config.models[2].model` is \"c\" there and \"d\" now"),
        (wider, config(), cma(), 7, "`space[0].domain.real[1]` is 1.0 there and 1.5 now"),
        (space(), config(), sigma, 7, "`strategy.cma.sigma` is 0.16666666666666666 there and 0.3"),
        (space(), config(), Strategy::Grid(3), 7, "`strategy.cma` is "),
        (space(), config(), cma(), 8, "`seed` is 7 there and 8 now"),
    ] {
        let error = Search::open(&path, space, config, strategy, seed).unwrap_err();
        assert!(matches!(error, Error::Store { .. }));
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(open(&path, cma()).unwrap().finished(), 3);
}

#[test]
fn one_search_at_a_time() {
    let (_folder, path) = file();
    let first = open(&path, cma()).unwrap();
    let error = open(&path, cma()).unwrap_err().to_string();
    assert!(error.contains("in use by another search"), "{error}");
    drop(first);
    open(&path, cma()).unwrap();
}

/// Another process has it, until it ends: this test runs itself once more as that process.
#[test]
fn one_process_at_a_time() {
    const HELD: &str = "POSTTRAIN_MERGE_HELD_SEARCH";
    if let Ok(path) = std::env::var(HELD) {
        let mut search = open(Path::new(&path), cma()).unwrap();
        search.run(score, 4).unwrap();
        search.ask().unwrap().unwrap();
        std::fs::write(format!("{path}.ready"), "").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(59));
    }
    let (_folder, path) = file();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_process_at_a_time"])
        .env(HELD, &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ready = PathBuf::from(format!("{}.ready", path.display()));
    while !ready.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let refused = open(&path, cma());
    // Others may read all the while.
    let read = rusqlite::Connection::open(&path).and_then(|connection| {
        connection.query_row("SELECT count(*) FROM trials", [], |row| row.get::<_, i64>(0))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(refused.unwrap_err().to_string().contains("in use by another search"));
    assert_eq!(read.unwrap(), 5);

    let mut search = open(&path, cma()).unwrap();
    assert_eq!(search.trials().last().unwrap().state, State::Running);
    search.run(score, 20).unwrap();
    let (_folder, path) = file();
    let mut whole = open(&path, cma()).unwrap();
    whole.run(score, 20).unwrap();
    assert_eq!(known(&search), known(&whole));
}

#[test]
fn broken_files_are_named() {
    let (_folder, path) = file();
    let refused = || {
        let error = open(&path, cma()).unwrap_err();
        assert!(matches!(error, Error::Store { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        error
    };
    std::fs::write(&path, "weights: 1\n".repeat(500)).unwrap();
    assert!(refused().contains("file is not a database"));

    // Of something else.
    std::fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE answers (id INTEGER)").unwrap();
    drop(other);
    assert!(refused().contains("not the store of a search"));

    // A page overwritten, and a file cut short.
    std::fs::remove_file(&path).unwrap();
    open(&path, cma()).unwrap().run(score, 60).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[4096..].iter_mut().for_each(|byte| *byte = 0x5a);
    std::fs::write(&path, bad).unwrap();
    let error = refused();
    assert!(error.contains("damaged") || error.contains("malformed"), "{error}");
    std::fs::write(&path, &good[..good.len() - 3000]).unwrap();
    let error = refused();
    assert!(error.contains("damaged") || error.contains("malformed"), "{error}");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(open(&path, cma()).unwrap().finished(), 60);
}

#[test]
fn changed_rows_are_named() {
    let (_folder, path) = file();
    open(&path, cma()).unwrap().run(score, 9).unwrap();
    let good = std::fs::read(&path).unwrap();
    for (change, words) in [
        ("UPDATE trials SET point = '[0.5, 0.5]' WHERE number = 3", "trial 3 has the values"),
        ("UPDATE trials SET point = '[0.5' WHERE number = 3", "a trial with [0.5"),
        ("UPDATE trials SET state = 'gone' WHERE number = 3", "a trial with gone"),
        ("UPDATE trials SET score = NULL WHERE number = 3", "trial 3 is done with the score None"),
        // Another score, another second generation.
        ("UPDATE trials SET score = 9 WHERE number = 3", "trial 7 has the values"),
        ("DELETE FROM trials WHERE number = 3", "trial 8 belongs to no generation"),
        ("DELETE FROM about WHERE key = 'seed'", "`seed` is missing"),
        ("PRAGMA user_version = 9", "a store of version 9, expected 1"),
    ] {
        std::fs::write(&path, &good).unwrap();
        rusqlite::Connection::open(&path).unwrap().execute_batch(change).unwrap();
        let error = open(&path, cma()).unwrap_err().to_string();
        assert!(error.contains(words), "{change}: {error}");
    }
}

#[test]
fn a_folder_that_is_not_there() {
    let (folder, _) = file();
    let error = open(&folder.path().join("none/search.sqlite"), cma()).unwrap_err();
    assert!(error.to_string().contains("none/search.sqlite"), "{error}");
}
