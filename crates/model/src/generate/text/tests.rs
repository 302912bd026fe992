//! The pieces of a stream against the decoding of the whole, for every kind of decoder.

use serde_json::{Value, json};

use super::*;

/// Numbers of a linear congruential generator, below `n`.
fn numbers(mut state: u64) -> impl FnMut(usize) -> usize {
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n
    }
}

/// A tokenizer of these tokens, the first three of them special.
fn tokenizer(tokens: &[String], decoder: Value) -> Tokenizer {
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added = |id: usize| {
        json!({ "id": id, "content": tokens[id], "special": id < 3, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false })
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "added_tokens": (0..4).map(added).collect::<Vec<_>>(),
        "model": { "type": "BPE", "vocab": vocab, "merges": [], "unk_token": tokens[0] },
    });
    json.to_string().parse().unwrap()
}

fn strings<'s>(tokens: impl IntoIterator<Item = &'s str>) -> Vec<String> {
    tokens.into_iter().map(str::to_owned).collect()
}

/// Three special tokens and one that was added but is not special.
const ADDED: [&str; 4] = ["<unk>", "<s>", "</s>", "<tool call é>"];

/// A byte-level vocabulary: every byte, some words and pieces of characters.
fn byte_level_tokens() -> Vec<String> {
    let alphabet = (0..0x144).filter_map(char::from_u32).filter(|&c| byte_of(c).is_some());
    let mut alphabet: Vec<(u8, char)> = alphabet.map(|c| (byte_of(c).unwrap(), c)).collect();
    alphabet.sort_unstable();
    assert_eq!(alphabet.len(), 256);
    let spell = |bytes: &[u8]| bytes.iter().map(|&b| alphabet[b as usize].1).collect::<String>();
    let mut tokens = strings(ADDED);
    tokens.extend(alphabet.iter().map(|(_, c)| c.to_string()));
    let words: [&[u8]; 8] = [
        b" the",
        b"  ",
        b"ab",
        "é".as_bytes(),
        "\u{FFFD}".as_bytes(),
        b"\xF0\x9F",
        b"\x98\x80 ",
        b"\x80\x80",
    ];
    tokens.extend(words.map(spell));
    tokens
}

/// A vocabulary like `SentencePiece`'s, with byte tokens.
fn metaspace_tokens() -> Vec<String> {
    let mut tokens = strings(ADDED);
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(strings(["▁", "▁▁", "▁the", "a", "b", ".", "é▁", "\u{FFFD}", "▁</w>", "▁▁▁x"]));
    tokens
}

fn replace() -> Value {
    json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " })
}

fn sequence(decoders: &[Value]) -> Value {
    json!({ "type": "Sequence", "decoders": decoders })
}

/// Every kind of decoder with its vocabulary.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false,
                             "trim_offsets": true, "use_regex": true });
    let metaspace = |scheme| json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true });
    let bytes = json!({ "type": "ByteFallback" });
    let fuse = json!({ "type": "Fuse" });
    let strip = |start| json!({ "type": "Strip", "content": " ", "start": start, "stop": 0 });
    let word_piece = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    let words = ["hello", "wor", "##ld", ".", "##.", "'", "n't", "##é", "do", "not", "\u{FFFD}"];
    let word_pieces: Vec<String> = strings(ADDED.into_iter().chain(words));
    let suffixed = ["he", "llo</w>", "wor", "ld</w>", "</w>", ".</w>"];
    let suffixed: Vec<String> = strings(ADDED.into_iter().chain(suffixed));
    let ctc = json!({ "type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|",
                      "cleanup": true });
    let (by_bytes, by_meta) = (byte_level_tokens(), metaspace_tokens());
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/chat_templates/tokenizer/tokenizer.json"
    );
    vec![
        ("fixture", Tokenizer::from_file(fixture).unwrap()),
        ("byte-level", tokenizer(&by_bytes, byte_level.clone())),
        ("byte-level, fused", tokenizer(&by_bytes, sequence(&[byte_level.clone(), fuse.clone()]))),
        ("stripped byte-level", tokenizer(&by_bytes, sequence(&[byte_level, strip(1)]))),
        (
            "llama",
            tokenizer(&by_meta, sequence(&[replace(), bytes.clone(), fuse.clone(), strip(1)])),
        ),
        (
            "strip 2",
            tokenizer(&by_meta, sequence(&[replace(), bytes.clone(), fuse.clone(), strip(2)])),
        ),
        ("gemma", tokenizer(&by_meta, sequence(&[replace(), bytes.clone(), fuse.clone()]))),
        ("metaspace", tokenizer(&by_meta, metaspace("always"))),
        ("bytes, metaspace", tokenizer(&by_meta, sequence(&[bytes, metaspace("first")]))),
        ("metaspace, never", tokenizer(&by_meta, metaspace("never"))),
        ("replace last", tokenizer(&by_meta, sequence(&[fuse, replace()]))),
        ("word pieces", tokenizer(&word_pieces, word_piece)),
        ("suffixes", tokenizer(&suffixed, json!({ "type": "BPEDecoder", "suffix": "</w>" }))),
        ("none", tokenizer(&word_pieces, Value::Null)),
        ("ctc", tokenizer(&word_pieces, ctc)),
    ]
}

