//! `examples/chat.rs`: one answer, a conversation, and what cannot be answered.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::init_model::tiny_model;
use crate::support::{Files, Program};

const PROGRAM: Program = Program("chat");

fn json(args: &[&str]) -> Value {
    let out = PROGRAM.stdout(&[args, &["--json"]].concat());
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_seed_determines_the_answer() {
    let files = Files::new();
    let model = tiny_model(&files);
    let answer = |seed: &str| {
        let limit = ["--max-new-tokens", "12", "--temperature", "1", "--seed", seed];
        json(&[&["--model", &model, "--prompt", "Hello"], &limit[..]].concat())
    };
    let (first, again, other) = (answer("1"), answer("1"), answer("2"));
    assert_eq!(first["token_ids"], again["token_ids"]);
    assert_eq!(first["text"], again["text"]);
    assert_ne!(first["token_ids"], other["token_ids"]);
    let count = first["completion_tokens"].as_u64().unwrap();
    assert_eq!(first["token_ids"].as_array().unwrap().len() as u64, count);
    let ended = if count < 12 { "stop" } else { "length" };
    assert_eq!(first["finish_reason"], ended);
    assert!(first["prompt_tokens"].as_u64().unwrap() > 10, "the template's tokens count");
    assert!(first["tokens_per_second"].as_f64().unwrap() > 0.0);
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    let expected = "text token_ids finish_reason prompt_tokens completion_tokens tokens_per_second";
    assert_eq!(keys, expected.split(' ').collect::<Vec<_>>());
}

#[test]
fn the_text_streams_to_standard_output_alone() {
    let files = Files::new();
    let model = tiny_model(&files);
    let args = ["--model", &model, "--prompt", "Hello", "--max-new-tokens", "9"];
    let (text, notes) = PROGRAM.answer(&args, "");
    assert_eq!(text, format!("{}\n", json(&args)["text"].as_str().unwrap()));
    assert!(notes.contains("llama on ") && notes.contains("9 written"), "{notes}");
    // Greedy, as this checkpoint recommends; a seed alone changes nothing, and that is said.
    let (same, notes) = PROGRAM.answer(&[&args[..], &["--seed", "5"]].concat(), "");
    assert_eq!(same, text);
    assert!(notes.contains("--temperature 1"), "{notes}");
    let narrow = [&args[..], &["--dtype", "bfloat16"]].concat();
    assert_eq!(json(&narrow)["completion_tokens"], 9);
    // The answer ends before a stop text.
    let stop: String = text.chars().skip(3).take(2).collect();
    let stopped = json(&[&args[..], &["--stop", &stop]].concat());
    assert_eq!(stopped["text"], text.split(&stop).next().unwrap());
    assert_eq!(stopped["finish_reason"], "stop");
}

#[test]
fn messages_are_a_list_or_an_object() {
    let files = Files::new();
    let model = tiny_model(&files);
    let with = |path: &str| {
        let args = ["--model", &model, "--messages", path, "--max-new-tokens", "4"];
        json(&args)["prompt_tokens"].as_u64().unwrap()
    };
    let list = files.write("l.json", r#"[{"role": "user", "content": "Hello"}]"#);
    let object = files.write("o.json", r#"{"messages": [{"role": "user", "content": "Hello"}]}"#);
    let tools = files.write(
        "t.json",
        r#"{"messages": [{"role": "user", "content": "Hello"}], "tools": [{"type": "function",
            "function": {"name": "f", "description": "d", "parameters": {}}}]}"#,
    );
    let args = ["--model", &model, "--prompt", "Hello", "--max-new-tokens", "4"];
    let prompt = json(&args)["prompt_tokens"].as_u64().unwrap();
    assert_eq!((with(&list), with(&object)), (prompt, prompt));
    assert!(with(&tools) > prompt);
    let system = json(&[&args[..], &["--system", "Be brief."]].concat());
    assert!(system["prompt_tokens"].as_u64().unwrap() > prompt);
    let extra = files.write("e.json", r#"{"messages": [{"role": "user"}], "temprature": 1}"#);
    let args = ["--model", &model, "--messages", &extra, "--max-new-tokens", "4"];
    let (_, notes) = PROGRAM.answer(&args, "");
    assert!(notes.contains("`temprature` does not reach the model"), "{notes}");
}

#[test]
fn a_conversation_of_two_turns() {
    let files = Files::new();
    let model = tiny_model(&files);
    let args = ["--model", &model, "--max-new-tokens", "5"];
    let read = |notes: &str| -> Vec<u64> {
        let counts = notes.lines().filter_map(|line| line.strip_prefix('(')?.split_once(" tokens"));
        counts.map(|(count, _)| count.parse().unwrap()).collect()
    };
    let (text, notes) = PROGRAM.answer(&args, "Hello\n\nAnd then?\n/exit\nnot read\n");
    let counts = read(&notes);
    assert_eq!(counts.len(), 2, "{notes}");
    assert!(counts[1] > counts[0] + 5, "the first turn is remembered: {notes}");
    let first = json(&[&args[..], &["--prompt", "Hello"]].concat());
    assert!(text.starts_with(&format!("{}\n", first["text"].as_str().unwrap())), "{text}");
    let (_, notes) = PROGRAM.answer(&args, "Hello\n/rest\n/reset\nHello");
    assert!(notes.contains("/rest: no such command"), "{notes}");
    let counts = read(&notes);
    assert_eq!((counts.len(), counts[0]), (2, counts[1]), "{notes}");
}

#[test]
fn without_a_chat_template_the_text_goes_on() {
    let files = Files::new();
    let model = tiny_model(&files);
    fs::remove_file(Path::new(&model).join("chat_template.jinja")).unwrap();
    let args = ["--model", &model, "--max-new-tokens", "5"];
    let once = [&args[..], &["--prompt", "Hello"]].concat();
    let (_, notes) = PROGRAM.answer(&once, "");
    assert!(notes.contains("no chat template: it continues your text"), "{notes}");
    let alone = json(&once)["prompt_tokens"].as_u64().unwrap();
    let (_, notes) = PROGRAM.answer(&args, "Hello\nand\n");
    assert!(notes.contains(&format!("({alone} tokens read, 5 written")), "{notes}");
    assert_eq!(notes.matches("tokens read").count(), 2, "{notes}");
    let system = [&once[..], &["--system", "x"]].concat();
    assert!(PROGRAM.failure(&system).contains("--system: the model has no chat template"));
    let list = files.write("l.json", r#"[{"role": "user", "content": "Hello"}]"#);
    let message = PROGRAM.failure(&[&args[..], &["--messages", &list]].concat());
    assert!(message.contains("has no chat template"), "{message}");
}

#[test]
fn without_a_model_there_is_a_random_one() {
    let (text, notes) = PROGRAM.answer(&["--prompt", "Hello"], "");
    assert!(!text.trim().is_empty());
    assert!(notes.contains("weights are random"), "{notes}");
    assert_eq!(text, PROGRAM.stdout(&["--prompt", "Hello"]));
    assert_ne!(text, PROGRAM.stdout(&["--prompt", "Hello", "--seed", "1"]));
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    let files = Files::new();
    let with = |args: &[&str], expected: &str| {
        let message = PROGRAM.failure(args);
        assert!(message.contains(expected), "{args:?}: {message}");
    };
    with(&["--model", "./no/such", "--prompt", "x"], "./no/such: the folder does not exist");
    with(&["--model", "README.md", "--prompt", "x"], "README.md: is a file, expected a checkpoint");
    with(&["--model", "examples", "--prompt", "x"], "examples/config.json: No such file");
    let broken = files.write("b.json", "[{\"role\": \"user\",\n \"content\" 1}]");
    with(&["--messages", &broken], "b.json: expected `:` at line 2 column 12");
    let typo = files.write("t.json", r#"{"mesages": []}"#);
    with(&["--messages", &typo], "t.json: missing field `messages`");
    with(&["--messages", "no.json"], "no.json: No such file");
    with(&["--prompt", "x", "--top-p", "-3"], "`top_p` is -3, expected above 0, at most 1");
    with(&["--prompt", "x", "--temperature", "nan"], "`temperature` is NaN");
    with(&["--prompt", "x", "--stop", ""], "`stop` is an empty string");
    with(&["--prompt", "x", "--max-new-tokens", "0"], "`max_tokens` is 0, expected at least 1");
    with(&["--prompt", "x", "--device", "tpu"], "device `tpu`: no such device");
    with(&["--json"], "it needs --prompt or --messages");
    with(&["--prompt", "x", "--dtype", "bfloat16"], "--model");
    let long = "word ".repeat(3000);
    with(&["--prompt", &long], "below the context of 2048 tokens");

    let model = tiny_model(&files);
    let config = Path::new(&model).join("config.json");
    let text = fs::read_to_string(&config).unwrap().replace("rms_norm_eps", "rms_norm_epz");
    fs::write(&config, text).unwrap();
    with(&["--model", &model, "--prompt", "x"], "did you mean `rms_norm_eps`?");
}
