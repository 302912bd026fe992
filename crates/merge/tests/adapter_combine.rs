//! Adapters combined without a base, against PEFT's `add_weighted_adapter`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adapter_support;

use std::collections::BTreeMap;

use adapter_support::{deltas, fixture, largest_difference, read, write_adapter};
use posttrain_merge::adapter::{Adapter, Combination, Combined, combine, fold};
use posttrain_merge::methods::{Base, Method, Parameter, Registry, Value, WholeTensor};
use posttrain_merge::{Checkpoint, Source};
use serde_json::json;

const WEIGHTS: [f64; 3] = [0.7, -0.4, 1.5];

fn open(name: &str) -> Adapter {
    Adapter::open(fixture(name)).unwrap()
}

fn combined(adapters: &[(&Adapter, f64)], how: &Combination<'_>) -> (Adapter, Combined) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sum");
    let report = combine(adapters, how, &path).unwrap();
    // The maps keep the deleted file alive.
    (Adapter::open(&path).unwrap(), report)
}

fn check(case: &str, adapter: &Adapter) {
    let wanted = Checkpoint::open(fixture(case)).unwrap();
    let found = deltas(adapter);
    assert!(found.keys().eq(wanted.tensors().keys()), "{case}");
    for (name, values) in &found {
        let wanted = read(&Source::Stored(wanted.tensors()[name].clone()));
        let error = largest_difference(values, &wanted);
        assert!(error < 1e-5, "{case} {name}: {error}");
    }
}

#[test]
fn equals_peft() {
    let adapters = ["one", "two", "three"].map(open);
    let three: Vec<(&Adapter, f64)> = adapters.iter().zip(WEIGHTS).collect();

    let (cat, report) = combined(&three, &Combination::Concatenate);
    check("combined_cat.safetensors", &cat);
    assert_eq!(cat.delta_for("model.layers.0.self_attn.q_proj.weight").unwrap().rank(), 4 + 4 + 2);
    assert_eq!(cat.delta_for("model.layers.0.self_attn.o_proj.weight").unwrap().rank(), 2);
    assert!(report.modules.iter().all(|module| module.error == 0.0));
    // PEFT saved the adapted embeddings' own weight in both.
    assert_eq!(report.carried, ["model.embed_tokens.weight"]);
    assert_eq!(cat.whole().keys().collect::<Vec<_>>(), ["model.embed_tokens.weight"]);

    let (svd, report) = combined(&three, &Combination::Svd { rank: 3 });
    check("combined_svd.safetensors", &svd);
    let (exact, truncated) = (deltas(&cat), deltas(&svd));
    for module in &report.modules {
        let name = format!("{}.weight", module.name);
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let rest: Vec<f32> =
            exact[&name].iter().zip(&truncated[&name]).map(|(a, b)| a - b).collect();
        let error = norm(&rest) / norm(&exact[&name]);
        assert!((module.error - error).abs() < 1e-5, "{name}: {} {error}", module.error);
        assert!(module.rank <= 3 && (module.error > 0.01 || module.rank < 3), "{name}");
    }

    let (linear, report) = combined(&three[..2], &Combination::Linear);
    check("combined_linear.safetensors", &linear);
    let (sum, _) = combined(&three[..2], &Combination::Concatenate);
    let (sum, linear) = (deltas(&sum), deltas(&linear));
    for module in &report.modules {
        let name = format!("{}.weight", module.name);
        let pairs = || sum[&name].iter().zip(&linear[&name]);
        let missed: f64 = pairs().map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let whole: f64 = pairs().map(|(a, _)| f64::from(*a).powi(2)).sum();
        assert!(
            (module.error - (missed / whole).sqrt()).abs() < 1e-5,
            "{name}: {} {}",
            module.error,
            (missed / whole).sqrt()
        );
    }
}

