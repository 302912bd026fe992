//! Adapters extracted from the difference of two checkpoints, against the full decomposition by torch and
//! mergekit's `mergekit-extract-lora`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adapter_support;

use std::collections::BTreeMap;
use std::path::Path;

use adapter_support::{deltas, fixture, largest_difference, read, write_values};
use posttrain_merge::adapter::{
    Adapter, Embeddings, ExtractOptions, Extracted, Others, RankRule, extract, fold,
};
use posttrain_merge::{Checkpoint, Source};

fn base() -> Checkpoint {
    Checkpoint::open(fixture("bases/llama")).unwrap()
}

fn tuned() -> Checkpoint {
    Checkpoint::open(fixture("tuned")).unwrap()
}

fn extracted(
    base: &Checkpoint,
    tuned: &Checkpoint,
    options: &ExtractOptions,
) -> (Adapter, Extracted) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let report = extract(base, tuned, options, &path, &|_, _| {}).unwrap();
    (Adapter::open(&path).unwrap(), report)
}

fn rank_4() -> ExtractOptions {
    ExtractOptions { max_rank: 4, ..ExtractOptions::default() }
}

/// `||D - B A||`, and `||D||`, from all numbers.
fn norms(delta: &[f32], name: &str) -> (f64, f64) {
    let of = |checkpoint: &Checkpoint| read(&Source::Stored(checkpoint.tensors()[name].clone()));
    let (before, after) = (of(&base()), of(&tuned()));
    let mut sums = [0.0f64; 2];
    for ((before, after), delta) in before.iter().zip(&after).zip(delta) {
        let difference = f64::from(*after) - f64::from(*before);
        sums[0] += (difference - f64::from(*delta)).powi(2);
        sums[1] += difference.powi(2);
    }
    (sums[0].sqrt(), sums[1].sqrt())
}

/// Best: what the full decomposition misses, for spectra that fall and for one that does not.
#[test]
fn close_to_the_best_approximation() {
    let best = Checkpoint::open(fixture("best_of_rank_4.safetensors")).unwrap();
    for embeddings in [Embeddings::Whole, Embeddings::LowRank] {
        let options = ExtractOptions { embeddings, ..rank_4() };
        let (adapter, report) = extracted(&base(), &tuned(), &options);
        let mut compared = 0;
        for (name, delta) in deltas(&adapter) {
            let values = read(&Source::Stored(best.tensors()[&name].clone()));
            let (missed, whole) = norms(&delta, &name);
            let (least, all) = (f64::from(values[1]), f64::from(values[0]));
            assert!((whole / all - 1.0).abs() < 1e-5, "{name}");
            assert!(missed < 1.01 * least + 1e-5 * all, "{name}: {missed} {least} of {all}");
            let told = report
                .modules
                .iter()
                .find(|module| format!("{}.weight", module.name) == name)
                .unwrap();
            assert!(
                (told.error - missed / whole).abs() < 1e-5,
                "{name}: {} {}",
                told.error,
                missed / whole
            );
            assert!((told.energy - 1.0 + told.error * told.error).abs() < 1e-12);
            assert_eq!(told.rank, 4);
            compared += 1;
        }
        assert_eq!(compared, report.modules.len());
        assert!(compared >= if embeddings == Embeddings::Whole { 9 } else { 11 }, "{compared}");
    }
}

/// What is whole, unchanged and missed adds up to all tensors; the adapter on the base is the tuned model
/// up to the reported errors.
#[test]
fn every_tensor_is_accounted_for() {
    let (base, tuned) = (base(), tuned());
    let (adapter, report) = extracted(&base, &tuned, &rank_4());
    let count =
        report.modules.len() + report.whole.len() + report.unchanged + report.uncovered.len();
    assert_eq!((count, report.uncovered.len()), (tuned.tensors().len(), 0), "{report:?}");
    assert!(
        report.whole.contains(&"model.norm.weight".to_owned()) && report.unchanged > 0,
        "{report:?}"
    );
    let folded = fold(&base, &adapter).unwrap();
    let (mut missed, mut all) = (0.0, 0.0);
    for (name, source) in &folded {
        let wanted = read(&Source::Stored(tuned.tensors()[name].clone()));
        let before = read(&Source::Stored(base.tensors()[name].clone()));
        for ((x, y), w) in read(source).iter().zip(&wanted).zip(&before) {
            missed += f64::from(x - y).powi(2);
            all += f64::from(y - w).powi(2);
        }
        if report.whole.contains(name) {
            assert_eq!(read(source), wanted, "{name}");
        }
    }
    assert!(
        ((missed / all).sqrt() - report.error).abs() < 1e-5,
        "{} {}",
        (missed / all).sqrt(),
        report.error
    );
}

