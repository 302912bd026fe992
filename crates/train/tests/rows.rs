//! Ids and masks of rows equal those of TRL's `SFTTrainer`; what cannot be trained on is refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_chat::{
    ChatTemplate, ChatTokenizer, EncodeOptions, JsonChat, TrainedTurns, Truncation,
};
use posttrain_core::{Conversation, Message};
use posttrain_train::Error;
use posttrain_train::data::{
    BadRows, DataReport, MarkedPiece, Marks, Packing, Reason, Row, RowCounts, RowId, RowOptions,
    Samples, encode,
};
use serde_json::{Value as Json, json};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn tokenizer(template: &str) -> ChatTokenizer {
    let folder = fixtures().join("chat_templates/tokenizer");
    let template = ChatTemplate::parse(template).unwrap();
    ChatTokenizer::from_model_with_template(folder, template).unwrap()
}

/// The row in the form of TRL.
fn row(json: &Json) -> Row<JsonChat> {
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    let chat = |messages: Vec<Json>| JsonChat::new(Json::Array(messages)).unwrap();
    if let Some(text) = text("text") {
        return Row::Text(text);
    }
    if let Some(messages) = json["messages"].as_array() {
        return Row::Chat(chat(messages.clone()));
    }
    if let (Some(prompt), Some(completion)) = (text("prompt"), text("completion")) {
        return Row::Completion { prompt, completion };
    }
    let list = |key: &str| json[key].as_array().unwrap().clone();
    let prompt = list("prompt");
    let whole = [&prompt[..], &list("completion")[..]].concat();
    Row::ChatCompletion { prompt: chat(prompt), whole: chat(whole) }
}

fn rows<C>(rows: Vec<Row<C>>) -> impl Iterator<Item = Result<(RowId, Row<C>), Error>> {
    (0..).zip(rows).map(|(index, row)| Ok((RowId::index(index), row)))
}

fn encoded(
    tokenizer: &ChatTokenizer,
    all: Vec<Row>,
    options: &RowOptions,
) -> Result<(Samples, RowCounts), Error> {
    encode(rows(all), tokenizer, options, &mut |_| {})
}

fn labels(samples: &Samples, index: usize) -> Vec<i64> {
    let label = |(&id, trained)| if trained { i64::from(id) } else { -100 };
    samples.ids(index).iter().zip(samples.trained(index)).map(label).collect()
}

#[test]
fn ids_and_labels_equal_those_of_trl() {
    let file = std::fs::read_to_string(fixtures().join("rows/rows.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_str(&file).unwrap();
    let mut compared = 0;
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let tokenizer = tokenizer(case["template"].as_str().unwrap_or(CHATML));
        let option = |key: &str| &case["options"][key];
        let assistant = option("assistant_only_loss") == true;
        let options = RowOptions {
            chat: EncodeOptions {
                turns: if assistant { TrainedTurns::All } else { TrainedTurns::Everything },
                max_length: Some(option("max_length").as_u64().unwrap_or(1024) as usize),
                ..EncodeOptions::default()
            },
            completion_only_loss: option("completion_only_loss") != false,
            bad_rows: BadRows::Drop,
            ..RowOptions::default()
        };
        let given: Vec<Row<JsonChat>> = case["rows"].as_array().unwrap().iter().map(row).collect();
        let count = given.len() as u64;
        let (samples, counts) = encode(rows(given), &tokenizer, &options, &mut |_| {}).unwrap();
        let expected = case["expected"].as_array().unwrap();
        // TRL drops the same rows, without a word.
        let dropped: u64 = counts.dropped.values().map(|dropped| dropped.rows).sum();
        assert_eq!(dropped, count - expected.len() as u64, "{name}");
        let numbers = |json: &Json| -> Vec<i64> {
            json.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
        };
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(samples.row(index), RowId::index(expected["number"].as_u64().unwrap()));
            let ids: Vec<i64> = samples.ids(index).iter().map(|&id| id.into()).collect();
            assert_eq!(ids, numbers(&expected["input_ids"]), "{name} {index}");
            assert_eq!(labels(&samples, index), numbers(&expected["labels"]), "{name} {index}");
            compared += 1;
        }
        let warned = counts.warnings.contains_key("prompt_not_prefix");
        let warns = ["completion", "completion_truncated", "chat_completion_thinking"];
        assert_eq!(warned, warns.contains(&name), "{name}: {counts:?}");
    }
    assert!(compared > 40, "{compared}");
}

fn completion(prompt: &str, completion: &str) -> Row {
    Row::Completion { prompt: prompt.into(), completion: completion.into() }
}

