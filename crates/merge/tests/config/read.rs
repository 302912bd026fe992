//! What stands in the types, trees and texts.

use std::path::PathBuf;

use posttrain_merge::config::{
    Block, Body, Kind, Known, Lora, MergeConfig, ModelRef, Scalar, Scope, TokenizerSource, get,
    resolve_boolean, resolve_integer, resolve_number, set,
};
use posttrain_merge::dtype::Dtype;
use serde_json::json;

use super::{parse, texts};

#[test]
fn every_configuration_comes_back_from_its_tree_and_its_text() {
    for (file, text) in texts() {
        for config in MergeConfig::parse_all(&file, &text).unwrap() {
            let yaml = config.to_yaml();
            assert_eq!(parse(&yaml), config, "{file}\n{yaml}");
            let value = config.to_value();
            assert_eq!(MergeConfig::from_value(&value).unwrap(), config, "{file}");
            // The manifest's way: through a file of JSON.
            let json = serde_json::to_string_pretty(&value).unwrap();
            assert_eq!(parse(&json), config, "{file}\n{json}");
        }
    }
}

#[test]
fn texts_that_look_like_something_else_come_back() {
    let odd = [
        "1e-5",
        "0x1F",
        "007",
        "true",
        "yes",
        "null",
        "~",
        "",
        " ",
        "- a",
        "a: b",
        "#",
        "a #b",
        "@x",
        "*a",
        "&a",
        "!t",
        "%",
        "`",
        "'",
        "\"",
        "\\",
        "\t",
        "a\nb\n",
        "\n\n a",
        ".inf",
        ".nan",
        "[",
        "{",
        "|",
        ">",
        "<<",
        "=",
        "?",
        "ä\u{85}\u{2028}",
        "\u{0}\u{7f}",
        "1:30",
        "2024-01-01",
        "...",
        "---",
        "0o17",
        "1_000",
        "{{ x }}\r\n  y  \n",
        "a\\",
        "\u{feff}x",
    ];
    for text in odd {
        let tree = json!({
            "merge_method": "linear",
            "models": [{"model": "a", "parameters": {text: text, "w": [text, text]}}],
            "chat_template": format!("x{text}"),
            "tokenizer": {"source": "base", "tokens": {text: {"force": true}}},
        });
        let config = MergeConfig::from_value(&tree).unwrap();
        assert_eq!(config.to_value(), tree);
        let yaml = config.to_yaml();
        assert_eq!(parse(&yaml), config, "{text:?}\n{yaml}");
    }
    for number in [0.1, -0.0, 1e-5, 1e300, 5e-324, 1.0, 123_456_789.125, f64::MAX, 1.0 / 3.0] {
        let tree =
            json!({"merge_method": "x", "models": [{"model": "a"}], "parameters": {"w": number}});
        let config = MergeConfig::from_value(&tree).unwrap();
        assert_eq!(parse(&config.to_yaml()), config, "{number}");
    }
}

#[test]
fn keys_become_fields() {
    let text = "name: one\nmerge_method: slerp\nbase_model: a@v1+l@v2\ndtype: bfloat16\nout_dtype: torch.float16\n\
                tokenizer_source: base\nchat_template: auto\nslices:\n- sources:\n  - {model: a, layer_range: [2, \"6\"]}\n  \
                residual_weight: 1\n";
    let config = parse(text);
    assert_eq!((config.name.as_deref(), &*config.merge_method), (Some("one"), "slerp"));
    let lora = Lora { path: "l".into(), revision: Some("v2".into()) };
    let base = ModelRef { revision: Some("v1".into()), lora: Some(lora), ..ModelRef::new("a") };
    assert_eq!(config.base_model, Some(base));
    assert_eq!((config.dtype, config.out_dtype), (Some(Dtype::BF16), Some(Dtype::F16)));
    assert_eq!(config.tokenizer_source, Some(TokenizerSource::Base));
    assert_eq!(config.tokenizer_section().unwrap().source, TokenizerSource::Base);
    let Body::Slices(slices) = &config.body else { panic!("slices") };
    assert_eq!(
        (slices[0].sources[0].layer_range.clone(), slices[0].residual_weight),
        (2..6, Some(1.0))
    );
}

