//! Reward models: a checkpoint, rows of better and worse answers or of labelled steps, a file of settings.
//!
//! ```text
//! cargo run --release --example reward -- --config examples/configs/reward_outcome.yaml
//! cargo run --release --example reward -- --config examples/configs/reward_process.yaml
//! ```
//!
//! `kind: outcome` learns one score for an answer from pairs, `kind: process` one for each step from steps with
//! labels, marked as `convention` says. The folder `output_dir` gets what `sft` writes, and of the validation rows
//! `scores.json` and `scores.html`: accuracy, AUC and calibration, also by length, beside what the length of the
//! answers says by itself. `score_reward` reads the model; so does transformers, where it has
//! the head.
#![allow(clippy::print_stderr, reason = "a program")]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/bar.rs"]
mod bar;
#[path = "support/rows.rs"]
mod rows;
#[path = "support/start.rs"]
mod start;
#[path = "support/steps.rs"]
mod steps;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use posttrain::model::checkpoint::resolve;
use posttrain::model::config::Config;
use posttrain::model::device;
use posttrain::model::reward::{Convention, RewardTokenizer};
use posttrain::train::config::{RewardConfig, RewardKind};
use posttrain::train::data::{Answers, Batches, DataReport, RowKind};
use posttrain::train::reward::{outcome_reward, process_reward, score_pairs, score_steps};
use posttrain::train::watch::RunInfo;
use posttrain::train::{Run, Weights};

/// Training of a reward model, in full, with LoRA or with QLoRA.
#[derive(Parser)]
struct Cli {
    /// The settings.
    #[arg(long, value_name = "FILE.yaml")]
    config: PathBuf,
    /// flex (the CPU), vulkan, wgpu or cuda, as far as compiled in.
    #[arg(long)]
    device: Option<String>,
    /// A setting over those of the file; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
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
    let mut config = RewardConfig::read(&cli.config, &cli.set)?;
    let device = device::choose(cli.device.as_deref())?;
    let base = resolve(config.model.name()?)?;
    if config.method.kind == RewardKind::Process && config.method.convention.is_none() {
        config.method.convention = Convention::read(&base)?;
    }
    let out = config.training.output_dir.clone();
    start::check_files(&config.data)?;
    let mut observer = start::observers(&out);
    let mut run = Run::open(&config.training, &mut observer)?;

    let (train, validation, report) = match config.method.kind {
        RewardKind::Outcome => pairs(&config, &base)?,
        RewardKind::Process => solutions(&config, &base)?,
    };
    let mut batches = Batches::of_answers(train, config.batch_options())?;
    let of_answers = |rows| Batches::of_answers(rows, config.eval_batch_options());
    let validation = validation.map(of_answers).transpose()?;
    start::announce(&config, &base, &batches, &report, device::name_of(&device) == "flex")?;

    let (mut weights, model) = Weights::load(&config, &base, run.resumed_from(), &device)?;
    let mut info = RunInfo::of(&model, config.to_json());
    info.name = format!("{} on {}", start::title(&config), rows::list(&config.data.data));
    info.data_report = report.html();
    let title = format!("Scores of {}", info.name);
    let held_out = validation.as_ref();
    let trained = match config.method.kind {
        RewardKind::Outcome => {
            outcome_reward(model, &weights, &mut batches, held_out, &config, info, &mut run)
        }
        RewardKind::Process => {
            let convention = config.method.convention(model.config())?;
            weights.add_companion(convention.to_file());
            let reading = convention.reading(&tokenizer(&config, &base)?, model.config())?;
            let read = (&config, reading);
            process_reward(model, &weights, &mut batches, held_out, read, info, &mut run)
        }
    };
    let trained = trained.and_then(|model| weights.save_final(&model, &out).map(|()| model));
    for change in run.changed_settings() {
        eprintln!("not as in the checkpoint: {change}");
    }
    let summary = run.end(trained.as_ref().err(), Some(out.clone()))?;
    let model = trained?;
    eprintln!("{summary}");
    let Some(held_out) = held_out else { return Ok(()) };
    match config.method.kind {
        RewardKind::Outcome => {
            let scores = score_pairs(&model, held_out)?;
            scores.save(&out, &title)?;
            eprintln!("\nvalidation\n{scores}");
        }
        RewardKind::Process => {
            let convention = config.method.convention(model.config())?;
            let reading = convention.reading(&tokenizer(&config, &base)?, model.config())?;
            let scores = score_steps(&model, held_out, reading)?;
            scores.save(&out, &title)?;
            eprintln!("\nvalidation\n{scores}");
        }
    }
    Ok(())
}

type Sets = (Answers, Option<Answers>, DataReport);

/// Better and worse answers.
fn pairs(config: &RewardConfig, base: &Path) -> Result<Sets, Box<dyn Error>> {
    let (kind, options) = (RowKind::Pairs, config.row_options());
    let tokenizer = rows::tokenizer(base, config.model.chat_template_path.as_deref())?;
    start::sets(
        config,
        |paths, bad| answers::read(paths, &config.data, bad, &tokenizer, &options, kind),
        |rows, counts| DataReport::of_answers(rows, kind, counts, &tokenizer).of_scores(),
    )
}

/// Solutions in labelled steps.
fn solutions(config: &RewardConfig, base: &Path) -> Result<Sets, Box<dyn Error>> {
    let plain = rows::tokenizer(base, config.model.chat_template_path.as_deref())?;
    let tokenizer = tokenizer(config, base)?;
    let convention = config.method.convention(&Config::from_model(base)?)?;
    start::sets(
        config,
        |paths, bad| steps::read(paths, config, bad, &tokenizer, &convention),
        |rows, counts| DataReport::new(rows.texts(), counts, &plain).of_scores(),
    )
}

/// The tokenizer with its template, or the one of the settings.
fn tokenizer(config: &RewardConfig, base: &Path) -> Result<RewardTokenizer, Box<dyn Error>> {
    Ok(match config.model.chat_template_path.as_deref() {
        None => RewardTokenizer::from_model(base)?,
        Some(path) => RewardTokenizer::new(rows::tokenizer(base, Some(path))?),
    })
}
