//! The sensitivity report: by hand, against numpy, and its laws.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use posttrain_merge::sensitivity::{Measures, Options, Sensitivity, measure};
use posttrain_merge::{Checkpoint, Error};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge")
}

fn model(name: &str) -> Checkpoint {
    Checkpoint::open(fixtures().join("models").join(name)).unwrap()
}

fn report(base: Option<&Checkpoint>, models: &[&Checkpoint]) -> Sensitivity {
    measure(base, models, &Options::default(), &|_| ()).unwrap()
}

/// A file of tensors that a test makes.
#[derive(Default)]
struct File(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl File {
    fn f32(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.insert(name.into(), (Dtype::F32, shape.to_vec(), bytes));
        self
    }

    fn bytes(mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Self {
        self.0.insert(name.into(), (dtype, shape.to_vec(), bytes.to_vec()));
        self
    }

    fn open(&self, folder: &Path, name: &str) -> Checkpoint {
        let path = folder.join(format!("{name}.safetensors"));
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        Checkpoint::open(path).unwrap()
    }
}

/// One vector.
fn vector(values: &[f32]) -> File {
    File::default().f32("w", &[values.len()], values)
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} {expected}");
}

/// `b = (3, 4, 0, 0)`, `d_1 = (0, 0, 3, -4)`, `d_2 = (0, 1, 1, 1)`.
#[test]
fn by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, values: [f32; 4]| vector(&values).open(folder.path(), name);
    let base = open("base", [3.0, 4.0, 0.0, 0.0]);
    let (x, y) = (open("x", [3.0, 4.0, 3.0, -4.0]), open("y", [3.0, 5.0, 1.0, 1.0]));
    let report = report(Some(&base), &[&x, &y]);
    let Measures { elements, models, pairs, together } = &report.overall;
    assert_eq!(*elements, 4);
    close(models[0].distance.unwrap(), 1.0);
    close(models[0].norm_ratio.unwrap(), 2f64.sqrt());
    close(models[0].cosine_to_base.unwrap(), 1.0 / 2f64.sqrt());
    close(models[0].unchanged.unwrap(), 0.5);
    close(models[0].mean_change.unwrap(), 7.0 / 4.0);
    close(models[0].largest_change.unwrap(), 4.0);
    // At least one element is kept.
    close(models[0].top_tenth.unwrap(), 4.0 / 7.0);
    close(models[1].distance.unwrap(), 3f64.sqrt() / 5.0);
    close(models[1].unchanged.unwrap(), 0.25);
    close(pairs[0].cosine.unwrap(), -1.0 / (5.0 * 3f64.sqrt()));
    close(pairs[0].distance.unwrap(), (30.0 / 1800f64.sqrt()).sqrt());
    // Both changed the last two; they agree on the first of these.
    let signs = together.as_ref().unwrap();
    assert_eq!(signs, &pairs[0].signs);
    close(signs.shared, 0.5);
    close(signs.conflict.unwrap(), 0.5);
    close(signs.chance.unwrap(), 0.5);
    close(signs.conflict_by_size.unwrap(), 5.0 / 9.0);
    close(signs.cancelled.unwrap(), 1.0 - 8.0 / 10.0);
}

#[test]
fn without_a_base_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let x = vector(&[3.0, 4.0]).open(folder.path(), "x");
    let y = vector(&[4.0, -3.0]).open(folder.path(), "y");
    let report = report(None, &[&x, &y]);
    let pair = &report.overall.pairs[0];
    close(pair.cosine.unwrap(), 0.0);
    close(pair.distance.unwrap(), 2f64.sqrt());
    close(pair.signs.conflict.unwrap(), 0.5);
    let model = &report.overall.models[0];
    close(model.norm, 5.0);
    assert_eq!((model.distance, model.unchanged, model.top_fifth), (None, None, None));
    assert_eq!((model.mean_change, model.stable_rank), (None, None));
}

