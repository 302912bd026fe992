//! Merges checkpoints as a mergekit configuration says.
//!
//! ```text
//! cargo run --release --example merge -- CONFIG.yaml OUT_DIR [--plan] [--threads N] [--memory 512MB] \
//!     [--seed N] [--shard-size 5GB] [--arithmetic float32|input] [--missing error|union|intersection] \
//!     [--intermediate-dir DIR] [--verify]
//! ```
//!
//! `--plan` says what would be read, computed and written, and writes nothing. `--verify` checks `OUT_DIR`, which is merged
//! first where it is not there: every tensor is hashed and computed again. A merge that was interrupted goes on when it is
//! started again. A file with several documents (mergekit-multi) has its named ones merged into the folder of
//! `--intermediate-dir`, where other documents find them by their names.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use posttrain::merge::config::MergeConfig;
use posttrain::merge::manifest::Manifest;
use posttrain::merge::{
    Arithmetic, Checkpoint, Error, Execution, Missing, Plan, PlanOptions, Progress, execute,
    replay, verify,
};

/// Merges checkpoints as a mergekit configuration says.
#[derive(Parser)]
struct Cli {
    /// A mergekit configuration: `models`, `slices` or `modules`, or several documents.
    config: PathBuf,
    /// The folder of the merged model. It appears when it is complete.
    out: PathBuf,
    /// Say what would be done, and what does not fit, and stop.
    #[arg(long)]
    plan: bool,
    /// Threads; one for each core unless given. The output does not depend on them.
    #[arg(long)]
    threads: Option<usize>,
    /// The most anonymous memory, such as 512MB or 2GiB.
    #[arg(long, default_value = "512MB", value_parser = bytes)]
    memory: u64,
    /// What random numbers depend on.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The most bytes of a file of the output.
    #[arg(long, default_value = "5GB", value_parser = bytes)]
    shard_size: u64,
    /// The type that is computed in: f32, or that of the inputs, as mergekit does.
    #[arg(long, value_enum, default_value = "float32")]
    arithmetic: Computed,
    /// What happens to a tensor that some of the models lack.
    #[arg(long, value_enum, default_value = "error")]
    missing: Lacking,
    /// Where the named documents of a file with several are merged.
    #[arg(long, value_name = "DIR")]
    intermediate_dir: Option<PathBuf>,
    /// Hash and compute every tensor of the output again, and compare.
    #[arg(long)]
    verify: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Computed {
    Float32,
    Input,
}

#[derive(Clone, Copy, ValueEnum)]
enum Lacking {
    Error,
    Union,
    Intersection,
}

/// A size such as `512MB` (a thousand thousands) or `2GiB` (1024 three times).
fn bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "T" | "TB" => 1e12,
        "KIB" => 1024.0,
        "MIB" => 1024.0 * 1024.0,
        "GIB" => 1024.0 * 1024.0 * 1024.0,
        other => {
            return Err(format!("unknown unit `{other}`, expected KB, MB, GB, KiB, MiB or GiB"));
        }
    };
    let number: f64 = number.parse().map_err(|_| "expected a size such as 512MB".to_owned())?;
    Ok((number * factor) as u64)
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, Error> {
    let mut documents = MergeConfig::read_all(&cli.config)?;
    let all = documents.clone();
    let results = cli.intermediate_dir.clone().unwrap_or_else(|| cli.out.with_extension("parts"));
    let last = documents.len() - 1;
    let mut fine = true;
    for (index, config) in documents.iter_mut().enumerate() {
        config.place_documents(&all, &results);
        let out = match &config.name {
            Some(name) if index < last => results.join(name),
            _ => cli.out.clone(),
        };
        fine &= merge(config, &out, cli)?;
    }
    Ok(fine)
}

/// Whether a merged folder is what this plan makes.
fn is_of(found: &Manifest, plan: &Plan) -> bool {
    let tensors = &found.output.contents.tensors;
    let same = plan.outputs().iter().all(|output| {
        let tensor = tensors.get(&output.name);
        tensor.is_some_and(|t| (t.dtype, &t.shape) == (output.dtype, &output.shape))
    });
    let arithmetic = plan.options().arithmetic.name();
    found.config == plan.config().to_value()
        && (found.seed, found.options.arithmetic.as_str()) == (plan.seed(), arithmetic)
        && same
        && tensors.len() == plan.outputs().len()
}

/// One merge; whether what `--verify` found is as it should be.
fn merge(config: &MergeConfig, out: &Path, cli: &Cli) -> Result<bool, Error> {
    let options = PlanOptions {
        seed: cli.seed,
        arithmetic: match cli.arithmetic {
            Computed::Float32 => Arithmetic::Float32,
            Computed::Input => Arithmetic::Input,
        },
        missing: match cli.missing {
            Lacking::Error => Missing::Error,
            Lacking::Union => Missing::Union,
            Lacking::Intersection => Missing::Intersection,
        },
        ..PlanOptions::default()
    };
    let execution =
        Execution { threads: cli.threads, memory: cli.memory, shard_size: cli.shard_size };
    let plan = Plan::new(config, options)?;
    if cli.plan {
        let folder = out.ancestors().skip(1).find(|folder| folder.is_dir());
        let estimate = plan.estimate(execution.threads(), folder.unwrap_or(Path::new(".")))?;
        // Who reads only the beginning closes the pipe.
        let _ = writeln!(std::io::stdout(), "{plan}\n{estimate}");
        return Ok(true);
    }
    let there = out.exists() && Manifest::read(out).is_ok_and(|found| is_of(&found, &plan));
    if there {
        eprintln!("{}: merged already", out.display());
    } else {
        for warning in plan.warnings() {
            eprintln!("warning: {warning}");
        }
        let bar = ProgressBar::new(plan.written());
        let style = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("a style"));
        let report = execute(&plan, out, &execution, &|progress: Progress| {
            bar.set_position(progress.done);
            true
        })?;
        bar.finish_and_clear();
        if report.resumed > 0 {
            eprintln!("{} tensors were there from an interrupted run", report.resumed);
        }
        eprintln!("{}: {} tensors", out.display(), report.outputs.len());
    }
    if !cli.verify {
        return Ok(true);
    }
    let report = verify(out)?;
    println!("{report}");
    let differ = replay(&plan, &Checkpoint::open(out)?, &execution)?;
    for tensor in &differ {
        println!("tensor `{tensor}` is another when it is computed again");
    }
    Ok(report.is_ok() && differ.is_empty())
}
