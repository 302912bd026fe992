//! Talks with a model, or has it answer one prompt.
//!
//! ```text
//! cargo run --release --example chat -- --prompt "Hello"
//! cargo run --release --example chat -- --model DIR
//! cargo run --release --example chat -- --model DIR --messages FILE.json --max-new-tokens 200 --json
//! ```
//!
//! The answer goes to standard output as it is written, everything else to standard error. Without
//! a prompt this is a conversation: `/reset` forgets it, `/exit` or Ctrl-D ends it. A model without
//! a chat template continues the text instead.
//!
//! How to sample is what the checkpoint recommends, where no flag says otherwise. Without `--model`
//! a tiny model with random weights is made on the spot, whose answers are gibberish.
#![allow(clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser};
use posttrain::chat::{Builtin, ChatTemplate, ChatTokenizer};
use posttrain::core::{Completion, Conversation, Message, Prompt, Request, Sampling};
use posttrain::model::checkpoint::{Dtype, resolve};
use posttrain::model::config::{Config, GenerationConfig};
use posttrain::model::{Decoder, Generator, LoadOptions, Next, device};
use serde::Serialize;
use tokenizers::Tokenizer;

/// Talks with a model, or has it answer one prompt.
#[derive(Parser)]
struct Cli {
    /// A checkpoint folder or, with the feature `hub`, a name on the Hugging Face hub; without it, a
    /// tiny model with random weights.
    #[arg(long, value_name = "DIR|ORG/NAME")]
    model: Option<String>,
    /// flex (the CPU), vulkan, wgpu or cuda, as far as compiled in.
    #[arg(long)]
    device: Option<String>,
    /// The type of the weights on the device; auto takes the checkpoint's.
    #[arg(long, default_value = "auto", requires = "model")]
    #[arg(value_parser = ["auto", "float32", "bfloat16", "float16"])]
    dtype: String,
    /// The system message of the conversation.
    #[arg(long, value_name = "TEXT", conflicts_with = "messages")]
    system: Option<String>,
    /// Answer this message and end.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Answer this conversation and end: a list of messages, or an object with `messages` and
    /// optionally `tools` and `documents`.
    #[arg(long, value_name = "FILE.json", conflicts_with = "prompt")]
    messages: Option<PathBuf>,
    /// Print the answer as one line of JSON, when it is complete.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: Flags,
}

/// How to sample, where it is not as the checkpoint recommends.
#[derive(Args)]
struct Flags {
    /// The most tokens of an answer.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Divides the logits; 0 takes the most likely token.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keeps the smallest set of tokens whose probability reaches this.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keeps the K most likely tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Drops tokens less likely than this times the most likely one.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Weakens tokens that occurred; 1 is off.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same answer.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A text that ends the answer; can be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// The output of `--json`.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    completion: Completion,
    /// Of the answer, the reading of the prompt included.
    tokens_per_second: f64,
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
    let once = cli.prompt.is_some() || cli.messages.is_some();
    if cli.json && !once {
        return Err("--json prints one answer: it needs --prompt or --messages".into());
    }
    let messages = cli.messages.as_deref().map(read_messages).transpose()?;
    // A flag out of range is better known before a large model is loaded.
    sampling(&cli.sampling, &Sampling::default())?;
    let start = Instant::now();
    let generator = load(cli)?;
    let template = generator.chat().is_some();
    let (model, seconds) = (generator.model(), start.elapsed().as_secs_f64());
    let family = model.config().architecture;
    eprintln!("{family} on {}, loaded in {seconds:.1} s", device::name_of(&model.device()));
    if !template {
        let why = "the model has no chat template";
        if cli.system.is_some() {
            return Err(format!("--system: {why}").into());
        }
        eprintln!("{why}: it continues your text");
    }
    for key in &generator.generation_config().unsupported {
        eprintln!("generation_config.json asks for {key}, which is not done");
    }
    let sampling = sampling(&cli.sampling, generator.sampling())?;
    let flags = &cli.sampling;
    let cuts = flags.top_p.is_some() || flags.top_k.is_some() || flags.min_p.is_some();
    if sampling.is_greedy() && (cuts || flags.seed.is_some()) {
        eprintln!("the most likely token is taken at each step; --temperature 1 draws from all");
    }
    let mut chat = Chat { generator, sampling, json: cli.json };
    let system = cli.system.iter().map(|text| Message::system(text.as_str()));
    let prompt = match (&cli.prompt, messages) {
        (_, Some(conversation)) => conversation.into(),
        (Some(text), None) if template => {
            Conversation::new(system.chain([Message::user(text.as_str())])).into()
        }
        (Some(text), None) => Prompt::Text(text.clone()),
        (None, None) if template => return chat.converse(&Conversation::new(system).into()),
        (None, None) => return chat.converse(&Prompt::Text(String::new())),
    };
    chat.answer(prompt).map(|_| ())
}

