//! What is wrong with a configuration, in words.

use std::fmt::Write;

use posttrain_merge::config::MergeConfig;

use super::wrong;

fn with(more: &str) -> String {
    format!("merge_method: linear\nmodels: [{{model: a}}]\n{more}\n")
}

#[test]
fn all_problems_are_told_at_once() {
    let text = "merge_method: 3\nbase_model: a@b@c\nmodels:\n  - model: a\n    paramters: {weight: 1}\n  - parameters: {weight: {vlaue: 1}}\n  \
                - x\nslices: []\ndtype: float64\nparameters: [t, 1]\ntokenizer_source: base\ntokenizer: {source: null, tokens: {x: 1}}\n";
    assert_eq!(
        wrong(text),
        "13 problems:\n  \
         line 1: `merge_method` is the number 3, expected the name of a method: put it in quotes if it is meant\n  \
         line 2: `base_model` is the text \"a@b@c\", expected a model: `path[@revision][+lora[@revision]]` (2 `@` and no existing path before one of them)\n  \
         line 5: unknown key `models[0].paramters` (did you mean `parameters`?)\n  \
         line 6: unknown key `models[1].parameters.weight.vlaue` (did you mean `value`?)\n  \
         line 6: `models[1].parameters.weight.value` is missing, expected a scalar or a list of scalars\n  \
         line 6: `models[1].model` is missing, expected a model\n  \
         line 7: `models[2]` is the text \"x\", expected a mapping with `model`\n  \
         line 8: the configuration has `models` and `slices`, expected one of `models`, `slices`, `modules`\n  \
         line 8: `slices` is an empty list, expected a list of slices: `- sources: [...]`\n  \
         line 9: `dtype` is the text \"float64\", expected float32, bfloat16 or float16 (merges compute in float32 and write at most that)\n  \
         line 10: `parameters` is a list of 2, expected a mapping from the names of parameters to their values\n  \
         line 11: `tokenizer_source` and `tokenizer` are both set, expected one\n  \
         line 12: `tokenizer.source` is nothing, expected `union`, `base` or a model"
            .to_owned()
            .replace("13 problems", "14 problems")
            + "\n  line 12: `tokenizer.tokens.x` is the number 1, expected a mapping of source and force"
    );
}

