//! Scores of answers, or of the steps of solutions, by a reward model.
//!
//! ```text
//! cargo run --release --example score_reward -- --model DIR [--adapter DIR] [--convention NAME] \
//!     --input IN.jsonl --output OUT.jsonl
//! ```
//!
//! A row of the input is one of
//!
//! ```json
//! {"messages": [{"role": "user", "content": "6 times 7?"}, {"role": "assistant", "content": "42"}]}
//! {"prompt": "6 times 7?", "completion": "42"}
//! {"prompt": "6 times 7?", "steps": ["6 times 7 is 7 times 6.", "So it is 42."]}
//! ```
//!
//! A prompt is a text or a list of messages. The row of the output, at the same place, is that of the input with
//! `score`, or for steps with `scores`, one from 0 to 1 for each step, and their `min`, `last` and `prod`. A row that
//! the model cannot score has `error` instead, and the program then ends with status 1.
//!
//! All rows are checked before anything is computed, and the output appears when it is complete.
#![allow(clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use posttrain::core::{
    Conversation, Message, Prompt, Reward as _, Role, Sample, StepReward as _, StepSample, Tool,
};
use posttrain::model::checkpoint::resolve;
use posttrain::model::config::Head;
use posttrain::model::reward::{
    Convention, ProcessOptions, ProcessRewardModel, RewardModel, RewardOptions, RewardTokenizer,
};
use posttrain::model::{Decoder, device};
use serde_json::{Map, Value};

/// Scores of answers, or of the steps of solutions, by a reward model.
#[derive(Parser)]
struct Cli {
    /// A checkpoint folder or, with the feature `hub`, a name on the Hugging Face hub.
    #[arg(long, value_name = "DIR|ORG/NAME")]
    model: String,
    /// A PEFT adapter folder that goes with the model.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Rows with `messages`, `prompt` and `completion`, or `prompt` and `steps`.
    #[arg(long, value_name = "IN.jsonl")]
    input: PathBuf,
    /// Where the rows go with their scores.
    #[arg(long, value_name = "OUT.jsonl")]
    output: PathBuf,
    /// How steps are marked, where the checkpoint does not tell: math_shepherd, rlhflow, skywork, qwen_math, trl.
    #[arg(long, value_name = "NAME")]
    convention: Option<String>,
    /// Scores of answers between 0 and 1, by the logistic function.
    #[arg(long)]
    logistic: bool,
    /// flex (the CPU), vulkan, wgpu or cuda, as far as compiled in.
    #[arg(long)]
    device: Option<String>,
}

/// What is scored of a row.
enum Asked {
    Answer(String),
    Steps(Vec<String>),
}

struct Row {
    prompt: Prompt,
    asked: Asked,
    all: Map<String, Value>,
}

enum Model {
    Outcome(RewardModel),
    Process(ProcessRewardModel),
}

/// Rows that are scored before the bar moves.
const CHUNK: usize = 256;

