//! `examples/init_model.rs`, and the model it makes for the other programs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Files, Program, root};

const PROGRAM: Program = Program("init_model");
const CONFIG: &str = "examples/data/tiny/config.json";
const TOKENIZER: &str = "examples/data/tiny/tokenizer.json";

/// Makes the tiny model and returns its folder.
pub(crate) fn tiny_model(files: &Files) -> String {
    let out = files.path("model");
    let printed = PROGRAM.stdout(&["--config", CONFIG, "--tokenizer", TOKENIZER, "--out", &out]);
    assert_eq!(printed, format!("{out}: 205120 parameters, 820480 bytes of float32\n"));
    out
}

/// Makes a model like the tiny one from another seed.
pub(crate) fn sibling(files: &Files, name: &str, seed: &str) -> String {
    let out = files.path(name);
    PROGRAM.stdout(&["--config", CONFIG, "--tokenizer", TOKENIZER, "--out", &out, "--seed", seed]);
    out
}

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_checkpoint_with_all_its_files() {
    let files = Files::new();
    let out = tiny_model(&files);
    let at = |name: &str| Path::new(&out).join(name);
    let mut config = json_of(root().join(CONFIG));
    config["dtype"] = "float32".into();
    assert_eq!(json_of(at("config.json")), config);
    let ids = json!({"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0});
    assert_eq!(json_of(at("generation_config.json")), ids);
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let original = root().join("examples/data/tiny").join(name);
        assert_eq!(fs::read(at(name)).unwrap(), fs::read(original).unwrap(), "{name}");
    }
    let template = fs::read_to_string(at("chat_template.jinja")).unwrap();
    assert_eq!(template, posttrain::chat::Builtin::ChatMl.source());
}

#[test]
fn seed_type_and_range_are_those_of_the_flags() {
    let files = Files::new();
    let make = |name: &str, more: &[&str]| {
        let out = files.path(name);
        let args = ["--config", CONFIG, "--tokenizer", TOKENIZER, "--out", &out];
        let args: Vec<&str> = args.iter().chain(more).copied().collect();
        PROGRAM.stdout(&args);
        let weights = fs::read(Path::new(&out).join("model.safetensors")).unwrap();
        (weights, json_of(Path::new(&out).join("config.json"))["dtype"].clone())
    };
    let (first, _) = make("a", &["--seed", "7"]);
    let (again, _) = make("b", &["--seed", "7"]);
    let (other, _) = make("c", &["--seed", "8"]);
    let (wide, _) = make("d", &["--seed", "7", "--initializer-range", "0.5"]);
    assert!(first == again && first != other && first != wide);
    for name in ["bfloat16", "float16"] {
        let (half, dtype) = make(name, &["--seed", "7", "--dtype", name]);
        assert!(half.len() < first.len() * 6 / 10, "{name}");
        assert_eq!(dtype, name);
    }
}

#[test]
fn what_cannot_be_a_model_is_named() {
    let files = Files::new();
    let mut number = 0;
    let mut with = |change: fn(&mut Value), more: &[&str]| {
        let mut config = json_of(root().join(CONFIG));
        change(&mut config);
        number += 1;
        let path = files.write(&format!("c{number}.json"), &config.to_string());
        let out = files.path(&format!("out{number}"));
        let args = ["--config", &path, "--tokenizer", TOKENIZER, "--out", &out];
        let args: Vec<&str> = args.iter().chain(more).copied().collect();
        let message = PROGRAM.failure(&args);
        assert!(!Path::new(&out).exists(), "{args:?} leaves a folder");
        message
    };
    let message = with(|config| config["hidden_sice"] = 64.into(), &[]);
    assert!(message.contains("did you mean `hidden_size`?"), "{message}");
    let message = with(|config| config["vocab_size"] = 1000.into(), &[]);
    assert!(message.contains("`vocab_size` is 1000, expected at least 1024"), "{message}");
    let message = with(|config| config["eos_token_id"] = json!([2, 128_001]), &[]);
    assert!(message.contains("`eos_token_id` is 128001"), "{message}");
    let message = with(|config| config["model_type"] = "lama".into(), &[]);
    assert!(message.contains("`model_type` is `lama`, supported are llama"), "{message}");
    let message = with(|config| config["dtype"] = "float8".into(), &[]);
    assert!(message.contains("`dtype` is \"float8\", expected float32"), "{message}");
    let message = with(|config| config["initializer_range"] = "x".into(), &[]);
    assert!(message.contains("`initializer_range` is \"x\""), "{message}");
    let message = with(|_| {}, &["--initializer-range", "-1"]);
    assert!(message.contains("initializer_range is -1"), "{message}");
}

#[test]
fn a_folder_with_files_is_left_alone() {
    let files = Files::new();
    let out = tiny_model(&files);
    let config = Path::new(&out).join("config.json");
    fs::write(&config, "mine").unwrap();
    let args = ["--config", CONFIG, "--tokenizer", TOKENIZER, "--out", &out];
    let message = PROGRAM.failure(&args);
    assert!(message.contains("is not empty; --force"), "{message}");
    assert_eq!(fs::read_to_string(&config).unwrap(), "mine");
    let args: Vec<&str> = args.into_iter().chain(["--force"]).collect();
    PROGRAM.stdout(&args);
    assert_eq!(json_of(&config)["hidden_size"], 64);
    let file = files.write("file", "");
    let message = PROGRAM.failure(&["--config", CONFIG, "--tokenizer", TOKENIZER, "--out", &file]);
    assert!(message.contains("is a file, expected a folder"), "{message}");
    for (config, tokenizer) in [("no/config.json", TOKENIZER), (CONFIG, "no/tokenizer.json")] {
        let out = files.path("none");
        let message =
            PROGRAM.failure(&["--config", config, "--tokenizer", tokenizer, "--out", &out]);
        assert!(message.contains("no/"), "{message}");
    }
}
