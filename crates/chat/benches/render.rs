//! Renders per second of real templates over the fixture conversations. `benches/peers/render.py`
//! runs the same work through transformers and prints the ratio.

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use posttrain_chat::{ChatTemplate, JsonChat, RenderOptions};
use serde_json::Value as Json;

/// The templates of the comparison: long and short ones, with and without tools and macros.
const TEMPLATES: [&str; 8] = [
    "trl__qwen2_5",
    "trl__qwen3",
    "llamacpp__Qwen3-Coder",
    "trl__gptoss",
    "llamacpp__mistralai-Mistral-Nemo-Instruct-2407",
    "llamacpp__ibm-granite-granite-3.3-2B-Instruct",
    "trl__phi3_5",
    "llamacpp__HuggingFaceTB-SmolLM3-3B",
];

fn read_json(path: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).expect("a fixture")).expect("JSON")
}

/// The chats of all cases that transformers renders with this template.
fn chats(fixtures: &Path, name: &str) -> Vec<(JsonChat, RenderOptions)> {
    let expected = read_json(&fixtures.join(format!("expected/{name}.json")));
    let cases = read_json(&fixtures.join("cases.json"));
    let mut chats = Vec::new();
    for case in cases.as_array().expect("a list of cases") {
        let result = &expected["results"][case["name"].as_str().expect("a name")];
        if result["text"].is_null() || case["continue_final_message"] != false {
            continue;
        }
        let mut object = serde_json::Map::new();
        for key in ["messages", "tools", "documents"] {
            if let Some(value) = case.get(key) {
                object.insert(key.into(), value.clone());
            }
        }
        let options = RenderOptions {
            add_generation_prompt: case["add_generation_prompt"] == true,
            variables: case["variables"].as_object().expect("an object").clone(),
            ..RenderOptions::default()
        };
        chats.push((JsonChat::new(Json::Object(object)).expect("a chat"), options));
    }
    chats
}

fn render(criterion: &mut Criterion) {
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat_templates");
    let mut group = criterion.benchmark_group("render");
    for name in TEMPLATES {
        let source = std::fs::read_to_string(fixtures.join(format!("templates/{name}.jinja")));
        let template = ChatTemplate::parse(&source.expect("a template")).expect("it parses");
        let template = [("bos", "<s>"), ("eos", "</s>"), ("pad", "<pad>"), ("unk", "<unk>")]
            .into_iter()
            .fold(template, |t, (name, token)| {
                t.with_special_token(&format!("{name}_token"), token)
            });
        let chats = chats(&fixtures, name);
        group.throughput(criterion::Throughput::Elements(chats.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for (chat, options) in &chats {
                    std::hint::black_box(template.render(chat, options).expect("it renders"));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
