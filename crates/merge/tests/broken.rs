//! Broken checkpoints and merges that do not fit: one clear error each, with all that is wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checkpoints;

use std::path::Path;

use checkpoints::{
    Entry, Random, config, fixtures, llama, merge, plan, safetensors, says, with_header,
    write_model, write_shards, yaml,
};
use posttrain_merge::dtype::Dtype;
use posttrain_merge::{Checkpoint, Error, ProblemKind};
use serde_json::{Value, json};

/// What is said of a file with these bytes; its name stands in front.
fn of_file(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error:?}");
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned()
}

fn of_folder(folder: &Path) -> String {
    Checkpoint::open(folder).unwrap_err().to_string()
}

#[test]
fn headers() {
    for (header, data, wanted) in [
        ("no json", 0, "expected a JSON object of tensors"),
        ("[1]", 0, "expected a JSON object of tensors"),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#, 4, "expected a JSON object"),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            4,
            "`a` is there twice",
        ),
        (r#"{"a":{"shape":[1],"data_offsets":[0,4]}}"#, 4, "tensor `a`: it has no `dtype`"),
        (
            r#"{"a":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}}"#,
            4,
            r#"tensor `a`: `dtype` is "Q4", expected one such as "BF16""#,
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,4]}}"#,
            4,
            "tensor `a`: F32 [2, 3] has 24 bytes, its place has 4",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            4,
            "tensor `a`: `shape` is [-1], expected a list of whole numbers from 0 on",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#,
            4,
            "tensor `a`: `data_offsets` is [-4,0], expected a list of whole numbers",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}"#,
            4,
            "expected a list of whole numbers",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}}"#,
            4,
            "tensor `a`: F32 [1] has 4 bytes, its place has 3",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,4]}}"#,
            4,
            "has more bytes than can be counted",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
            4,
            "tensor `a`: it ends at 0, before it begins at 4",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#,
            4,
            "tensor `a`: `data_offsets` has 1 numbers, expected 2",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
            "tensor `b` begins at 4, `a` ends at 8: they overlap",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
            12,
            "4 bytes between `a` and tensor `b` are no tensor's",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
            "4 bytes between the header and tensor `a` are no tensor's",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            9,
            "the tensors have 4 bytes, the file has 9 bytes of data",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            7,
            "tensor `a` ends at 8, the file has 7 bytes of data: it is cut off",
        ),
        (r#"{"__metadata__":{"a":1}}"#, 0, "broken safetensors header"),
        (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1, "has 1.5 bytes"),
        (r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#, 1, "expected whole bytes"),
    ] {
        let text = of_file(&with_header(header, &vec![0; data]));
        assert!(text.contains(wanted), "{header}: expected `{wanted}`, found {text}");
    }
    // Everything at once.
    let several = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"X","shape":[1],"data_offsets":[4,8]},"b":{}}"#;
    let text = of_file(&with_header(several, &[0; 8]));
    says(&text, &["3 problems", "F32 [2] has 8 bytes", "`dtype` is \"X\"", "`b` is there twice"]);
}

#[test]
fn lengths_of_headers() {
    for (length, wanted) in [
        (u64::MAX, "the header should have 18446744073709551615 bytes, the file has 10"),
        (i64::MAX as u64, "the file has 10: cut off, or no safetensors file"),
        (3, "the header should have 3 bytes, the file has 10"),
        (0, "expected a JSON object of tensors"),
    ] {
        let mut file = length.to_le_bytes().to_vec();
        file.extend([0; 2]);
        says(&of_file(&file), &[wanted]);
    }
    for length in 0..8 {
        says(&of_file(&vec![1; length]), &["bytes, expected a safetensors file"]);
    }
}

#[test]
fn cut_off_anywhere() {
    let whole = std::fs::read(fixtures().join("base/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let few = (0..whole.len()).step_by(97).chain(header - 3..header + 3).chain([whole.len() - 1]);
    for length in few {
        let text = of_file(&whole[..length]);
        let wanted = match length {
            0..8 => "expected a safetensors file",
            _ if length < header => "cut off, or no safetensors file",
            _ => "it is cut off",
        };
        assert!(text.contains(wanted), "{length}: {text}");
    }
}

#[test]
fn folders() {
    let scratch = tempfile::tempdir().unwrap();
    let new = |name: &str| {
        let folder = scratch.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), config(1).to_string()).unwrap();
        folder
    };
    for (file, wanted) in [
        ("pytorch_model.bin", "the weights are pickles, expected safetensors"),
        ("consolidated.00.pth", "the weights are pickles, expected safetensors"),
        ("model-q4.gguf", "the weights are GGUF, expected safetensors"),
        ("notes.txt", "expected model.safetensors or model.safetensors.index.json, found neither"),
    ] {
        let folder = new(file);
        std::fs::write(folder.join(file), "x").unwrap();
        says(&of_folder(&folder), &[file, wanted]);
    }
    let folder = new("two");
    for name in ["a.safetensors", "b.safetensors"] {
        std::fs::write(folder.join(name), safetensors(&llama(1, Dtype::F32, 1))).unwrap();
    }
    says(&of_folder(&folder), &["2 safetensors files and no model.safetensors.index.json"]);
    for (text, wanted) in
        [("{", "EOF while parsing"), ("[]", "expected a map"), ("\u{ff}", "line 1")]
    {
        let folder =
            write_model(&scratch.path().join("config"), &json!({}), &llama(1, Dtype::F32, 1));
        std::fs::write(folder.join("config.json"), text).unwrap();
        says(&of_folder(&folder), &["config.json", wanted]);
    }
    let folder = new("gone");
    std::fs::remove_file(folder.join("config.json")).unwrap();
    says(&of_folder(&folder), &["gone/config.json: No such file"]);
    says(&of_folder(&scratch.path().join("nothing")), &["nothing: No such file"]);
}