fn main() -> ExitCode {
    device::keep_freed_memory();
    match run(&Cli::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("{failed} rows could not be scored; their `error` says why");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The number of rows without a score.
fn run(cli: &Cli) -> Result<usize, Box<dyn Error>> {
    let model = load(cli)?;
    let rows = read_rows(&cli.input, &model)?;
    if cli.output.is_dir() {
        return Err(format!("{} is a folder, expected a file", cli.output.display()).into());
    }
    let mut name = cli.output.clone().into_os_string();
    name.push(".tmp");
    let unfinished = PathBuf::from(name);
    let file = File::create(&unfinished)
        .map_err(|error| format!("cannot write {}: {error}", unfinished.display()))?;
    let started = Instant::now();
    let written = write(file, &rows, &model)
        .and_then(|failed| Ok(std::fs::rename(&unfinished, &cli.output).map(|()| failed)?));
    if written.is_err() {
        // The error says more than one about the removal would.
        let _ = std::fs::remove_file(&unfinished);
    }
    let failed = written?;
    eprintln!("{} rows in {:.3} s", rows.len(), started.elapsed().as_secs_f64());
    Ok(failed)
}

fn load(cli: &Cli) -> Result<Model, Box<dyn Error>> {
    let (folder, device) = (resolve(&cli.model)?, device::choose(cli.device.as_deref())?);
    let mut model = Decoder::load(&folder, &device)?;
    let convention = cli.convention.as_ref().map(|name| {
        serde_json::from_value::<Convention>(name.as_str().into())
            .map_err(|error| format!("--convention {name}: {error}"))
    });
    let convention = convention.transpose()?;
    if let Some(adapter) = &cli.adapter {
        if model.config().head == Head::Language {
            // The weights of the head come with the adapter.
            let head = match &convention {
                None => Some(Head::Sequence { labels: 1 }),
                Some(convention) => convention.head(model.config()),
            };
            if let Some(head) = head {
                model = model.with_head(head, 0)?;
            }
        }
        model.load_adapter(adapter, "default")?;
    }
    let tokenizer = RewardTokenizer::from_model(&folder)?;
    let config = model.config();
    if convention.is_none() && config.head.labels() == Some(1) && Convention::of(config).is_none() {
        let options = RewardOptions { logistic: cli.logistic, ..RewardOptions::default() };
        return Ok(Model::Outcome(RewardModel::new(model, tokenizer, &options)?));
    }
    let Some(convention) = convention.or_else(|| Convention::of(config)) else {
        let names = Convention::NAMES.join(", ");
        let head = config.head;
        return Err(format!(
            "{} has the head {head:?}, expected one with one score, or --convention with one of {names}",
            folder.display()
        )
        .into());
    };
    if cli.logistic {
        return Err("--logistic is for answers: scores of steps are between 0 and 1 anyway".into());
    }
    let cache = ProcessOptions::default().cache_tokens;
    Ok(Model::Process(ProcessRewardModel::new(model, tokenizer, convention, cache)?))
}

/// Reads and checks the whole input.
fn read_rows(input: &Path, model: &Model) -> Result<Vec<Row>, Box<dyn Error>> {
    let file =
        File::open(input).map_err(|error| format!("cannot read {}: {error}", input.display()))?;
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let row = line.map_err(|error| error.to_string()).and_then(|line| parse(&line));
        let row = row.and_then(|row| match (model, &row.asked) {
            (Model::Outcome(_), Asked::Steps(_)) => {
                Err("`steps`, expected an answer: the model scores whole answers".into())
            }
            (Model::Process(_), Asked::Answer(_)) => {
                Err("an answer, expected `prompt` and `steps`: the model scores steps".into())
            }
            _ => Ok(row),
        });
        rows.push(row.map_err(|error| format!("{}:{}: {error}", input.display(), index + 1))?);
    }
    if rows.is_empty() {
        return Err(format!("{} has no rows", input.display()).into());
    }
    Ok(rows)
}

fn parse(line: &str) -> Result<Row, String> {
    const RESULTS: [&str; 6] = ["score", "scores", "min", "last", "prod", "error"];
    if line.trim().is_empty() {
        return Err("the line is empty, expected a JSON object".into());
    }
    let all: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
        // The parser sees one line.
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        format!("column {}: {what}", error.column())
    })?;
    if let Some(key) = RESULTS.into_iter().find(|key| all.contains_key(*key)) {
        return Err(format!("the row has the key `{key}`, expected it free for the result"));
    }
    let (prompt, asked) =
        match (all.get("messages"), all.get("prompt"), all.get("completion"), all.get("steps")) {
            (Some(value), None, None, None) => {
                let mut messages = messages("messages", value)?;
                let answer = messages.pop().filter(|last| last.role == Role::Assistant);
                let answer = answer.ok_or("`messages` does not end with the assistant's answer")?;
                (conversation(messages, &all)?, Asked::Answer(answer.text().into_owned()))
            }
            (None, Some(prompt), Some(completion), None) => {
                (self::prompt(prompt, &all)?, Asked::Answer(answer(completion)?))
            }
            (None, Some(prompt), None, Some(steps)) => {
                let steps: Vec<String> = serde_json::from_value(steps.clone())
                    .map_err(|error| format!("`steps`: {error}"))?;
                if steps.is_empty() {
                    return Err("`steps` is empty, expected at least one".into());
                }
                (self::prompt(prompt, &all)?, Asked::Steps(steps))
            }
            _ => {
                let keys: Vec<&String> = all.keys().collect();
                return Err(format!(
                    "the row has the keys {keys:?}, expected `messages`, `prompt` and \
                     `completion`, or `prompt` and `steps`"
                ));
            }
        };
    Ok(Row { prompt, asked, all })
}

