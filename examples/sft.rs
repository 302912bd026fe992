//! Supervised fine-tuning: a checkpoint, rows, a file of settings.
//!
//! ```text
//! cargo run --release --example sft -- --config examples/configs/sft_lora.yaml
//! cargo run --release --example sft -- --config sft.yaml --set learning_rate=1e-4 --set lora.r=32
//! ```
//!
//! Full fine-tuning, LoRA, QLoRA and continued pretraining are settings; `examples/configs` has one file for
//! each. Before the first step the rows and the memory are reported. The folder `output_dir` then gets
//! `config.yaml` (every setting), `data_report.json`, `metrics.jsonl` (a line for each step), TensorBoard events,
//! `report.html`, checkpoints, and the final model or adapter as Hugging Face and PEFT lay it out.
#![allow(clippy::print_stderr, reason = "a program")]

#[path = "support/bar.rs"]
mod bar;
#[path = "support/rows.rs"]
mod rows;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use posttrain::model::checkpoint::resolve;
use posttrain::model::device;
use posttrain::train::config::SftConfig;
use posttrain::train::data::{Batches, DataReport, Split, split, without_validation};
use posttrain::train::watch::{JsonLines, Observer, Report, RunInfo, TensorBoard};
use posttrain::train::{Run, Weights, sft};

/// Supervised fine-tuning of a model, in full, with LoRA or with QLoRA.
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
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let config = SftConfig::read(&cli.config, &cli.set)?;
    let device = device::choose(cli.device.as_deref())?;
    let base = resolve(config.model.name()?)?;
    let out = config.training.output_dir.clone();
    let mut observer: Vec<Box<dyn Observer>> = vec![
        Box::new(JsonLines::new(&out)),
        Box::new(TensorBoard::new(&out)),
        Box::new(Report::new(&out)),
        Box::new(bar::Bar::new()),
    ];
    let mut run = Run::open(&config.training, &mut observer)?;

    let tokenizer = rows::tokenizer(&base, config.model.chat_template_path.as_deref())?;
    let options = config.row_options();
    let (samples, mut counts) = rows::read(&config.data.data, &config.data, &out, &tokenizer, &options)?;
    let Split { train, validation } = if config.data.eval_data.is_empty() {
        split(&samples, config.data.val_set_size, config.training.order_seed())?
    } else {
        let eval = &config.data.eval_data;
        let (validation, _) = rows::read(eval, &config.data, &out, &tokenizer, &options)?;
        let train = without_validation(samples, &validation, &mut counts)?;
        Split { train, validation }
    };
    let mut report = DataReport::new(&train, &counts, &tokenizer).with_validation(&validation);
    let pad = tokenizer.pad_token_id();
    let mut batches = Batches::new(train, config.batch_options(pad))?;
    report = report.with_packing(&batches);
    let validation = Batches::new(validation, config.eval_batch_options(pad))?;
    eprintln!("{report}");
    fs::write(out.join("data_report.json"), serde_json::to_vec_pretty(&report)?)?;
    fs::write(out.join("config.yaml"), config.to_yaml())?;

    let (weights, model) = Weights::load(&config, &base, run.resumed_from(), &device)?;
    let info = RunInfo::default();
    let model = sft(model, &weights, &mut batches, Some(&validation), &config, info, &mut run)?;
    weights.save_final(&model, &out)?;
    let summary = run.end(None, Some(out))?;
    eprintln!("{summary:?}");
    Ok(())
}