#[test]
fn shards() {
    let scratch = tempfile::tempdir().unwrap();
    let model = llama(1, Dtype::F32, 2);
    let (first, second) = model.split_at(4);
    let write = || write_shards(&scratch.path().join("model"), &config(2), &[first, second]);
    let folder = write();
    Checkpoint::open(&folder).unwrap();
    std::fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    let wanted = "index.json: it names model-00002-of-00002.safetensors, not found in the folder";
    says(&of_folder(&folder), &[wanted]);
    std::fs::remove_file(folder.join("model-00001-of-00002.safetensors")).unwrap();
    let wanted = "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, not found";
    says(&of_folder(&folder), &[wanted]);

    // A tensor in two files.
    let folder = write();
    let mut twice = second.to_vec();
    twice.push(first[0].clone());
    std::fs::write(folder.join("model-00002-of-00002.safetensors"), safetensors(&twice)).unwrap();
    let text = of_folder(&folder);
    says(
        &text,
        &["model-00002-of-00002.safetensors: tensor `model.embed_tokens.weight` is also in"],
    );
    says(&text, &["model-00001-of-00002.safetensors"]);

    // The index and the files disagree, in both ways.
    let folder = write();
    let path = folder.join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let map = index["weight_map"].as_object_mut().unwrap();
    map.insert("extra".into(), "model-00001-of-00002.safetensors".into());
    map.insert("lm_head.weight".into(), "model-00001-of-00002.safetensors".into());
    map.remove("model.norm.weight");
    std::fs::write(&path, index.to_string()).unwrap();
    says(
        &of_folder(&folder),
        &[
            "the index does not fit, 3 problems",
            "tensor `extra` should be in model-00001-of-00002.safetensors and is in no file",
            "tensor `lm_head.weight` should be in model-00001-of-00002.safetensors and is in",
            "tensor `model.norm.weight` in",
        ],
    );
    for (index, wanted) in [
        ("{", "EOF while parsing"),
        ("{}", "missing field `weight_map`"),
        (r#"{"weight_map": []}"#, "expected an object"),
        (r#"{"weight_map": {}}"#, "it names no files"),
        (r#"{"weight_map": {"a": 1}}"#, "expected a string"),
        (r#"{"weight_map": {"a": "../x.safetensors"}}"#, "is not in this folder"),
        (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "is not in this folder"),
        (r#"{"weight_map": {"a": ".."}}"#, "model"),
        (r#"{"weight_map": {"a": "x", "a": "y"}}"#, "`a` is there twice"),
    ] {
        std::fs::write(&path, index).unwrap();
        says(&of_folder(&folder), &["model", wanted]);
    }
}

/// The problems of a plan.
fn problems(text: &str) -> (Vec<ProblemKind>, String) {
    match plan(text).unwrap_err() {
        Error::Problems { problems } => {
            let kinds = problems.iter().map(|problem| problem.kind).collect();
            (kinds, Error::Problems { problems }.to_string())
        }
        other => panic!("{other}"),
    }
}

#[test]
fn all_models_that_cannot_be_read_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let good = write_model(&path("good"), &config(1), &llama(1, Dtype::F32, 1));
    let quantised = |name: &str, settings: Value, entry: Entry| {
        let mut settings_of_model = config(1);
        settings_of_model["quantization_config"] = settings;
        write_model(&path(name), &settings_of_model, &[entry])
    };
    let bytes = |name: &str| Entry::raw(name, Dtype::U8, &[4], vec![0; 4]);
    let int8 = Entry::raw("a.weight", Dtype::I8, &[2, 2], vec![0; 4]);
    let models = [
        quantised("gptq", json!({"quant_method": "gptq", "bits": 4}), bytes("a.qweight")),
        quantised("awq", json!({"quant_method": "awq"}), bytes("a.qweight")),
        quantised("bnb", json!({"quant_method": "bitsandbytes"}), bytes("a.weight")),
        quantised("older", json!({"load_in_4bit": true}), bytes("a.weight.absmax")),
        quantised("int4", json!({"quant_method": "compressed-tensors"}), bytes("a.weight_packed")),
        quantised("int8", json!({"quant_method": "compressed-tensors"}), int8.clone()),
        // Whose settings were lost.
        write_model(&path("stripped"), &config(1), &[bytes("a.weight"), bytes("a.weight.absmax")]),
        path("nowhere"),
    ];
    let named: Vec<(&Path, &str)> =
        std::iter::once(&good).chain(&models).map(|path| (path.as_path(), "weight: 1")).collect();
    let (kinds, text) = problems(&yaml("linear", &named, ""));
    assert_eq!(kinds.len(), 8, "{text}");
    assert_eq!(kinds.iter().filter(|kind| **kind == ProblemKind::Quantised).count(), 7, "{text}");
    says(
        &text,
        &[
            "8 problems, nothing was written",
            "quantised with gptq (tensor `a.qweight`)",
            "quantised with awq",
            "quantised with bitsandbytes",
            "quantised with an unknown method",
            "quantised with compressed-tensors (tensor `a.weight_packed`)",
            "quantised with compressed-tensors (tensor `a.weight`)",
            "stripped: quantised with an unknown method (tensor `a.weight`)",
            "merge the model it was made from",
            "nowhere: no such folder or file; models are read from the disk",
        ],
    );
}

#[test]
fn settings_that_say_nothing_are_no_quantisation() {
    let scratch = tempfile::tempdir().unwrap();
    let mut settings = config(1);
    settings["quantization_config"] = Value::Null;
    let model = write_model(&scratch.path().join("a"), &settings, &llama(1, Dtype::F32, 1));
    let out = scratch.path().join("out");
    merge(&yaml("passthrough", &[(&model, "")], ""), &out).unwrap();
    assert!(!Checkpoint::open(&out).unwrap().config().contains_key("quantization_config"));
}

#[test]
fn everything_that_does_not_fit_is_said_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let a = llama(1, Dtype::F32, 2);
    let mut b = llama(2, Dtype::F32, 2);
    let mut random = Random(3);
    b[0] = Entry::random("model.embed_tokens.weight", Dtype::F32, &[13, 8], &mut random);
    b[1] = Entry::random("model.layers.0.input_layernorm.weight", Dtype::F32, &[4], &mut random);
    b[2] = Entry::raw("model.layers.0.self_attn.q_proj.weight", Dtype::I64, &[8, 8], vec![0; 512]);
    b.remove(3);
    b.push(Entry::random("extra", Dtype::F32, &[1], &mut random));
    let a = write_model(&path("a"), &config(2), &a);
    let b = write_model(&path("b"), &config(2), &b);
    let (kinds, text) = problems(&yaml("linear", &[(&a, "weight: 1"), (&b, "weight: 1")], ""));
    assert_eq!(kinds.len(), 5, "{text}");
    says(
        &text,
        &[
            "5 problems, nothing was written",
            "tensor `model.embed_tokens.weight`: [12, 8] in",
            "their vocabularies differ: set `tokenizer_source: union`",
            "tensor `model.layers.0.input_layernorm.weight`: [8] in",
            "and [4] in",
            "tensor `model.layers.0.self_attn.q_proj.weight`: float32 in",
            "what is not floating-point is only taken where all inputs have the same",
            "tensor `extra`: in",
            "tensor `model.layers.0.mlp.up_proj.weight`: in",
        ],
    );
    let out = path("out");
    merge(&yaml("linear", &[(&a, "weight: 1"), (&b, "weight: 1")], ""), &out).unwrap_err();
    assert!(!out.exists() && !path("out.unfinished").exists());
}

#[test]
fn ranges_and_architectures() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let a = write_model(&path("a"), &config(2), &llama(1, Dtype::F32, 2));
    let slices = format!(
        "merge_method: passthrough\nslices:\n- sources:\n  - {{model: '{0}', layer_range: [0, 3]}}\n- sources:\n  - {{model: '{0}', layer_range: [7, 9]}}\n",
        a.display()
    );
    let (kinds, text) = problems(&slices);
    assert_eq!(kinds, [ProblemKind::Layers; 2]);
    says(&text, &["`slices[0].sources[0].layer_range` is [0, 3]", "has 2 layers (0 to 1)"]);
    says(&text, &["`slices[1].sources[0].layer_range` is [7, 9]"]);

    let mut other = config(2);
    other["architectures"] = json!(["GPT2LMHeadModel"]);
    other["model_type"] = "gpt2".into();
    let b = write_model(&path("b"), &other, &llama(2, Dtype::F32, 2));
    let (kinds, text) = problems(&yaml("linear", &[(&a, "weight: 1"), (&b, "weight: 1")], ""));
    assert_eq!(kinds, [ProblemKind::Architecture]);
    says(&text, &["is LlamaForCausalLM", "is GPT2LMHeadModel", "expected one architecture"]);
}
