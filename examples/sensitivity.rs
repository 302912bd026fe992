//! What merging some models would meet: distances, cosines, sign conflicts, and what they suggest.
//!
//! ```text
//! cargo run --release --example sensitivity -- [--base DIR] MODEL... --html report.html [--json FILE] \
//!     [--threads N] [--no-ranks]
//! ```
//!
//! A short table and the suggestions go to standard output; the page has heat maps of layers and kinds of modules.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use posttrain::merge::Checkpoint;
use posttrain::merge::sensitivity::{Options, Sensitivity, Signs, measure};

/// What merging some models would meet.
#[derive(Parser)]
struct Cli {
    /// The models: folders, or safetensors files.
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// The model that they were trained from.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// The page.
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
    /// All numbers.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Threads; one for each core unless given. The numbers do not depend on them.
    #[arg(long)]
    threads: Option<usize>,
    /// Leave stable ranks out, which read each model six times more.
    #[arg(long)]
    no_ranks: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let base = cli.base.as_ref().map(Checkpoint::open).transpose()?;
    let models: Vec<Checkpoint> =
        cli.models.iter().map(Checkpoint::open).collect::<Result<_, _>>()?;
    let models: Vec<&Checkpoint> = models.iter().collect();
    let options = Options { threads: cli.threads, ranks: !cli.no_ranks };

    let style = "{wide_bar} {human_pos} of {human_len} parameters, {eta} left";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?);
    let report = measure(base.as_ref(), &models, &options, &|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    })?;
    bar.finish_and_clear();

    std::fs::write(&cli.html, report.to_html())?;
    if let Some(path) = &cli.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    print(&report);
    println!("\n{}", cli.html.display());
    Ok(())
}

fn print(report: &Sensitivity) {
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    if report.base.is_some() {
        println!("model\tdistance\tnorm ratio\tunchanged\ttop 20 %\tstable rank");
        for (model, m) in report.models.iter().zip(&report.overall.models) {
            let values =
                [m.distance, m.norm_ratio, m.unchanged, m.top_fifth, m.stable_rank].map(number);
            println!("{}\t{}", model.name, values.join("\t"));
        }
        println!();
    }
    let signs = |signs: &Signs| {
        [signs.conflict, signs.conflict_by_size, signs.cancelled].map(number).join("\t")
    };
    println!("models\tcosine\tconflict\tby size\tcancelled");
    for pair in &report.overall.pairs {
        let names =
            [pair.first, pair.second].map(|model| report.models[model].name.as_str()).join(" + ");
        println!("{names}\t{}\t{}", number(pair.cosine), signs(&pair.signs));
    }
    if let (Some(all), 3..) = (&report.overall.together, report.models.len()) {
        println!("all\t\t{}", signs(all));
    }
    if !report.left_out.is_empty() {
        println!("\n{} tensors were not compared:", report.left_out.len());
        for left in &report.left_out {
            println!("  {}: {}", left.name, left.reason);
        }
    }
    for suggestion in &report.suggestions {
        let mark = if suggestion.check { "! " } else { "- " };
        println!("\n{mark}{}\n  {}", suggestion.advice, suggestion.because);
        if let Some(source) = &suggestion.source {
            println!("  ({source})");
        }
    }
}
