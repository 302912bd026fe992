//! The same rows, the same order: ids, masks and windows of 20 steps equal those of `SFTTrainer`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_chat::{ChatTokenizer, EncodeOptions, TrainedTurns};
use posttrain_core::Conversation;
use posttrain_train::Error;
use posttrain_train::data::{
    BatchOptions, Batches, MicroBatch, Packing, Row, RowId, RowOptions, Samples, SamplingStrategy,
    encode,
};
use serde::Deserialize;
use serde_json::Value as Json;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sft")
}

fn lines(name: &str) -> Vec<Json> {
    let text = std::fs::read_to_string(fixtures().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn samples(rows: Vec<Row>, packing: Option<Packing>, turns: TrainedTurns) -> Samples {
    let tokenizer = ChatTokenizer::from_model(fixtures().join("model")).unwrap();
    let chat = EncodeOptions { turns, max_length: Some(512), ..EncodeOptions::default() };
    let options = RowOptions { chat, packing, ..RowOptions::default() };
    let rows = (1..).zip(rows).map(|(line, row)| Ok::<_, Error>((RowId::new("rows", line), row)));
    encode(rows, &tokenizer, &options, &mut |_| {}).unwrap().0
}

fn conversations(packing: Option<Packing>) -> Samples {
    let read = |line: Json| Row::Chat(serde_json::from_value::<Conversation>(line).unwrap());
    let rows = lines("rows.jsonl").into_iter().map(read).collect();
    samples(rows, packing, TrainedTurns::All)
}

fn documents(packing: Option<Packing>) -> Samples {
    let read = |line: Json| Row::Text(line["text"].as_str().unwrap().to_owned());
    let rows = lines("documents.jsonl").into_iter().map(read).collect();
    samples(rows, packing, TrainedTurns::All)
}

#[test]
fn conversations_are_encoded_as_trl_does() {
    let samples = conversations(None);
    let expected = lines("encoded.jsonl");
    assert_eq!(samples.len(), expected.len());
    for (index, row) in expected.iter().enumerate() {
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        let trained: Vec<u8> = serde_json::from_value(row["trained"].clone()).unwrap();
        assert_eq!(samples.ids(index), ids, "row {index}");
        assert!(samples.trained(index).map(u8::from).eq(trained), "row {index}");
    }
}

#[derive(Deserialize)]
struct Expected {
    input_ids: Vec<Vec<u32>>,
    labels: Vec<Vec<i64>>,
    attention_mask: Option<Vec<Vec<usize>>>,
    position_ids: Option<Vec<Vec<usize>>>,
}

fn assert_batch(found: &MicroBatch, expected: &Expected, what: &str) {
    let batch = &found.batch;
    assert_eq!(batch.ids(), expected.input_ids.concat(), "{what}");
    // Where texts start and how long they are.
    let texts: Vec<Vec<usize>> = match (&expected.attention_mask, &expected.position_ids) {
        (Some(mask), _) => mask.iter().map(|row| vec![row.iter().sum()]).collect(),
        (_, Some(positions)) => {
            let runs = |row: &Vec<usize>| row.chunk_by(|a, b| a < b).map(<[usize]>::len).collect();
            positions.iter().map(runs).collect()
        }
        _ => panic!("neither a mask nor positions"),
    };
    assert_eq!(batch.texts(), texts, "{what}");
    // The loss of transformers shifts labels by one in each row.
    let shifted = expected.labels.iter().flat_map(|row| &row[1..]);
    let labels: Vec<u32> =
        shifted.filter(|&&label| label >= 0).map(|&label| label as u32).collect();
    assert_eq!(found.targets.tokens(), labels, "{what}");
}

/// All steps of a run against the file of its batches and that of its steps.
fn compare(name: &str, batches: &str, samples: Samples, options: BatchOptions) {
    let read = |name: &str| std::fs::read_to_string(fixtures().join(name)).unwrap();
    let batches: Vec<Expected> = serde_json::from_str(&read(batches)).unwrap();
    let run: Json = serde_json::from_str(&read(name)).unwrap();
    let mut found = Batches::new(samples, options).unwrap();
    let steps = run["steps"].as_array().unwrap();
    assert_eq!((steps.len(), found.total_steps()), (20, 20));
    for (number, step) in steps.iter().enumerate() {
        let window = found.next_window().unwrap().unwrap();
        let passes = step["micro_batches"].as_array().unwrap();
        assert_eq!(window.micro_batches.len(), passes.len(), "{name} step {number}");
        for (pass, expected) in window.micro_batches.iter().zip(passes) {
            let batch = expected["batch"].as_u64().unwrap() as usize;
            assert_batch(pass, &batches[batch], &format!("{name} step {number} batch {batch}"));
        }
        assert_eq!(window.trained_tokens as u64, step["trained_tokens"], "{name} step {number}");
        assert_eq!(window.step, number as u64 + 1);
    }
    assert!(found.next_window().unwrap().is_none());
}

fn options(run: &str) -> BatchOptions {
    let run = std::fs::read_to_string(fixtures().join(run)).unwrap();
    let settings = &serde_json::from_str::<Json>(&run).unwrap()["settings"];
    let number = |key: &str| settings[key].as_u64().unwrap();
    BatchOptions {
        per_device_train_batch_size: number("per_device_train_batch_size") as usize,
        gradient_accumulation_steps: number("gradient_accumulation_steps") as usize,
        max_steps: Some(number("max_steps")),
        max_length: Some(number("max_length") as usize),
        train_sampling_strategy: SamplingStrategy::Sequential,
        ..BatchOptions::default()
    }
}

#[test]
fn padded_windows_equal_those_of_trl() {
    let options = options("full.json");
    compare("full.json", "batches_padded.json", conversations(None), options);
}

#[test]
fn packed_windows_equal_those_of_trl() {
    let packing = Some(Packing::Bfd);
    // TRL puts the packed sequences of a pass into one row.
    let options = BatchOptions { packing, padding_free: true, ..options("packed.json") };
    compare("packed.json", "batches_packed.json", conversations(packing), options);
}

#[test]
fn wrapped_windows_equal_those_of_trl() {
    let packing = Some(Packing::Wrapped);
    let options = BatchOptions { packing, ..options("wrapped.json") };
    compare("wrapped.json", "batches_wrapped.json", documents(packing), options);
}