#[test]
fn what_is_left_out_is_listed() {
    let options = ExtractOptions {
        include: vec!["self_attn".into(), "norm".into()],
        exclude: vec![r"layers\.1.*q_proj$".into()],
        others: Others::Leave,
        ..rank_4()
    };
    let (_, report) = extracted(&base(), &tuned(), &options);
    let reason = |name: &str| {
        let found = report.uncovered.iter().find(|(tensor, _)| tensor == name);
        found.unwrap_or_else(|| panic!("{name}: {report:?}")).1.clone()
    };
    assert!(reason("model.norm.weight").contains("no factors"));
    assert!(reason("model.layers.1.self_attn.q_proj.weight").contains("include"));
    assert!(reason("model.layers.0.mlp.up_proj.weight").contains("include"));
    assert!(reason("model.embed_tokens.weight").contains("include"));
    assert!(report.modules.iter().all(|module| module.name.contains("self_attn")));
    assert!(report.error > 0.5, "what is left out is all error: {}", report.error);
}

/// A product of rank 3 comes back, as large as a tile does not hold, in f32; and to bf16's rounding in bf16.
#[test]
fn low_rank_comes_back() {
    let (m, n, r) = (130, 1100, 3);
    let number = |i: usize, seed: f32| ((i * i % 1013) as f32 * 0.7 + seed).sin();
    let a: Vec<f32> = (0..r * n).map(|i| number(i, 0.3)).collect();
    let b: Vec<f32> = (0..m * r).map(|i| number(i, 0.1)).collect();
    let before: Vec<f32> = (0..m * n).map(|i| number(i, 0.5)).collect();
    let delta: Vec<f32> =
        (0..m * n).map(|i| (0..r).map(|k| b[i / n * r + k] * a[k * n + i % n]).sum()).collect();
    let after: Vec<f32> = before.iter().zip(&delta).map(|(w, d)| w + d).collect();
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, values: Vec<f32>| {
        let path = folder.path().join(name);
        write_values(&path, &[("proj.weight", &[m, n], values)]);
        Checkpoint::open(path).unwrap()
    };
    let (before, after) = (open("a.safetensors", before), open("b.safetensors", after));
    for (dtype, limit) in [(safetensors::Dtype::F32, 1e-5), (safetensors::Dtype::BF16, 0.02)] {
        let options = ExtractOptions { max_rank: r, dtype, ..ExtractOptions::default() };
        let (adapter, report) = extracted(&before, &after, &options);
        let found = &deltas(&adapter)["proj.weight"];
        let scale = delta.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!(
            largest_difference(found, &delta) < limit * scale,
            "{}",
            largest_difference(found, &delta)
        );
        assert!(report.error < f64::from(limit), "{}", report.error);
    }
    let rule = |rank| ExtractOptions { max_rank: 20, rank, ..ExtractOptions::default() };
    for rank in [RankRule::Energy(1e-6), RankRule::Above(1.0)] {
        assert_eq!(extracted(&before, &after, &rule(rank)).1.modules[0].rank, r);
    }
}

/// Enough power iterations that the subspace is that of the full decomposition.
#[test]
fn equals_mergekit() {
    let wanted = Checkpoint::open(fixture("mergekit_rank_4.safetensors")).unwrap();
    let options = ExtractOptions { power_iterations: 30, oversampling: 20, ..rank_4() };
    let (adapter, _) = extracted(&base(), &tuned(), &options);
    let found = deltas(&adapter);
    for (name, values) in &found {
        let wanted = read(&Source::Stored(wanted.tensors()[name].clone()));
        assert!(
            largest_difference(values, &wanted) < 1e-5,
            "{name}: {}",
            largest_difference(values, &wanted)
        );
    }
    // Mergekit has modules of zeros for the weights that are the same.
    for (name, tensor) in wanted.tensors() {
        let zeros = read(&Source::Stored(tensor.clone())).iter().all(|x| x.abs() < 1e-6);
        assert_eq!(zeros, !found.contains_key(name), "{name}");
    }
}

