//! Merged vocabularies: parity with mergekit, encoding and decoding, configurations, templates.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_merge::Error;
use posttrain_merge::tokenizer::{
    BUILTIN_TEMPLATES, ChatTemplate, Input, MergedTokenizer, Row, RowMaps, Source, TokenRef,
    TokenSetting, TokenSource, TokenizerSettings, merge_tokenizers, set_chat_template,
    tokenizer_files, vocabularies_differ,
};
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge/tokenizers")
}

fn folder(name: &str) -> PathBuf {
    fixtures().join("inputs").join(name)
}

fn merge(
    names: &[&str],
    base: Option<usize>,
    settings: &TokenizerSettings,
) -> Result<MergedTokenizer, Error> {
    let paths: Vec<PathBuf> = names.iter().map(|name| folder(name)).collect();
    merge_paths(&paths, base, settings)
}

fn merge_paths(
    paths: &[PathBuf],
    base: Option<usize>,
    settings: &TokenizerSettings,
) -> Result<MergedTokenizer, Error> {
    let inputs: Vec<Input<'_>> =
        paths.iter().map(|path| Input { path, config: None, rows: None }).collect();
    merge_tokenizers(&inputs, base, settings)
}

fn source(source: Source) -> TokenizerSettings {
    TokenizerSettings { source, ..Default::default() }
}

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

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
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
                place.iter_mut().for_each(|sum| *sum /= of.len() as f32);
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

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text, false).unwrap().get_tokens().to_vec()
}

/// mergekit makes `it`, `en` and the other tokens of `city` added tokens, which are found in the
/// middle of river's words. Here they are tokens of the vocabulary behind river's merges.
#[test]
fn a_union_encodes_as_its_base_and_then_merges_further() {
    let union = merge(&["river", "city"], Some(0), &source(Source::Union)).unwrap();
    let tokenizer = Tokenizer::from_bytes(&union.files["tokenizer.json"]).unwrap();
    let river = Tokenizer::from_file(folder("river").join("tokenizer.json")).unwrap();
    let text = "the river runs through the valley and the valley keeps the river of stones";
    assert_eq!(ids(&tokenizer, text), ids(&river, text));
    assert!(ids(&tokenizer, " the city").contains(&"Ġcity".to_owned()));
    assert!(!ids(&river, " the city").contains(&"Ġcity".to_owned()));
    // In fewer or as many tokens, never more.
    for text in ["city lights", "the citizens of the valley", "streets, lamps and stones"] {
        assert!(ids(&tokenizer, text).len() <= ids(&river, text).len(), "{text}");
        let encoding = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text);
    }
}

#[test]
fn unchanged_vocabularies_are_copied() {
    for (names, source_) in [(["river", "chat"], Source::Base), (["chat", "river"], Source::Union)]
    {
        let merged = merge(&names, Some(0), &source(source_)).unwrap();
        assert_eq!(merged.files, tokenizer_files(&folder(names[0])).unwrap());
        let maps = merged.row_maps(&[0, 1], Some(0)).unwrap();
        assert_eq!(maps.is_identity(0, 304), false, "rows of padding are left out, as by mergekit");
        assert!(maps.is_identity(0, merged.rows));
    }
}

#[test]
fn conflicts_are_told() {
    let union = merge(&["river", "city"], Some(0), &source(Source::Union)).unwrap();
    let all = union.warnings.join("\n");
    for part in [
        "added token `<s>` has other settings in",
        "city (special, lstrip) than in",
        "`eos_token` is `<|im_end|>` in",
    ] {
        assert!(all.contains(part), "{part}:\n{all}");
    }
    let short = merge(&["short", "river"], Some(0), &source(Source::Base)).unwrap();
    let all = short.warnings.join("\n");
    for part in [
        "has 292 rows of embeddings for 293 tokens: 1 tokens without a row are left out, the first \
         is `<pad>` with id 292",
        "tokenizer_config.json: `pad_token` is left out, the merged vocabulary has no token `<pad>`",
    ] {
        assert!(all.contains(part), "{part}:\n{all}");
    }
    let config: Value = serde_json::from_slice(&short.files["tokenizer_config.json"]).unwrap();
    assert!(config.get("pad_token").is_none(), "transformers would add it without an embedding");
}

