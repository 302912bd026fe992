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
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use posttrain::model::checkpoint::{Checkpoint, Dtype, resolve};
use posttrain::model::config::Config;
use posttrain::model::device;
use posttrain::train::config::{Paths, SftConfig, When};
use posttrain::train::data::{Batches, DataReport, Marks, Split, split, without_validation};
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
    let mut observer: Vec<Box<dyn Observer>> = vec![
        Box::new(JsonLines::new(&out)),
        Box::new(TensorBoard::new(&out)),
        Box::new(Report::new(&out)),
        Box::new(bar::Bar::new()),
    ];
    for path in [&config.data.data, &config.data.eval_data].into_iter().flat_map(Paths::as_slice) {
        fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut run = Run::open(&config.training, &mut observer)?;

    let tokenizer = rows::tokenizer(&base, config.model.chat_template_path.as_deref())?;
    let options = config.row_options();
    let (samples, mut counts) = rows::read(
        &config.data.data,
        &config.data,
        &out.join("bad_rows.jsonl"),
        &tokenizer,
        &options,
    )?;
    let eval_data = &config.data.eval_data;
    let (train, validation) = if !eval_data.as_slice().is_empty() {
        let bad_rows = out.join("bad_eval_rows.jsonl");
        let (validation, counts_of_validation) =
            rows::read(eval_data, &config.data, &bad_rows, &tokenizer, &options)?;
        let report = DataReport::new(&validation, &counts_of_validation, &tokenizer);
        eprintln!("validation\n{}", report.text(marks()));
        save(&out.join("eval_data_report.json"), &serde_json::to_vec_pretty(&report)?)?;
        (without_validation(samples, &validation, &mut counts)?, Some(validation))
    } else if config.training.eval_strategy != When::No && config.data.val_set_size > 0.0 {
        let share = config.data.validation_share(samples.len());
        let Split { train, validation } = split(&samples, share, config.training.order_seed())?;
        (train, Some(validation))
    } else {
        (samples, None)
    };
    let mut report = DataReport::new(&train, &counts, &tokenizer);
    if let Some(validation) = &validation {
        report = report.with_validation(validation);
    }
    let mut batches = Batches::new(train, config.batch_options())?;
    let report = report.with_packing(&batches);
    let validation =
        validation.map(|rows| Batches::new(rows, config.eval_batch_options())).transpose()?;
    eprintln!("{}", report.text(marks()));
    let (model_config, stored) = (Config::from_model(&base)?, Checkpoint::open(&base)?.dtype());
    let (stored, longest) = (stored.unwrap_or(Dtype::F32), batches.longest());
    let cpu = device::name_of(&device) == "flex";
    eprintln!("memory\n{}", config.memory_report(&model_config, stored, longest, cpu)?);
    save(&out.join("data_report.json"), &serde_json::to_vec_pretty(&report)?)?;
    save(&out.join("config.yaml"), config.to_yaml().as_bytes())?;

    let (weights, model) = Weights::load(&config, &base, run.resumed_from(), &device)?;
    let mut info = RunInfo::of(&model, config.to_json());
    info.name = format!("{} on {}", title(&config), rows::list(&config.data.data));
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

/// Writes a file beside and renames it, so that it is whole or as it was.
fn save(path: &Path, content: &[u8]) -> Result<(), String> {
    let beside = path.with_extension("tmp");
    let written = fs::write(&beside, content).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// Colours on a terminal, brackets elsewhere.
fn marks() -> Marks {
    if std::io::stderr().is_terminal() { Marks::Ansi } else { Marks::Plain }
}

/// What is trained, in a few words.
fn title(config: &SftConfig) -> String {
    let model = config.model.name().unwrap_or_default();
    match (&config.peft.lora, &config.peft.quantization) {
        (Some(lora), Some(_)) => format!("{model}, QLoRA r {}", lora.r),
        (Some(lora), None) => format!("{model}, LoRA r {}", lora.r),
        _ => model.to_owned(),
    }
}
