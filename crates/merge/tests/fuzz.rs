//! Mutated files of all kinds: an error that says what is wrong or a merge, never a panic, a hang, or memory without
//! measure.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod allocator;
mod checkpoints;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use allocator::quiet_peak_of;
use checkpoints::{Random, fixtures, plan};
use posttrain_merge::{Error, Execution, execute_in_memory};

/// The allocator counts for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());
/// Bytes that no small checkpoint needs. (A plan says 32 MB for itself.)
const REASON: usize = 64_000_000;
/// Far more than a merge of small checkpoints takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

const PIECES: &[&str] = &[
    "0",
    "-1",
    "1",
    "2",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999",
    "1e999",
    "0.5",
    "null",
    "true",
    "[]",
    "{}",
    "[0,0]",
    "[[]]",
    "\"\"",
    "\"F32\"",
    "\"BF16\"",
    "\"F64\"",
    "\"I64\"",
    "\"F8_E4M3\"",
    "\"F4\"",
    "\"..\"",
    "\"model.norm.weight\"",
    "\"lm_head.weight\"",
    "\"fp8\"",
    "\"num_hidden_layers\":3,",
    "\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[0,1]},",
    "\"shape\":[0,18446744073709551615],",
    ",",
    ":",
    "{",
    "}",
    "]",
    "\"",
    "\\u0000",
    "\\ud800",
    "ä",
    "\u{0}",
];

/// A whole JSON value begins at each of these places and ends at the other.
fn value_at(text: &[u8], random: &mut Random) -> Option<(usize, usize)> {
    let starts: Vec<usize> =
        text.iter().enumerate().filter(|(_, b)| **b == b':').map(|(at, _)| at + 1).collect();
    let start = *starts.get(random.below(starts.len().max(1)))?;
    let mut parser =
        serde_json::Deserializer::from_slice(&text[start..]).into_iter::<serde_json::Value>();
    parser.next()?.ok()?;
    Some((start, start + parser.byte_offset()))
}

fn mutate(random: &mut Random, text: &mut Vec<u8>) {
    let at = random.below(text.len() + 1);
    let end = (at + random.below(24)).min(text.len());
    let piece = PIECES[random.below(PIECES.len())];
    match random.below(10) {
        0 if at < text.len() => text[at] = random.next() as u8,
        1 if at < text.len() => text[at] ^= 1 << random.below(8),
        2 => drop(text.drain(at..end)),
        3 => drop(text.splice(at..at, piece.bytes())),
        4 => {
            let copy = text[at..end].to_vec();
            let to = random.below(text.len() + 1);
            drop(text.splice(to..to, copy));
        }
        5 => text.truncate(at),
        _ => {
            if let Some((from, to)) = value_at(text, random) {
                drop(text.splice(from..to, piece.bytes()));
            }
        }
    }
}

/// A safetensors file whose header is mutated (with its length, usually), or its bytes anywhere.
fn mutate_safetensors(random: &mut Random, file: &mut Vec<u8>) {
    if random.below(4) == 0 {
        return mutate(random, file);
    }
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header = file[8..8 + length].to_vec();
    for _ in 0..=random.below(3) {
        mutate(random, &mut header);
    }
    let data = file.split_off(8 + length);
    file.truncate(8);
    if random.below(8) > 0 {
        file.copy_from_slice(&(header.len() as u64).to_le_bytes());
    }
    file.extend(header);
    file.extend(data);
}

fn copy(from: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    to.to_owned()
}

fn merged(text: &str) -> Result<(), Error> {
    let plan = plan(text)?;
    let _ = plan.to_string();
    execute_in_memory(&plan, &Execution { threads: Some(2), ..Execution::default() }).map(drop)
}