#[test]
fn paths_are_kept_and_resolved_below_a_folder() {
    let config = parse("merge_method: x\nmodels: [{model: ./a+b}, {model: /c}]\n");
    let models = config.models();
    assert_eq!(models[0].path, PathBuf::from("./a"));
    assert_eq!(models[0].resolve("/base".as_ref()), PathBuf::from("/base/./a"));
    assert_eq!(
        models[0].lora.as_ref().unwrap().resolve("/base".as_ref()),
        PathBuf::from("/base/b")
    );
    assert_eq!(models[1].resolve("/base".as_ref()), PathBuf::from("/c"));
}

#[test]
fn lines_are_those_of_the_keys() {
    let text = "merge_method: linear\nmodels:\n  - model: a\n    parameters:\n      weight:\n        - value: 1\n          \
                filter: x\n        - value: [1,\n            2]\nparameters: &p {t: 1}\n";
    let config = parse(text);
    for (path, line) in [
        ("merge_method", 1),
        ("models[0].model", 3),
        ("models[0].parameters", 4),
        ("models[0].parameters.weight[0].filter", 7),
        ("models[0].parameters.weight[1].value[1]", 9),
        ("parameters.t", 10),
    ] {
        assert_eq!(config.line(path), Some(line), "{path}");
    }
    assert_eq!(config.line("base_model"), None);
    let error = config.error("models[0].model", "`models[0].model` is not there").to_string();
    assert_eq!(error, "merge.yaml: line 3: `models[0].model` is not there");
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let text = texts().into_iter().find(|(file, _)| file == "anchors.yaml").unwrap().1;
    let value = parse(&text).to_value();
    let at = |path| get(&value, path).unwrap().clone();
    assert_eq!(at("models[0].model"), "models/base");
    assert_eq!(at("models[2].parameters.weight"), 0.125);
    assert_eq!(at("models[2].parameters.density"), json!([0.25, 0.75]));
    assert_eq!(at("models[3].parameters.density[1]"), 0.75);
}

#[test]
fn parameters_of_a_configuration_by_hand() {
    let text = "merge_method: x\nslices:\n- sources:\n  - model: a\n    layer_range: [0, 3]\n    parameters:\n      \
                w: [{filter: mlp, value: [0, 1, 4]}]\n  parameters: {w: {filter: attn, value: '1e-1'}, flag: [off, true]}\n\
                parameters: {w: 7, n: [2, 4]}\n";
    let config = parse(text);
    let Body::Slices(slices) = &config.body else { panic!("slices") };
    let scopes =
        config.scopes(None, Some(&slices[0].parameters), Some(&slices[0].sources[0].parameters));
    let w = |tensor, t| resolve_number("w", tensor, t, &scopes).unwrap();
    assert_eq!(w("l.mlp.up", 0.0), Some(0.0));
    // A quarter: x = 0.5, between 0 and 1; three quarters: x = 1.5, between 1 and 4.
    assert_eq!((w("l.mlp.up", 0.25), w("l.mlp.up", 0.75)), (Some(0.5), Some(2.5)));
    assert_eq!(w("l.mlp.up", 1.0), Some(4.0));
    assert_eq!((w("l.attn.q", 0.5), w("norm", 0.5)), (Some(0.1), Some(7.0)));
    let flag = |t| resolve_boolean("flag", "norm", t, &scopes).unwrap();
    assert_eq!((flag(0.0), flag(0.99), flag(1.0)), (Some(false), Some(false), Some(true)));
    let n = |t| resolve_integer("n", "norm", t, &scopes);
    assert_eq!(n(0.5).unwrap(), Some(3));
    assert_eq!(
        n(0.25).unwrap_err().to_string(),
        "`n` is the number 2.5 (for `norm`), expected a whole number"
    );
    assert_eq!(resolve_number("absent", "norm", 0.0, &scopes).unwrap(), None);
}

