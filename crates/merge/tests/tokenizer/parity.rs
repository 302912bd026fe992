//! Tokens, rows and embeddings as mergekit has them; what transformers reads.

use std::path::PathBuf;

use posttrain_merge::tokenizer::{
    BUILTIN_TEMPLATES, MergedTokenizer, Row, RowMaps, Source, TokenRef, TokenSetting, TokenSource,
    TokenizerSettings, set_chat_template,
};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::{fixtures, merge, read};

/// The settings of a case as the fixture script has them.
fn settings(case: &Value, models: &[&str]) -> TokenizerSettings {
    let position = |name: &str| models.iter().position(|model| *model == name).unwrap();
    let given = &case["tokenizer"];
    let source = match given["source"].as_str().unwrap() {
        "union" => Source::Union,
        "base" => Source::Base,
        name => Source::Model(position(name)),
    };
    let token = |(token, setting): (&String, &Value)| {
        let source = match &setting["source"] {
            Value::String(name) => TokenSource::Model(position(name)),
            source if source["kind"] == "zero" => TokenSource::Zero,
            source => TokenSource::ModelToken {
                model: position(source["model"].as_str().unwrap()),
                token: match source["token"].as_str() {
                    Some(token) => TokenRef::Text(token.to_owned()),
                    None => TokenRef::Id(source["token_id"].as_u64().unwrap() as u32),
                },
            },
        };
        let force = setting["force"].as_bool().unwrap_or_default();
        (token.clone(), TokenSetting { source: Some(source), force })
    };
    TokenizerSettings {
        source,
        tokens: given["tokens"].as_object().into_iter().flatten().map(token).collect(),
        pad_to_multiple_of: given["pad_to_multiple_of"].as_u64().map(|pad| pad as usize),
    }
}

fn cases() -> Vec<Value> {
    let mut paths: Vec<PathBuf> = fixtures()
        .join("mergekit")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert_eq!(paths.len(), 12);
    paths.iter().map(|path| read(path)).collect()
}

fn names(case: &Value) -> Vec<&str> {
    case["models"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn base(case: &Value, models: &[&str]) -> Option<usize> {
    models.iter().position(|model| Some(*model) == case["base"].as_str())
}

/// The embeddings of the fixture script: whole numbers of sixteenths.
fn embedding(model: usize, row: usize) -> [f32; 3] {
    [0, 1, 2].map(|column| (((model * 37 + row * 11 + column * 5) % 64) as f32 - 32.0) / 16.0)
}

/// The rows of one model's aligned matrix, as a row map says.
fn aligned(maps: &RowMaps, position: usize, models: &[usize]) -> Vec<[f32; 3]> {
    let mut rows = vec![[0.0; 3]; maps.len()];
    let mut padding = Vec::new();
    for (place, (at, row)) in
        rows.iter_mut().enumerate().map(|(at, place)| (place, (at, maps.row(position, at))))
    {
        match row {
            Row::Own(row) => *place = embedding(models[position], row as usize),
            Row::FromModel { model, row } => *place = embedding(model, row as usize),
            Row::Mean(of) => {
                for (model, row) in of {
                    let one = embedding(*model, *row as usize);
                    place.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
                }
                *place = place.map(|sum| sum / of.len() as f32);
            }
            Row::Zero => {}
            Row::MeanOfAll => padding.push(at),
        }
    }
    let count = (rows.len() - padding.len()) as f32;
    let mut mean = [0.0; 3];
    for row in rows.iter().enumerate().filter(|(at, _)| !padding.contains(at)).map(|(_, row)| row) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    for at in padding {
        rows[at] = mean.map(|sum| sum / count);
    }
    rows
}

#[test]
fn tokens_rows_and_embeddings_are_those_of_mergekit() {
    let mut kinds = [0; 5];
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let models = names(&case);
        let base = base(&case, &models);
        let merged = merge(&models, base, &settings(&case, &models)).unwrap();
        let tokens: Vec<&str> =
            (0..merged.token_rows()).map(|row| merged.token(row).unwrap()).collect();
        assert_eq!(json!(tokens), case["tokens"], "{name}");

        let positions: Vec<usize> = (0..models.len()).collect();
        let maps = merged.row_maps(&positions, base).unwrap();
        let wanted = case["merged"].as_array().unwrap();
        for (position, wanted) in wanted.iter().enumerate() {
            let wanted: Vec<[f32; 3]> = serde_json::from_value(wanted.clone()).unwrap();
            let found = aligned(&maps, position, &positions);
            assert_eq!(found.len(), wanted.len(), "{name}");
            assert_eq!(merged.rows, wanted.len(), "{name}");
            for (row, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                let kind = maps.row(position, row);
                kinds[match kind {
                    Row::Own(_) => 0,
                    Row::FromModel { .. } => 1,
                    Row::Mean(_) => 2,
                    Row::Zero => 3,
                    Row::MeanOfAll => 4,
                }] += 1;
                if kind == Row::MeanOfAll {
                    // torch adds in another order.
                    let near = found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6);
                    assert!(near, "{name}: {found:?}, {wanted:?}");
                } else {
                    assert_eq!(*found, wanted, "{name}: model {position}, row {row}");
                }
                // An own row is mergekit's permutation.
                if let Row::Own(own) = kind {
                    assert_eq!(case["own"][position][row], own, "{name}");
                }
            }
        }
    }
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}

