//! One page with the curves, the data and the settings of a run.

mod charts;
mod families;
mod page;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::jsonl::{EVALUATIONS, METRICS, WARNINGS, read_lines};
use super::{Checkpoint, EvalMetrics, Observer, RunInfo, StepMetrics, Summary, Warning};
use crate::error::Error;

/// The name of the page.
pub const REPORT: &str = "report.html";

/// Writes [`REPORT`] into a folder: loss, validation loss, gradient norm, learning rate, tokens per second,
/// metrics of the recipe, warnings, data report and settings, in one file that needs no network.
///
/// The page is written at the start, at each evaluation and checkpoint and at the end, each time under another
/// name and then renamed, so that a killed run has a whole one. A resumed run shows its earlier part too, which it
/// reads from the files that [`JsonLines`](super::JsonLines) has written into the same folder.
///
/// ```
/// use posttrain_train::watch::{Observer, Report, RunInfo, Summary};
///
/// let folder = tempfile::tempdir()?;
/// let mut report = Report::new(folder.path());
/// report.start(&RunInfo::default())?;
/// report.end(&Summary::default())?;
/// let page = std::fs::read_to_string(folder.path().join("report.html"))?;
/// assert!(page.starts_with("<!doctype html>"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Report {
    folder: PathBuf,
    history: History,
}

/// All that the page shows.
#[derive(Debug, Default)]
struct History {
    run: RunInfo,
    steps: Vec<StepMetrics>,
    evaluations: Vec<EvalMetrics>,
    warnings: Vec<Warning>,
    checkpoint: Option<Checkpoint>,
    summary: Option<Summary>,
}

impl Report {
    /// For a page in `folder`, which is made when the run starts.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), history: History::default() }
    }

    fn write(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        replace(&self.folder.join(REPORT), page::page(&self.history).as_bytes())
    }
}

impl Observer for Report {
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        self.history = History { run: run.clone(), ..History::default() };
        if let Some(checkpoint) = run.resumed_from {
            let path = |name| self.folder.join(name);
            let history = &mut self.history;
            history.steps = read_lines(&path(METRICS))?;
            history.steps.retain(|line| line.step <= checkpoint);
            history.evaluations = read_lines(&path(EVALUATIONS))?;
            history.evaluations.retain(|line| line.step <= checkpoint);
            history.warnings = read_lines(&path(WARNINGS))?;
            history.warnings.retain(|line| line.step() <= checkpoint);
        }
        self.write()
    }

    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        self.history.steps.push(StepMetrics { rows: Vec::new(), ..step.clone() });
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &EvalMetrics) -> Result<(), Error> {
        if let Some(before) = self.history.evaluations.last_mut() {
            before.details.clear();
        }
        self.history.evaluations.push(evaluation.clone());
        self.write()
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.history.checkpoint = Some(checkpoint.clone());
        self.write()
    }

    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        self.history.warnings.push(warning.clone());
        Ok(())
    }

    fn end(&mut self, summary: &Summary) -> Result<(), Error> {
        self.history.summary = Some(summary.clone());
        self.write()
    }
}

/// Old or new, never half.
fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let staged = path.with_extension("html.tmp");
    File::create(&staged)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .map_err(Error::io(&staged))?;
    fs::rename(&staged, path).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_those_of_the_last_evaluation() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::new(folder.path());
        for (step, details) in [(10, "<p>old</p>"), (20, "<p>new</p>")] {
            let evaluation = EvalMetrics { step, details: details.into(), ..Default::default() };
            report.evaluation(&evaluation).unwrap();
        }
        let page = fs::read_to_string(folder.path().join(REPORT)).unwrap();
        assert!(page.contains("<h2>Last validation</h2><p>new</p>") && !page.contains("old"));
    }
}