/// Mutates `file` in copies of `folders` and merges as `text` says, with `{0}` and so on in the places of the copies.
fn fuzz(count: usize, folders: &[&str], file: (usize, &str), texts: &[&str]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = tempfile::tempdir().unwrap();
    let copies: Vec<PathBuf> = folders
        .iter()
        .enumerate()
        .map(|(index, folder)| {
            copy(&fixtures().join(folder), &scratch.path().join(index.to_string()))
        })
        .collect();
    let texts: Vec<String> = texts
        .iter()
        .map(|text| {
            copies.iter().enumerate().fold((*text).to_owned(), |text, (index, path)| {
                text.replace(&format!("{{{index}}}"), &path.display().to_string())
            })
        })
        .collect();
    for text in &texts {
        merged(text).unwrap();
    }
    let path = copies[file.0].join(file.1);
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut fine) = (0, 0);
    for seed in 0..count as u64 {
        let mut random = Random(seed);
        let mut bytes = whole.clone();
        if file.1.ends_with("safetensors") {
            mutate_safetensors(&mut random, &mut bytes);
        } else {
            for _ in 0..=random.below(3) {
                mutate(&mut random, &mut bytes);
            }
        }
        // Another file each time: one that is mapped must not change.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let text = &texts[random.below(texts.len())];
        let begun = Instant::now();
        let run = || std::panic::catch_unwind(|| merged(text));
        let (result, peak) = quiet_peak_of(run);
        let keep = || {
            let kept = std::env::temp_dir().join(format!("mutated_{seed}_{}", file.1));
            std::fs::write(&kept, &bytes).unwrap();
            format!("{} of seed {seed}: kept as {}", file.1, kept.display())
        };
        assert!(begun.elapsed() < LONG, "a hang: {}", keep());
        assert!(peak < REASON, "{peak} bytes: {}", keep());
        let Ok(result) = result else { panic!("a panic: {}", keep()) };
        match result {
            Ok(()) => fine += 1,
            Err(error) => {
                let error = error.to_string();
                assert!(error.len() > 20, "{error}: {}", keep());
                refused += 1;
            }
        }
    }
    assert!(refused > count / 20 && fine > 0, "{refused} refused, {fine} fine");
}

const LINEAR: &str = "merge_method: linear\nmodels:\n- {model: '{0}', parameters: {weight: 1}}\n- {model: '{1}', parameters: {weight: 1}}\n";
const ARCEE: &str = "merge_method: arcee_fusion\nbase_model: '{0}'\nmodels:\n- model: '{1}'\n";
const DELLA: &str = "merge_method: della\nbase_model: '{0}'\nmodels:\n- {model: '{1}', parameters: {weight: 1, density: 0.5}}\n";
const STOCK: &str = "merge_method: nuslerp\nmodels:\n- {model: '{0}', parameters: {weight: 1}}\n- {model: '{1}', parameters: {weight: 1}}\nparameters: {nuslerp_flatten: false, nuslerp_row_wise: true}\n";
const ALONE_TEXT: &str = "merge_method: passthrough\nmodels:\n- model: '{0}'\n";
const SLICES: &str = "merge_method: passthrough\nslices:\n- sources:\n  - {model: '{0}', layer_range: [0, 2]}\n- sources:\n  - {model: '{1}', layer_range: [1, 4]}\n";

#[test]
fn safetensors() {
    fuzz(1500, &["base", "a"], (0, "model.safetensors"), &[LINEAR, ALONE_TEXT, DELLA, SLICES]);
}

#[test]
fn bare_files() {
    let two = |text: &str| {
        text.replace("{0}", "{0}/base.safetensors").replace("{1}", "{0}/a.safetensors")
    };
    let texts = [LINEAR, ALONE_TEXT, ARCEE, DELLA, STOCK].map(two);
    fuzz(1500, &["raw"], (0, "base.safetensors"), &texts.each_ref().map(String::as_str));
}

#[test]
fn shards_and_index() {
    fuzz(600, &["a_sharded", "a"], (0, "model.safetensors.index.json"), &[LINEAR, ALONE_TEXT]);
    fuzz(400, &["a_sharded", "a"], (0, "model-00002-of-00003.safetensors"), &[LINEAR, ALONE_TEXT]);
}

#[test]
fn settings() {
    fuzz(1000, &["base", "a"], (0, "config.json"), &[LINEAR, ALONE_TEXT, SLICES]);
    fuzz(300, &["vl_base", "vl_a"], (0, "config.json"), &[LINEAR, ALONE_TEXT]);
    fuzz(200, &["base", "a"], (0, "generation_config.json"), &[LINEAR, ALONE_TEXT]);
}

#[test]
fn adapters() {
    let text = "merge_method: passthrough\nmodels:\n- model: '{1}+{0}'\n";
    for adapter in ["lora_plain", "lora_rs", "lora_save"] {
        fuzz(300, &[adapter, "a"], (0, "adapter_config.json"), &[text]);
        fuzz(400, &[adapter, "a"], (0, "adapter_model.safetensors"), &[text]);
    }
}

#[test]
fn vocabularies() {
    let base = "base_model: '{0}'\ntokenizer_source: union\n";
    let model = "tokenizer:\n  source: '{1}'\n  tokens:\n    c: {source: '{0}', force: true}\n  pad_to_multiple_of: 16\n";
    let texts = [format!("{LINEAR}{base}"), format!("{LINEAR}{model}")];
    let texts = texts.each_ref().map(String::as_str);
    fuzz(700, &["tok_base", "tok_other"], (0, "tokenizer.json"), &texts);
    fuzz(200, &["tok_base", "tok_other"], (0, "tokenizer_config.json"), &texts);
}
