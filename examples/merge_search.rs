//! Looks for the numbers of a merge: weights, densities, `t`, gradients.
//!
//! ```text
//! cargo run --release --example merge_search -- CONFIG.yaml --store search.sqlite \
//!     --number models[0].parameters.weight=0..1 --number parameters.t=0..1 \
//!     --score 'python score.py {}' [--grid LEVELS] [--trials N] [--seed N] [--report DIR]
//! ```
//!
//! Each candidate is merged into a scratch folder, whose path takes the place of `{}` in the command of `--score`; the last
//! line that the command prints is the score, and more is better. Every trial is in the SQLite file of `--store`: a search
//! that was interrupted goes on when it is started again. The best configuration is printed as YAML.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use posttrain::merge::config::MergeConfig;
use posttrain::merge::search::{Number, Search, Settings, Space, Strategy, Trial};
use posttrain::merge::{Execution, Plan, PlanOptions, execute};

/// Looks for the numbers of a merge.
#[derive(Parser)]
struct Cli {
    /// A mergekit configuration; its numbers are where the search begins.
    config: PathBuf,
    /// The SQLite file of the trials.
    #[arg(long)]
    store: PathBuf,
    /// A number of the configuration and its range, such as `parameters.t=0..1`; a list is a number for each entry.
    #[arg(long = "number", required = true, value_parser = number)]
    numbers: Vec<Number>,
    /// A command that prints the score of the folder in the place of `{}`.
    #[arg(long)]
    score: String,
    /// A grid of so many values for each number instead of CMA-ES.
    #[arg(long)]
    grid: Option<usize>,
    /// Trials in all.
    #[arg(long, default_value_t = 50)]
    trials: usize,
    /// What the search and the merges depend on.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A folder for `trials.md`, `trials.json` and `trials.svg`.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn number(text: &str) -> Result<Number, String> {
    let expected = || format!("`{text}`, expected `key.path=low..high`");
    let (path, range) = text.rsplit_once('=').ok_or_else(expected)?;
    let (low, high) = range.split_once("..").ok_or_else(expected)?;
    let parse = |number: &str| number.trim().parse::<f64>().map_err(|_| expected());
    Ok(Number::real(path, parse(low)?..=parse(high)?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let config = MergeConfig::read(&cli.config)?.to_value();
    let space = Space::new(&config, cli.numbers.iter().cloned())?;
    let strategy = match cli.grid {
        Some(levels) => Strategy::Grid(levels),
        None => Strategy::Cma(Settings::default()),
    };
    let mut search = Search::open(&cli.store, space, config, strategy, cli.seed)?;
    let end = search.run(|trial| score(trial, &cli.score), cli.trials)?;
    eprintln!("{end:?} after {} trials", search.finished());
    if let Some(folder) = &cli.report {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("trials.md"), search.to_markdown())?;
        std::fs::write(folder.join("trials.json"), search.to_json().to_string())?;
        std::fs::write(folder.join("trials.svg"), search.to_svg())?;
    }
    let best = search.best().ok_or("no trial has a score")?;
    println!("{}", MergeConfig::from_value(&search.config_of(best)?)?.to_yaml());
    Ok(())
}

/// Merges a candidate into a scratch folder and asks the command for its score.
fn score(trial: &Trial, command: &str) -> Result<f64, Box<dyn Error>> {
    let config = MergeConfig::from_value(&trial.config)?;
    let plan = Plan::new(&config, PlanOptions { seed: trial.seed, ..PlanOptions::default() })?;
    let scratch = tempfile::tempdir()?;
    let merged = scratch.path().join("merged");
    execute(&plan, &merged, &Execution::default(), &|_| true)?;
    let printed = run(command, &merged)?;
    let last = printed.lines().last().unwrap_or_default().trim();
    let score = last.parse().map_err(|_| format!("`{last}` is no score, expected a number"))?;
    eprintln!("trial {}: {score}", trial.number);
    Ok(score)
}

fn run(command: &str, folder: &Path) -> Result<String, Box<dyn Error>> {
    let command = command.replace("{}", &folder.display().to_string());
    let output = Command::new("sh").args(["-c", &command]).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