#[test]
fn the_scale_is_where_it_should_be() {
    let with = |distribute_scale| {
        let options = ExtractOptions { distribute_scale, ..rank_4() };
        let (adapter, _) = extracted(&base(), &tuned(), &options);
        let (a, b) = adapter.modules()["model.layers.0.self_attn.q_proj"].delta.factors();
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        (norm(&a), norm(&b))
    };
    // The singular values of this difference are 1, 1/2, 1/3, ..: those of the four columns of B, or their roots.
    let ((a, b), (c, d)) = (with(true), with(false));
    for (found, wanted) in [(a, 25.0 / 12.0), (b, 25.0 / 12.0), (c, 205.0 / 144.0), (d, 4.0)] {
        assert!((found - wanted).abs() < 1e-3 * wanted, "{found} {wanted}");
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_same_bytes_for_any_threads() {
    let folder = tempfile::tempdir().unwrap();
    let with = |threads: usize| {
        let path = folder.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| extract(&base(), &tuned(), &rank_4(), &path, &|_, _| {})).unwrap();
        files(&path)
    };
    let one = with(1);
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    assert!(one == with(2) && one == with(5));
}

/// A tuned model with four more tokens, and what the names of a configuration stand for.
#[test]
fn a_larger_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, tokens: usize| {
        let path = folder.path().join(name);
        let numbers = |count: usize| {
            (0..count).map(|i| (i as f32 + tokens as f32).sin()).collect::<Vec<f32>>()
        };
        write_values(
            &path,
            &[
                ("model.embed_tokens.weight", &[tokens, 3], numbers(tokens * 3)),
                ("lm_head.weight", &[tokens, 3], numbers(tokens * 3)),
                ("model.proj.weight", &[5, 3], numbers(15)),
                ("model.proj.bias", &[5], numbers(5)),
                ("model.norm.weight", &[3], numbers(3)),
                ("model.norm.bias", &[3], vec![0.5; 3]),
            ],
        );
        Checkpoint::open(path).unwrap()
    };
    let (base, tuned) = (write("a.safetensors", 8), write("b.safetensors", 12));
    let low = ExtractOptions { embeddings: Embeddings::LowRank, ..rank_4() };
    let error =
        extract(&base, &tuned, &low, folder.path().join("x"), &|_, _| {}).unwrap_err().to_string();
    assert!(
        error.contains("2 problems") && error.contains("is [8, 3] in the base and [12, 3]"),
        "{error}"
    );
    let (adapter, report) = extracted(&base, &tuned, &rank_4());
    assert_eq!(
        report.whole,
        [
            "lm_head.weight",
            "model.embed_tokens.weight",
            "model.norm.bias",
            "model.norm.weight",
            "model.proj.bias"
        ]
    );
    assert_eq!(adapter.whole()["lm_head.weight"].shape(), [12, 3]);
    assert_eq!(adapter.config().modules_to_save, ["embed_tokens", "lm_head", "norm"]);
    assert!(adapter.config().trains_bias);
    let error = fold(&base, &adapter).unwrap_err().to_string();
    assert!(
        error.contains("`lm_head.weight` is [12, 3] in the adapter and [8, 3] in the base"),
        "{error}"
    );
}

/// PEFT wants the shared matrix under both names (`ensure_weight_tying`); the base has it under one.
#[test]
fn a_head_that_is_the_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, by: f32| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(
            path.join("config.json"),
            r#"{"tie_word_embeddings": true, "vocab_size": 8}"#,
        )
        .unwrap();
        let numbers =
            |count: usize| (0..count).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
        write_values(
            &path.join("model.safetensors"),
            &[
                ("model.embed_tokens.weight", &[8, 3], numbers(24)),
                ("model.proj.weight", &[5, 3], numbers(15)),
            ],
        );
        Checkpoint::open(path).unwrap()
    };
    let (base, tuned) = (write("a", 0.5), write("b", 0.7));
    let (adapter, report) = extracted(&base, &tuned, &rank_4());
    assert_eq!(report.whole, ["model.embed_tokens.weight"]);
    assert!(adapter.whole().keys().eq(["lm_head.weight", "model.embed_tokens.weight"]));
    for (name, source) in fold(&base, &adapter).unwrap() {
        let wanted = read(&Source::Stored(tuned.tensors()[&name].clone()));
        assert!(largest_difference(&read(&source), &wanted) < 1e-6, "{name}");
    }
    let low = ExtractOptions { embeddings: Embeddings::LowRank, ..rank_4() };
    let error = extract(&base, &tuned, &low, folder.path().join("x"), &|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("is the head as well"), "{error}");
}

#[test]
fn what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = |base: &Checkpoint, tuned: &Checkpoint, options: &ExtractOptions| {
        let error = extract(base, tuned, options, folder.path().join("x"), &|_, _| {}).unwrap_err();
        error.to_string()
    };
    let (base, tuned) = (base(), tuned());
    assert!(error(&base, &base, &rank_4()).contains("nothing to extract: 21 tensors are those of"));
    for (options, part) in [
        (ExtractOptions { max_rank: 0, ..rank_4() }, "`max_rank` is 0"),
        (ExtractOptions { rank: RankRule::Energy(1.5), ..rank_4() }, "`rank.energy` is 1.5"),
        (ExtractOptions { rank: RankRule::Above(-1.0), ..rank_4() }, "`rank.above` is -1"),
        (ExtractOptions { dtype: safetensors::Dtype::I8, ..rank_4() }, "`dtype` is i8"),
        (ExtractOptions { include: vec!["(".into()], ..rank_4() }, "`include` is `(`"),
    ] {
        let error = error(&base, &tuned, &options);
        assert!(error.contains(part), "{error}");
    }
    let open = |name: &str, shape: &[usize], last: f32| {
        let path = folder.path().join(name);
        let mut values = vec![0.25; shape.iter().product()];
        *values.last_mut().unwrap() = last;
        write_values(&path, &[("proj.weight", shape, values)]);
        Checkpoint::open(path).unwrap()
    };
    let one = open("a.safetensors", &[2, 3], 0.0);
    assert!(
        error(&one, &open("b.safetensors", &[2, 3], f32::NAN), &rank_4())
            .contains("`proj.weight`: the difference is not finite")
    );
    assert!(
        error(&one, &open("c.safetensors", &[3, 3], 0.0), &rank_4())
            .contains("[2, 3] in the base and [3, 3]")
    );
}
