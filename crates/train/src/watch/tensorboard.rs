//! Event files that TensorBoard reads.
//!
//! A file is a row of TFRecords, each an `Event` protocol buffer:
//!
//! ```text
//! record   length u64, masked CRC of length u32, data, masked CRC of data u32          little-endian
//! mask     rotate right by 15, add 0xa282ead8
//! Event    1 wall_time double, 2 step varint, 3 file_version string, 5 summary, 7 session_log
//! Summary  1 value*: 1 tag, 2 simple_value float, or 8 tensor and 9 metadata for text
//! ```

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::crc32c::crc32c;
use super::{EvalMetrics, Extras, Observer, RunInfo, StepMetrics, Summary, Warning};
use crate::error::Error;

/// Writes scalars under the tags of transformers' callback: `train/loss`, `train/grad_norm`,
/// `train/learning_rate`, `train/epoch`, `eval/loss`, ..., also metrics of the recipe (`train/rewards/chosen`,
/// `eval/rewards/chosen`); the configuration as text `args`, warnings as text `warnings`.
///
/// Each run has a file of its own, also a resumed one, which tells TensorBoard to forget the steps after its
/// checkpoint. Scalars are f32. Counts are those of the step, where TRL's `num_tokens` is a running total.
///
/// ```
/// use posttrain_train::watch::{Observer, RunInfo, StepMetrics, TensorBoard};
///
/// let folder = tempfile::tempdir()?;
/// let mut board = TensorBoard::new(folder.path());
/// board.start(&RunInfo::default())?;
/// board.step(&StepMetrics::default())?;
/// let file = std::fs::read_dir(folder.path())?.next().unwrap()?;
/// assert!(file.file_name().to_string_lossy().starts_with("events.out.tfevents."));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    file: Option<(PathBuf, File)>,
}

impl TensorBoard {
    /// For a file in `folder`, which is made when the run starts.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), file: None }
    }

    fn open(&mut self) -> Result<(), Error> {
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let name = format!(
            "events.out.tfevents.{:010}.{}.{}",
            seconds() as u64,
            host(),
            std::process::id()
        );
        // Two runs of one process may start within a second.
        for number in 0.. {
            let path = self.folder.join(format!("{name}.{number}"));
            match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(path)(error)),
                Ok(file) => {
                    self.file = Some((path, file));
                    break;
                }
            }
        }
        self.write(0, &[], |event| event.text(3, "brain.Event:2"))
    }

    /// One event, written at once.
    fn write(
        &mut self,
        step: u64,
        scalars: &[Scalar<'_>],
        more: impl FnOnce(&mut Message),
    ) -> Result<(), Error> {
        if self.file.is_none() {
            self.open()?;
        }
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut event = event(seconds(), step);
        if !scalars.is_empty() {
            event.message(5, &summary(scalars));
        }
        more(&mut event);
        file.write_all(&record(&event.0)).map_err(Error::io(&*path))
    }
}

impl Observer for TensorBoard {
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        self.open()?;
        if let Some(checkpoint) = run.resumed_from {
            // A session that starts at a step makes everything from there on void.
            self.write(checkpoint + 1, &[], |event| event.message(7, &session_start()))?;
        }
        let config = format!("{:#}", run.config);
        self.write(0, &[], |event| event.message(5, &text("args", &as_markdown_code(&config))))
    }

    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        let fixed = [
            ("train/loss", Some(step.loss)),
            ("train/grad_norm", Some(step.grad_norm)),
            ("train/learning_rate", Some(step.learning_rate)),
            ("train/epoch", Some(step.epoch)),
            ("train/tokens", Some(step.tokens as f64)),
            ("train/trained_tokens", Some(step.trained_tokens as f64)),
            ("train/tokens_per_second", Some(step.tokens_per_second())),
            ("train/perplexity", step.perplexity()),
            ("train/entropy", step.entropy),
            ("train/mean_token_accuracy", step.mean_token_accuracy),
            ("train/mfu", step.mfu),
            ("train/peak_memory", step.peak_memory.map(|bytes| bytes as f64)),
        ];
        self.write(step.step, &scalars(&fixed, "train", &step.extra), |_| {})
    }

    fn evaluation(&mut self, evaluation: &EvalMetrics) -> Result<(), Error> {
        let fixed = [
            ("eval/loss", Some(evaluation.eval_loss)),
            ("eval/perplexity", evaluation.perplexity),
            ("eval/entropy", evaluation.eval_entropy),
            ("eval/mean_token_accuracy", evaluation.eval_mean_token_accuracy),
            ("eval/runtime", Some(evaluation.seconds)),
        ];
        self.write(evaluation.step, &scalars(&fixed, "eval", &evaluation.extra), |_| {})
    }

    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        let content = format!("{warning}\n\n{}", as_markdown_code(&warning.rows().join("\n")));
        self.write(warning.step(), &[], |event| event.message(5, &text("warnings", &content)))
    }

    fn end(&mut self, summary: &Summary) -> Result<(), Error> {
        let fixed = [
            ("train/train_loss", Some(summary.train_loss)),
            ("train/train_runtime", Some(summary.seconds)),
        ];
        self.write(summary.step, &scalars(&fixed, "train", &Extras::default()), |_| {})
    }
}

/// A tag and its value, where that is known.
type Scalar<'a> = (Cow<'a, str>, Option<f64>);