#[test]
fn special_ids_move_with_their_tokens() {
    // river's </s> is 291, city's 286.
    let merged = merge(&["river", "city"], Some(0), &source(Source::Model(1))).unwrap();
    let mut config = object(json!({
        "vocab_size": 304, "bos_token_id": 290, "eos_token_id": [291, 292], "pad_token_id": 292,
        "text_config": {"vocab_size": 304, "eos_token_id": 291, "hidden_size": 4},
        "codec_config": {"vocab_size": 1024, "eos_token_id": 291},
        "decoder_start_token_id": null, "sep_token_id": -1,
    }));
    let (changes, warnings) = merged.update_config(0, &mut config);
    let wanted = json!({
        "vocab_size": 290, "bos_token_id": 285, "eos_token_id": [286], "pad_token_id": null,
        "text_config": {"vocab_size": 290, "eos_token_id": 286, "hidden_size": 4},
        "codec_config": {"vocab_size": 1024, "eos_token_id": 291},
        "decoder_start_token_id": null, "sep_token_id": -1,
    });
    assert_eq!(Value::Object(config), wanted);
    let mut keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    keys.sort_unstable();
    let wanted = [
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "text_config.eos_token_id",
        "text_config.vocab_size",
        "vocab_size",
    ];
    assert_eq!(keys, wanted);
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    // The role's token of the merged tokenizer takes the place of one that is gone.
    let merged = merge(&["city", "river"], Some(0), &source(Source::Model(1))).unwrap();
    let mut generation = object(json!({"eos_token_id": 288, "suppress_tokens": [288, 286]}));
    let (changes, _) = merged.update_ids(0, &mut generation);
    assert_eq!(Value::Object(generation), json!({"eos_token_id": 291, "suppress_tokens": [291]}));
    assert_eq!(changes.len(), 2);

    // A union keeps the ids of the base.
    let merged = merge(&["river", "city"], Some(0), &source(Source::Union)).unwrap();
    let mut config = object(read(&folder("river").join("config.json")));
    let (changes, warnings) = merged.update_config(0, &mut config);
    assert_eq!((changes.len(), warnings.len(), &changes[0].to), (1, 0, &json!(317)));
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn rules_without_a_source() {
    // mergekit raises NotImplementedError for both; the rules for every other token are what they
    // must mean.
    let rule = |force| TokenSetting { source: None, force };
    let tokens = vec![("<new>".into(), rule(false)), ("<s>".into(), rule(true))];
    let settings = TokenizerSettings { tokens, ..source(Source::Union) };
    let merged = merge(&["river", "city"], Some(0), &settings).unwrap();
    let maps = merged.row_maps(&[0, 1], Some(0)).unwrap();
    let new = (0..merged.rows).find(|row| merged.token(*row) == Some("<new>")).unwrap();
    assert_eq!((maps.row(0, new), maps.row(1, new)), (Row::Zero, Row::Zero));
    assert!(maps.warnings[0].contains("1 tokens") && maps.warnings[0].contains("`<new>`"));
    assert_eq!(maps.row(0, 290), Row::FromModel { model: 0, row: 290 });
    assert_eq!(maps.row(1, 290), Row::FromModel { model: 0, row: 290 });
    let without_base = merged.row_maps(&[0, 1], None).unwrap();
    assert_eq!(without_base.row(0, 290), Row::Mean(&[(0, 290), (1, 285)]));
}

#[test]
fn a_matrix_of_some_inputs() {
    // Layers of one input in the middle of another's: the head has other inputs than the embedding.
    let merged = merge(&["river", "city", "chat"], Some(0), &source(Source::Union)).unwrap();
    let maps = merged.row_maps(&[1], Some(0)).unwrap();
    assert!(maps.warnings[0].contains("no embedding in any input"));
    let river_only = (0..merged.rows).find(|row| merged.token(*row) == Some("Ġriver")).unwrap();
    assert_eq!(maps.row(0, river_only), Row::Zero);
    let runs: Vec<_> = maps.runs(0, 0..merged.rows).collect();
    assert!(runs.len() < 100);
    let mut rows = 0;
    for (range, row) in runs {
        assert_eq!(range.start, rows);
        rows = range.end;
        for (offset, at) in range.enumerate() {
            match row {
                Row::Own(first) => assert_eq!(maps.row(0, at), Row::Own(first + offset as u32)),
                row => assert_eq!(maps.row(0, at), row),
            }
        }
    }
    assert_eq!(rows, merged.rows);
}

fn message<T>(result: Result<T, Error>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn settings_that_are_wrong() {
    let one = |token: &str, source| {
        let setting = TokenSetting { source: Some(source), force: false };
        TokenizerSettings { tokens: vec![(token.into(), setting)], ..Default::default() }
    };
    let get = |settings: &TokenizerSettings| {
        let merged = merge(&["river", "city"], Some(0), settings)?;
        merged.row_maps(&[0, 1], Some(0))
    };
    let said = message(get(&source(Source::Model(2))));
    assert_eq!(said, "`tokenizer.source` is input 2, expected one of the 2 inputs");
    let said = message(get(&one("<x>", TokenSource::Model(0))));
    assert!(said.starts_with("`tokenizer.tokens.<x>.source` is "), "{said}");
    assert!(said.ends_with("river, expected a model that has the token"), "{said}");
    let token = |token| TokenSource::ModelToken { model: 1, token };
    let said = message(get(&one("<x>", token(TokenRef::Id(290)))));
    assert!(said.contains("token 290 of") && said.ends_with("expected less than its 290 rows"));
    let said = message(get(&one("<x>", token(TokenRef::Text("no".into())))));
    assert!(said.contains("token `no` of") && said.contains("with a row of its own"), "{said}");
    let said =
        message(get(&TokenizerSettings { pad_to_multiple_of: Some(0), ..Default::default() }));
    assert_eq!(said, "`tokenizer.pad_to_multiple_of` is 0, expected from 1 to 1048576");
    let said = message(get(&one("", TokenSource::Zero)));
    assert!(said.contains("an empty token"));

    let merged = merge(&["river", "city"], Some(0), &one("<x>", token(TokenRef::Id(3)))).unwrap();
    let said = message(merged.row_maps(&[0], Some(0)));
    assert!(said.contains("expected one of the inputs of this matrix"), "{said}");
}

#[test]
fn unions_without_a_meaning() {
    let said = message(merge(&["river", "words"], Some(0), &source(Source::Union)));
    assert!(said.contains("a union of BPE and WordPiece vocabularies has no meaning"), "{said}");
    // Their rows are merged all the same with one of the vocabularies.
    let merged = merge(&["river", "words"], Some(0), &source(Source::Base)).unwrap();
    assert_eq!(merged.token_rows(), 293);
}

fn copy(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in folder(name).read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn folders_without_tokenizer_json() {
    let temp = tempfile::tempdir().unwrap();
    let [bare, spm] = ["bare", "spm"].map(|name| temp.path().join(name));
    for path in [&bare, &spm] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("config.json"), r#"{"vocab_size": 304}"#).unwrap();
    }
    std::fs::write(spm.join("tokenizer.model"), "sentencepiece").unwrap();
    let union = source(Source::Union);
    let said = message(merge_paths(&[folder("river"), spm.clone()], Some(0), &union));
    assert!(said.contains("found tokenizer.model, expected tokenizer.json"), "{said}");
    assert!(said.contains("AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"));
    // Like mergekit: the same as the base, here only with as many rows.
    let merged = merge_paths(&[folder("river"), bare.clone()], Some(0), &union).unwrap();
    assert!(merged.warnings[0].contains("has no tokenizer: it is taken to have that of"));
    assert_eq!(merged.row_maps(&[1], None).unwrap().row(0, 290), Row::Own(290));
    let said = message(merge_paths(&[bare.clone(), folder("river")], Some(0), &union));
    assert!(said.contains("found nothing, expected tokenizer.json"), "{said}");
    std::fs::write(bare.join("config.json"), r#"{"vocab_size": 300}"#).unwrap();
    assert!(merge_paths(&[folder("river"), bare.clone()], Some(0), &union).is_err());
    std::fs::write(bare.join("config.json"), r#"{"vocab_size": "many"}"#).unwrap();
    let said = message(merge_paths(&[folder("river"), bare], Some(0), &union));
    assert!(said.contains(r#"`vocab_size` is "many", expected a number of tokens"#), "{said}");
}

/// Mistral 7B v0.3 and others: ids that no token has. mergekit fails on them.
#[test]
fn unused_ids() {
    let temp = tempfile::tempdir().unwrap();
    copy("river", temp.path());
    let path = temp.path().join("tokenizer.json");
    let mut json = read(&path);
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    // The last token of the vocabulary moves behind a gap, and the added tokens into it.
    assert_eq!(vocab.insert("ies".into(), json!(295)), Some(json!(289)));
    vocab.extend([("<s>".to_owned(), json!(290)), ("</s>".into(), json!(291))]);
    vocab.insert("<pad>".into(), json!(292));
    std::fs::write(&path, json.to_string()).unwrap();
    let paths = [temp.path().to_owned(), folder("chat")];
    let merged = merge_paths(&paths, Some(0), &source(Source::Union)).unwrap();
    assert_eq!((merged.token_rows(), merged.token(289), merged.token(293)), (299, None, None));
    let tokenizer = Tokenizer::from_bytes(&merged.files["tokenizer.json"]).unwrap();
    for row in 0..merged.rows {
        if let Some(token) = merged.token(row) {
            assert_eq!(tokenizer.token_to_id(token), Some(row as u32), "{token}");
        }
    }
    let maps = merged.row_maps(&[0, 1], Some(0)).unwrap();
    assert_eq!((maps.row(0, 289), maps.row(1, 289)), (Row::MeanOfAll, Row::MeanOfAll));
    assert_eq!((maps.row(0, 295), maps.row(1, 295)), (Row::Own(295), Row::Own(289)));
}

#[test]
fn ids_are_those_after_loading() {
    let temp = tempfile::tempdir().unwrap();
    copy("river", temp.path());
    let path = temp.path().join("tokenizer.json");
    let mut json = read(&path);
    json["added_tokens"][2]["id"] = json!(300);
    std::fs::write(&path, json.to_string()).unwrap();
    let merged = merge_paths(&[temp.path().to_owned()], None, &source(Source::Base)).unwrap();
    assert!(merged.warnings[0].contains("`<pad>` has the id 300"), "{:?}", merged.warnings);
    assert_eq!(merged.token(292), Some("<pad>"));
    // A token that only the configuration names is added by transformers.
    let path = temp.path().join("tokenizer_config.json");
    let mut json = read(&path);
    json["unk_token"] = json!("<unk>");
    std::fs::write(&path, json.to_string()).unwrap();
    let merged = merge_paths(&[temp.path().to_owned()], None, &source(Source::Base)).unwrap();
    assert_eq!(merged.token(293), Some("<unk>"));
}

#[test]
fn companions_follow_the_vocabulary() {
    let temp = tempfile::tempdir().unwrap();
    copy("river", temp.path());
    let write = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).unwrap();
    write("vocab.json", "{}");
    write("added_tokens.json", r#"{"<pad>": 292}"#);
    let decoder = r#"{"added_tokens_decoder": {"290": {"content": "<s>", "special": true}}}"#;
    write("tokenizer_config.json", decoder);
    let paths = [temp.path().to_owned(), folder("chat")];
    let merged = merge_paths(&paths, Some(0), &source(Source::Union)).unwrap();
    assert!(!merged.files.contains_key("vocab.json"));
    assert!(merged.warnings.iter().any(|text| text.contains("vocab.json is not carried over")));
    let parse = |name: &str| serde_json::from_slice::<Value>(&merged.files[name]).unwrap();
    assert_eq!(parse("added_tokens.json")["<|im_end|>"], 294);
    let decoder = &parse("tokenizer_config.json")["added_tokens_decoder"];
    assert_eq!(decoder.as_object().unwrap().len(), 6);
    assert_eq!(decoder["295"]["content"], "<extra>");
    assert_eq!(decoder["294"]["special"], true);
}

#[test]
fn vocabularies_are_compared() {
    let differ = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| folder(name)).collect();
        let inputs: Vec<Input<'_>> =
            paths.iter().map(|path| Input { path, config: None, rows: None }).collect();
        vocabularies_differ(&inputs).unwrap()
    };
    assert_eq!(differ(&["river", "short"]), None);
    let said = differ(&["river", "short", "chat"]).unwrap();
    assert!(said.contains("id 293 is no token in"), "{said}");
    assert!(
        said.contains("river (293 ids) and `<|im_start|>` in") && said.ends_with("chat (296 ids)")
    );
    let said = differ(&["river", "city"]).unwrap();
    assert!(said.starts_with("vocabularies differ: id 257 is"), "{said}");
}

#[test]
fn chat_templates() {
    let fixture = read(&fixtures().join("templates.json"));
    for (name, text) in BUILTIN_TEMPLATES {
        let rendered = &fixture["templates"][name];
        assert_eq!(rendered["text"], text, "make the fixtures again");
        // llama3 and exaone have stray lines in mergekit, alpaca no line before its response.
        let same = matches!(name, "chatml" | "mistral");
        assert_eq!(rendered["same_as_mergekit"], same);
        assert_eq!(ChatTemplate::parse(name).unwrap().resolve(&[]).unwrap().unwrap(), text);
    }
    let by_hand = [
        ("chatml", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"),
        (
            "llama3",
            "<s><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s> [INST] Hello [/INST]"),
        ("exaone", "[|system|][|endofturn|]\n[|user|]Hello\n[|assistant|]"),
        ("alpaca", "<s>### Instruction:\nHello\n\n### Response:\n"),
    ];
    for (name, text) in by_hand {
        assert_eq!(fixture["templates"][name]["rendered"][0], text);
    }
    let [river, city, chat] = ["river", "city", "chat"].map(folder);
    let auto = ChatTemplate::parse("auto").unwrap();
    let vote = |paths: &[&Path]| auto.resolve(paths).unwrap();
    assert_eq!(vote(&[&river, &city, &chat]).unwrap(), "city {{ x }}");
    assert_eq!(vote(&[&river, &city]).unwrap(), "river {{ x }}");
    assert_eq!(vote(&[&folder("short")]), None);
    let text = "{{ messages[0].content }}";
    assert_eq!(ChatTemplate::parse(text).unwrap(), ChatTemplate::Text(text.to_owned()));
    let said = message(ChatTemplate::parse("chatlm"));
    assert!(said.contains("did you mean `chatml`?"), "{said}");
    assert!(message(ChatTemplate::parse("nothing of that")).ends_with("or a Jinja text"));
    let missing = ChatTemplate::parse("chatml").unwrap().missing_tokens(|t| t == "<|im_end|>");
    assert!(missing.unwrap().ends_with("as plain text: <|im_start|>"));
}

#[test]
fn a_template_takes_the_place_of_all_others() {
    let temp = tempfile::tempdir().unwrap();
    copy("river", temp.path());
    std::fs::remove_file(temp.path().join("chat_template.jinja")).unwrap();
    let list = r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d{{ 1 }}"}]}"#;
    std::fs::write(temp.path().join("tokenizer_config.json"), list).unwrap();
    std::fs::write(temp.path().join("chat_template.json"), r#"{"chat_template": "old"}"#).unwrap();
    std::fs::create_dir(temp.path().join("additional_chat_templates")).unwrap();
    std::fs::write(temp.path().join("additional_chat_templates/tool.jinja"), "t").unwrap();
    let auto = ChatTemplate::Auto.resolve(&[temp.path()]).unwrap();
    assert_eq!(auto.as_deref(), Some("d{{ 1 }}"));
    let mut files = tokenizer_files(temp.path()).unwrap();
    assert!(files.contains_key("additional_chat_templates/tool.jinja"));
    set_chat_template(&mut files, "{{ new }}").unwrap();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let wanted =
        ["chat_template.jinja", "chat_template.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names, wanted);
    assert_eq!(files["chat_template.jinja"], b"{{ new }}");
    assert_eq!(files["tokenizer_config.json"], b"{}\n");
    assert!(String::from_utf8_lossy(&files["chat_template.json"]).contains("{{ new }}"));
}

#[test]
fn broken_files_are_errors() {
    let temp = tempfile::tempdir().unwrap();
    copy("words", temp.path());
    let path = temp.path().join("tokenizer.json");
    let whole = std::fs::read(&path).unwrap();
    let paths = [temp.path().to_owned(), folder("more_words")];
    let mut seed = 7u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    for name in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        let path = temp.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        for round in 0..400 {
            let mut broken = whole.clone();
            match round % 4 {
                0 => broken.truncate(random(whole.len())),
                1 => broken[random(whole.len())] = random(256) as u8,
                2 => {
                    let at = random(whole.len());
                    broken.drain(at..(at + 1 + random(40)).min(whole.len()));
                }
                // Numbers grow.
                _ => {
                    let digits: Vec<usize> =
                        (0..whole.len()).filter(|at| whole[*at].is_ascii_digit()).collect();
                    let at = digits[random(digits.len())];
                    broken.splice(at..at, b"99999".iter().copied().take(1 + random(5)));
                }
            }
            std::fs::write(&path, broken).unwrap();
            if let Ok(merged) = merge_paths(&paths, Some(0), &source(Source::Union)) {
                merged.row_maps(&[0, 1], Some(0)).unwrap();
            }
            let _ = ChatTemplate::Auto.resolve(&[temp.path()]);
        }
        std::fs::write(&path, whole).unwrap();
    }
    let mut json: Value = serde_json::from_slice(&whole).unwrap();
    json["model"]["vocab"]["[CLS]"] = json!(2);
    std::fs::write(&path, json.to_string()).unwrap();
    let said = message(merge_paths(&paths, Some(0), &source(Source::Union)));
    assert!(said.ends_with("tokens `[CLS]` and `[SEP]` both have the id 2"), "{said}");
    json["model"]["vocab"]["[CLS]"] = json!(4_000_000_000u32);
    std::fs::write(&path, json.to_string()).unwrap();
    let said = message(merge_paths(&paths, Some(0), &source(Source::Union)));
    assert!(said.contains("has the id 4000000000, expected less than 4194304"), "{said}");
    std::fs::write(&path, [b'"', 0xff, b'"']).unwrap();
    let said = message(merge_paths(&paths, Some(0), &source(Source::Union)));
    assert!(said.ends_with("byte 1 is not UTF-8, expected JSON"), "{said}");
    // The post-processor of words adds [SEP] = 2.
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(temp.path().join("config.json"), r#"{"vocab_size": 2}"#).unwrap();
    let said = message(merge_paths(&paths, Some(0), &source(Source::Base)));
    assert!(
        said.ends_with("the post-processor adds token 2, for which the model has no embedding")
    );
}