/// diag(3, 4) has the norm 5 and the spectral norm 4.
#[test]
fn stable_rank_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |name: &str, values| File::default().f32("w", &[2, 3], values).open(folder.path(), name);
    let base = open("base", &[1.0; 6]);
    let tuned = open("tuned", &[4.0, 1.0, 1.0, 1.0, 5.0, 1.0]);
    let found = report(Some(&base), &[&tuned]).overall.models[0].stable_rank.unwrap();
    assert!((found - 25.0 / 16.0).abs() < 1e-5, "{found}");
    let options = Options { ranks: false, ..Options::default() };
    let without = measure(Some(&base), &[&tuned], &options, &|_| ()).unwrap();
    assert_eq!(without.overall.models[0].stable_rank, None);
}

/// A delta of rank 2 in a matrix that is larger than the sketch.
#[test]
fn stable_rank_of_a_large_matrix_of_low_rank() {
    let (rows, columns) = (90, 700);
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..rows * columns)
        .map(|k| {
            let (i, j) = ((k / columns) as f32, (k % columns) as f32);
            (i * 0.7).sin() * (j * 0.3).cos() + 0.5 * (i * 1.9).cos() * (j * 1.1).sin()
        })
        .collect();
    let open = |name: &str, values: &[f32]| {
        File::default().f32("w", &[rows, columns], values).open(folder.path(), name)
    };
    let base = open("base", &vec![0.0; rows * columns]);
    let tuned = open("tuned", &values);
    let found = report(Some(&base), &[&tuned]).overall.models[0].stable_rank.unwrap();
    // Nearly orthogonal parts of the sizes 1 and 1/2.
    assert!((1.2..1.3).contains(&found), "{found}");
}

/// Every number of `expected` is in `found`, to 1e-5.
fn same(found: &Value, expected: &Value, path: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            assert_eq!(found.len(), expected.len(), "{path}");
            for (key, expected) in expected {
                same(&found[key], expected, &format!("{path}.{key}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{path}");
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                same(found, expected, &format!("{path}[{index}]"));
            }
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let fine = (found - expected).abs() <= 1e-5 * expected.abs() + 1e-12;
            assert!(fine, "{path}: {found}, numpy has {expected}");
        }
        _ => assert_eq!(found, expected, "{path}"),
    }
}

fn compare(report: &Sensitivity, expected: &Value) {
    let json = |measures: &Measures| serde_json::to_value(measures).unwrap();
    same(&json(&report.overall), &expected["overall"], "overall");
    assert_eq!(report.layers.len(), expected["layers"].as_object().unwrap().len());
    for part in &report.layers {
        let layer = part.layer.unwrap().to_string();
        assert_eq!(part.tensors, 9);
        same(&json(&part.measures), &expected["layers"][&layer], &layer);
    }
    assert_eq!(report.kinds.len(), expected["kinds"].as_object().unwrap().len());
    for part in &report.kinds {
        let kind = part.kind.as_deref().unwrap();
        same(&json(&part.measures), &expected["kinds"][kind], kind);
    }
    assert_eq!(report.tensors.len(), expected["tensors"].as_object().unwrap().len());
    for tensor in &report.tensors {
        same(&json(&tensor.measures), &expected["tensors"][&tensor.name], &tensor.name);
    }
}

