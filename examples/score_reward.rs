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
//! A prompt is a text or a list of messages; `tools`, `documents` and `chat_template_kwargs` go to the template, and steps
//! may be called `completions`. The row of the output, at the same place, is that of the input with
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
use posttrain::chat::JsonChat;
use posttrain::core::{Conversation, Message, Prompt, StepReward as _, StepSample, Tool};
use posttrain::model::checkpoint::resolve;
use posttrain::model::config::Head;
use posttrain::model::reward::{
    Convention, ProcessOptions, ProcessRewardModel, RewardModel, RewardOptions, RewardTokenizer,
};
use posttrain::model::{Decoder, device};
use serde_json::{Map, Value, json};

/// Scores of answers, or of the steps of solutions, by a reward model.
#[derive(Parser)]
#[expect(clippy::doc_markdown, reason = "a terminal shows them as they stand")]
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
    /// How steps are marked, where the checkpoint does not tell: math_shepherd, rlhflow, skywork, qwen_math, trl, or
    /// JSON with other settings: {"type": "trl", "step_separator": "##"}.
    #[arg(long, value_name = "NAME|JSON")]
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
    /// A conversation that ends with its answer.
    Chat(JsonChat),
    /// A text and how it goes on.
    Text {
        prompt: String,
        answer: String,
    },
    Steps {
        prompt: Prompt,
        steps: Vec<String>,
    },
}

