//! LoRA adapters without loading a model: several into one, one from a fine-tuned checkpoint, one added to its base.
//!
//! ```text
//! cargo run --release --example adapters -- combine --adapter DIR=0.7 --adapter DIR=0.3 --how svd --rank 16 OUT
//! cargo run --release --example adapters -- combine --adapter DIR --adapter DIR --how ties --set density=0.5 OUT
//! cargo run --release --example adapters -- extract BASE TUNED OUT --rank 32 [--energy 0.05]
//! cargo run --release --example adapters -- add BASE ADAPTER OUT
//! ```
//!
//! What was made goes to standard output, a line for each module with its rank and relative error.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use posttrain::merge::adapter::{
    Adapter, Combination, Embeddings, ExtractOptions, Others, RankRule, combine, extract,
};
use posttrain::merge::config::MergeConfig;
use posttrain::merge::dtype::Dtype;
use posttrain::merge::methods::{Registry, Value};
use posttrain::merge::{Checkpoint, Execution, Plan, PlanOptions, execute};
use serde_json::json;

/// LoRA adapters without loading a model.
#[derive(Parser)]
enum Cli {
    #[command(flatten)]
    Command(Command),
}

#[derive(Subcommand)]
enum Command {
    /// Several adapters into one, without the base.
    Combine(CombineArgs),
    /// An adapter from the difference of two checkpoints.
    Extract(ExtractArgs),
    /// A base with an adapter folded in.
    Add {
        /// The base checkpoint.
        base: PathBuf,
        /// The adapter's folder.
        adapter: PathBuf,
        /// The new folder.
        out: PathBuf,
    },
}

#[derive(Args)]
struct CombineArgs {
    /// An adapter's folder, with its weight after `=`; 1 without.
    #[arg(long = "adapter", value_name = "DIR[=WEIGHT]", required = true, value_parser = weighted)]
    adapters: Vec<(PathBuf, f64)>,
    /// `cat` (exact), `svd`, `linear` (PEFT's, on the factors), or a merge method on the deltas: `ties`, `dare_ties`, ..
    #[arg(long, default_value = "cat")]
    how: String,
    /// The new rank, for all but `cat` and `linear`.
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// A parameter of the method, such as density=0.5; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, Value)>,
    /// For random methods and decompositions.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The new folder.
    out: PathBuf,
}

