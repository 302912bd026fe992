//! What a merged tokenizer encodes, tells and changes.

use std::path::PathBuf;

use posttrain_merge::tokenizer::{
    Input, Row, Source, TokenSetting, TokenizerSettings, tokenizer_files, vocabularies_differ,
};
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::{copy, folder, merge, merge_paths, object, read, source};

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
        assert!(!maps.is_identity(0, 304), "rows of padding are left out, as by mergekit");
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
    let mut generation = object(json!({
        "eos_token_id": 288, "suppress_tokens": [288, 286], "bad_words_ids": [[286], [286, 288]]
    }));
    let (changes, _) = merged.update_ids(0, &mut generation);
    let wanted = json!({
        "eos_token_id": 291, "suppress_tokens": [291], "bad_words_ids": [[291]]
    });
    assert_eq!(Value::Object(generation), wanted);
    assert_eq!(changes.len(), 3);

    // A union keeps the ids of the base.
    let merged = merge(&["river", "city"], Some(0), &source(Source::Union)).unwrap();
    let mut config = object(read(&folder("river").join("config.json")));
    let (changes, warnings) = merged.update_config(0, &mut config);
    assert_eq!((changes.len(), warnings.len(), &changes[0].to), (1, 0, &json!(317)));
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

/// Letters for a number; every prefix of a token is one, and the last letter is merged last.
fn word(mut number: usize, first: u8) -> String {
    let mut letters = vec![first];
    while number > 0 {
        letters.push(b'a' + (number % 16) as u8);
        number /= 16;
    }
    String::from_utf8(letters).unwrap()
}

#[test]
fn a_quarter_of_a_million_tokens() {
    let temp = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (model, own) in [b'B', b'C', b'D', b'E'].into_iter().enumerate() {
        let path = temp.path().join(model.to_string());
        std::fs::create_dir(&path).unwrap();
        let mut vocab: Map<String, Value> = Map::new();
        let mut merges = Vec::new();
        let letters = (b'a'..b'q').chain([b'A', own]).map(|letter| char::from(letter).to_string());
        let words = (1..250_000).map(|n| word(n, b'A')).chain((1..12_000).map(|n| word(n, own)));
        for token in letters.chain(words) {
            let id = vocab.len();
            if token.len() > 1 {
                let (a, b) = token.split_at(token.len() - 1);
                merges.push(json!([a, b]));
            }
            vocab.entry(token).or_insert(id.into());
        }
        merges.retain(|pair| vocab.contains_key(pair[0].as_str().unwrap()));
        let model = json!({"type": "BPE", "vocab": vocab, "merges": merges});
        let json = json!({"version": "1.0", "added_tokens": [], "model": model});
        std::fs::write(path.join("tokenizer.json"), serde_json::to_vec_pretty(&json).unwrap())
            .unwrap();
        paths.push(path);
    }
    let merged = merge_paths(&paths, Some(0), &source(Source::Union)).unwrap();
    let maps = merged.row_maps(&[0, 1, 2, 3], Some(0)).unwrap();
    // The common tokens, and those that each model has alone.
    assert!(maps.len() > 290_000, "{} rows", maps.len());
}