struct Row {
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
    let convention = match &cli.convention {
        Some(text) => {
            let name = || Value::from(text.as_str());
            let value = serde_json::from_str(text).unwrap_or_else(|_| name());
            let found: Result<Convention, _> = serde_json::from_value(value);
            Some(found.map_err(|error| format!("--convention {text}: {error}"))?)
        }
        // What an adapter was trained with goes before what its base was.
        None => match cli.adapter.as_ref().map(Convention::read).transpose()?.flatten() {
            Some(convention) => Some(convention),
            None => Convention::read(&folder)?,
        },
    };
    if let Some(adapter) = &cli.adapter {
        if model.config().head == Head::Language {
            let head = match &convention {
                None => Some(Head::Sequence { labels: 1 }),
                Some(convention) => convention.head(model.config()),
            };
            if let Some(head) = head {
                // Its weights come with the adapter.
                model = model.with_head(head, 0)?;
                has_head(adapter)?;
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

/// That an adapter brings a head: a new one would score at random.
fn has_head(adapter: &Path) -> Result<(), Box<dyn Error>> {
    let path = adapter.join("adapter_model.safetensors");
    let file = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file = safetensors::SafeTensors::deserialize(&file)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let of_a_head = |name: &str| name.contains(".score.") || name.contains(".v_head.");
    if file.names().into_iter().any(of_a_head) {
        return Ok(());
    }
    Err(format!("{} has no head, and neither has its base", path.display()).into())
}

/// Reads and checks the whole input.
fn read_rows(input: &Path, model: &Model) -> Result<Vec<Row>, Box<dyn Error>> {
    let file =
        File::open(input).map_err(|error| format!("cannot read {}: {error}", input.display()))?;
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let row = line.map_err(|error| error.to_string()).and_then(|line| parse(&line));
        let row = row.and_then(|row| match (model, &row.asked) {
            (Model::Outcome(_), Asked::Steps { .. }) => {
                Err("`steps`, expected an answer: the model scores whole answers".into())
            }
            (Model::Process(_), Asked::Chat(_) | Asked::Text { .. }) => {
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
    let steps = all.get("steps").or_else(|| all.get("completions"));
    let asked = match (all.get("messages"), all.get("prompt"), all.get("completion"), steps) {
        (Some(messages), None, None, None) => Asked::Chat(chat("messages", list(messages)?, &all)?),
        (None, Some(Value::String(prompt)), Some(Value::String(answer)), None) => {
            if answer.trim().is_empty() {
                return Err("`completion` is empty".into());
            }
            Asked::Text { prompt: prompt.clone(), answer: answer.clone() }
        }
        (None, Some(prompt), Some(completion), None) => {
            let mut messages = list(prompt)?;
            match completion {
                Value::String(text) => {
                    messages.push(json!({ "role": "assistant", "content": text }));
                }
                more => messages.extend(list(more)?),
            }
            Asked::Chat(chat("completion", messages, &all)?)
        }
        (None, Some(prompt), None, Some(steps)) => {
            let steps: Vec<String> = serde_json::from_value(steps.clone())
                .map_err(|error| format!("`steps`: {error}"))?;
            if steps.is_empty() {
                return Err("`steps` is empty, expected at least one".into());
            }
            Asked::Steps { prompt: self::prompt(prompt, &all)?, steps }
        }
        _ => {
            let keys: Vec<&String> = all.keys().collect();
            return Err(format!(
                "the row has the keys {keys:?}, expected `messages`, `prompt` and `completion`, or \
                 `prompt` and `steps`"
            ));
        }
    };
    Ok(Row { asked, all })
}

fn list(value: &Value) -> Result<Vec<Value>, String> {
    let found = value.as_array().cloned();
    found.ok_or_else(|| format!("{value} stands where a list of messages is expected"))
}

/// A conversation with everything that its template reads, as in training.
fn chat(key: &str, messages: Vec<Value>, all: &Map<String, Value>) -> Result<JsonChat, String> {
    let last = messages.last().ok_or_else(|| format!("`{key}` is empty"))?;
    if last["role"] != "assistant" {
        return Err(format!("`{key}` does not end with the assistant's answer"));
    }
    let calls = last["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
    let says = match &last["content"] {
        Value::String(text) => !text.trim().is_empty(),
        content => content.as_array().is_some_and(|parts| !parts.is_empty()),
    };
    if !calls && !says {
        return Err(format!("the assistant's answer in `{key}` is empty"));
    }
    let mut object = match all.get("chat_template_kwargs") {
        Some(Value::Object(variables)) => variables.clone(),
        _ => Map::new(),
    };
    object.insert("messages".into(), Value::Array(messages));
    for key in ["tools", "documents"] {
        if let Some(value) = all.get(key) {
            object.insert(key.into(), value.clone());
        }
    }
    JsonChat::new(Value::Object(object)).map_err(|error| error.to_string())
}

fn prompt(value: &Value, all: &Map<String, Value>) -> Result<Prompt, String> {
    if let Value::String(text) = value {
        return Ok(Prompt::from(text.as_str()));
    }
    let messages: Vec<Message> =
        serde_json::from_value(value.clone()).map_err(|error| format!("`prompt`: {error}"))?;
    let mut conversation = Conversation::new(messages);
    if let Some(tools) = all.get("tools") {
        let tools: Vec<Map<String, Value>> =
            serde_json::from_value(tools.clone()).map_err(|error| format!("`tools`: {error}"))?;
        conversation.tools = tools.into_iter().map(Tool).collect();
    }
    Ok(Prompt::from(conversation))
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
    match model {
        Model::Outcome(model) => {
            let ids = rows.iter().map(|Row { asked, .. }| match asked {
                Asked::Chat(chat) => model.encode_chat(chat),
                Asked::Text { prompt, answer } => {
                    model.encode(&Prompt::from(prompt.as_str()), answer)
                }
                Asked::Steps { .. } => unreachable!("refused when it was read"),
            });
            let ids: Vec<Result<Vec<u32>, _>> = ids.collect();
            let texts: Vec<Vec<u32>> = ids.iter().flatten().cloned().collect();
            let mut rewards = model.reward_ids(&texts).into_iter();
            let of = |ids: Result<Vec<u32>, _>| {
                let score = ids.and_then(|_| rewards.next().expect("one for each text"));
                let score = score.map_err(|error| error.to_string())?;
                Ok(Map::from_iter([("score".to_owned(), score.into())]))
            };
            ids.into_iter().map(of).collect()
        }
        Model::Process(model) => {
            let samples = rows.iter().map(|Row { asked, .. }| match asked {
                Asked::Steps { prompt, steps } => StepSample { prompt, steps },
                _ => unreachable!("refused when it was read"),
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
