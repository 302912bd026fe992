//! Mutated texts: an error or a configuration that comes back, never a panic, never a hang.

use std::time::{Duration, Instant};

use posttrain_merge::config::{MergeConfig, get, set};

use super::texts;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

const PIECES: &[&str] = &[
    ": ",
    "\n",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: *a",
    "'",
    "\"",
    "#",
    "|",
    ">",
    "!!str ",
    "null",
    "~",
    "1e999",
    ".nan",
    "-1",
    "99999999999999999999",
    "true",
    "---\n",
    "...\n",
    "  ",
    "\t",
    "%YAML 1.1\n",
    "? ",
    ",",
    "\u{0}",
    "ä",
    "\u{feff}",
    "+",
    "@",
    "value: ",
    "filter: ",
    "model: ",
    "\r\n",
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(20)).min(bytes.len());
    match random.below(7) {
        0 if at < bytes.len() => bytes[at] = random.next() as u8,
        1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.drain(at..end)),
        3 => bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes()).for_each(drop),
        4 => {
            let copy = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy).for_each(drop);
        }
        5 => {
            let from = random.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => bytes.truncate(at),
    }
}

#[test]
fn mutated_texts_neither_panic_nor_hang() {
    let texts: Vec<Vec<u8>> = texts().into_iter().map(|(_, text)| text.into_bytes()).collect();
    let mut random = Random(6);
    let (mut read, mut slowest) = (0, Duration::ZERO);
    for _ in 0..10_000 {
        let mut bytes = texts[random.below(texts.len())].clone();
        let other = &texts[random.below(texts.len())];
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut bytes, other);
        }
        let text = String::from_utf8_lossy(&bytes);
        let start = Instant::now();
        for config in MergeConfig::parse_all("fuzz", &text).unwrap_or_default() {
            read += 1;
            let again = MergeConfig::parse("fuzz", &config.to_yaml());
            assert_eq!(again.as_ref().ok(), Some(&config), "{text}\n{again:?}");
            let known = config.check_parameters("x", &[]);
            assert_eq!(known.is_ok(), config.parameter_blocks().is_empty(), "{text}");
        }
        slowest = slowest.max(start.elapsed());
    }
    assert!(read > 500, "only {read} of the mutated texts are configurations");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn mutated_key_paths_neither_panic_nor_hang() {
    let (_, text) = texts().into_iter().find(|(file, _)| file == "tokenizer.yaml").unwrap();
    let value = MergeConfig::parse("fuzz", &text).unwrap().to_value();
    let paths = [
        "models[1].parameters.weight",
        "tokenizer.tokens[\"a.b\"].source.model",
        "a[\"\\u00e4\"][0]",
    ];
    let mut random = Random(7);
    for _ in 0..20_000 {
        let mut bytes = paths[random.below(paths.len())].as_bytes().to_vec();
        let other = paths[random.below(paths.len())].as_bytes();
        for _ in 0..=random.below(3) {
            mutate(&mut random, &mut bytes, other);
        }
        let path = String::from_utf8_lossy(&bytes);
        let mut changed = value.clone();
        if set(&mut changed, &path, 5).is_ok() {
            assert_eq!(get(&changed, &path).unwrap(), 5, "{path}");
        }
    }
}