/// The union cases whose tokenizers are written for transformers to read.
fn merged_cases() -> Vec<(String, MergedTokenizer)> {
    let written = |case: &Value| {
        let models = names(case);
        let name = case["name"].as_str().unwrap().to_owned();
        let mut merged = merge(&models, base(case, &models), &settings(case, &models)).unwrap();
        if name == "union" {
            set_chat_template(&mut merged.files, BUILTIN_TEMPLATES[1].1).unwrap();
        }
        (name, merged)
    };
    let wanted = ["union", "union_words", "union_pieces", "base_short", "tokens"];
    cases()
        .iter()
        .filter(|case| wanted.contains(&case["name"].as_str().unwrap()))
        .map(written)
        .collect()
}

#[test]
#[ignore = "writes the fixtures that tokenizer_fixtures.py --merged reads"]
fn write_merged() {
    for (name, merged) in merged_cases() {
        let folder = fixtures().join("merged").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in &merged.files {
            std::fs::write(folder.join(file), bytes).unwrap();
        }
    }
}

#[test]
fn transformers_reads_what_is_written() {
    for (name, merged) in merged_cases() {
        let folder = fixtures().join("merged").join(&name);
        for (file, bytes) in &merged.files {
            assert!(std::fs::read(folder.join(file)).unwrap() == *bytes, "{name}/{file}");
        }
        let theirs = read(&folder.join("transformers.json"));
        let tokenizer = Tokenizer::from_bytes(&merged.files["tokenizer.json"]).unwrap();
        let ids: Vec<(String, u32)> = serde_json::from_value(theirs["vocab"].clone()).unwrap();
        assert_eq!(ids.len(), merged.token_rows());
        for (token, id) in ids {
            assert_eq!(merged.token(id as usize), Some(token.as_str()), "{name}");
            assert_eq!(tokenizer.token_to_id(&token), Some(id), "{name}");
        }
        for row in theirs["rows"].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            let encoding = tokenizer.encode(text, true).unwrap();
            assert_eq!(json!(encoding.get_ids()), row["ids"], "{name}: {text}");
            let decoded = tokenizer.decode(encoding.get_ids(), false).unwrap();
            if name == "union" {
                assert_eq!(decoded, format!("<s>{text}"));
                assert_eq!(row["decoded"], decoded);
            }
        }
        if name == "union" {
            assert_eq!(theirs["chat_template"], BUILTIN_TEMPLATES[1].1);
        }
    }
}
