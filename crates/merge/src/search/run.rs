//! The search itself: trials out, scores in, every step on disk.
//!
//! Trial 0 is the configuration as it was given, to compare with. Then come the generations of
//! CMA-ES, or the points of a grid, in an order that the space, the configuration, the strategy and
//! the seed fix: opening a store again proposes the same trials, checks that they are those on disk,
//! and goes on with the first that has no end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::cma::{Cma, Settings, Stop};
use super::grid::Grid;
use super::space::{Point, Space};
use super::store::{Record, State, Store};
use crate::Error;

/// How trials are chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// CMA-ES over ranges of real numbers, each scaled to be one long.
    Cma(Settings),
    /// Every combination, with so many values per range.
    Grid(usize),
}

/// One candidate to score.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its number; 0 is the configuration as it was given.
    pub number: usize,
    /// The values, in the order of the space.
    pub point: Point,
    /// The configuration with these values.
    pub config: Value,
    /// The seed for the merge and the evaluation: the same for all trials, so that differences
    /// between scores are due to the values and not to chance.
    pub seed: u64,
    started: Instant,
}

/// What a caller found a trial to be worth; higher is better.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The number to be raised.
    pub value: f64,
    /// Anything to be kept with it, such as the scores that it is made of.
    pub note: Option<String>,
}

impl Score {
    /// A score with a note.
    pub fn noted(value: f64, note: impl Into<String>) -> Self {
        Self { value, note: Some(note.into()) }
    }
}

impl From<f64> for Score {
    fn from(value: f64) -> Self {
        Self { value, note: None }
    }
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// As many trials are finished as were wanted.
    Limit,
    /// CMA-ES has nothing more to find.
    Stop(Stop),
    /// Every point of the grid has been tried.
    Complete,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit => f.write_str("limit"),
            Self::Stop(stop) => stop.fmt(f),
            Self::Complete => f.write_str("complete"),
        }
    }
}

/// A search for the best numbers of a configuration, kept in one SQLite file.
#[derive(Debug)]
pub struct Search {
    store: Store,
    space: Space,
    config: Value,
    strategy: Strategy,
    seed: u64,
    start: Point,
    cma: Option<Cma>,
    /// The points of the generation in work, and the number of its first trial.
    generation: Vec<Point>,
    first: usize,
    records: BTreeMap<usize, Record>,
    /// Handed out by this process and not told yet.
    out: BTreeSet<usize>,
    end: Option<End>,
}

impl Search {
    /// Begins a search in the file `path`, or goes on with the one that is there.
    ///
    /// # Errors
    /// [`Error::Value`] for a space that does not fit the configuration or the strategy, and
    /// [`Error::Store`] for a file that is damaged, in use, or of a search with another space,
    /// configuration, strategy or seed.
    pub fn open(
        path: impl AsRef<Path>,
        space: Space,
        config: Value,
        strategy: Strategy,
        seed: u64,
    ) -> Result<Self, Error> {
        let start = space.start(&config)?;
        let (cma, generation) = match &strategy {
            Strategy::Cma(settings) => {
                let cma = Cma::new(space.to_unit(&start)?, settings.clone(), seed)?
                    .within(&vec![(0.0, 1.0); start.len()])?;
                let points = cma.ask().iter().map(|unit| space.of_unit(unit)).collect();
                (Some(cma), points)
            }
            Strategy::Grid(levels) => (None, Grid::new(&space, *levels)?.points().collect()),
        };
        let about = json!({ "space": space, "config": config, "strategy": strategy, "seed": seed });
        let store = Store::open(path.as_ref(), &about)?;
        let records = store.records()?.into_iter().map(|record| (record.number, record)).collect();
        let mut search = Self {
            store,
            space,
            config,
            strategy,
            seed,
            start,
            cma,
            generation,
            first: 1,
            records,
            out: BTreeSet::new(),
            end: None,
        };
        search.check(0..1)?;
        loop {
            search.check(search.numbers())?;
            if !search.is_generation_over() || search.all_failed() || !search.advance()? {
                break;
            }
        }
        let next = search.numbers().end;
        if let Some(beyond) = search.records.keys().next_back().filter(|last| **last >= next) {
            let reason = format!("trial {beyond} belongs to no generation that was reached");
            return Err(search.store.error(reason));
        }
        Ok(search)
    }