#[test]
fn numbers_are_those_of_numpy() {
    let text = std::fs::read_to_string(fixtures().join("sensitivity/measures.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let (base, a, b, c) = (model("base"), model("a"), model("b"), model("c"));
    compare(&report(Some(&base), &[&a, &b, &c]), &expected["with_base"]);
    compare(&report(None, &[&a, &b]), &expected["without_base"]);
}

/// Large enough for several blocks.
fn waves(by: f32, size: f32) -> Vec<f32> {
    (0..100_000).map(|k| (k as f32 * by).sin() * size).collect()
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, values: &[f32]| {
        let file = File::default().f32("h.0.w", &[250, 400], values);
        file.f32("h.1.b", &[100_000], values).open(folder.path(), name)
    };
    let base = open("base", &waves(0.1, 1.0));
    let (x, y) = (open("x", &waves(0.1001, 1.0)), open("y", &waves(0.3, 0.5)));
    let run = |threads| {
        let options = Options { threads: Some(threads), ..Options::default() };
        measure(Some(&base), &[&x, &y], &options, &|_| ()).unwrap()
    };
    let one = serde_json::to_string(&run(1)).unwrap();
    for threads in [2, 3, 7] {
        assert_eq!(serde_json::to_string(&run(threads)).unwrap(), one);
    }
}

#[test]
fn a_model_against_itself() {
    let (base, a) = (model("base"), model("a"));
    let report = report(Some(&base), &[&a, &a]);
    assert_ne!(report.models[0].name, "a", "whole paths where names are the same");
    for measures in report.tensors.iter().map(|t| &t.measures).chain([&report.overall]) {
        let pair = &measures.pairs[0];
        if measures.is_identical() {
            assert_eq!((pair.cosine, pair.signs.conflict), (None, None));
        } else {
            assert_eq!((pair.cosine, pair.signs.conflict), (Some(1.0), Some(0.0)));
            assert_eq!(pair.signs.cancelled, Some(0.0));
        }
        assert!(pair.distance.is_none_or(|distance| distance == 0.0));
    }
}

#[test]
fn the_order_of_the_models_changes_nothing_but_the_order() {
    let (base, a, b, c) = (model("base"), model("a"), model("b"), model("c"));
    let one = report(Some(&base), &[&a, &b, &c]).overall;
    let other = report(Some(&base), &[&c, &b, &a]).overall;
    assert_eq!(one.models[0], other.models[2]);
    for (p, q) in [(0, 2), (1, 1), (2, 0)] {
        assert_eq!(one.pairs[p].cosine, other.pairs[q].cosine);
        assert_eq!(one.pairs[p].signs, other.pairs[q].signs);
    }
    let (one, other) = (one.together.unwrap(), other.together.unwrap());
    assert_eq!((one.shared, one.conflict), (other.shared, other.conflict));
    close(one.cancelled.unwrap(), other.cancelled.unwrap());
}

/// Of a delta twice as long distances are twice as large; angles, signs and shares stay.
#[test]
fn scaled_deltas() {
    let folder = tempfile::tempdir().unwrap();
    let base = vector(&vec![0.0; 100_000]).open(folder.path(), "base");
    let open = |name: &str, values: &[f32]| vector(values).open(folder.path(), name);
    let y = open("y", &waves(0.3, 1.0));
    let run = |size: f32| {
        let x = open(&format!("x{size}"), &waves(0.1, size));
        report(Some(&base), &[&x, &y]).overall
    };
    let (one, two) = (run(1.0), run(2.0));
    close(two.models[0].delta.unwrap(), 2.0 * one.models[0].delta.unwrap());
    close(two.models[0].mean_change.unwrap(), 2.0 * one.models[0].mean_change.unwrap());
    assert_eq!(two.models[0].top_fifth, one.models[0].top_fifth);
    assert_eq!(two.models[0].unchanged, one.models[0].unchanged);
    close(two.pairs[0].cosine.unwrap(), one.pairs[0].cosine.unwrap());
    assert_eq!(two.pairs[0].signs.conflict, one.pairs[0].signs.conflict);
    // The norm of the base is zero: there is no ratio to it.
    assert_eq!((one.models[0].distance, one.models[0].cosine_to_base), (None, None));
}

#[test]
fn what_is_not_compared_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let file = || File::default().f32("w", &[2], &[1.0, 2.0]);
    let base = file()
        .f32("only_base", &[1], &[0.0])
        .f32("grown", &[1], &[0.0])
        .bytes("ids", Dtype::I64, &[1], &[1; 8])
        .bytes("other_ids", Dtype::I64, &[1], &[1; 8])
        .f32("empty", &[0], &[])
        .open(folder.path(), "base");
    let x = file()
        .f32("grown", &[2], &[0.0; 2])
        .bytes("ids", Dtype::I64, &[1], &[1; 8])
        .bytes("other_ids", Dtype::I64, &[1], &[2; 8])
        .f32("empty", &[0], &[])
        .f32("only_x", &[1], &[0.0])
        .open(folder.path(), "x");
    let report = report(Some(&base), &[&x]);
    let left: Vec<(&str, &str)> =
        report.left_out.iter().map(|left| (left.name.as_str(), left.reason.as_str())).collect();
    let ids = "I64 in the base, expected f32, f16, bf16 or fp8;";
    let (same, differ) = (format!("{ids} the same in all"), format!("{ids} not the same in all"));
    let expected = [
        ("empty", "has no elements"),
        ("grown", "shapes differ: [1] in the base, [2] in x.safetensors"),
        ("ids", &same),
        ("only_base", "missing in x.safetensors"),
        ("only_x", "missing in the base"),
        ("other_ids", &differ),
    ];
    assert_eq!(left, expected);
    assert_eq!(report.tensors.len(), 1);
    assert!(report.suggestions[0].check && report.suggestions[0].advice.contains("4 tensors"));
}

/// E4M3: 0x38 is 1, 0x40 is 2; the scale halves them.
#[test]
fn fp8_is_read_with_its_scales() {
    let folder = tempfile::tempdir().unwrap();
    let base = File::default().f32("w", &[1, 2], &[0.5, 0.5]).open(folder.path(), "base");
    let x = File::default()
        .bytes("w", Dtype::F8_E4M3, &[1, 2], &[0x38, 0x40])
        .f32("w_scale_inv", &[1, 1], &[0.5])
        .open(folder.path(), "x");
    let report = report(Some(&base), &[&x]);
    let found = &report.overall.models[0];
    assert_eq!((found.delta, found.unchanged), (Some(0.5), Some(0.5)));
    assert_eq!(report.left_out[0].name, "w_scale_inv");
    assert!(report.left_out[0].reason.contains("scales an fp8 tensor"));
}

#[test]
fn errors_name_the_thing() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, values: &[f32]| vector(values).open(folder.path(), name);
    let options = Options::default();
    let fail = |base: Option<&Checkpoint>, models: &[&Checkpoint]| {
        measure(base, models, &options, &|_| ()).unwrap_err()
    };
    let base = open("base", &[1.0, 2.0, 3.0]);
    for bad in [f32::NAN, f32::INFINITY] {
        let x = open("bad", &[1.0, 2.0, bad]);
        let error = fail(Some(&base), &[&x]);
        assert!(matches!(&error, Error::Checkpoint { path, .. } if path == x.path()));
        let expected = format!("tensor `w`: element 2 is {bad}, expected a finite number");
        assert!(error.to_string().ends_with(&expected), "{error}");
        let error = fail(Some(&x), &[&base]);
        assert!(matches!(&error, Error::Checkpoint { path, .. } if path == x.path()));
    }
    let (high, low) = (open("high", &[3e38; 3]), open("low", &[-3e38; 3]));
    assert!(fail(Some(&low), &[&high]).to_string().contains("beyond f32"));
    // Between two models it is taken in f64.
    assert_eq!(report(None, &[&low, &high]).overall.pairs[0].distance, Some(2.0));
    let error = fail(Some(&base), &[]);
    assert_eq!(error.to_string(), "`models` is 0, expected at least one");
    let error = fail(None, &[&base]);
    assert_eq!(error.to_string(), "`models` is 1, expected at least two without a base");
    let other = File::default().f32("v", &[1], &[1.0]).open(folder.path(), "other");
    let error = fail(Some(&base), &[&other]).to_string();
    assert!(error.contains("no tensor that can be compared"), "{error}");
}

