//! Adapters folded into a base, against PEFT's `merge_and_unload` (see `tests/fixtures/merge/adapters.md`).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adapter_support;

use adapter_support::{fixture, largest_difference, read, write_adapter};
use posttrain_merge::adapter::{Adapter, Folded, LowRank, fold};
use posttrain_merge::{Checkpoint, Source};
use serde_json::json;

/// Folder and base.
const CASES: &[(&str, &str)] = &[
    ("plain_lora", "llama"),
    ("patterns", "llama"),
    ("dora", "llama"),
    ("biases", "qwen2"),
    ("biases_of_modules", "qwen2"),
    ("bias_of_b", "qwen2"),
    ("conv1d", "gpt2"),
    ("conv1d_dora", "gpt2"),
    ("convolutions", "plain"),
    ("convolutions_dora", "plain"),
];

#[test]
fn equals_peft() {
    for (case, base) in CASES {
        let base = Checkpoint::open(fixture("bases").join(base)).unwrap();
        let adapter = Adapter::open(fixture(case)).unwrap();
        let folded = fold(&base, &adapter).unwrap_or_else(|error| panic!("{case}: {error}"));
        let merged = Checkpoint::open(fixture(case).join("merged.safetensors")).unwrap();
        assert!(folded.keys().eq(base.tensors().keys()), "{case}");
        assert!(merged.tensors().len() >= 2, "{case}");
        for (name, source) in &folded {
            let wanted = merged.tensors().get(name).unwrap_or(&base.tensors()[name]);
            assert_eq!(source.shape(), wanted.shape(), "{case} {name}");
            let error = largest_difference(&read(source), &read(&Source::Stored(wanted.clone())));
            assert!(error < 1e-6, "{case} {name}: {error}");
        }
    }
}

/// Any range has the bits that it has in the whole.
#[test]
fn ranges_have_the_same_bits() {
    for (case, base) in [("dora", "llama"), ("conv1d_dora", "gpt2"), ("conv1d", "gpt2")] {
        let base = Checkpoint::open(fixture("bases").join(base)).unwrap();
        for source in fold(&base, &Adapter::open(fixture(case)).unwrap()).unwrap().values() {
            let whole = read(source);
            for (start, length) in [(0, 1), (3, 50), (17, 24), (whole.len() / 3, whole.len() / 2)] {
                let length = length.min(whole.len() - start.min(whole.len()));
                let mut part = vec![0.0; length];
                source.read(start, &mut part);
                assert_eq!(part, whole[start..start + length]);
            }
        }
    }
}

/// `[[1, 2], [3, 4]] + 2 [[1], [10]] [[1, -1]]`, its transpose, and with the magnitudes 5 and 13.
#[test]
fn by_hand() {
    let delta = LowRank {
        a: Source::memory(vec![1.0, -1.0], &[1, 2]),
        b: Source::memory(vec![1.0, 10.0], &[2, 1]),
        scale: 2.0,
        embedding: false,
    };
    let base = Source::memory(vec![1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let with = |transposed, magnitude: Option<Source>| {
        let folded = Folded::new(base.clone(), delta.clone(), transposed, magnitude);
        read(&Source::Folded(folded.into()))
    };
    assert_eq!(with(false, None), [3.0, 0.0, 23.0, -16.0]);
    assert_eq!(with(true, None), [3.0, 22.0, 1.0, -16.0]);
    let magnitude = Source::memory(vec![5.0, 13.0], &[2]);
    let norm = (23f32 * 23.0 + 256.0).sqrt();
    let wanted = [5.0, 0.0, 23.0 * 13.0 / norm, -16.0 * 13.0 / norm];
    assert!(largest_difference(&with(false, Some(magnitude)), &wanted) < 1e-5);
}

#[test]
fn what_does_not_fit_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let llama = Checkpoint::open(fixture("bases/llama")).unwrap();
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "modules_to_save": ["norm"]});
    write_adapter(
        folder.path(),
        &config,
        &[
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", &[2, 7]),
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", &[24, 2]),
            ("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", &[2, 24]),
            ("base_model.model.model.layers.9.self_attn.q_proj.lora_B.weight", &[24, 2]),
            ("base_model.model.model.norm.weight", &[23]),
        ],
    );
    let error = fold(&llama, &Adapter::open(folder.path()).unwrap()).unwrap_err().to_string();
    for part in [
        "3 problems",
        "`model.layers.0.self_attn.q_proj.weight` is [24, 24] in the base, expected 24 x 7",
        "`model.layers.9.self_attn.q_proj.weight` is not in the base",
        "`model.norm.weight` is [23] in the adapter and [24] in the base",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

/// PEFT writes `fan_in_fan_out` of the last module that it made: shapes decide, and where they cannot, nothing
/// is guessed.
#[test]
fn square_weights_follow_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.safetensors");
    let shapes: &[(&str, &[usize])] =
        &[("a.weight", &[2, 4]), ("b.weight", &[3, 3]), ("c.weight", &[5, 2])];
    adapter_support::write_tensors(&base, shapes);
    let base = Checkpoint::open(base).unwrap();
    let config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "fan_in_fan_out": false});
    let pair = |name: &str, m: usize, n: usize| {
        [
            (format!("base_model.model.{name}.lora_A.weight"), vec![1, n]),
            (format!("base_model.model.{name}.lora_B.weight"), vec![m, 1]),
        ]
    };
    let fold_with = |pairs: &[[(String, Vec<usize>); 2]]| {
        let adapter = folder.path().join("adapter");
        let tensors: Vec<(&str, &[usize])> =
            pairs.iter().flatten().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        write_adapter(&adapter, &config, &tensors);
        fold(&base, &Adapter::open(&adapter).unwrap())
    };
    let straight = read(&fold_with(&[pair("b", 3, 3)]).unwrap()["b.weight"]);
    // `a` is stored as (in, out): so is `b`, whatever the setting says.
    let turned = read(&fold_with(&[pair("b", 3, 3), pair("a", 4, 2)]).unwrap()["b.weight"]);
    let base = read(&Source::Stored(base.tensors()["b.weight"].clone()));
    for i in 0..3 {
        for j in 0..3 {
            let (one, other) =
                (straight[i * 3 + j] - base[i * 3 + j], turned[j * 3 + i] - base[j * 3 + i]);
            assert!((one - other).abs() < 1e-6);
        }
    }
    assert_ne!(straight, turned);
    let error = fold_with(&[pair("a", 4, 2), pair("b", 3, 3), pair("c", 5, 2)]).unwrap_err();
    assert!(error.to_string().contains("`b.weight` is square"), "{error}");
}

#[test]
fn a_head_that_is_the_embeddings_has_no_adapter_of_its_own() {
    let fixtures = fixture("../../");
    let base = Checkpoint::open(fixtures.join("models/llama3"));
    let base = base.unwrap_or_else(|error| panic!("{error}"));
    let adapter = Adapter::open(fixtures.join("adapters/tied_head")).unwrap();
    let error = fold(&base, &adapter).unwrap_err().to_string();
    assert!(
        error.contains("`lm_head.weight` is not in the base")
            && error.contains("tie_word_embeddings"),
        "{error}"
    );
}