#[derive(Args)]
struct ExtractArgs {
    /// The base checkpoint.
    base: PathBuf,
    /// The fine-tuned checkpoint.
    tuned: PathBuf,
    /// The new folder.
    out: PathBuf,
    /// The rank, or the largest one.
    #[arg(long, default_value_t = 32)]
    rank: usize,
    /// The least rank that misses at most this part of the energy of a module's difference.
    #[arg(long, conflicts_with = "above")]
    energy: Option<f64>,
    /// As many as there are singular values above this one.
    #[arg(long)]
    above: Option<f64>,
    /// Only modules whose path has a match of one of these regular expressions.
    #[arg(long)]
    include: Vec<String>,
    /// No modules whose path has a match.
    #[arg(long)]
    exclude: Vec<String>,
    /// Factors for embeddings and head, instead of saving them as a whole.
    #[arg(long)]
    embed_lora: bool,
    /// Leave norms and biases out, instead of saving them as a whole.
    #[arg(long)]
    leave_others: bool,
    /// All of the scale in A, instead of its root in both.
    #[arg(long)]
    scale_in_a: bool,
    /// Power iterations: each reads both checkpoints twice.
    #[arg(long, default_value_t = 2)]
    power_iterations: usize,
    /// `float32`, `bfloat16` or `float16`.
    #[arg(long, default_value = "float32", value_parser = dtype)]
    dtype: Dtype,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn weighted(text: &str) -> Result<(PathBuf, f64), String> {
    match text.rsplit_once('=') {
        Some((path, weight)) => {
            Ok((path.into(), weight.parse().map_err(|e| format!("`{weight}`: {e}"))?))
        }
        None => Ok((text.into(), 1.0)),
    }
}

fn parameter(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = match value {
        "true" | "false" => Value::Flag(value == "true"),
        number => Value::Number(number.parse().map_err(|e| format!("`{number}`: {e}"))?),
    };
    Ok((name.to_owned(), value))
}

fn dtype(text: &str) -> Result<Dtype, String> {
    let known = [Dtype::F32, Dtype::BF16, Dtype::F16];
    let found = known.into_iter().find(|dtype| posttrain::merge::dtype::name(*dtype) == text);
    found.ok_or_else(|| "expected float32, bfloat16 or float16".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Cli::Command(command) = Cli::parse();
    match command {
        Command::Combine(args) => run_combine(&args),
        Command::Extract(args) => run_extract(args),
        Command::Add { base, adapter, out } => {
            let model = json!({"model": {"path": base}, "lora": {"path": adapter}});
            let config = json!({"merge_method": "passthrough", "models": [{"model": model}]});
            let plan = Plan::new(&MergeConfig::from_value(&config)?, PlanOptions::default())?;
            let bar = ProgressBar::new(plan.written());
            execute(&plan, &out, &Execution::default(), &|progress| {
                bar.set_position(progress.done);
                true
            })?;
            bar.finish_and_clear();
            Ok(())
        }
    }
}

fn run_combine(args: &CombineArgs) -> Result<(), Box<dyn Error>> {
    let opened: Vec<Adapter> =
        args.adapters.iter().map(|(path, _)| Adapter::open(path)).collect::<Result<_, _>>()?;
    let adapters: Vec<(&Adapter, f64)> =
        opened.iter().zip(&args.adapters).map(|(a, (_, w))| (a, *w)).collect();
    let (registry, parameters) =
        (Registry::default(), args.parameters.iter().cloned().collect::<BTreeMap<_, _>>());
    let how = match args.how.as_str() {
        "cat" => Combination::Concatenate,
        "svd" => Combination::Svd { rank: args.rank },
        // PEFT's; the merge method of this name is `task_arithmetic` on a base of zeros.
        "linear" => Combination::Linear,
        name => {
            let method = registry.get(name).ok_or_else(|| {
                let names: Vec<_> = registry.names().collect();
                format!(
                    "`{name}` is no method, expected cat, svd, linear or one of {}",
                    names.join(", ")
                )
            })?;
            Combination::Method {
                method,
                parameters: &parameters,
                rank: args.rank,
                seed: args.seed,
            }
        }
    };
    let spinner =
        ProgressBar::new_spinner().with_message(format!("combining {} adapters", adapters.len()));
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let report = combine(&adapters, &how, &args.out)?;
    spinner.finish_and_clear();
    for module in &report.modules {
        println!("{}\trank {}\terror {:.4}", module.name, module.rank, module.error);
    }
    for name in &report.carried {
        println!("{name}\ttaken over as it is");
    }
    if report.base_models.len() > 1 {
        println!("made for different bases: {}", report.base_models.join(", "));
    }
    Ok(())
}

fn run_extract(args: ExtractArgs) -> Result<(), Box<dyn Error>> {
    let (base, tuned) = (Checkpoint::open(&args.base)?, Checkpoint::open(&args.tuned)?);
    let options = ExtractOptions {
        max_rank: args.rank,
        rank: match (args.energy, args.above) {
            (Some(epsilon), _) => RankRule::Energy(epsilon),
            (_, Some(limit)) => RankRule::Above(limit),
            _ => RankRule::Fixed,
        },
        include: args.include,
        exclude: args.exclude,
        embeddings: if args.embed_lora { Embeddings::LowRank } else { Embeddings::Whole },
        others: if args.leave_others { Others::Leave } else { Others::Whole },
        distribute_scale: !args.scale_in_a,
        seed: args.seed,
        power_iterations: args.power_iterations,
        dtype: args.dtype,
        ..ExtractOptions::default()
    };
    let bar = ProgressBar::new(0)
        .with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} modules, {eta}")?);
    let report = extract(&base, &tuned, &options, &args.out, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    for module in &report.modules {
        println!(
            "{}\trank {}\terror {:.4}\tenergy {:.4}",
            module.name, module.rank, module.error, module.energy
        );
    }
    for name in &report.whole {
        println!("{name}\twhole");
    }
    for (name, reason) in &report.uncovered {
        println!("{name}\tNOT COVERED: {reason}");
    }
    println!("{} tensors unchanged; error of everything {:.4}", report.unchanged, report.error);
    Ok(())
}