fn messages(key: &str, value: &Value) -> Result<Vec<Message>, String> {
    serde_json::from_value(value.clone()).map_err(|error| format!("`{key}`: {error}"))
}

fn conversation(messages: Vec<Message>, all: &Map<String, Value>) -> Result<Prompt, String> {
    let mut conversation = Conversation::new(messages);
    if let Some(tools) = all.get("tools") {
        let tools: Vec<Map<String, Value>> =
            serde_json::from_value(tools.clone()).map_err(|error| format!("`tools`: {error}"))?;
        conversation.tools = tools.into_iter().map(Tool).collect();
    }
    Ok(Prompt::from(conversation))
}

fn prompt(value: &Value, all: &Map<String, Value>) -> Result<Prompt, String> {
    match value {
        Value::String(text) => Ok(Prompt::from(text.as_str())),
        value => conversation(messages("prompt", value)?, all),
    }
}

/// A completion: a text, or one message of the assistant.
fn answer(value: &Value) -> Result<String, String> {
    if let Value::String(text) = value {
        return Ok(text.clone());
    }
    match &messages("completion", value)?[..] {
        [message] if message.role == Role::Assistant => Ok(message.text().into_owned()),
        _ => Err("`completion`, expected a text or one message of the assistant".into()),
    }
}

/// Writes the rows with their scores; how many have none.
fn write(file: File, rows: &[Row], model: &Model) -> Result<usize, Box<dyn Error>> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {per_sec}, {eta} left")?;
    let progress = ProgressBar::new(rows.len() as u64).with_style(style);
    // Rows of like length, and answers to one prompt, are computed together.
    let mut results: Vec<Result<Map<String, Value>, String>> = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        results.extend(score(chunk, model));
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    let (mut out, mut failed) = (BufWriter::new(file), 0);
    for (Row { all, .. }, result) in rows.iter().zip(results) {
        let mut row = all.clone();
        match result {
            Ok(found) => row.extend(found),
            Err(error) => {
                failed += 1;
                row.insert("error".into(), error.into());
            }
        }
        serde_json::to_writer(&mut out, &row)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(failed)
}

fn score(rows: &[Row], model: &Model) -> Vec<Result<Map<String, Value>, String>> {
    let columns = Map::new();
    match model {
        Model::Outcome(model) => {
            let samples = rows.iter().map(|Row { prompt, asked, .. }| {
                let response = match asked {
                    Asked::Answer(answer) => answer.as_str(),
                    Asked::Steps(_) => "",
                };
                Sample { prompt, response, columns: &columns }
            });
            let rewards = model.reward(&samples.collect::<Vec<_>>()).into_iter();
            let of = |score: f64| Map::from_iter([("score".to_owned(), score.into())]);
            rewards.map(|reward| reward.map(of).map_err(|error| error.to_string())).collect()
        }
        Model::Process(model) => {
            let samples = rows.iter().map(|Row { prompt, asked, .. }| {
                let steps = match asked {
                    Asked::Steps(steps) => steps.as_slice(),
                    Asked::Answer(_) => &[],
                };
                StepSample { prompt, steps }
            });
            let scores = model.step_reward(&samples.collect::<Vec<_>>()).into_iter();
            scores.map(|scores| scores.map(steps).map_err(|error| error.to_string())).collect()
        }
    }
}

fn steps(scores: Vec<f64>) -> Map<String, Value> {
    let min = scores.iter().copied().fold(1.0, f64::min);
    let last = scores.last().copied().unwrap_or(1.0);
    let prod: f64 = scores.iter().product();
    let results = [("scores", Value::from(scores)), ("min", min.into()), ("last", last.into())];
    let results = results.into_iter().chain([("prod", Value::from(prod))]);
    results.map(|(name, value)| (name.to_owned(), value)).collect()
}
