//! The family tree of merged models: who was made of whom, and how much of each ancestor is in each model.
//!
//! ```text
//! cargo run --release --example family_tree -- DIR... [--svg FILE] [--mermaid FILE]
//! ```
//!
//! Reads `merge.json`, `mergekit_config.yml`, model cards and `adapter_config.json` in the folders and in all folders
//! in them, and no tensor. What could not be read or decided goes to the standard error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use posttrain::merge::family::{self, Note};

/// The family tree of merged models, with the share of each ancestor.
#[derive(Parser)]
struct Cli {
    /// Folders with models, at any depth.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Where the tree goes as a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Where the tree goes as a Mermaid flowchart, for Markdown.
    #[arg(long, value_name = "FILE")]
    mermaid: Option<PathBuf>,
}

fn main() -> ExitCode {
    match draw(&Cli::parse()) {
        Ok(complete) if complete => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything could be read.
fn draw(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let tree = family::gather(&cli.folders)?;
    print!("{}", family::text(&tree));
    let pictures = [(&cli.svg, family::svg as fn(&_) -> _), (&cli.mermaid, family::mermaid)];
    for (path, draw) in pictures {
        if let Some(path) = path {
            std::fs::write(path, draw(&tree)).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    for note in &tree.notes {
        eprintln!("{note}");
    }
    Ok(!tree.notes.iter().any(|note| matches!(note, Note::Unreadable(_))))
}
