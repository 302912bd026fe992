//! Where this differs from mergekit 0.1.5 on purpose.

use posttrain_merge::config::{ModelRef, resolve_boolean, resolve_integer, resolve_number};

use super::{parse, wrong};

fn with(more: &str) -> String {
    format!("merge_method: linear\nmodels: [{{model: a}}]\n{more}\n")
}

/// mergekit ignores unknown keys, so that a typing error passes in silence.
#[test]
fn unknown_keys_are_errors() {
    assert_eq!(
        wrong(&with("tokeniser_source: base")),
        "line 3: unknown key `tokeniser_source` (did you mean `tokenizer_source`?)"
    );
}

/// `PyYAML` takes the last of several equal keys.
#[test]
fn repeated_keys_are_errors() {
    let error = wrong(&with("models: []"));
    assert_eq!(error, "line 3: duplicate key `models` (first in line 2)");
}

/// mergekit takes an empty list of inputs for none, and an empty gradient for no setting.
#[test]
fn empty_lists_are_errors() {
    assert_eq!(
        wrong(&with("parameters: {weight: []}")),
        "line 3: `parameters.weight` is an empty list, expected at least one value"
    );
    assert!(wrong("merge_method: x\nmodels: []\n").contains("`models` is an empty list"));
}

/// mergekit cuts a path at `@` and `+` even where it exists.
#[test]
fn an_existing_path_is_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a+b@c");
    std::fs::create_dir(&path).unwrap();
    let config = parse(&format!("merge_method: x\nmodels: [{{model: {}}}]\n", path.display()));
    assert_eq!(config.models(), [&ModelRef::new(&path)]);
    assert_eq!(parse(&config.to_yaml()), config);
    std::fs::remove_dir(&path).unwrap();
    let cut = parse(&format!("merge_method: x\nmodels: [{{model: {}}}]\n", path.display()));
    assert_eq!(cut.models()[0].path, folder.path().join("a"));
    // Written down it is not cut, wherever it is read.
    assert_eq!(parse(&config.to_yaml()), config);
}

/// In YAML 1.1 `yes` is true, and true is the number 1; here only `true` itself is.
#[test]
fn yes_is_no_number() {
    let config = parse(&with("parameters: {w: yes, x: true}"));
    let scopes = config.scopes(None, None, None);
    assert!(resolve_number("w", "", 0.0, &scopes).is_err());
    assert_eq!(resolve_boolean("w", "", 0.0, &scopes).unwrap(), Some(true));
    assert_eq!(resolve_number("x", "", 0.0, &scopes).unwrap(), Some(1.0));
}

/// YAML 1.1 reads `010` as 8, YAML 1.2 as 10. And a merge with a NaN or an infinity is none.
#[test]
fn numbers_with_two_meanings_or_none_are_errors() {
    let config = parse(&with("parameters: {w: 010, x: .inf, y: .nan, z: 1e999}"));
    let scopes = config.scopes(None, None, None);
    let error = |name| resolve_number(name, "n", 0.0, &scopes).unwrap_err().to_string();
    assert_eq!(
        error("w"),
        "`w` is the text \"010\", octal in YAML 1.1 (for `n`), expected a finite number"
    );
    assert_eq!(error("x"), "`x` is the text \".inf\" (for `n`), expected a finite number");
    assert_eq!(error("y"), "`y` is the text \".nan\" (for `n`), expected a finite number");
    assert!(error("z").contains("expected a finite number"));
}

/// mergekit fails on these when the merge has begun, or computes in float64.
#[test]
fn types_are_checked_at_once() {
    for (name, more) in [
        ("float64", " (merges compute in float32 and write at most that)"),
        ("int64", " (merges are of floating-point numbers)"),
        ("bf16", " (did you mean `bfloat16`?)"),
        ("half", " (did you mean `float16`?)"),
        ("flaot32", " (did you mean `float32`?)"),
        ("q4", ""),
    ] {
        assert_eq!(
            wrong(&with(&format!("dtype: {name}"))),
            format!(
                "line 3: `dtype` is the text {name:?}, expected float32, bfloat16 or float16{more}"
            )
        );
    }
}

/// mergekit takes `[0, 2.0]` and `[true, 2]` as layers, and finds the others when it plans.
#[test]
fn layer_ranges_are_checked_at_once() {
    let range = |range: &str| {
        let text = format!(
            "merge_method: x\nslices:\n- sources:\n  - {{model: a, layer_range: {range}}}\n"
        );
        wrong(&text)
            .strip_prefix("line 4: `slices[0].sources[0].layer_range` is ")
            .unwrap()
            .to_owned()
    };
    let two = "expected two whole numbers from 0 on: the first layer and the one after the last";
    assert_eq!(range("[4, 2]"), "[4, 2], expected the lower one first");
    assert_eq!(range("[0, 2.0]"), format!("[0, 2.0], {two}"));
    assert_eq!(range("[-1, 2]"), format!("[-1, 2], {two}"));
    assert_eq!(range("[true, 2]"), format!("[true, 2], {two}"));
    assert_eq!(range("[0, 1, 2]"), format!("[0, 1, 2], {two}"));
    assert_eq!(range("[]"), format!("[], {two}"));
    assert_eq!(range("[a, 2]"), format!("[the text \"a\", 2], {two}"));
    assert_eq!(range("3"), format!("the number 3, {two}"));
    assert_eq!(range("{a: 1}"), format!("a mapping of a, {two}"));
    let text = "merge_method: x\nslices:\n- sources:\n  - {model: a, layer_range: [0, 4]}\n  - {model: b, layer_range: [2, 5]}\n";
    assert_eq!(
        wrong(text),
        "line 4: `slices[0].sources` have 4, 3 layers, expected the same number"
    );
}

/// mergekit finds this when it plans.
#[test]
fn a_model_is_one_input() {
    let error = wrong("merge_method: x\nmodels:\n- model: a\n- model: b\n- model: a\n");
    assert_eq!(
        error,
        "line 5: `models[2].model` is a, as `models[0].model` is, expected each model once"
    );
}

/// pydantic takes `_` in the text of a number, and no exponent in that of a whole number. Without quotes
/// both read the same.
#[test]
fn numbers_in_quotes() {
    let config = parse(&with("parameters: {a: '1_000', b: '1e1', c: 1_000}"));
    let scopes = config.scopes(None, None, None);
    assert!(resolve_number("a", "", 0.0, &scopes).is_err());
    assert_eq!(resolve_integer("b", "", 0.0, &scopes).unwrap(), Some(10));
    assert_eq!(resolve_number("c", "", 0.0, &scopes).unwrap(), Some(1000.0));
}
