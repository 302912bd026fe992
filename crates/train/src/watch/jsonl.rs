//! The events of a run as lines of JSON.
//!
//! A line is written whole and at once when its event happens, so a killed run has every line of its steps. A
//! resumed run cuts off what lies after its checkpoint, which is one `set_len`: lines before it are never
//! rewritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, EvalMetrics, Observer, RunInfo, StepMetrics, Summary, Warning};
use crate::error::Error;

/// One object a step.
pub const METRICS: &str = "metrics.jsonl";
/// One object an evaluation.
pub const EVALUATIONS: &str = "evaluations.jsonl";
/// One object a warning.
pub const WARNINGS: &str = "warnings.jsonl";

/// Writes [`METRICS`], [`EVALUATIONS`] and [`WARNINGS`] into a folder.
///
/// A line of `metrics.jsonl` has the fields of [`StepMetrics`] (`step`, `epoch`, `loss`, `grad_norm`,
/// `learning_rate`, `tokens`, `trained_tokens`, ...) and `tokens_per_second`, `trained_share` and `perplexity`;
/// all counts are those of the step. Metrics of the recipe ([`Extras`](super::Extras)) stand beside them under their
/// own names, in evaluations with `eval_` before. What is not known is left out, what is not finite is `null`. The
/// other files have the fields of [`EvalMetrics`], and of [`Warning`] with its sentence as `text`.
///
/// A run that is not resumed refuses a folder that has lines already. What is on disk when
/// [`Observer::checkpoint`] returns also survives a loss of power.
///
/// ```
/// use posttrain_train::watch::{JsonLines, Observer, RunInfo, StepMetrics, read_lines};
///
/// let folder = tempfile::tempdir()?;
/// let mut lines = JsonLines::new(folder.path());
/// lines.start(&RunInfo::default())?;
/// let mut step = StepMetrics::default();
/// (step.step, step.loss) = (1, 2.5);
/// lines.step(&step)?;
/// let read: Vec<StepMetrics> = read_lines(&folder.path().join("metrics.jsonl"))?;
/// assert_eq!(read, [step]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JsonLines {
    folder: PathBuf,
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    steps: Lines,
    evaluations: Lines,
    warnings: Lines,
}

#[derive(Serialize)]
struct StepLine<'a> {
    #[serde(flatten)]
    step: &'a StepMetrics,
    tokens_per_second: f64,
    trained_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<f64>,
}

#[derive(Serialize)]
struct WarningLine<'a> {
    #[serde(flatten)]
    warning: &'a Warning,
    text: String,
}

impl JsonLines {
    /// For files in `folder`, which is made when the run starts.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), files: None }
    }

    fn open(&mut self, resumed_from: Option<u64>) -> Result<&mut Files, Error> {
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let names = [METRICS, EVALUATIONS, WARNINGS].map(|name| self.folder.join(name));
        // All are read before any is cut: none is touched if one belongs to another run.
        let kept = [
            kept(&names[0], resumed_from)?,
            kept(&names[1], resumed_from)?,
            kept(&names[2], resumed_from)?,
        ];
        let [steps, evaluations, warnings] = names;
        Ok(self.files.insert(Files {
            steps: Lines::open(steps, kept[0])?,
            evaluations: Lines::open(evaluations, kept[1])?,
            warnings: Lines::open(warnings, kept[2])?,
        }))
    }

    /// What nobody started is a new run.
    fn files(&mut self) -> Result<&mut Files, Error> {
        if self.files.is_none() {
            self.open(None)?;
        }
        Ok(self.files.as_mut().expect("just opened"))
    }
}

impl Observer for JsonLines {
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        self.open(run.resumed_from).map(|_| ())
    }

    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        self.files()?.steps.write(&StepLine {
            step,
            tokens_per_second: step.tokens_per_second(),
            trained_share: step.trained_share(),
            perplexity: step.perplexity(),
        })
    }

    fn evaluation(&mut self, evaluation: &EvalMetrics) -> Result<(), Error> {
        self.files()?.evaluations.write(evaluation)
    }

    fn checkpoint(&mut self, _: &Checkpoint) -> Result<(), Error> {
        let files = self.files()?;
        [&files.steps, &files.evaluations, &files.warnings].into_iter().try_for_each(Lines::sync)
    }

    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        let text = warning.to_string();
        self.files()?.warnings.write(&WarningLine { warning, text })
    }

    fn end(&mut self, _: &Summary) -> Result<(), Error> {
        self.checkpoint(&Checkpoint::default())
    }
}

