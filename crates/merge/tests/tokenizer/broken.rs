//! Inputs and settings that are wrong, and vocabularies with gaps.

use posttrain_merge::tokenizer::{
    ChatTemplate, Row, Source, TokenRef, TokenSetting, TokenSource, TokenizerSettings,
};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::{copy, folder, merge, merge_paths, message, read, source};

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
        for round in 0..200 {
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
    assert!(said.contains("has the id 4000000000, expected less than 65662"), "{said}");
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