    /// Scores one trial after the other until `limit` trials are finished, those of earlier runs
    /// and failed ones among them, or there is nothing more to find.
    ///
    /// A trial for which `score` returns an error, or a score that is not finite, is kept as failed
    /// and ranks last.
    ///
    /// # Errors
    /// [`Error::AllFailed`] when a whole generation failed: the next run tries it again. And errors
    /// of the store.
    pub fn run<S: Into<Score>, E: fmt::Display>(
        &mut self,
        mut score: impl FnMut(&Trial) -> Result<S, E>,
        limit: usize,
    ) -> Result<End, Error> {
        while self.finished() < limit {
            let Some(trial) = self.ask()? else {
                return self.end.ok_or_else(|| {
                    let found = format!("trials {:?} handed out", self.out);
                    Error::value("run", found, "each of them told first")
                });
            };
            let outcome = score(&trial);
            self.tell(&trial, outcome)?;
        }
        Ok(self.end.unwrap_or(End::Limit))
    }

    /// The next trial, marked as running on disk. Several can be out at a time, to be scored in
    /// parallel; none comes when the rest of the generation has to be told first, and when the
    /// search is at its end.
    ///
    /// # Errors
    /// [`Error::Store`] when it cannot be written.
    pub fn ask(&mut self) -> Result<Option<Trial>, Error> {
        if self.end.is_none() && self.out.is_empty() && self.is_generation_over() {
            self.try_again()?;
        }
        let is_open = |number: &usize| {
            !self.out.contains(number)
                && !self.records.get(number).is_some_and(|record| record.state.is_over())
        };
        let generation = if self.end.is_some() { 0..0 } else { self.numbers() };
        let Some(number) = std::iter::once(0).chain(generation).find(is_open) else {
            return Ok(None);
        };
        let point = self.point(number).to_vec();
        let earlier = self.records.get(&number);
        let record = Record {
            number,
            point: point.clone(),
            state: State::Running,
            score: None,
            error: earlier.and_then(|record| record.error.clone()),
            note: None,
            seconds: None,
            attempts: earlier.map_or(0, |record| record.attempts) + 1,
        };
        let config = self.space.apply(&self.config, &point)?;
        self.put(record)?;
        self.out.insert(number);
        Ok(Some(Trial { number, point, config, seed: self.seed, started: Instant::now() }))
    }

    /// Takes what became of a trial.
    ///
    /// # Errors
    /// [`Error::Value`] for a trial that is not out, [`Error::AllFailed`] when the last trial of a
    /// generation failed as all others did, and [`Error::Store`] when it cannot be written.
    pub fn tell<S: Into<Score>, E: fmt::Display>(
        &mut self,
        trial: &Trial,
        outcome: Result<S, E>,
    ) -> Result<(), Error> {
        let number = trial.number;
        let running = self
            .records
            .get(&number)
            .filter(|record| self.out.contains(&number) && record.point == trial.point);
        let Some(record) = running else {
            return Err(Error::value("trial", number, "one that was asked for and not told yet"));
        };
        let mut record = record.clone();
        record.seconds = Some(trial.started.elapsed().as_secs_f64());
        match outcome.map(Into::into) {
            Ok(Score { value, note }) if value.is_finite() => {
                (record.state, record.score, record.error) = (State::Done, Some(value), None);
                record.note = note;
            }
            Ok(Score { value, note }) => {
                record.state = State::Failed;
                record.error = Some(format!("the score is {value}, expected a finite number"));
                record.note = note;
            }
            Err(error) => {
                record.state = State::Failed;
                record.error = Some(error.to_string());
            }
        }
        self.put(record)?;
        self.out.remove(&number);
        if number == 0 || !self.is_generation_over() {
            return Ok(());
        }
        if self.all_failed() {
            let numbers = self.numbers();
            let error = self.records[&numbers.start].error.clone().unwrap_or_default();
            return Err(Error::AllFailed { first: numbers.start, last: numbers.end - 1, error });
        }
        self.advance()?;
        Ok(())
    }