/// The lines of a file that [`JsonLines`] writes: of `StepMetrics`, `EvalMetrics` or `Warning`. None if there is
/// no file; a last line that is still being written is left out.
///
/// # Errors
/// When the file cannot be read, or another line is not such an object.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let text = read(path)?;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive(|&byte| byte == b'\n')) {
        match serde_json::from_slice(line) {
            Ok(value) => lines.push(value),
            Err(_) if !line.ends_with(b"\n") => {}
            Err(error) => return Err(broken(path, format!("line {number}: {error}"))),
        }
    }
    Ok(lines)
}

/// What of the file belongs to the part of the run up to the checkpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    bytes: u64,
    /// An editor has taken the line break from the last line.
    open_end: bool,
}

fn kept(path: &Path, resumed_from: Option<u64>) -> Result<Kept, Error> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let text = read(path)?;
    let Some(checkpoint) = resumed_from else {
        let advice = "holds another run: resume that, or choose another folder";
        return if text.is_empty() { Ok(Kept::default()) } else { Err(broken(path, advice)) };
    };
    let (mut kept, mut last) = (Kept::default(), 0);
    for (number, line) in (1..).zip(text.split_inclusive(|&byte| byte == b'\n')) {
        kept.open_end = !line.ends_with(b"\n");
        let step = match serde_json::from_slice(line) {
            Ok(Line { step }) => step,
            // A write that was cut short; its step is later than the checkpoint, which waits for its lines.
            Err(_) if kept.open_end => {
                kept.open_end = false;
                break;
            }
            Err(error) => return Err(broken(path, format!("line {number}: {error}"))),
        };
        if step < last {
            return Err(broken(path, format!("line {number}: step {step} after step {last}")));
        }
        if step > checkpoint {
            kept.open_end = false;
            break;
        }
        kept.bytes += line.len() as u64;
        last = step;
    }
    Ok(kept)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(Error::io(path)),
    }
}

fn broken(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.to_owned(), reason: reason.into() }
}