/// The whole answer decoded at once.
fn whole(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    // `BPEDecoder` panics when nothing is left to decode.
    let visible = ids.iter().copied().filter(|&id| {
        let token = tokenizer.id_to_token(id);
        token.is_some_and(|token| !tokenizer.get_added_vocabulary().is_special_token(&token))
    });
    if visible.count() == 0 { String::new() } else { tokenizer.decode(ids, true).unwrap() }
}

fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = TextStream::new(tokenizer);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn random_tokens_stream_to_the_decoding_of_the_whole() {
    for (name, tokenizer) in tokenizers() {
        let mut below = numbers(7);
        let size = tokenizer.get_vocab_size(true);
        for round in 0..3_000 {
            let length = below(24);
            // Few different tokens make runs; the last ids are outside the vocabulary.
            let (first, range) = match round % 3 {
                0 => (0, size + 3),
                1 => (size.saturating_sub(12), 12),
                _ => (below(size), 4),
            };
            let mut ids: Vec<u32> = (0..length).map(|_| (first + below(range)) as u32).collect();
            if round % 2 == 0 {
                ids.iter_mut().step_by(5).for_each(|id| *id = below(6) as u32);
            }
            let pieces = stream(&tokenizer, &ids);
            assert_eq!(pieces.concat(), whole(&tokenizer, &ids), "{name} {ids:?} {pieces:?}");
        }
    }
}

#[test]
fn encoded_texts_come_back() {
    let letters: Vec<char> = "ab .,é漢字😀👩\u{200D}🚀\u{FFFD}\n  the".chars().collect();
    let mut below = numbers(3);
    for (name, tokenizer) in tokenizers().into_iter().take(2) {
        for _ in 0..2_000 {
            let length = below(30);
            let text: String = (0..length).map(|_| letters[below(letters.len())]).collect();
            // The tokenizer of the test has no pre-tokenizer that spells bytes.
            let ids: Vec<u32> = if name == "fixture" {
                tokenizer.encode(text.as_str(), false).unwrap().get_ids().to_vec()
            } else {
                text.bytes().map(|byte| u32::from(byte) + 4).collect()
            };
            let pieces = stream(&tokenizer, &ids);
            assert_eq!(pieces.concat(), text);
            // Nothing waits without need, and no piece holds a broken character.
            assert_eq!(pieces.last().map(String::as_str), Some(""));
            let broken: usize = pieces.iter().map(|p| p.matches('\u{FFFD}').count()).sum();
            assert_eq!(broken, text.matches('\u{FFFD}').count());
        }
    }
}

fn named(name: &str) -> Tokenizer {
    tokenizers().into_iter().find(|(found, _)| *found == name).unwrap().1
}

fn ids(tokenizer: &Tokenizer, tokens: &[&str]) -> Vec<u32> {
    tokens.iter().map(|token| tokenizer.token_to_id(token).unwrap()).collect()
}

#[test]
fn pieces_are_final_as_early_as_they_can_be() {
    let tokenizer = named("llama");
    let ids = |tokens: &[&str]| ids(&tokenizer, tokens);
    let pieces = stream(&tokenizer, &ids(&["▁the", "<s>", "▁the", "a", "▁", "▁", "b", "</s>"]));
    assert_eq!(pieces, ["the", "", " the", "a", " ", " ", "b", "", ""]);
    let pieces = stream(&tokenizer, &ids(&["a", "<0xC3>", "<0xA9>", "b", "<0xC3>"]));
    assert_eq!(pieces, ["a", "", "", "éb", "", "\u{FFFD}"]);
    // A run that begins as valid UTF-8 and is not: `DecodeStream` fails here.
    let pieces = stream(&tokenizer, &ids(&["a", "<0x41>", "<0xC3>", "b"]));
    assert_eq!(pieces, ["a", "", "", "\u{FFFD}\u{FFFD}b", ""]);

    let tokenizer = named("byte-level");
    let bytes = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b) + 4).collect::<Vec<_>>();
    let pieces = stream(&tokenizer, &bytes(b"\xF0\x9F\x98\x80\xF0\x9Fx\xFF\xE2\x82"));
    assert_eq!(pieces, ["", "", "", "😀", "", "", "\u{FFFD}x", "\u{FFFD}", "", "", "\u{FFFD}"]);
}

#[test]
fn decode_stream_still_has_the_defects_that_keep_it_out() {
    let tokenizer = named("llama");
    let ids = ids(&tokenizer, &["a", "<0x41>", "<0xC3>", "b"]);
    let mut stream = tokenizer.decode_stream(true);
    assert!(ids.iter().any(|&id| stream.step(id).is_err()));
}

#[test]
fn the_window_stays_short() {
    for (name, tokens) in [
        ("llama", vec!["▁"]),
        ("metaspace", vec!["▁"]),
        ("llama", vec!["▁the", "a", "<s>"]),
        ("suffixes", vec!["</w>"]),
        ("word pieces", vec!["\u{FFFD}", "##ld"]),
    ] {
        let tokenizer = named(name);
        let ids = ids(&tokenizer, &tokens);
        let mut stream = TextStream::new(&tokenizer);
        for &id in ids.iter().cycle().take(200) {
            stream.push(id).unwrap();
            let State::Window(window) = &stream.state else { panic!("{name} has a window") };
            assert!(window.ids.len() <= 4, "{name} {tokens:?}: {:?}", window.ids);
        }
    }
}
