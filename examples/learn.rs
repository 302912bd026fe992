//! A model learns to read from nothing, and then to do as it is asked.
//!
//! ```text
//! cargo run --release --example learn
//! ```
//!
//! A Llama of 5 million parameters with random weights is trained on generated text (continued pretraining from
//! zero), in which four digits are put into order now and then. Then it is fine-tuned on conversations: "Sort
//! these digits: 7 3 9 1 4". Before and after, it answers 200 questions whose digits it has not seen in any
//! conversation, and the share of answers that are right to the letter is printed. Everything is seeded.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a program")]

#[path = "support/bar.rs"]
mod bar;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use posttrain::chat::ChatTokenizer;
use posttrain::core::{Conversation, Generate as _, Message, Request, Sampling};
use posttrain::model::checkpoint::{SaveOptions, read_companions};
use posttrain::model::config::Config;
use posttrain::model::{Decoder, Generator, device};
use posttrain::train::config::SftConfig;
use posttrain::train::data::{Batches, Row, RowId, encode};
use posttrain::train::optim::OptimizerName;
use posttrain::train::schedule::SchedulerType;
use posttrain::train::watch::{JsonLines, Observer, RunInfo};
use posttrain::train::{Run, Weights, sft};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::json;

/// A model learns to read from nothing, and then to do as it is asked.
#[derive(Parser)]
struct Cli {
    /// Where the models and the metrics go.
    #[arg(long, default_value = "runs/learn")]
    out: PathBuf,
    /// Steps of the first training.
    #[arg(long, default_value_t = 300)]
    pretraining_steps: u64,
    /// Steps of the fine-tuning.
    #[arg(long, default_value_t = 700)]
    tuning_steps: u64,
    /// Hidden size of the model; 256 makes 5 million parameters.
    #[arg(long, default_value_t = 256)]
    hidden_size: usize,
    /// flex (the CPU), vulkan, wgpu or cuda, as far as compiled in.
    #[arg(long)]
    device: Option<String>,
    /// Of texts, questions and weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    let device = device::choose(cli.device.as_deref())?;
    let started = Instant::now();
    let mut random = ChaCha8Rng::seed_from_u64(cli.seed);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/tiny");
    let tokenizer = ChatTokenizer::from_model(&tiny)?;

    // Digits of the questions are kept apart from those of every conversation.
    let mut asked = BTreeSet::new();
    while asked.len() < 200 {
        asked.insert(digits(&mut random));
    }

    let start = cli.out.join("start");
    let model = Decoder::random(&llama(cli.hidden_size)?, 0.02, cli.seed, &device)?;
    let companions = read_companions(&tiny)?;
    model.save(&start, &SaveOptions { companions, ..SaveOptions::default() })?;
    let count: usize = model.parameters().iter().map(posttrain::model::Parameter::count).sum();
    eprintln!("{:.1} million parameters, random", count as f64 / 1e6);

    let texts: Vec<_> = (0..20_000).map(|_| Row::Text(story(&mut random))).collect();
    let base = train(cli, "base", &start, texts, &tokenizer, |config| {
        config.method.packing = true;
        config.method.packing_strategy = posttrain::train::data::Packing::Wrapped;
        config.training.max_steps = cli.pretraining_steps as i64;
    })?;
    let before = exact_match(cli, &base, &asked)?;
    eprintln!("after reading: {before} of {} answers are right", asked.len());

    let mut rows = Vec::new();
    while rows.len() < 20_000 {
        let digits = digits(&mut random);
        if !asked.contains(&digits) {
            let answer = Message::assistant(sorted(digits));
            rows.push(Row::Chat(Conversation::new([Message::user(question(digits)), answer])));
        }
    }
    let tuned = train(cli, "tuned", &base, rows, &tokenizer, |config| {
        config.method.assistant_only_loss = true;
        config.method.packing = true;
        config.training.max_steps = cli.tuning_steps as i64;
    })?;
    let after = exact_match(cli, &tuned, &asked)?;
    let share = |right: usize| 100.0 * right as f64 / asked.len() as f64;
    println!("exact match on {} questions never seen, in per cent", asked.len());
    println!("before fine-tuning {:5.1}", share(before));
    println!("after fine-tuning  {:5.1}", share(after));
    eprintln!("{} is the model; {:.0} s", tuned.display(), started.elapsed().as_secs_f64());
    Ok(())
}