/// A file to which lines are added.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    fn open(path: PathBuf, kept: Kept) -> Result<Self, Error> {
        let file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        file.set_len(kept.bytes).map_err(Error::io(&path))?;
        if kept.open_end {
            (&file).write_all(b"\n").map_err(Error::io(&path))?;
        }
        Ok(Self { path, file })
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let mut text =
            serde_json::to_vec(line).map_err(|error| broken(&self.path, error.to_string()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(Error::io(&self.path))
    }

    fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Extras;
    use super::*;

    fn step(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            epoch: 0.5,
            loss: 1.5,
            grad_norm: 0.25,
            learning_rate: 2e-5,
            tokens: 100,
            trained_tokens: 40,
            seconds: 0.5,
            nll: Some(0.0),
            ..StepMetrics::default()
        }
    }

    fn resumed(from: u64) -> RunInfo {
        RunInfo { resumed_from: Some(from), ..RunInfo::default() }
    }

    fn text(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn a_line_has_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = JsonLines::new(folder.path().join("new"));
        lines.start(&RunInfo::default()).unwrap();
        lines.step(&step(1)).unwrap();
        lines.step(&StepMetrics { entropy: Some(0.5), loss: f64::NAN, ..step(2) }).unwrap();
        let written = text(&folder.path().join("new"), METRICS);
        assert_eq!(
            written.lines().next().unwrap(),
            r#"{"step":1,"epoch":0.5,"loss":1.5,"grad_norm":0.25,"learning_rate":0.00002,"tokens":100,"trained_tokens":40,"seconds":0.5,"nll":0.0,"tokens_per_second":200.0,"trained_share":0.4,"perplexity":1.0}"#
        );
        assert!(written.ends_with('\n') && written.contains(r#""loss":null"#), "{written}");
        let read: Vec<StepMetrics> = read_lines(&folder.path().join("new").join(METRICS)).unwrap();
        assert_eq!(read[0], step(1));
        assert!(read[1].loss.is_nan() && read[1].entropy == Some(0.5));
    }

    #[test]
    fn what_a_recipe_measures_stands_under_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = JsonLines::new(folder.path());
        let extra = Extras::new([("rewards/chosen", 0.25), ("accuracy", 1.0)]).unwrap();
        let reward = StepMetrics { nll: None, extra: extra.clone(), ..step(1) };
        lines.step(&reward).unwrap();
        let written = text(folder.path(), METRICS);
        assert!(
            written.ends_with(
                r#""seconds":0.5,"accuracy":1.0,"rewards/chosen":0.25,"tokens_per_second":200.0,"trained_share":0.4}
"#
            ),
            "{written}"
        );
        let evaluation = EvalMetrics { step: 1, eval_loss: 0.5, extra, ..Default::default() };
        lines.evaluation(&evaluation).unwrap();
        let written = text(folder.path(), EVALUATIONS);
        assert_eq!(
            written,
            "{\"step\":1,\"epoch\":0.0,\"eval_loss\":0.5,\"tokens\":0,\"trained_tokens\":0,\"seconds\":0.0,\
             \"eval_accuracy\":1.0,\"eval_rewards/chosen\":0.25}\n"
        );
        let path = |name| folder.path().join(name);
        assert_eq!(read_lines::<StepMetrics>(&path(METRICS)).unwrap(), [reward]);
        assert_eq!(read_lines::<EvalMetrics>(&path(EVALUATIONS)).unwrap(), [evaluation]);
    }

    #[test]
    fn a_resumed_run_cuts_what_lies_after_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = JsonLines::new(folder.path());
        lines.start(&RunInfo::default()).unwrap();
        let warning = |step| Warning::Other { step, message: "hot".into() };
        let mut before = String::new();
        for number in 1..=9 {
            lines.step(&step(number)).unwrap();
            if number % 3 == 0 {
                let evaluation = EvalMetrics { step: number, eval_loss: 2.0, ..Default::default() };
                lines.evaluation(&evaluation).unwrap();
                lines.warning(&warning(number)).unwrap();
            }
            if number == 6 {
                lines.checkpoint(&Checkpoint::default()).unwrap();
                before = text(folder.path(), METRICS);
            }
        }
        // A write that was cut short.
        let path = folder.path().join(METRICS);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"step":10,"ep"#).unwrap();
        assert_eq!(read_lines::<StepMetrics>(&path).unwrap().len(), 9);

        let mut again = JsonLines::new(folder.path());
        again.start(&resumed(6)).unwrap();
        assert_eq!(text(folder.path(), METRICS), before);
        again.step(&step(7)).unwrap();
        again.end(&Summary::default()).unwrap();
        assert!(text(folder.path(), METRICS).starts_with(&before));
        let steps: Vec<u64> =
            read_lines::<StepMetrics>(&path).unwrap().iter().map(|line| line.step).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(text(folder.path(), EVALUATIONS).lines().count(), 2);
        let warnings: Vec<Warning> = read_lines(&folder.path().join(WARNINGS)).unwrap();
        assert_eq!(warnings, [warning(3), warning(6)]);
        // A checkpoint before the first step drops everything.
        JsonLines::new(folder.path()).start(&resumed(0)).unwrap();
        assert_eq!(text(folder.path(), METRICS), "");
    }

    #[test]
    fn a_lost_line_break_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        for (before, after) in [
            ("{\"step\":1}\n{\"step\":2}", "{\"step\":1}\n{\"step\":2}\n"),
            ("{\"step\":1}\n{\"step\":3}", "{\"step\":1}\n"),
            ("{\"step\":1}\n{\"st", "{\"step\":1}\n"),
        ] {
            fs::write(folder.path().join(METRICS), before).unwrap();
            JsonLines::new(folder.path()).start(&resumed(2)).unwrap();
            assert_eq!(text(folder.path(), METRICS), after);
        }
    }

    #[test]
    fn a_new_run_does_not_touch_another() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(WARNINGS), "{\"step\":1}\n").unwrap();
        let error =
            JsonLines::new(folder.path()).start(&RunInfo::default()).unwrap_err().to_string();
        assert!(error.contains("warnings.jsonl: holds another run"), "{error}");
        assert_eq!(text(folder.path(), WARNINGS), "{\"step\":1}\n");
        // Nor when nobody started it.
        assert!(JsonLines::new(folder.path()).step(&step(1)).is_err());
    }

    #[test]
    fn a_broken_file_is_refused_as_it_is() {
        for (content, reason) in [
            ("{\"step\":1}\nnot json\n{\"step\":2}\n", "line 2: expected ident"),
            ("{\"step\":3}\n{\"step\":2}\n", "line 2: step 2 after step 3"),
            ("{\"loss\":3}\n", "line 1: missing field `step`"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(EVALUATIONS), content).unwrap();
            fs::write(folder.path().join(METRICS), "{\"step\":9}\n").unwrap();
            let error = JsonLines::new(folder.path()).start(&resumed(5)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert_eq!(text(folder.path(), EVALUATIONS), content);
            assert_eq!(text(folder.path(), METRICS), "{\"step\":9}\n");
        }
    }
}