/// Folding the concatenation is folding one after the other, weighted.
#[test]
fn concatenation_folds_as_the_sum() {
    let (one, two) = (open("one"), open("two"));
    let (both, _) = combined(&[(&one, 1.0), (&two, 1.0)], &Combination::Concatenate);
    let base = Checkpoint::open(fixture("bases/llama")).unwrap();
    let (first, second, sum) =
        (fold(&base, &one).unwrap(), fold(&base, &two).unwrap(), fold(&base, &both).unwrap());
    for (name, tensor) in base.tensors() {
        let base = read(&Source::Stored(tensor.clone()));
        let parts = [&first, &second].map(|folded| read(&folded[name]));
        let wanted: Vec<f32> =
            base.iter().zip(&parts[0]).zip(&parts[1]).map(|((w, a), b)| a + b - w).collect();
        assert!(largest_difference(&read(&sum[name]), &wanted) < 1e-5, "{name}");
    }
}

#[test]
fn a_bias_of_b_is_summed() {
    let adapter = open("bias_of_b");
    let (sum, _) = combined(&[(&adapter, 2.0), (&adapter, -0.5)], &Combination::Svd { rank: 2 });
    for (name, module) in sum.modules() {
        let old = &adapter.modules()[name];
        let wanted: Vec<f32> =
            read(old.bias.as_ref().unwrap()).iter().map(|x| 1.5 * old.delta.scale * x).collect();
        assert!(largest_difference(&read(module.bias.as_ref().unwrap()), &wanted) < 1e-6);
    }
    let (before, after) = (deltas(&adapter), deltas(&sum));
    for (name, values) in after {
        let wanted: Vec<f32> = before[&name].iter().map(|x| 1.5 * x).collect();
        assert!(largest_difference(&values, &wanted) < 1e-5, "{name}");
    }
}

/// A method of one's own that needs a base: `base + weighted sum`, at full rank exact.
fn weighted_sum() -> Method {
    Method::new("weighted_sum", Base::Required, 1..=usize::MAX)
        .parameter(Parameter::number("weight").per_input())
        .parameter(Parameter::number("lambda").or(1.0))
        .build(|p| {
            let (weights, lambda) = (p.numbers("weight"), p.number("lambda"));
            Ok(WholeTensor::new(move |tensors: posttrain_merge::methods::WholeTensors<'_>| {
                let base = tensors.base.ok_or("no base")?;
                let value = |i: usize| {
                    let sum =
                        |sum: f64, (w, x): (&f64, &Vec<f32>)| sum + w * f64::from(x[i] - base[i]);
                    (f64::from(base[i])
                        + lambda * weights.iter().zip(&tensors.inputs).fold(0.0, sum))
                        as f32
                };
                Ok((0..base.len()).map(value).collect())
            }))
        })
}

#[test]
fn a_method_sees_deltas_on_a_base_of_zeros() {
    let adapters = ["one", "two", "three"].map(open);
    let three: Vec<(&Adapter, f64)> = adapters.iter().zip(WEIGHTS).collect();
    let method = weighted_sum();
    let with = |rank: usize, lambda: f64| {
        let parameters = BTreeMap::from([("lambda".to_owned(), Value::Number(lambda))]);
        combined(
            &three,
            &Combination::Method { method: &method, parameters: &parameters, rank, seed: 3 },
        )
    };
    let (exact, _) = combined(&three, &Combination::Concatenate);
    let (whole, report) = with(10, 2.0);
    assert!(report.modules.iter().all(|module| module.error < 1e-5), "{report:?}");
    let exact = deltas(&exact);
    for (name, values) in deltas(&whole) {
        let wanted: Vec<f32> = exact[&name].iter().map(|x| 2.0 * x).collect();
        assert!(largest_difference(&values, &wanted) < 1e-5, "{name}");
    }
    // Truncated as the factors would be.
    let (cut, report) = with(3, 1.0);
    check("combined_svd.safetensors", &cut);
    let (_, direct) = combined(&three, &Combination::Svd { rank: 3 });
    for (a, b) in report.modules.iter().zip(&direct.modules) {
        assert!((a.error - b.error).abs() < 1e-5, "{}: {} {}", a.name, a.error, b.error);
    }
}

