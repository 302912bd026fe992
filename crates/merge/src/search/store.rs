//! A search on disk: one SQLite file with what is searched and a row per trial.
//!
//! `about` has the space, the configuration, the strategy and the seed as JSON; `trials` the values,
//! state, score, error, note, wall time and number of attempts of each trial. Every change is a
//! transaction of its own, on the disk before the next trial begins. The file can be read by others
//! while a search runs; a lock on `FILE.lock` beside it, which ends with the process, keeps a second
//! search out.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use serde_json::Value;

use super::path;
use super::space::Point;
use crate::Error;

/// Where a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// To be run again, after all of its generation failed.
    Pending,
    /// Begun and not finished: in work, or cut off.
    Running,
    /// It has a score.
    Done,
    /// It has an error.
    Failed,
}

impl State {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Pending, "pending"),
        (Self::Running, "running"),
        (Self::Done, "done"),
        (Self::Failed, "failed"),
    ];

    /// Its name in the file and in reports.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    /// Whether it needs no more work.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// What became of a trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Its number; 0 is the configuration as it was given.
    pub number: usize,
    /// The values, in the order of the space.
    pub point: Point,
    /// Whether it is finished.
    pub state: State,
    /// Its score, when done.
    pub score: Option<f64>,
    /// What went wrong, the last time.
    pub error: Option<String>,
    /// What the caller had to say.
    pub note: Option<String>,
    /// Wall time of the last attempt in seconds, from its being handed out to its being told.
    pub seconds: Option<f64>,
    /// How often it was begun.
    pub attempts: u32,
}

/// "pmse": marks the file as one of this crate.
const APPLICATION: i32 = 0x706d_7365;
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE trials (
        number INTEGER PRIMARY KEY,
        point TEXT NOT NULL,
        state TEXT NOT NULL,
        score REAL,
        error TEXT,
        note TEXT,
        seconds REAL,
        attempts INTEGER NOT NULL
    ) STRICT;";

#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    connection: Connection,
    _lock: File,
}

impl Store {
    /// Opens or creates the file of the search that `about` describes, an object.
    pub(crate) fn open(path: &Path, about: &Value) -> Result<Self, Error> {
        let lock = lock(path)?;
        let sql = |error: rusqlite::Error| Error::store(path, error.to_string());
        let connection = Connection::open(path).map_err(sql)?;
        let check: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql)?;
        if check != "ok" {
            return Err(Error::store(path, format!("the database is damaged: {check}")));
        }
        let mut store = Self { path: path.to_owned(), connection, _lock: lock };
        let tables = store.number("SELECT count(*) FROM sqlite_schema")?;
        if tables == 0 {
            store.create(about)?;
            return Ok(store);
        }
        let application = store.number("PRAGMA application_id")?;
        if application != i64::from(APPLICATION) {
            return Err(Error::store(path, "an SQLite database, but not the store of a search"));
        }
        let version = store.number("PRAGMA user_version")?;
        if version != i64::from(VERSION) {
            let reason = format!("a store of version {version}, expected {VERSION}");
            return Err(Error::store(path, reason));
        }
        store.compare(about)?;
        Ok(store)
    }

    fn number(&self, query: &str) -> Result<i64, Error> {
        self.connection.query_row(query, [], |row| row.get(0)).map_err(|e| self.sql(e))
    }

    fn sql(&self, error: rusqlite::Error) -> Error {
        Error::store(&self.path, error.to_string())
    }

    fn create(&mut self, about: &Value) -> Result<(), Error> {
        let path = self.path.clone();
        let work = |connection: &mut Connection| {
            let change = connection.transaction()?;
            change.execute_batch(TABLES)?;
            for (key, value) in about.as_object().into_iter().flatten() {
                change.execute("INSERT INTO about VALUES (?1, ?2)", (key, value.to_string()))?;
            }
            change.pragma_update(None, "application_id", APPLICATION)?;
            change.pragma_update(None, "user_version", VERSION)?;
            change.commit()
        };
        work(&mut self.connection).map_err(|error| Error::store(path, error.to_string()))
    }

    /// Nothing when the stored search is this one.
    fn compare(&self, about: &Value) -> Result<(), Error> {
        for (key, now) in about.as_object().into_iter().flatten() {
            let stored: Option<String> = self
                .connection
                .query_row("SELECT value FROM about WHERE key = ?1", [key], |row| row.get(0))
                .optional()
                .map_err(|error| self.sql(error))?;
            let stored = stored.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let Some(stored) = stored else {
                return Err(Error::store(&self.path, format!("`{key}` is missing or not JSON")));
            };
            if let Some((place, then, now)) = path::difference(&stored, now) {
                let name = match place.as_str() {
                    "" => key.clone(),
                    place if place.starts_with('[') => format!("{key}{place}"),
                    place => format!("{key}.{place}"),
                };
                let reason = format!(
                    "the store of another search: `{name}` is {then} there and {now} now; use \
                     another file, or what it was begun with"
                );
                return Err(Error::store(&self.path, reason));
            }
        }
        Ok(())
    }

    /// All trials by number.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Error> {
        let query = "SELECT number, point, state, score, error, note, seconds, attempts
                     FROM trials ORDER BY number";
        let mut statement = self.connection.prepare(query).map_err(|e| self.sql(e))?;
        let rows = statement.query_map([], |row| Ok(record(row))).map_err(|e| self.sql(e))?;
        let mut records = Vec::new();
        for row in rows {
            let record = row.and_then(|record| record).map_err(|error| self.sql(error))?;
            let state = record.state;
            if (state == State::Done) != record.score.is_some_and(f64::is_finite) {
                let reason = format!(
                    "trial {} is {} with the score {:?}",
                    record.number,
                    state.name(),
                    record.score
                );
                return Err(Error::store(&self.path, reason));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Writes trials, new or changed, together.
    pub(crate) fn write<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<(), Error> {
        let path = self.path.clone();
        let work = |connection: &mut Connection| {
            let change = connection.transaction()?;
            for record in records {
                change.execute(
                    "INSERT OR REPLACE INTO trials VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        record.number as i64,
                        Value::from(record.point.clone()).to_string(),
                        record.state.name(),
                        record.score,
                        record.error,
                        record.note,
                        record.seconds,
                        record.attempts
                    ],
                )?;
            }
            change.commit()
        };
        work(&mut self.connection)
            .map_err(|error: rusqlite::Error| Error::store(path, error.to_string()))
    }

    /// An error about this file.
    pub(crate) fn error(&self, reason: impl Into<String>) -> Error {
        Error::store(&self.path, reason)
    }
}

fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .map_err(Error::io(&lock))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::store(path, "in use by another search, in this process or in another one"))
        }
        Err(TryLockError::Error(error)) => Err(Error::io(&lock)(error)),
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let wrong = |column: usize, found: &str| {
        let reason = format!("a trial with {found}");
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, reason.into())
    };
    let point: String = row.get(1)?;
    let point = serde_json::from_str(&point).map_err(|_| wrong(1, &point))?;
    let name: String = row.get(2)?;
    let state = State::ALL.iter().find(|(_, known)| *known == name);
    Ok(Record {
        number: row.get::<_, i64>(0)? as usize,
        point,
        state: state.map(|(state, _)| *state).ok_or_else(|| wrong(2, &name))?,
        score: row.get(3)?,
        error: row.get(4)?,
        note: row.get(5)?,
        seconds: row.get(6)?,
        attempts: row.get(7)?,
    })
}
