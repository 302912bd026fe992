//! Log-probabilities of given texts, token by token.
//!
//! ```text
//! cargo run --release --example score -- --model DIR [--adapter DIR] \
//!     --input IN.jsonl --output OUT.jsonl
//! ```
//!
//! A row of the input is one of
//!
//! ```json
//! {"ids": [1, 15, 27]}
//! {"text": "The capital of France is Paris."}
//! {"prompt": "The capital of France is", "completion": " Paris."}
//! ```
//!
//! and its row of the output, at the same place, has its other keys and
//!
//! ```json
//! {"logprobs": [-2.5, -0.25], "sum": -2.75, "tokens": 2}
//! ```
//!
//! the natural-log probabilities of all tokens but the first, or of the completion. Texts are encoded
//! as the tokenizer encodes them by itself, with a BOS where it adds one, without a chat template.
//! The tokens of a completion are those of prompt and completion as one text behind the tokens of
//! the prompt. Where these are not its start, the rule is that of lm-evaluation-harness: spaces at
//! the end of the prompt move to the completion, and as many tokens as the prompt then has alone are
//! not scored.
//!
//! All rows are checked before anything is computed, and the output appears when it is complete.
#![allow(clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use posttrain::model::checkpoint::resolve;
use posttrain::model::{Batch, Decoder, Targets, device};
use serde::Serialize;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

/// Log-probabilities of given texts, token by token.
#[derive(Parser)]
struct Cli {
    /// A checkpoint folder or, with the feature `hub`, a name on the Hugging Face hub. It needs a
    /// tokenizer only for rows of text.
    #[arg(long, value_name = "DIR|ORG/NAME")]
    model: String,
    /// A PEFT adapter folder that goes with the model.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Rows with `ids`, `text`, or `prompt` and `completion`.
    #[arg(long, value_name = "IN.jsonl")]
    input: PathBuf,
    /// Where the rows go with `logprobs`, `sum` and `tokens`.
    #[arg(long, value_name = "OUT.jsonl")]
    output: PathBuf,
    /// flex (the CPU), vulkan, wgpu or cuda, as far as compiled in.
    #[arg(long)]
    device: Option<String>,
    /// Tokens in a batch, padding included; a longer row is a batch of its own.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    batch_tokens: usize,
}

/// A row of the input.
struct Row {
    ids: Vec<u32>,
    /// The first token that is scored.
    from: usize,
    other: Map<String, Value>,
}

/// A row of the output.
#[derive(Serialize)]
struct Scored<'a> {
    #[serde(flatten)]
    other: &'a Map<String, Value>,
    logprobs: &'a [f32],
    sum: f64,
    tokens: usize,
}

fn main() -> ExitCode {
    device::keep_freed_memory();
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let folder = resolve(&cli.model)?;
    let mut model = Decoder::load(&folder, &device::choose(cli.device.as_deref())?)?;
    if let Some(adapter) = &cli.adapter {
        model.load_adapter(adapter, "default")?;
    }
    let rows = read_rows(&cli.input, &folder, &model)?;
    if cli.output.is_dir() {
        return Err(format!("{} is a folder, expected a file", cli.output.display()).into());
    }
    let mut name = cli.output.clone().into_os_string();
    name.push(".tmp");
    let unfinished = PathBuf::from(name);
    let file = File::create(&unfinished)
        .map_err(|error| format!("cannot write {}: {error}", unfinished.display()))?;
    let written = score(&model, &rows, cli.batch_tokens)
        .and_then(|scores| write(file, &rows, &scores))
        .and_then(|()| Ok(std::fs::rename(&unfinished, &cli.output)?));
    if written.is_err() {
        // The error says more than one about the removal would.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

/// Reads and checks the whole input.
fn read_rows(input: &Path, folder: &Path, model: &Decoder) -> Result<Vec<Row>, Box<dyn Error>> {
    let file =
        File::open(input).map_err(|error| format!("cannot read {}: {error}", input.display()))?;
    let (mut rows, mut tokenizer) = (Vec::new(), None);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let row = line
            .map_err(|error| error.to_string())
            .and_then(|line| parse(&line, folder, &mut tokenizer))
            .and_then(|row| check(row, model));
        rows.push(row.map_err(|error| format!("{}:{}: {error}", input.display(), index + 1))?);
    }
    if rows.is_empty() {
        return Err(format!("{} has no rows", input.display()).into());
    }
    Ok(rows)
}

/// The tokens of a row.
fn parse(line: &str, folder: &Path, tokenizer: &mut Option<Tokenizer>) -> Result<Row, String> {
    const FORMS: &str = "`ids`, `text`, or `prompt` and `completion`";
    if line.trim().is_empty() {
        return Err("the line is empty, expected a JSON object".into());
    }
    let mut other: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
        // The parser sees one line.
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        format!("column {}: {what}", error.column())
    })?;
    if let Some(key) =
        ["logprobs", "sum", "tokens"].into_iter().find(|key| other.contains_key(*key))
    {
        return Err(format!("the row has the key `{key}`, expected it free for the result"));
    }
    let all: Vec<String> = other.keys().cloned().collect();
    let mut take = |key: &str| other.shift_remove(key);
    let row = match (take("ids"), take("text"), take("prompt"), take("completion")) {
        (Some(ids), None, None, None) => {
            let ids = serde_json::from_value(ids).map_err(|error| format!("`ids`: {error}"))?;
            Row { ids, from: 1, other }
        }
        (None, Some(value), None, None) => {
            let ids = encode(folder, tokenizer, text("text", &value)?)?;
            Row { ids, from: 1, other }
        }
        (None, None, Some(prompt), Some(completion)) => {
            let (prompt, completion) = (text("prompt", &prompt)?, text("completion", &completion)?);
            let ids = encode(folder, tokenizer, &format!("{prompt}{completion}"))?;
            let context = encode(folder, tokenizer, prompt)?;
            let from = if ids.starts_with(&context) {
                context.len()
            } else {
                encode(folder, tokenizer, prompt.trim_end())?.len()
            };
            if completion.is_empty() || from >= ids.len() {
                return Err("`completion` has no tokens of its own, expected at least one".into());
            }
            if from == 0 {
                let expected = "expected at least one before the completion";
                return Err(format!("`prompt` has no tokens, {expected}"));
            }
            Row { ids, from, other }
        }
        _ => return Err(format!("the row has the keys {all:?}, expected one of {FORMS}")),
    };
    Ok(row)
}

fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("`{key}` is {value}, expected a string"))
}

fn encode(
    folder: &Path,
    tokenizer: &mut Option<Tokenizer>,
    text: &str,
) -> Result<Vec<u32>, String> {
    let tokenizer = if let Some(tokenizer) = tokenizer {
        tokenizer
    } else {
        let path = folder.join("tokenizer.json");
        let mut read = Tokenizer::from_file(&path)
            .map_err(|error| format!("a row of text needs {}: {error}", path.display()))?;
        // Truncation and padding of tokenizer.json would change texts unseen.
        let _ = read.with_truncation(None);
        read.with_padding(None);
        tokenizer.insert(read)
    };
    let encoding = tokenizer.encode(text, true).map_err(|error| error.to_string())?;
    Ok(encoding.get_ids().to_vec())
}

/// What the model can take.
fn check(row: Row, model: &Decoder) -> Result<Row, String> {
    let (count, config) = (row.ids.len(), model.config());
    let (vocab, context) = (config.vocab_size, config.context_length());
    if count < 2 {
        return Err(format!(
            "the row has {count} tokens, expected at least 2: the first is not scored"
        ));
    }
    if count > context {
        return Err(format!("the row has {count} tokens, expected at most the context, {context}"));
    }
    if let Some(id) = row.ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(format!("a token id is {id}, expected one below the vocabulary, {vocab}"));
    }
    Ok(row)
}

/// The log-probabilities of each row, in batches of rows of similar length.
fn score(model: &Decoder, rows: &[Row], budget: usize) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let style = "{bar:30} {pos}/{len} tokens, {per_sec}, {eta} left";
    let progress = ProgressBar::new(rows.iter().map(|row| row.ids.len() as u64).sum())
        .with_style(ProgressStyle::with_template(style)?);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(rows[index].ids.len()));
    let mut scores = vec![Vec::new(); rows.len()];
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let count = (budget / rows[longest].ids.len()).clamp(1, rest.len());
        let (now, later) = rest.split_at(count);
        let ids: Vec<&[u32]> = now.iter().map(|&index| rows[index].ids.as_slice()).collect();
        let batch = Batch::padded(&ids, 0)?;
        let scored = |&index: &usize| {
            let row = &rows[index];
            (0..batch.time()).map(move |place| (row.from..row.ids.len()).contains(&place))
        };
        let mask: Vec<bool> = now.iter().flat_map(scored).collect();
        let targets = Targets::masked(&batch, &mask)?;
        let known = model.logprobs(model.forward(&batch), &targets).logprobs;
        let known: Vec<f32> = known.into_data().convert::<f32>().iter::<f32>().collect();
        for (&text, logprob) in targets.texts().iter().zip(known) {
            scores[now[text]].push(logprob);
        }
        progress.inc(ids.iter().map(|ids| ids.len() as u64).sum());
        rest = later;
    }
    progress.finish_and_clear();
    let broken = |scores: &Vec<f32>| scores.iter().any(|logprob| !logprob.is_finite());
    if let Some(index) = scores.iter().position(broken) {
        let line = index + 1;
        return Err(format!("line {line}: a log-probability is not a finite number").into());
    }
    Ok(scores)
}

fn write(file: File, rows: &[Row], scores: &[Vec<f32>]) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(file);
    for (Row { other, .. }, logprobs) in rows.iter().zip(scores) {
        let sum = logprobs.iter().copied().map(f64::from).sum();
        let row = Scored { other, logprobs, sum, tokens: logprobs.len() };
        serde_json::to_writer(&mut out, &row)?;
        out.write_all(b"\n")?;
    }
    Ok(out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?)
}