#[test]
fn progress_reaches_its_end() {
    let (base, a) = (model("base"), model("a"));
    let seen = std::sync::Mutex::new(Vec::new());
    let options = Options { ranks: false, ..Options::default() };
    let report =
        measure(Some(&base), &[&a], &options, &|progress| seen.lock().unwrap().push(progress));
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.done));
    assert_eq!(seen.last().unwrap().done, seen[0].total);
    assert_eq!(seen[0].total, report.unwrap().overall.elements);
}

fn advice(report: &Sensitivity, beginning: &str) -> bool {
    report.suggestions.iter().any(|suggestion| suggestion.advice.starts_with(beginning))
}

/// Deltas with pseudo-random signs that a pattern of bits gives.
fn random(seed: u64, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..4096).map(|_| 1.0 + size * (next() + next() + next())).collect()
}

#[test]
fn suggestions_follow_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, values: &[f32]| {
        File::default().f32("h.0.w", &[64, 64], values).open(folder.path(), name)
    };
    let base = open("base", &[1.0; 4096]);
    let x = open("x", &random(1, 0.001));
    let y = open("y", &random(2, 0.001));
    let unrelated = report(Some(&base), &[&x, &y]);
    assert!(advice(&unrelated, "Try task_arithmetic first"));
    assert!(advice(&unrelated, "Try ties or dare_ties with a density of about 0.5"));
    assert!(!advice(&unrelated, "Use linear") && !advice(&unrelated, "Give"));
    assert!(unrelated.suggestions.iter().all(|suggestion| !suggestion.check));

    let twice: Vec<f32> = random(1, 0.001).iter().map(|x| 1.0 + 5.0 * (x - 1.0)).collect();
    let collinear = report(Some(&base), &[&x, &open("twice", &twice)]);
    assert!(advice(&collinear, "Use linear"));
    assert!(advice(&collinear, "Give twice.safetensors a smaller weight, about 0.20"));
    assert!(!advice(&collinear, "Try ties"));

    let opposite: Vec<f32> = random(1, 0.001).iter().map(|x| 2.0 - x).collect();
    let opposed = report(Some(&base), &[&x, &open("opposite", &opposite)]);
    assert!(advice(&opposed, "Ask whether") && advice(&opposed, "Look at 1 module pulled"));

    let far = report(Some(&base), &[&x, &open("far", &random(3, 1.0))]);
    assert!(advice(&far, "Make sure that far.safetensors was trained"));
    assert!(advice(&far, "Check 1 module that went far"));

    let mut sparse = vec![1.0; 4096];
    sparse.iter_mut().step_by(10).for_each(|x| *x += 0.001);
    let sparse = report(Some(&base), &[&x, &open("sparse", &sparse)]);
    assert!(advice(&sparse, "Try ram"));

    let same = report(Some(&base), &[&x, &open("same", &[1.0; 4096])]);
    assert!(advice(&same, "same.safetensors is the base"));
    assert!(advice(&report(None, &[&x, &y]), "Name the base model"));
}