#[test]
fn a_row_that_cannot_be_trained_on_is_an_error_or_counted() {
    let tokenizer = tokenizer(CHATML);
    let good = || completion("2+2?", " 4");
    let turns = |messages: Vec<Message>| Row::Chat(Conversation::new(messages));
    let bad: [(Row, Reason, &str); 4] = [
        (
            Row::Text("<s>Once upon a time".into()),
            Reason::DoubleBos,
            "row 1: two tokens of beginning: the row starts with \"<s>\" twice",
        ),
        (
            completion("a very long prompt with far more than twelve tokens", "yes"),
            Reason::TruncatedAway,
            "row 1: no trained token left by truncation: truncation to max_length 12 takes all",
        ),
        (
            turns(vec![Message::user("Hi")]),
            Reason::NoTrainedToken,
            "row 1: no trained token: no token would be trained: the conversation has no assistant",
        ),
        (
            turns(Vec::new()),
            Reason::Encoding,
            "row 1: refused by the template or the tokenizer: the conversation is empty",
        ),
    ];
    let chat = EncodeOptions { max_length: Some(12), ..EncodeOptions::default() };
    let strict = RowOptions { chat, ..RowOptions::default() };
    let lax = RowOptions { bad_rows: BadRows::Drop, ..strict.clone() };
    for (row, reason, message) in bad {
        let all = || vec![good(), row.clone(), good()];
        let error = encoded(&tokenizer, all(), &strict).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
        let (samples, counts) = encoded(&tokenizer, all(), &lax).unwrap();
        assert_eq!((samples.len(), counts.read, counts.dropped.len()), (2, 3, 1));
        let dropped = &counts.dropped[&reason];
        assert_eq!((dropped.rows, &dropped.examples[0].row), (1, &RowId::index(1)));
        let none = encoded(&tokenizer, vec![row], &lax).unwrap_err().to_string();
        assert!(none.starts_with("the training rows: all 1 were dropped: 1 "), "{none}");
    }
    let none = encoded(&tokenizer, Vec::new(), &lax).unwrap_err();
    assert_eq!(none.to_string(), "the training rows: there are none");
}

#[test]
fn a_source_that_fails_and_an_unknown_end_token_are_errors() {
    let tokenizer = tokenizer(CHATML);
    let broken = || Error::Data { row: "b.jsonl:2".into(), reason: "no JSON".into() };
    let good = (RowId::new("b.jsonl", 1), completion("2+2?", " 4"));
    let options = RowOptions::default();
    let source = vec![Ok(good.clone()), Err(broken())];
    let error = encode(source, &tokenizer, &options, &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "b.jsonl:2: no JSON");
    // The first fault is told, though the source failed before the row was encoded.
    let bad = (RowId::new("b.jsonl", 1), Row::<Conversation>::Text("<s>a".into()));
    let error = encode(vec![Ok(bad), Err(broken())], &tokenizer, &options, &mut |_| {});
    assert!(error.unwrap_err().to_string().starts_with("b.jsonl:1: two tokens of beginning"));
    let options = RowOptions { eos_token: Some("<|end|>".into()), ..options };
    let error = encode(vec![Ok(good)], &tokenizer, &options, &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "`eos_token` is <|end|>, expected a token of the tokenizer");
}

#[test]
fn truncation_is_counted() {
    let tokenizer = tokenizer(CHATML);
    let text = |text: &str| Row::<Conversation>::Text(text.into());
    // With bos and eos 5, 9 and 7 tokens: one a letter, and one for the space.
    let all = || vec![text("xyz"), text("xyz xyz"), completion("xyz", "qj")];
    let options = |truncation, packing| RowOptions {
        chat: EncodeOptions { max_length: Some(5), truncation, ..EncodeOptions::default() },
        packing,
        ..RowOptions::default()
    };
    let (samples, counts) =
        encoded(&tokenizer, all(), &options(Truncation::KeepStart, None)).unwrap();
    let whole = encoded(&tokenizer, all(), &RowOptions::default()).unwrap().0;
    let lengths: Vec<usize> = (0..3).map(|index| whole.length(index)).collect();
    assert_eq!(lengths, [5, 9, 7]);
    let cut = &counts.truncated;
    // 4 and 2 tokens; of the completion `j` and eos, whose start `q` is kept.
    assert_eq!((cut.rows, cut.tokens, cut.trained_tokens, cut.ends_lost), (2, 6, 6, 2));
    assert_eq!(cut.examples, [RowId::index(1), RowId::index(2)]);
    assert_eq!(samples.ids(2), &whole.ids(2)[..5]);
    // One row keeps its end token.
    assert_eq!((counts.read, counts.stop_trained), (3, 1));

    let (samples, counts) =
        encoded(&tokenizer, all(), &options(Truncation::KeepEnd, None)).unwrap();
    assert_eq!(samples.ids(2), &whole.ids(2)[2..]);
    let cut = &counts.truncated;
    assert_eq!((cut.rows, cut.tokens, cut.trained_tokens, cut.ends_lost), (2, 6, 4, 0));
    assert_eq!(counts.stop_trained, 3);

    // Where packing cuts, nothing is cut before.
    for packing in [Packing::BfdSplit, Packing::Wrapped] {
        let options = options(Truncation::KeepStart, Some(packing));
        let (samples, counts) = encoded(&tokenizer, all(), &options).unwrap();
        assert_eq!((samples.tokens(), counts.truncated.rows), (21, 0));
    }
}

