//! Makes a Hugging Face checkpoint with random weights from a configuration and a tokenizer.
//!
//! ```text
//! cargo run --release --example init_model -- --config examples/data/tiny/config.json \
//!     --tokenizer examples/data/tiny/tokenizer.json --out tiny-model
//! ```
//!
//! Matrices are drawn from a normal distribution, norms are one and biases zero, as transformers
//! initialises them; the same seed gives the same weights. `config.json` is the given one with the
//! `dtype` of the weights. What stands beside the tokenizer and belongs to it (its configuration, a
//! chat template) comes along; `generation_config.json` is made from the token ids of the
//! configuration.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use posttrain::model::checkpoint::{Dtype, SaveOptions, read_companions};
use posttrain::model::config::Config;
use posttrain::model::{Decoder, device};
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

/// Makes a Hugging Face checkpoint with random weights from a configuration and a tokenizer.
#[derive(Parser)]
struct Cli {
    /// The configuration of the model, as `config.json` of a checkpoint.
    #[arg(long, value_name = "CONFIG.json")]
    config: PathBuf,
    /// The tokenizer; files beside it that belong to it are copied, too.
    #[arg(long, value_name = "tokenizer.json")]
    tokenizer: PathBuf,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The type of the saved weights; by default the configuration's, or else float32.
    #[arg(long, value_parser = ["float32", "bfloat16", "float16"])]
    dtype: Option<String>,
    /// Standard deviation of the weights; by default the configuration's, or else 0.02.
    #[arg(long, allow_negative_numbers = true)]
    initializer_range: Option<f32>,
    /// Write into a folder that is not empty: files of the same name are replaced, others stay.
    #[arg(long)]
    force: bool,
}

/// Names with contents.
type Files = Vec<(String, Vec<u8>)>;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    check_out(&cli.out, cli.force)?;
    let mut json: Value = serde_json::from_slice(&read(&cli.config)?)
        .map_err(|error| format!("{} is not valid JSON: {error}", cli.config.display()))?;
    let config = Config::from_json(&cli.config, &json)?;
    let keys = json.as_object_mut().ok_or("the configuration is an object")?;
    let name = cli.dtype.as_ref().or(config.dtype.as_ref()).map_or("float32", String::as_str);
    let (dtype, width) = match name {
        "float32" => (Dtype::F32, 4),
        "bfloat16" => (Dtype::BF16, 2),
        "float16" => (Dtype::F16, 2),
        other => {
            let path = cli.config.display();
            let expected = "float32, bfloat16 or float16; or choose one with --dtype";
            return Err(format!("{path}: `dtype` is {other:?}, expected {expected}").into());
        }
    };
    keys.shift_remove("torch_dtype");
    keys.insert("dtype".into(), name.into());
    let range = match (cli.initializer_range, keys.get("initializer_range")) {
        (Some(range), _) => range,
        (None, None) => 0.02,
        (None, Some(found)) => found.as_f64().ok_or_else(|| {
            let path = cli.config.display();
            format!("{path}: `initializer_range` is {found}, expected a positive number")
        })? as f32,
    };
    check_ids(cli, &config)?;
    let companions = companions(cli, keys)?;

    let model = Decoder::random(&config, range, cli.seed, &device::choose(None)?)?;
    let saved =
        model.save_as(&cli.out, dtype, &SaveOptions { companions, ..SaveOptions::default() })?;
    let (parameters, bytes) = (saved.total_size / width, saved.total_size);
    println!("{}: {parameters} parameters, {bytes} bytes of {name}", cli.out.display());
    Ok(())
}

/// Refuses to mix a new checkpoint with what is there.
fn check_out(out: &Path, force: bool) -> Result<(), String> {
    if out.exists() && !out.is_dir() {
        return Err(format!("{} is a file, expected a folder", out.display()));
    }
    let empty = out.read_dir().map_or(true, |mut entries| entries.next().is_none());
    if !empty && !force {
        return Err(format!("{} is not empty; --force writes into it", out.display()));
    }
    Ok(())
}

/// Every id that the tokenizer or the configuration can name has a row in the embedding.
fn check_ids(cli: &Cli, config: &Config) -> Result<(), String> {
    let path = cli.tokenizer.display();
    let tokenizer =
        Tokenizer::from_file(&cli.tokenizer).map_err(|error| format!("{path}: {error}"))?;
    let (found, file) = (config.vocab_size, cli.config.display());
    if let Some((token, id)) = tokenizer.get_vocab(true).into_iter().max_by_key(|(_, id)| *id)
        && id as usize >= found
    {
        let needed = id + 1;
        return Err(format!(
            "{file}: `vocab_size` is {found}, expected at least {needed}: {path} has the id {id} \
             ({token:?})"
        ));
    }
    if let Some(id) = config.eos_token_ids.iter().find(|&&id| id as usize >= found) {
        return Err(format!(
            "{file}: `eos_token_id` is {id}, expected an id below `vocab_size`, {found}"
        ));
    }
    Ok(())
}

/// The files beside the weights.
fn companions(cli: &Cli, config: &Map<String, Value>) -> Result<Files, Box<dyn Error>> {
    let folder = cli.tokenizer.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut files = read_companions(folder.unwrap_or(Path::new(".")))?;
    // How to sample from another model says nothing about this one.
    files.retain(|(name, _)| name != "generation_config.json" && name != "tokenizer.json");
    files.push(("tokenizer.json".into(), read(&cli.tokenizer)?));
    files.push(("config.json".into(), pretty(config)?));
    let named = |key: &&str| config.get(*key).is_some_and(|id| !id.is_null());
    if named(&"eos_token_id") {
        let keys = ["bos_token_id", "eos_token_id", "pad_token_id"].into_iter().filter(named);
        let ids = keys.map(|key| (key.to_owned(), config[key].clone())).collect();
        files.push(("generation_config.json".into(), pretty(&ids)?));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// As transformers writes it, with a newline at the end.
fn pretty(json: &Map<String, Value>) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec_pretty(json)?;
    text.push(b'\n');
    Ok(text)
}
