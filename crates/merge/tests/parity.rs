//! Every case of `tests/fixtures/merge` beside mergekit 0.1.5.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use posttrain_merge::config::MergeConfig;
use posttrain_merge::{
    Arithmetic, Checkpoint, Error, Execution, Missing, Plan, PlanOptions, Tensor, dtype, execute,
};
use serde::Deserialize;

/// Where the result is another than mergekit's, and why.
const DEVIATIONS: &[(&str, &str)] = &[
    ("linear_zero_sum", "weights of the sum 0 are an error, not NaN"),
    ("task_arithmetic_lambda_of_a_model", "a shared parameter under a model is an error"),
    ("encoder_masked", "a tensor that no model has is not asked for"),
    ("lora_without_cache", "adapters are folded where they are read"),
    ("values_yaml_1_1", "1_0 is ten there too, and a density above 1 an error"),
    ("raw_della_scalar", "a scalar is a row of one element"),
    ("raw_della_column", "a row of one element is kept with the density"),
    ("slices_more_sources_last", "norm and head are of all sources of the last slice"),
    ("slices_backwards", "a range that runs backwards is an error"),
    ("unlisted_tensors", "no tensor is lost"),
    ("vision_inferred", "no tensor is lost"),
    ("types_f64", "merges compute in f32, and f64 is an error that says so"),
    ("values_empty_list", "an empty list is an error"),
    ("unknown_keys", "unknown keys are errors"),
    ("tokenizer_cut_base", "merges without a row are taken out of the tokenizer"),
    ("tokenizer_cut_model", "tokens without a row are tokens that the model does not have"),
    ("tokenizer_new_token_and_base", "new tokens can be added to the base's tokenizer"),
    ("tokenizer_new_token_and_padded_base", "a new token has its source, not an unused row"),
    ("tokenizer_token_without_source", "a token without a source is as one that is not named"),
    ("vocabularies_truncated", "rows are never cut; `tokenizer_source` aligns them"),
    ("raw_union_not_normalized", "a tensor that one input alone has is copied"),
];

/// Cases of the tolerance `bit` that are equal to 1e-6, and why.
const ROUNDED: &[(&str, &str)] = &[
    ("tokenizer_padded_to_multiple", "means of rows are summed in f64"),
    ("tokenizer_default_source", "means of rows are summed in f64"),
    ("documents", "the second of three merges is slerp on an arc, whose angle is computed in f64"),
];

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    expected_error: Option<String>,
    tolerance: Option<String>,
    #[serde(default)]
    bit_tensors: Vec<String>,
    #[serde(default)]
    complete: bool,
    outputs: Option<usize>,
    #[serde(default)]
    union: bool,
    #[serde(default)]
    intersection: bool,
    #[serde(default)]
    options: BTreeMap<String, serde_json::Value>,
}

/// Of this crate's folder: valid before the current folder changes.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge")
}

fn cases(fixtures: &Path) -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    let text = std::fs::read_to_string(fixtures.join("cases.json")).unwrap();
    let file: File = serde_json::from_str(&text).unwrap();
    file.cases
}

fn options(case: &Case) -> PlanOptions {
    PlanOptions {
        arithmetic: Arithmetic::Input,
        missing: match (case.union, case.intersection) {
            (true, _) => Missing::Union,
            (_, true) => Missing::Intersection,
            _ => Missing::Error,
        },
        ..PlanOptions::default()
    }
}

/// Merges a case into `out`; of several documents, the last.
fn run(fixtures: &Path, case: &Case, out: &Path) -> Result<(), Error> {
    let path = fixtures.join("cases").join(&case.name).join("config.yaml");
    let mut documents = MergeConfig::read_all(&path)?;
    let all = documents.clone();
    let results = out.parent().unwrap().join("results");
    let count = documents.len();
    for (index, config) in documents.iter_mut().enumerate() {
        config.place_documents(&all, &results);
        let to = match &config.name {
            Some(name) if index + 1 < count => results.join(name),
            _ => out.to_owned(),
        };
        let plan = Plan::new(config, options(case))?;
        let mut execution = Execution { threads: Some(2), ..Execution::default() };
        if let Some(size) = case.options.get("out_shard_size") {
            execution.shard_size = size.as_u64().unwrap();
        }
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        execute(&plan, &to, &execution, &|_| true)?;
    }
    Ok(())
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel()];
    dtype::decode(tensor.dtype(), tensor.bytes(), &mut values);
    values
}