#[test]
fn what_is_not_yaml_has_its_place() {
    for (text, expected) in [
        ("a: [1", "line 1: unclosed bracket '['"),
        ("a: b: c", "line 1: mapping values are not allowed in this context"),
        ("x: 1\na: 'x", "line 2: unclosed quote"),
        ("x: 1\na: *nowhere", "line 2: alias references unknown anchor"),
        ("a: &a [*a]", "line 1: recursive references require weak recursion types"),
        (
            "merge_method: !!python/name:os.system x",
            "line 1: unsupported tag `!!python/name:os.system`",
        ),
        (
            "? [a]\n: b",
            "line 1: a key is a list of 1, expected a text: put it in quotes if it is meant",
        ),
        (
            "x: {a: 1, 2: 3}",
            "line 1: a key is the number 2, expected a text: put it in quotes if it is meant",
        ),
    ] {
        assert_eq!(wrong(text), expected, "{text}");
    }
    assert!(wrong("").starts_with("the file is empty, expected `merge_method`"));
    assert!(
        wrong("- a\n- b\n")
            .starts_with("line 1: the configuration is a list of 2, expected a mapping")
    );
    assert!(wrong("just text").starts_with("line 1: the configuration is the text \"just text\""));
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("merge.yaml");
    let error = MergeConfig::read(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    std::fs::write(&path, b"merge_method: linear\nmodels: \xff\n").unwrap();
    let error = MergeConfig::read_all(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}: line 2: no UTF-8 text (byte 29)", path.display()));
}

#[test]
fn alias_bombs_are_errors() {
    let mut bomb = String::from("merge_method: linear\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let before = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(bomb, "a{i}: &a{i} [{before}]").unwrap();
    }
    let start = std::time::Instant::now();
    let error = wrong(&bomb);
    assert!(error.starts_with("line 6: alias replay limit exceeded"), "{error}");
    let deep = format!("merge_method: {}\n", "[".repeat(100_000));
    assert_eq!(wrong(&deep), "line 1: recursion limit exceeded");
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn bodies() {
    assert_eq!(
        wrong("merge_method: linear\n"),
        "line 1: the configuration has none of `models`, `slices`, `modules`, expected one"
    );
    assert!(
        wrong("merge_method: x\nmodels: a\n")
            .contains("`models` is the text \"a\", expected a list of models")
    );
    assert!(wrong("merge_method: x\nslices: [{}]\n").contains("`slices[0].sources` is missing"));
    assert!(
        wrong("merge_method: x\nslices: [{sources: []}]\n")
            .contains("`slices[0].sources` is an empty list")
    );
    assert!(
        wrong("merge_method: x\nslices: [{sources: [{model: a}]}]\n")
            .contains("`slices[0].sources[0].layer_range` is missing")
    );
    assert!(wrong("merge_method: x\nmodules: {}\n").contains("`modules` is an empty mapping"));
    assert_eq!(
        wrong("merge_method: x\nmodules:\n  t:\n    parameters: {w: 1}\n"),
        "line 4: `modules.t` has none of `models`, `slices`, expected one"
    );
    assert_eq!(
        wrong(
            "merge_method: x\nmodules:\n  t:\n    models: [{model: a}]\n    slices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n"
        ),
        "line 5: `modules.t` has `models` and `slices`, expected one of `models`, `slices`"
    );
    let residual = "merge_method: x\nslices: [{sources: [{model: a, layer_range: [0, 1]}], residual_weight: x}]\n";
    assert!(
        wrong(residual)
            .contains("`slices[0].residual_weight` is the text \"x\", expected a finite number")
    );
}

#[test]
fn models() {
    let model = |model: &str| wrong(&format!("merge_method: x\nmodels:\n- model: {model}\n"));
    assert!(model("7").contains("is the number 7, expected a model"));
    assert!(model("''").contains("an empty path"));
    assert!(model("a+b+c").contains("2 `+` and no existing path"));
    assert!(model("[a]").contains("`models[0].model` is a list of 1, expected a model"));
    assert!(model("{path: a}").contains("unknown key `models[0].model.path`"));
    assert!(model("{lora: a}").contains("`models[0].model.model` is missing, expected a path"));
    assert!(
        model("{model: {pth: a}}")
            .contains("unknown key `models[0].model.model.pth` (did you mean `path`?)")
    );
    assert!(model("{model: a, override_architecture: 1}").contains("expected the name of a class"));
    assert!(model("{model: a@}").contains("an empty revision"));
}

#[test]
fn parameters() {
    let parameters = |text: &str| wrong(&with(&format!("parameters: {text}")));
    let expected = "expected a scalar, a list of scalars, {value, filter} or a list of those";
    assert_eq!(parameters("{w: null}"), format!("line 3: `parameters.w` is nothing, {expected}"));
    assert!(
        parameters("{w: [1, [2]]}").contains("`parameters.w[1]` is a list of 1, expected a scalar")
    );
    assert!(
        parameters("{w: [1, null]}").contains("`parameters.w[1]` is nothing, expected a scalar")
    );
    assert!(
        parameters("{w: [1, {value: 2}]}")
            .contains("`parameters.w[0]` is the number 1, expected a mapping of value and filter")
    );
    assert!(
        parameters("{w: {value: 1, filter: 3}}")
            .contains("`parameters.w.filter` is the number 3, expected a part of the names")
    );
    assert!(
        parameters("{w: {value: {value: 1}}}")
            .contains("`parameters.w.value` is a mapping of value, expected a scalar")
    );
    assert!(parameters("{w: {value: []}}").contains("`parameters.w.value` is an empty list"));
    assert!(parameters("{w: 1, w: 2}").contains("duplicate key `parameters.w`"));
    assert!(parameters("3").contains("`parameters` is the number 3"));
}

#[test]
fn tokenizers() {
    let tokenizer = |text: &str| wrong(&with(&format!("tokenizer: {text}")));
    let token = |text: &str| tokenizer(&format!("{{tokens: {{<s>: {text}}}}}"));
    let path = "tokenizer.tokens[\"<s>\"]";
    assert!(
        tokenizer("union")
            .contains("`tokenizer` is the text \"union\", expected a mapping of source, tokens")
    );
    assert!(
        tokenizer("{sources: base}")
            .contains("unknown key `tokenizer.sources` (did you mean `source`?)")
    );
    assert!(tokenizer("{pad_to_multiple_of: 0}").contains(
        "`tokenizer.pad_to_multiple_of` is the number 0, expected a whole number from 1 on"
    ));
    assert!(
        token("null")
            .contains(&format!("`{path}` is nothing, expected a mapping of source and force"))
    );
    assert!(
        token("{force: perhaps}")
            .contains(&format!("`{path}.force` is the text \"perhaps\", expected true or false"))
    );
    assert!(
        token("{source: {kind: zeros}}")
            .contains("expected `model_token` or `zero` (did you mean `zero`?)")
    );
    assert!(
        token("{source: {token: x, model: a}}").contains(&format!(
            "`{path}.source.kind` is missing, expected `model_token` or `zero`"
        ))
    );
    assert!(
        token("{source: {kind: zero, model: a}}")
            .contains("expected no such key with `kind: zero`")
    );
    assert!(
        token("{source: {kind: model_token, token: x}}")
            .contains(&format!("`{path}.source.model` is missing"))
    );
    assert!(
        token("{source: {kind: model_token, model: a}}")
            .contains("has none of `token` and `token_id`, expected one")
    );
    assert!(
        token("{source: {kind: model_token, model: a, token: x, token_id: 1}}")
            .contains("has both of `token` and `token_id`")
    );
    assert!(
        token("{source: {kind: model_token, model: a, token_id: -1}}")
            .contains("expected the id of a token")
    );
    assert!(wrong(&with("tokenizer_source: 3")).contains("expected `union`, `base` or a model"));
    assert!(
        wrong(&with("chat_template: [x]"))
            .contains("`chat_template` is a list of 1, expected `auto`")
    );
}
