//! Preference alignment: a checkpoint, rows of better and worse answers, a file of settings.
//!
//! ```text
//! cargo run --release --example preference -- --config examples/configs/dpo_lora.yaml
//! cargo run --release --example preference -- --config dpo.yaml --set loss.beta=0.05
//! ```
//!
//! `loss: {type: ...}` says which loss: dpo (with TRL's fifteen `loss_type`s, alone or weighted), kto, bco, orpo, cpo
//! (`SimPO` and `AlphaPO`, too), tpo, rrhf, slic. Pairs, labelled answers and rankings are read as the loss wants them.
//! The folder `output_dir` gets what `sft` writes; a line of `metrics.jsonl` also has rewards, accuracy, margin,
//! log-probabilities and lengths of both answers.
#![allow(clippy::print_stderr, reason = "a program")]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/bar.rs"]
mod bar;
#[path = "support/rows.rs"]
mod rows;
#[path = "support/start.rs"]
mod start;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use posttrain::model::checkpoint::resolve;
use posttrain::model::device;
use posttrain::train::config::PreferenceConfig;
use posttrain::train::data::{Batches, DataReport};
use posttrain::train::preference::PreferenceLoss;
use posttrain::train::watch::RunInfo;
use posttrain::train::{Run, Weights, preference};

/// Preference alignment of a model, in full, with LoRA or with QLoRA.
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
    let config = PreferenceConfig::read(&cli.config, &cli.set)?;
    let device = device::choose(cli.device.as_deref())?;
    let base = resolve(config.model.name()?)?;
    let out = config.training.output_dir.clone();
    start::check_files(&config.data)?;
    let mut observer = start::observers(&out);
    let mut run = Run::open(&config.training, &mut observer)?;

    let tokenizer = rows::tokenizer(&base, config.model.chat_template_path.as_deref())?;
    let (kind, options) = (config.method.loss.rows(), config.row_options());
    let (train, validation, report) = start::sets(
        &config,
        |paths, bad| answers::read(paths, &config.data, bad, &tokenizer, &options, kind),
        |rows, counts| DataReport::of_answers(rows, kind, counts, &tokenizer),
    )?;
    let mut batches = Batches::of_answers(train, config.batch_options())?;
    let of_answers = |rows| Batches::of_answers(rows, config.eval_batch_options());
    let validation = validation.map(of_answers).transpose()?;
    if let (PreferenceLoss::Kto(kto), Some(answers)) = (&config.method.loss, &report.answers)
        && let Some(advice) = kto.balance(answers.better, answers.worse)
    {
        eprintln!("warning: {advice}");
    }
    start::announce(&config, &base, &batches, &report, device::name_of(&device) == "flex")?;

    let (weights, model) = Weights::load(&config, &base, run.resumed_from(), &device)?;
    let mut info = RunInfo::of(&model, config.to_json());
    info.name = format!("{} on {}", start::title(&config), rows::list(&config.data.data));
    info.data_report = report.html();
    let validation = validation.as_ref();
    let trained = preference(model, &weights, &mut batches, validation, &config, info, &mut run)
        .and_then(|model| weights.save_final(&model, &out));
    for change in run.changed_settings() {
        eprintln!("not as in the checkpoint: {change}");
    }
    let summary = run.end(trained.as_ref().err(), Some(out))?;
    trained?;
    eprintln!("{summary}");
    Ok(())
}