/// What differs between a tensor and mergekit's, if it is more than the tolerance.
fn difference(found: &Tensor, wanted: &Tensor, tolerance: &str) -> Option<String> {
    if (found.dtype(), found.shape()) != (wanted.dtype(), wanted.shape()) {
        return Some(format!(
            "{:?} {:?}, expected {:?} {:?}",
            found.dtype(),
            found.shape(),
            wanted.dtype(),
            wanted.shape()
        ));
    }
    if tolerance == "bit" {
        let same = found.bytes() == wanted.bytes();
        if same || !dtype::is_float(found.dtype()) {
            return (!same).then(|| "other bytes".into());
        }
    }
    let mut worst = 0.0f32;
    for (a, b) in values(found).into_iter().zip(values(wanted)) {
        let allowed = match tolerance {
            "bit" => 0.0,
            "1e-6" => 1e-6,
            "bf16" => b.abs() / 64.0,
            "f16" => b.abs() / 512.0,
            other => panic!("tolerance {other}"),
        };
        let off = (a - b).abs();
        if !(off <= allowed || a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()) {
            worst = worst.max(off);
        }
    }
    (worst > 0.0).then(|| format!("off by {worst:e}"))
}

#[test]
fn equals_mergekit() {
    let only = std::env::var("POSTTRAIN_CASES").ok();
    // The only test of this file: the folder belongs to the whole process.
    let fixtures = fixtures().canonicalize().unwrap();
    std::env::set_current_dir(fixtures.join("models")).unwrap();
    let mut failures = Vec::new();
    let mut compared = 0;
    for case in cases(&fixtures) {
        if only.as_ref().is_some_and(|only| !case.name.starts_with(only.as_str())) {
            continue;
        }
        let folder = fixtures.join("cases").join(&case.name);
        // Drawn at random there; what is done with a given mask is compared beside the methods.
        if folder.join("masks.safetensors").exists() {
            continue;
        }
        if DEVIATIONS.iter().any(|(name, _)| *name == case.name) {
            continue;
        }
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let result = run(&fixtures, &case, &out);
        let mut fail = |text: String| failures.push(format!("{}: {text}", case.name));
        if let Some(expected) = &case.expected_error {
            if result.is_ok() {
                fail(format!("no error, expected one as {expected}"));
            }
            compared += 1;
            continue;
        }
        if let Err(error) = result {
            fail(error.to_string());
            continue;
        }
        let found =
            Checkpoint::open(&out).or_else(|_| Checkpoint::open(out.join("model.safetensors")));
        let found = found.unwrap();
        if let Some(count) = case.outputs
            && found.tensors().len() != count
        {
            fail(format!("{} tensors, expected {count}", found.tensors().len()));
        }
        let expected = folder.join("expected.safetensors");
        if !expected.exists() {
            continue;
        }
        let expected = Checkpoint::open(expected).unwrap();
        if case.complete {
            for name in
                found.tensors().keys().filter(|name| !expected.tensors().contains_key(*name))
            {
                fail(format!("tensor {name} is too much"));
            }
        }
        for (name, wanted) in expected.tensors() {
            let Some(tensor) = found.tensors().get(name) else {
                fail(format!("tensor {name} is missing"));
                continue;
            };
            let tolerance = if case.bit_tensors.contains(name) {
                "bit"
            } else if ROUNDED.iter().any(|(name, _)| *name == case.name) {
                "1e-6"
            } else {
                case.tolerance.as_deref().unwrap()
            };
            if let Some(difference) = difference(tensor, wanted, tolerance) {
                fail(format!("tensor {name}: {difference}"));
            }
        }
        compared += 1;
    }
    assert!(
        failures.is_empty(),
        "{} of {compared} cases:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(only.is_some() || compared > 200, "{compared} cases");
}