/// A Llama of six layers for the tokenizer of `examples/data/tiny`.
fn llama(hidden_size: usize) -> Result<Config, posttrain::model::Error> {
    let json = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1024,
        "hidden_size": hidden_size, "intermediate_size": hidden_size * 11 / 4,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": true,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
    });
    Config::from_json(Path::new("the configuration"), &json)
}

/// Trains the model of one folder on rows and writes it to another.
fn train(
    cli: &Cli,
    name: &str,
    base: &Path,
    rows: Vec<Row<Conversation>>,
    tokenizer: &ChatTokenizer,
    settings: impl FnOnce(&mut SftConfig),
) -> Result<PathBuf, Box<dyn Error>> {
    let out = cli.out.join(name);
    let mut config = SftConfig::default();
    config.model.model = Some(base.display().to_string());
    config.training.output_dir.clone_from(&out);
    config.training.overwrite_output_dir = true;
    config.training.learning_rate = 2e-3;
    config.training.seed = cli.seed;
    config.training.per_device_train_batch_size = 16;
    config.training.gradient_checkpointing = false;
    config.training.eval_strategy = posttrain::train::config::When::No;
    config.optim.optim = OptimizerName::AdamW;
    config.optim.weight_decay = 0.01;
    config.schedule.lr_scheduler_type = SchedulerType::Cosine;
    config.schedule.warmup_steps = 0.05;
    config.data.max_length = 128;
    settings(&mut config);

    let device = device::choose(cli.device.as_deref())?;
    let mut observers: Vec<Box<dyn Observer>> =
        vec![Box::new(JsonLines::new(&out)), Box::new(bar::Bar::new())];
    let mut run = Run::open(&config.training, &mut observers)?;
    let rows = (0..).map(RowId::index).zip(rows).map(Ok);
    let (samples, _) = encode(rows, tokenizer, &config.row_options(), &mut |_| {})?;
    let mut batches = Batches::new(samples, config.batch_options())?;
    let (weights, model) = Weights::load(&config, base, None, &device)?;
    let info = RunInfo::default();
    let model = sft(model, &weights, &mut batches, None, &config, info, &mut run)?;
    weights.save_final(&model, &out)?;
    run.end(None, Some(out.clone()))?;
    Ok(out)
}

/// How many questions a model answers right to the letter.
fn exact_match(
    cli: &Cli,
    model: &Path,
    asked: &BTreeSet<[u8; 4]>,
) -> Result<usize, Box<dyn Error>> {
    let device = device::choose(cli.device.as_deref())?;
    let generator = Generator::load(model, &device)?.with_batch_size(16);
    let sampling = Sampling { max_tokens: 16, ..Sampling::greedy() };
    let requests: Vec<Request> = asked
        .iter()
        .map(|&digits| {
            let chat = Conversation::new([Message::user(question(digits))]);
            Request::new(chat, sampling.clone())
        })
        .collect();
    let mut right = 0;
    for (answer, &digits) in generator.generate(&requests).into_iter().zip(asked) {
        right += usize::from(answer?.text == sorted(digits));
    }
    Ok(right)
}

/// Four different digits in a random order.
fn digits(random: &mut ChaCha8Rng) -> [u8; 4] {
    let mut all: Vec<u8> = (0..10).collect();
    std::array::from_fn(|_| all.swap_remove(random.next_u32() as usize % all.len()))
}

fn written(digits: [u8; 4]) -> String {
    digits.map(|digit| digit.to_string()).join(" ")
}

fn sorted(mut digits: [u8; 4]) -> String {
    digits.sort_unstable();
    written(digits)
}

fn question(digits: [u8; 4]) -> String {
    format!("Sort these digits: {}", written(digits))
}

/// What the model reads at first: little stories, and digits in order.
fn story(random: &mut ChaCha8Rng) -> String {
    let mut pick = |of: &[&str]| of[random.next_u32() as usize % of.len()].to_owned();
    let (name, thing) = (
        pick(&["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn"]),
        pick(&["apples", "books", "cards", "dates", "eggs", "figs"]),
    );
    let digits = digits(random);
    match random.next_u32() % 3 {
        0 => format!("{name} has {} {thing} and likes them all.", digits[0]),
        1 => format!(
            "{name} wrote {} on a card. In order, that is {}.",
            written(digits),
            sorted(digits)
        ),
        _ => {
            format!("The digits {} are, from small to large, {}.", written(digits), sorted(digits))
        }
    }
}