#[test]
fn a_method_of_the_registry() {
    let (one, two) = (open("one"), open("two"));
    let registry = Registry::default();
    let linear = registry.get("linear").unwrap();
    let none = BTreeMap::from([("normalize".to_owned(), Value::Flag(false))]);
    let how = Combination::Method { method: linear, parameters: &none, rank: 8, seed: 0 };
    let pair = [(&one, 0.25), (&two, 2.0)];
    let (merged, _) = combined(&pair, &how);
    let (wanted, _) = combined(&pair, &Combination::Concatenate);
    let wanted = deltas(&wanted);
    for (name, values) in deltas(&merged) {
        assert!(largest_difference(&values, &wanted[&name]) < 1e-5, "{name}");
    }
}

#[test]
fn what_cannot_be_combined_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sum");
    let error = |adapters: &[(&Adapter, f64)], how: &Combination<'_>| {
        let error = combine(adapters, how, &out).unwrap_err().to_string();
        assert_eq!(
            std::fs::read_dir(folder.path())
                .unwrap()
                .filter(|e| { e.as_ref().unwrap().file_name().to_string_lossy().contains("sum") })
                .count(),
            0,
            "nothing is left behind"
        );
        error
    };
    let (one, three, dora, patterns) = (open("one"), open("three"), open("dora"), open("patterns"));
    let cat = Combination::Concatenate;
    assert!(error(&[], &cat).contains("`adapters` is empty"));
    assert!(error(&[(&one, f64::NAN)], &cat).contains("is NaN, expected a number"));
    assert!(error(&[(&one, 1.0)], &Combination::Svd { rank: 0 }).contains("`rank` is 0"));
    assert!(error(&[(&one, 1.0), (&dora, 1.0)], &cat).contains("DoRA's magnitudes"));
    let ranks = error(&[(&one, 1.0), (&three, 1.0)], &Combination::Linear);
    assert!(
        ranks.contains("2 problems") && ranks.contains("rank 4 in") && ranks.contains("and 2 in"),
        "{ranks}"
    );

    let config = json!({"peft_type": "LORA", "r": 2, "modules_to_save": ["lm_head"]});
    let name = "base_model.model.model.layers.0.self_attn.q_proj";
    let tensors: Vec<(String, Vec<usize>)> = vec![
        (format!("{name}.lora_A.weight"), vec![2, 9]),
        (format!("{name}.lora_B.weight"), vec![24, 2]),
        ("base_model.model.lm_head.weight".into(), vec![40, 24]),
    ];
    let tensors: Vec<(&str, &[usize])> =
        tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    let path = folder.path().join("other");
    write_adapter(&path, &config, &tensors);
    let other = Adapter::open(&path).unwrap();
    let found = error(&[(&patterns, 1.0), (&other, 1.0)], &cat);
    assert!(found.contains("A is [3, 24] and B is [24, 3]") && found.contains("[2, 9]"), "{found}");
    assert!(
        found.contains("`lm_head.weight` replaces the base's with different values"),
        "{found}"
    );

    let registry = Registry::default();
    let (linear, slerp) = (registry.get("linear").unwrap(), registry.get("slerp").unwrap());
    let with = |method, key: &str| {
        let parameters = BTreeMap::from([(key.to_owned(), Value::Number(0.5))]);
        error(
            &[(&one, 0.5)],
            &Combination::Method { method, parameters: &parameters, rank: 2, seed: 0 },
        )
    };
    assert!(
        with(linear, "density")
            .contains("`parameters` is `density`, expected one of [\"normalize\"] for linear")
    );
    assert!(with(slerp, "t").contains("slerp has no weights"));
}

#[test]
fn a_folder_that_exists_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let one = open("one");
    let error =
        combine(&[(&one, 1.0)], &Combination::Concatenate, folder.path()).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