/// Those that all recipes have, then the others.
fn scalars<'a>(fixed: &[(&'a str, Option<f64>)], kind: &str, extra: &Extras) -> Vec<Scalar<'a>> {
    let fixed = fixed.iter().map(|(tag, value)| (Cow::from(*tag), *value));
    let more = extra.iter().map(|(name, value)| (format!("{kind}/{name}").into(), Some(value)));
    fixed.chain(more).collect()
}

/// TensorBoard shows texts as Markdown.
fn as_markdown_code(text: &str) -> String {
    text.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}

fn seconds() -> f64 {
    // A clock that stands before 1970 is not worth an error.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.or_else(|| std::env::var("COMPUTERNAME").ok()).unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// A protocol buffer in the making; fields are added in the order of their numbers.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }
}

fn event(wall_time: f64, step: u64) -> Message {
    let mut event = Message::default();
    event.double(1, wall_time);
    if step > 0 {
        event.int(2, step);
    }
    event
}

fn summary(scalars: &[Scalar<'_>]) -> Message {
    let mut summary = Message::default();
    for (tag, value) in scalars {
        let Some(value) = value else { continue };
        let mut scalar = Message::default();
        scalar.text(1, tag);
        scalar.float(2, *value as f32);
        summary.message(1, &scalar);
    }
    summary
}

/// As `torch.utils.tensorboard` writes a text: a tensor of one string, for the plugin `text`.
fn text(tag: &str, content: &str) -> Message {
    let (mut dimension, mut shape) = (Message::default(), Message::default());
    dimension.int(1, 1);
    shape.message(2, &dimension);
    let mut tensor = Message::default();
    tensor.int(1, 7); // DT_STRING
    tensor.message(2, &shape);
    tensor.text(8, content);
    let (mut plugin, mut metadata) = (Message::default(), Message::default());
    plugin.text(1, "text");
    metadata.message(1, &plugin);
    let mut value = Message::default();
    value.text(1, &format!("{tag}/text_summary"));
    value.message(8, &tensor);
    value.message(9, &metadata);
    let mut summary = Message::default();
    summary.message(1, &value);
    summary
}

fn session_start() -> Message {
    let mut log = Message::default();
    log.int(1, 1); // START
    log
}

fn record(data: &[u8]) -> Vec<u8> {
    let mask = |crc: u32| crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &mask(crc32c(&length)), data, &mask(crc32c(data))].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of `make_events.py`, which TensorBoard's own writer has written.
    #[test]
    fn bytes_are_those_of_tensorboard() {
        let with = |wall_time, step, field, message: Message| {
            let mut event = event(wall_time, step);
            event.message(field, &message);
            event
        };
        let mut version = event(1_700_000_000.25, 0);
        version.text(3, "brain.Event:2");
        let train = [
            ("train/loss", Some(2.5)),
            ("train/entropy", None),
            ("train/learning_rate", Some(2e-5)),
        ];
        let eval = [("eval/loss", Some(0.0)), ("eval/perplexity", Some(1.0))];
        let late = [("train/loss", Some(-1.0)), ("train/grad_norm", Some(1e30))];
        let events = [
            version,
            with(1_700_000_000.5, 301, 7, session_start()),
            with(1_700_000_001.0, 0, 5, text("args", "{\n  \"größe\": 1\n}")),
            with(1_700_000_002.0, 1, 5, summary(&scalars(&train, "", &Extras::default()))),
            with(1_700_000_003.0, 300, 5, summary(&scalars(&eval, "", &Extras::default()))),
            with(
                1_700_000_004.0,
                5_000_000_000,
                5,
                summary(&scalars(&late, "", &Extras::default())),
            ),
        ];
        let ours: Vec<u8> = events.iter().flat_map(|event| record(&event.0)).collect();
        let theirs = include_bytes!("../../../../tests/fixtures/watch/events.out.tfevents");
        assert_eq!(ours, theirs);
    }

    #[test]
    fn metrics_of_a_recipe_have_tags_of_their_own() {
        let extra = Extras::new([("rewards/chosen", 0.5), ("kl", 0.25)]).unwrap();
        let of = |kind| scalars(&[("a", None)], kind, &extra);
        let tag = |tag: &'static str, value| (Cow::from(tag), Some(value));
        let a = ("a".into(), None);
        assert_eq!(of("train"), [a, tag("train/kl", 0.25), tag("train/rewards/chosen", 0.5)]);
        assert_eq!(of("eval")[2], tag("eval/rewards/chosen", 0.5));
    }

    /// By hand: 300 is 10 0101100 in base 2.
    #[test]
    fn varints() {
        let mut message = Message::default();
        message.int(2, 300);
        assert_eq!(message.0, [0x10, 0xac, 0x02]);
    }

    #[test]
    fn a_run_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut board = TensorBoard::new(folder.path().join("runs"));
            board.start(&RunInfo::default()).unwrap();
            board.end(&Summary::default()).unwrap();
        }
        let names: Vec<String> = fs::read_dir(folder.path().join("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        for name in names {
            let parts: Vec<&str> = name.splitn(5, '.').collect();
            assert_eq!(parts[..3], ["events", "out", "tfevents"]);
            assert!(parts[3].len() == 10 && parts[3].parse::<u64>().is_ok(), "{name}");
        }
    }
}
