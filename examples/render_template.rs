//! Renders a conversation with a chat template, exactly as transformers renders it.
//!
//! ```text
//! cargo run --release --example render_template -- --builtin chatml --conversation examples/data/conversation.json
//! cargo run --release --example render_template -- --model DIR --conversation FILE.json --mask
//! cargo run --release --example render_template -- --model DIR --doctor
//! ```
//!
//! The text goes to standard output to the byte, without a newline of its own. `--mask` prints the
//! spans that would be trained instead, one JSON object a line, in characters of the text. Where the
//! template raises, its message goes to standard error and the exit status is 1.
#![allow(clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use posttrain::chat::{
    Builtin, ChatTemplate, ChatTokenizer, ContinueFinal, JsonChat, RenderOptions, TrainedTurns,
};

/// Renders a conversation with a chat template, exactly as transformers renders it.
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Cli {
    #[command(flatten)]
    source: Source,
    /// A list of messages, or an object with `messages` and optionally `tools`, `documents` and any
    /// other variable of the template, such as `bos_token`.
    #[arg(long, value_name = "FILE.json", required_unless_present = "doctor")]
    conversation: Option<PathBuf>,
    /// A list of tools, as JSON schemas; replaces the tools of the conversation.
    #[arg(long, value_name = "FILE.json")]
    tools: Option<PathBuf>,
    /// End with the header of an assistant turn.
    #[arg(long)]
    add_generation_prompt: bool,
    /// Leave the last message open, for the model to go on with it.
    #[arg(long, conflicts_with_all = ["add_generation_prompt", "mask"])]
    continue_final_message: bool,
    /// Print the spans that would be trained, instead of the text.
    #[arg(long)]
    mask: bool,
    /// Print what is wrong with the template and, with --model, its tokenizer; with --conversation
    /// also whether that one can be trained.
    #[arg(long, conflicts_with = "mask")]
    doctor: bool,
}

/// Where the template comes from.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A Jinja file.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// A checkpoint folder with a chat template.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A template that comes with posttrain: chatml, alpaca, vicuna, zephyr, llama2, llama3,
    /// mistral, gemma or plain.
    #[arg(long, value_name = "NAME")]
    builtin: Option<Builtin>,
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
    let template = match &cli.source {
        Source { template: Some(file), .. } => {
            let source = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            ChatTemplate::parse(&source)?
        }
        Source { model: Some(folder), .. } => ChatTemplate::from_model(folder)?,
        Source { builtin: Some(builtin), .. } => ChatTemplate::builtin(*builtin),
        _ => unreachable!("clap asks for one of them"),
    };
    let mut out = std::io::stdout().lock();
    if cli.doctor {
        let with_tokenizer =
            cli.source.model.as_ref().filter(|m| m.join("tokenizer.json").exists());
        let diagnosis = match with_tokenizer {
            Some(folder) => ChatTokenizer::from_model(folder)?.diagnose(),
            None => template.diagnose(),
        };
        write!(out, "{diagnosis}")?;
        if cli.conversation.is_none() {
            return Ok(());
        }
    }
    let path = cli.conversation.as_ref().ok_or("--conversation is missing")?;
    let mut chat = JsonChat::read(path)?;
    if let Some(path) = &cli.tools {
        chat = chat.with_tools_file(path)?;
    }
    let options = RenderOptions {
        add_generation_prompt: cli.add_generation_prompt,
        continue_final_message: cli.continue_final_message.then_some(ContinueFinal::Content),
        ..RenderOptions::default()
    };
    if cli.doctor {
        let what = path.display();
        match template.trained_spans(&chat, &options, TrainedTurns::Flagged) {
            Ok((_, spans)) => {
                writeln!(out, "fine     {what}: {} spans would be trained", spans.len())?;
            }
            Err(error) => writeln!(out, "PROBLEM  {what}: {error}")?,
        }
        return Ok(());
    }
    if !cli.mask {
        write!(out, "{}", template.render(&chat, &options)?)?;
        return Ok(());
    }
    let (text, spans) = template.trained_spans(&chat, &options, TrainedTurns::Flagged)?;
    let chars = |at: usize| text[..at].chars().count();
    for span in spans {
        let (start, end) = (chars(span.start), chars(span.end));
        writeln!(out, "{}", serde_json::json!({"start": start, "end": end, "text": &text[span]}))?;
    }
    Ok(())
}