/// A page that loads nothing, with a map for each model and pair.
#[test]
fn the_page_needs_nothing_else() {
    let (base, a, b, c) = (model("base"), model("a"), model("b"), model("c"));
    let page = report(Some(&base), &[&a, &b, &c]).to_html();
    for word in ["<script", "http://", "https://", "url(", "@import", " src="] {
        assert!(!page.contains(word), "{word}");
    }
    // Distances, cosines, conflicts of pairs and of all.
    assert_eq!(page.matches("<figure>").count(), 3 + 3 + 1 + 3);
    // 9 kinds in 4 layers, 3 tensors outside of them.
    assert_eq!(page.matches("<rect class=\"cell").count(), 10 * (9 * 4 + 3));
    for tag in ["svg", "table", "section", "figure", "div", "details", "tr", "text", "rect"] {
        let opened =
            page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        let closed = page.matches(&format!("</{tag}>")).count();
        let empty = if tag == "rect" { page.matches("height=\"12\"/>").count() } else { 0 };
        assert_eq!(opened, closed + empty, "{tag}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn names_are_escaped_in_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::default().f32("<b>&\"x", &[1], &[1.0]);
    let base = file.open(folder.path(), "base");
    let page = report(Some(&base), &[&file.open(folder.path(), "<i>")]).to_html();
    assert!(page.contains("&lt;b&gt;&amp;&quot;x") && page.contains("&lt;i&gt;"));
    assert!(!page.contains("<b>&\"x") && !page.contains("<i>"));
}