#[test]
fn many_rows_come_in_order_for_any_number_of_threads() {
    let tokenizer = tokenizer(CHATML);
    let all = || {
        let row = |i| completion(&format!("What is {i} plus 1?"), &format!(" {}", i + 1));
        (0..5000).map(row).collect::<Vec<_>>()
    };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut heard = Vec::new();
        let mut progress = |rows| heard.push(rows);
        let options = RowOptions::default();
        let found = pool.install(|| encode(rows(all()), &tokenizer, &options, &mut progress));
        let (samples, counts) = found.unwrap();
        assert_eq!(heard, [2048, 4096, 5000]);
        (samples.fingerprint(), counts)
    };
    let one = run(1);
    assert_eq!(one.1.read, 5000);
    assert_eq!(one, run(4));
    let (samples, _) = encoded(&tokenizer, all(), &RowOptions::default()).unwrap();
    assert!((0..5000).all(|index| samples.row(index) == RowId::index(index as u64)));
    let text = tokenizer.tokenizer().decode(samples.ids(4321), false).unwrap();
    assert_eq!(text, "<s>What is 4321 plus 1? 4322</s>");
}

#[test]
fn the_report_says_what_will_be_trained() {
    let tokenizer = tokenizer(CHATML);
    let chat = |answer: &str| {
        Row::Chat(Conversation::new([Message::user("2+2?"), Message::assistant(answer)]))
    };
    let options = RowOptions {
        chat: EncodeOptions { max_length: Some(40), ..EncodeOptions::default() },
        bad_rows: BadRows::Drop,
        ..RowOptions::default()
    };
    let long = "far too long ".repeat(9);
    let all = vec![chat("4"), chat("No."), Row::Text("<s>x".into()), chat(&long)];
    let (samples, counts) = encoded(&tokenizer, all, &options).unwrap();
    let report = DataReport::new(&samples, &counts, &tokenizer);
    assert_eq!((report.rows, report.tokens), (3, samples.tokens()));
    assert_eq!(report.trained_tokens, samples.trained_tokens());
    assert_eq!(report.lengths.max, 40);
    let first = report.first.first().unwrap();
    let piece = |text: &str, trained| MarkedPiece { text: text.into(), trained };
    assert_eq!(
        first.pieces,
        [
            piece("<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n", false),
            piece("4<|im_end|>", true),
            piece("\n", false)
        ]
    );
    // `<|im_end|>` is no stop token of this tokenizer, `</s>` is: three turns that end wrongly.
    assert_eq!(report.stop_token_trained, Some(false));
    let warnings = report.warnings();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings[0].starts_with("no stop token is trained in any row"));
    assert!(warnings[1].starts_with("1 rows were longer than max_length and lost "));
    assert_eq!(warnings[2], "1 rows dropped: two tokens of beginning");
    assert!(warnings[3].starts_with("3 rows with stop_not_trained: row 0: 1 trained turns"));

    let text = report.text(Marks::Plain);
    assert_eq!(text, report.to_string());
    assert!(text.contains("assistant\n⟦4<|im_end|>⟧\n"), "{text}");
    assert!(text.contains("rows read        4\n"), "{text}");
    assert!(text.contains("warning: 1 rows dropped: two tokens of beginning"), "{text}");
    assert!(report.text(Marks::Ansi).contains("\x1b[32m4<|im_end|>\x1b[0m"));
    let html = report.html();
    assert!(html.contains("<mark>4&lt;|im_end|&gt;</mark>") && html.contains("<svg"), "{html}");

    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["read"], 4);
    assert_eq!(json["dropped"]["double_bos"]["rows"], 1);
    assert_eq!(json["dropped"]["double_bos"]["examples"][0]["row"], "row 2");
    assert_eq!(json["truncated"]["rows"], 1);
    assert_eq!(json["first"][0]["pieces"][1], json!({"text": "4<|im_end|>", "trained": true}));
    let bars = json["lengths"]["histogram"].as_array().unwrap();
    assert_eq!(bars.iter().map(|bar| bar["rows"].as_u64().unwrap()).sum::<u64>(), 3);
}