#[test]
fn blocks_are_visited_and_checked() {
    let texts = texts();
    let text = |name: &str| &texts.iter().find(|(file, _)| file == name).unwrap().1;
    let config = parse(text("modules.yaml"));
    let blocks = config.parameter_blocks();
    let seen: Vec<(&str, Scope)> =
        blocks.iter().map(|Block { path, scope, .. }| (&**path, *scope)).collect();
    assert_eq!(
        seen,
        [
            ("modules.text_decoder.slices[0].sources[0].parameters", Scope::Input),
            ("modules.text_decoder.slices[0].sources[1].parameters", Scope::Input),
            ("modules.text_decoder.parameters", Scope::Module),
            ("modules[\"vision.tower\"].models[1].parameters", Scope::Input),
            ("modules[\"vision.tower\"].parameters", Scope::Module),
            ("parameters", Scope::Global),
        ]
    );
    let known = [
        Known { name: "weight", kind: Kind::Number, per_input: true },
        Known { name: "normalize", kind: Kind::Boolean, per_input: false },
    ];
    config.check_parameters("linear", &known).unwrap();
    let text = "merge_method: linear\nmodels:\n- model: a\n  parameters:\n    weigth: 1\n    normalize: true\n- model: b\n  \
                parameters: {weight: [0.5, x]}\nparameters:\n  normalize:\n  - value: 3\n  t: 0.5\n";
    let error = parse(text).check_parameters("linear", &known).unwrap_err().to_string();
    assert_eq!(
        error,
        "merge.yaml: 5 problems:\n  \
         line 5: `models[0].parameters.weigth` is no parameter of linear (did you mean `weight`?), expected of: weight, normalize\n  \
         line 6: `models[0].parameters.normalize` is set for one model, expected in the `parameters` of the slice, the module or the configuration: linear has one normalize for all models\n  \
         line 8: `models[1].parameters.weight[1]` is the text \"x\", expected a finite number\n  \
         line 11: `parameters.normalize[0].value` is the number 3, expected true or false\n  \
         line 12: `parameters.t` is no parameter of linear, expected of: weight, normalize"
    );
}

#[test]
fn a_number_is_changed_by_its_key_path() {
    let texts = texts();
    let text = &texts.iter().find(|(file, _)| file == "slerp.yaml").unwrap().1;
    let mut value = parse(text).to_value();
    set(&mut value, "parameters.t[0].value[2]", 0.375).unwrap();
    let changed = MergeConfig::from_value(&value).unwrap();
    let t = |config: &MergeConfig| {
        resolve_number("t", "self_attn", 0.5, &config.scopes(None, None, None))
    };
    assert_eq!((t(&parse(text)).unwrap(), t(&changed).unwrap()), (Some(0.25), Some(0.375)));
    set(&mut value, "parameters.tt", 1).unwrap();
    set(&mut value, "base_modle", "x").unwrap();
    let error = MergeConfig::from_value(&value).unwrap_err().to_string();
    assert_eq!(error, "<config>: unknown key `base_modle` (did you mean `base_model`?)");
}

#[test]
fn scalars_convert_or_say_what_they_are() {
    let text = |text: &str| Scalar::Text(text.into());
    assert_eq!(Scalar::Bool(true).number(), Some(1.0));
    assert_eq!(text(" 1e-5 ").number(), Some(1e-5));
    assert_eq!(
        text("010").convert(Kind::Number),
        Err("the text \"010\", octal in YAML 1.1".into())
    );
    assert_eq!(Scalar::Float(2.5).convert(Kind::Integer), Err("the number 2.5".into()));
    assert_eq!(Scalar::Int(2).boolean(), None);
    assert_eq!(Scalar::Int(2).convert(Kind::Text), Err("the number 2".into()));
}