    /// The trial with the highest score, the earliest of equal ones.
    pub fn best(&self) -> Option<&Record> {
        self.ranked().into_iter().next()
    }

    /// All trials that have a score, from the best to the worst.
    pub fn ranked(&self) -> Vec<&Record> {
        let mut done: Vec<_> = self.records.values().filter(|r| r.score.is_some()).collect();
        done.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(std::cmp::Ordering::Equal));
        done
    }

    /// All trials that were begun, by number.
    pub fn trials(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Trials that need no more work.
    pub fn finished(&self) -> usize {
        self.records.values().filter(|record| record.state.is_over()).count()
    }

    /// Why there is nothing more to try, once there is not.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The configuration of a trial.
    ///
    /// # Errors
    /// [`Error::Value`] for a record of another search.
    pub fn config_of(&self, record: &Record) -> Result<Value, Error> {
        self.space.apply(&self.config, &record.point)
    }

    /// The configuration that the search began with.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// What is searched.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// How trials are chosen.
    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// The seed of the search, its trials and its confirmation.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Trials of the generation in work.
    fn numbers(&self) -> Range<usize> {
        self.first..self.first + self.generation.len()
    }

    fn point(&self, number: usize) -> &[f64] {
        if number == 0 { &self.start } else { &self.generation[number - self.first] }
    }

    fn is_generation_over(&self) -> bool {
        self.numbers()
            .all(|number| self.records.get(&number).is_some_and(|record| record.state.is_over()))
    }

    fn all_failed(&self) -> bool {
        self.numbers().all(|number| {
            self.records.get(&number).is_some_and(|record| record.state == State::Failed)
        })
    }

    fn put(&mut self, record: Record) -> Result<(), Error> {
        self.store.write([&record])?;
        self.records.insert(record.number, record);
        Ok(())
    }

    /// A generation without a score goes to work again, and the configuration as given with it.
    fn try_again(&mut self) -> Result<(), Error> {
        if !self.all_failed() {
            return Ok(());
        }
        let failed = std::iter::once(0).chain(self.numbers());
        let again: Vec<Record> = failed
            .filter_map(|number| self.records.get(&number))
            .filter(|record| record.state == State::Failed)
            .map(|record| Record { state: State::Pending, ..record.clone() })
            .collect();
        self.store.write(&again)?;
        self.records.extend(again.into_iter().map(|record| (record.number, record)));
        Ok(())
    }

    /// On to the next generation, when this one is over and has a score; false at the end.
    fn advance(&mut self) -> Result<bool, Error> {
        let Some(cma) = &mut self.cma else {
            self.end = Some(End::Complete);
            return Ok(false);
        };
        let scored: Vec<(Point, f64)> = cma
            .ask()
            .into_iter()
            .zip(self.first..)
            .map(|(unit, number)| (unit, self.records[&number].score.unwrap_or(f64::NAN)))
            .collect();
        if let Some(stop) = cma.tell(&scored)? {
            self.end = Some(End::Stop(stop));
            return Ok(false);
        }
        self.first += scored.len();
        self.generation = cma.ask().iter().map(|unit| self.space.of_unit(unit)).collect();
        Ok(true)
    }

    /// Whether the trials on disk are those that would be proposed.
    fn check(&self, numbers: Range<usize>) -> Result<(), Error> {
        for number in numbers {
            let Some(record) = self.records.get(&number) else { continue };
            if record.point != self.point(number) {
                return Err(self.store.error(format!(
                    "trial {number} has the values {:?}, where this search proposes {:?}: the \
                     store was changed, or written by another version",
                    record.point,
                    self.point(number)
                )));
            }
        }
        Ok(())
    }
}