fn load(cli: &Cli) -> Result<Generator, Box<dyn Error>> {
    let device = device::choose(cli.device.as_deref())?;
    if let Some(model) = &cli.model {
        let dtype = match cli.dtype.as_str() {
            "float32" => Some(Dtype::F32),
            "bfloat16" => Some(Dtype::BF16),
            "float16" => Some(Dtype::F16),
            _ => None,
        };
        let folder = resolve(model)?;
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        return Ok(Generator::load_with(folder, &device, &options)?);
    }
    eprintln!("no --model: the weights are random, so the answers are gibberish");
    let json = serde_json::from_str(include_str!("data/tiny/config.json"))?;
    let config = Config::from_json(Path::new("examples/data/tiny/config.json"), &json)?;
    let tokenizer = Tokenizer::from_bytes(include_bytes!("data/tiny/tokenizer.json"))
        .map_err(|error| error.to_string())?;
    let stop = config.eos_token_ids.clone();
    let generation = GenerationConfig {
        eos_token_ids: stop.clone(),
        do_sample: Some(true),
        max_new_tokens: Some(60),
        ..GenerationConfig::default()
    };
    let chat = ChatTokenizer::new(tokenizer, ChatTemplate::builtin(Builtin::ChatMl), stop)?;
    let model = Decoder::random(&config, 0.02, 0, &device)?;
    Ok(Generator::new(model, chat, generation))
}

fn read_messages(path: &Path) -> Result<Conversation, Box<dyn Error>> {
    let fail = |error: &dyn Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    let conversation: Conversation = if text.trim_start().starts_with('[') {
        Conversation::new(serde_json::from_str::<Vec<Message>>(&text).map_err(|e| fail(&e))?)
    } else {
        serde_json::from_str(&text).map_err(|error| fail(&error))?
    };
    for key in conversation.extra.keys() {
        eprintln!("{}: `{key}` does not reach the model", path.display());
    }
    Ok(conversation)
}

/// What the flags say, and the rest as the checkpoint recommends.
fn sampling(flags: &Flags, checkpoint: &Sampling) -> Result<Sampling, posttrain::core::Error> {
    let mut sampling = Sampling {
        max_tokens: flags.max_new_tokens.unwrap_or(checkpoint.max_tokens),
        temperature: flags.temperature.unwrap_or(checkpoint.temperature),
        top_p: flags.top_p.unwrap_or(checkpoint.top_p),
        top_k: flags.top_k.unwrap_or(checkpoint.top_k),
        min_p: flags.min_p.unwrap_or(checkpoint.min_p),
        repetition_penalty: flags.repetition_penalty.unwrap_or(checkpoint.repetition_penalty),
        seed: flags.seed.unwrap_or(checkpoint.seed),
        ..checkpoint.clone()
    };
    sampling.stop.extend(flags.stop.iter().cloned());
    sampling.validate()?;
    Ok(sampling)
}

struct Chat {
    generator: Generator,
    sampling: Sampling,
    json: bool,
}

impl Chat {
    /// One answer, written as it comes.
    fn answer(&self, prompt: Prompt) -> Result<String, Box<dyn Error>> {
        let mut out = std::io::stdout().lock();
        let mut written = Ok(());
        let start = Instant::now();
        let request = Request { prompt, sampling: self.sampling.clone() };
        let mut answers = self.generator.stream(&[request], &mut |piece| {
            if !self.json && written.is_ok() {
                written = out.write_all(piece.text.as_bytes()).and_then(|()| out.flush());
            }
            if written.is_ok() { Next::Continue } else { Next::Cancel }
        });
        let completion = answers.remove(0)?;
        written?;
        let tokens_per_second =
            completion.completion_tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
        let (read, wrote) = (completion.prompt_tokens, completion.completion_tokens);
        let text = completion.text.clone();
        if self.json {
            let answer = Answer { completion, tokens_per_second };
            writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        } else {
            writeln!(out)?;
        }
        eprintln!("({read} tokens read, {wrote} written, {tokens_per_second:.1} per second)");
        Ok(text)
    }

    /// Line after line of standard input, until it ends.
    fn converse(&mut self, start: &Prompt) -> Result<(), Box<dyn Error>> {
        let input = std::io::stdin();
        let ask = || {
            if input.is_terminal() {
                eprint!("> ");
            }
        };
        eprintln!("/reset forgets the conversation, /exit or Ctrl-D ends it");
        let mut history = start.clone();
        ask();
        for line in input.lock().lines() {
            let line = line?;
            match line.trim() {
                "" => {}
                "/exit" => break,
                "/reset" => {
                    history = start.clone();
                    eprintln!("(a new conversation)");
                }
                command if is_command(command) => {
                    eprintln!("{command}: no such command; there are /reset and /exit");
                }
                _ => {
                    let mut asked = history.clone();
                    push(&mut asked, Message::user(line.as_str()));
                    match self.answer(asked.clone()) {
                        Ok(text) => {
                            history = asked;
                            push(&mut history, Message::assistant(text));
                        }
                        Err(error) => eprintln!("{error} (this message is dropped)"),
                    }
                }
            }
            ask();
        }
        Ok(())
    }
}

/// A slash and letters: not a path, nor a remark about one.
fn is_command(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Another turn; in plain text, what you write stands on a line of its own.
fn push(history: &mut Prompt, message: Message) {
    match history {
        Prompt::Conversation(conversation) => conversation.messages.push(message),
        Prompt::Text(text) => {
            if message.role == posttrain::core::Role::User && !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&message.text());
        }
    }
}
