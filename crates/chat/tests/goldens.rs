//! Every template renders every case to the same bytes as transformers 5.23, and fails where it
//! fails. `tests/fixtures/chat_templates/README.md` says how the expected texts are made.
//!
//! The ignored test compares the whole collection of more than 200 templates, in the folder of
//! `fetch_collection.py` that `POSTTRAIN_TEMPLATE_COLLECTION` names.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_chat::{ChatTemplate, ContinueFinal, JsonChat, RenderOptions};
use serde_json::Value as Json;

/// Cases that differ: template, case, reason.
const DIFFERENCES: &[(&str, &str, &str)] = &[];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat_templates")
}

fn read_json(path: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn options(case: &Json) -> RenderOptions {
    RenderOptions {
        add_generation_prompt: case["add_generation_prompt"] == true,
        continue_final_message: match &case["continue_final_message"] {
            Json::Bool(true) => Some(ContinueFinal::Content),
            Json::String(field) => Some(ContinueFinal::Field(field.clone())),
            _ => None,
        },
        variables: case["variables"].as_object().unwrap().clone(),
        ..RenderOptions::default()
    }
}

fn chat(case: &Json) -> JsonChat {
    let mut object = serde_json::Map::new();
    for key in ["messages", "tools", "documents"] {
        if let Some(value) = case.get(key) {
            object.insert(key.into(), value.clone());
        }
    }
    JsonChat::new(Json::Object(object)).unwrap()
}

/// The rendered text and the generation spans in characters.
fn render(source: &str, case: &Json) -> Result<(String, Json), String> {
    let template = ChatTemplate::parse(source).map_err(|error| error.to_string())?;
    let template = [("bos", "<s>"), ("eos", "</s>"), ("pad", "<pad>"), ("unk", "<unk>")]
        .into_iter()
        .fold(template, |t, (name, token)| t.with_special_token(&format!("{name}_token"), token))
        .with_clock(|| jiff::civil::date(2024, 7, 26).at(13, 5, 9, 0));
    let rendered = template.render_spans(&chat(case), &options(case));
    let (text, spans) = rendered.map_err(|error| error.to_string())?;
    let chars = |at: usize| text[..at].chars().count();
    let spans = spans.unwrap_or_default();
    let spans: Vec<_> = spans.iter().map(|span| [chars(span.start), chars(span.end)]).collect();
    Ok((text, serde_json::json!(spans)))
}

/// Compares a folder of templates with the folder of expected texts; returns (templates, cases).
fn compare(templates: &Path, expected: &Path) -> (usize, usize) {
    let cases = read_json(&fixtures().join("cases.json"));
    let mut paths: Vec<_> =
        std::fs::read_dir(templates).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    paths.sort();
    let (mut compared, mut wrong) = (0, Vec::new());
    for path in &paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(path).unwrap();
        let results = &read_json(&expected.join(format!("{name}.json")))["results"];
        for case in cases.as_array().unwrap() {
            let case_name = case["name"].as_str().unwrap();
            let result = &results[case_name];
            let found = render(&source, case);
            let equal = match (&found, result["text"].as_str()) {
                (Ok((text, spans)), Some(expected)) => {
                    text == expected
                        && result.get("generation_chars").is_none_or(|expected| expected == spans)
                }
                (Err(message), None) => {
                    // A message of the template's own is passed on to the letter.
                    let error = result["error"].as_str().expect("a case has a text or an error");
                    error.strip_prefix("TemplateError: ").is_none_or(|expected| expected == message)
                }
                _ => false,
            };
            compared += 1;
            let listed = DIFFERENCES.iter().any(|(t, c, _)| *t == name && *c == case_name);
            if equal == listed {
                wrong.push(format!(
                    "{name} / {case_name}:\n  expected {result}\n  found    {found:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} cases:\n{}", wrong.len(), wrong.join("\n"));
    (paths.len(), compared)
}

#[test]
fn renders_equal_transformers() {
    let (templates, cases) = compare(&fixtures().join("templates"), &fixtures().join("expected"));
    assert!(templates >= 60 && cases >= templates * 9, "{templates} templates, {cases} cases");
}

#[test]
#[ignore = "needs the templates of fetch_collection.py"]
fn the_whole_collection_equals_transformers() {
    let folder = std::env::var("POSTTRAIN_TEMPLATE_COLLECTION");
    let folder = folder.expect("POSTTRAIN_TEMPLATE_COLLECTION names the folder of the collection");
    let folder = Path::new(&folder);
    let (templates, cases) = compare(&folder.join("templates"), &folder.join("expected"));
    println!("{templates} templates, {cases} cases");
    assert!(templates > 200, "{templates} templates");
}
