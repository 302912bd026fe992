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
#[path = "support/start.rs"]
mod start;
#[path = "support/texts.rs"]
mod texts;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use posttrain::model::checkpoint::resolve;
use posttrain::model::device;
use posttrain::train::config::SftConfig;
use posttrain::train::data::{Batches, DataReport};
use posttrain::train::watch::RunInfo;
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
    let config = SftConfig::read(&cli.config, &cli.set)?;
    let device = device::choose(cli.device.as_deref())?;
    let base = resolve(config.model.name()?)?;
    let out = config.training.output_dir.clone();
    start::check_files(&config.data)?;
    let mut observer = start::observers(&out);
    let mut run = Run::open(&config.training, &mut observer)?;

    let tokenizer = rows::tokenizer(&base, config.model.chat_template_path.as_deref())?;
    let (train, validation, report) = start::sets(
        &config,
        |paths, bad| texts::read(paths, &config.data, bad, &tokenizer, &config.row_options()),
        |rows, counts| DataReport::new(rows, counts, &tokenizer),
    )?;
    let mut batches = Batches::new(train, config.batch_options())?;
    let validation =
        validation.map(|rows| Batches::new(rows, config.eval_batch_options())).transpose()?;
    let report = report.with_packing(&batches);
    start::announce(&config, &base, &batches, &report, device::name_of(&device) == "flex")?;

    let (weights, model) = Weights::load(&config, &base, run.resumed_from(), &device)?;
    let mut info = RunInfo::of(&model, config.to_json());
    info.name = format!("{} on {}", start::title(&config), rows::list(&config.data.data));
    info.data_report = report.html();
    let trained = sft(model, &weights, &mut batches, validation.as_ref(), &config, info, &mut run)
        .and_then(|model| weights.save_final(&model, &out));
    for change in run.changed_settings() {
        eprintln!("not as in the checkpoint: {change}");
    }
    let summary = run.end(trained.as_ref().err(), Some(out))?;
    trained?;
    eprintln!("{summary}");
    Ok(())
}
