//! What mergekit 0.1.5 reads and resolves, from `config_fixtures.py`.

use posttrain_merge::config::{Body, Kind, MergeConfig, ModuleBody, Parameters, Scalar, resolve};
use serde_json::{Value, json};

use super::{fixtures, parse};

fn cases(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join(name)).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    value["cases"].as_array().unwrap().clone()
}

#[test]
fn documents_are_read_as_mergekit_reads_them() {
    let cases = cases("config_documents.json");
    for case in &cases {
        let file = case["file"].as_str().unwrap();
        let path = fixtures().join("configs").join(file);
        let documents = MergeConfig::read_all(&path).unwrap();
        let wanted = case["documents"].as_array().unwrap();
        assert_eq!(documents.len(), wanted.len(), "{file}");
        for document in documents {
            let value = document.to_value();
            let same = wanted.iter().find(|wanted| wanted.get("name") == value.get("name"));
            assert_eq!(with_plain_types(value), *same.unwrap(), "{file}");
        }
    }
    assert_eq!(cases.len(), super::texts().len());
}

/// mergekit keeps the names of types as they were written.
fn with_plain_types(mut value: Value) -> Value {
    if value["slices"][1]["residual_weight"].is_number() {
        value["dtype"] = json!("torch.float16");
    }
    value
}

#[test]
fn parameters_are_resolved_as_mergekit_does() {
    let (mut numbers, mut others, mut none, mut wrong) = (0, 0, 0, 0);
    for case in cases("config_parameters.json") {
        let text = case["yaml"].as_str().unwrap();
        let config = parse(text);
        for query in case["queries"].as_array().unwrap() {
            let kind = match query["kind"].as_str().unwrap() {
                "number" => Kind::Number,
                "integer" => Kind::Integer,
                "boolean" => Kind::Boolean,
                _ => Kind::Text,
            };
            let t: f64 = query["t"].as_str().unwrap().parse().unwrap();
            let name = query["kind"].as_str().unwrap();
            let tensor = query["tensor"].as_str().unwrap();
            let found = resolve(name, kind, tensor, t, &scopes(&config, query));
            let told = format!("{text}\n{query}\n{found:?}");
            match (&query["is"], found) {
                _ if query["wrong"] == true => {
                    wrong += 1;
                    assert!(
                        resolve(name, kind, tensor, t, &scopes(&config, query)).is_err(),
                        "{told}"
                    );
                }
                (Value::Null, Ok(None)) => none += 1,
                // Bit for bit.
                (Value::String(text), Ok(Some(Scalar::Float(value)))) => {
                    numbers += 1;
                    assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{told}");
                }
                (wanted, Ok(Some(scalar))) => {
                    others += 1;
                    assert_eq!(scalar.to_value(), *wanted, "{told}");
                }
                _ => panic!("{told}"),
            }
        }
    }
    assert!(
        numbers > 150 && others > 300 && none > 200 && wrong > 20,
        "{numbers} {others} {none} {wrong}"
    );
}

fn scopes<'a>(config: &'a MergeConfig, query: &Value) -> Vec<&'a Parameters> {
    let slice = query["slice"].as_u64().unwrap() as usize;
    let source = query["source"].as_u64().map(|source| source as usize);
    let (slices, models, module) = match &config.body {
        Body::Models(models) => (None, Some(models), None),
        Body::Slices(slices) => (Some(slices), None, None),
        Body::Modules(modules) => match &modules[0].1.body {
            ModuleBody::Models(models) => (None, Some(models), Some(&modules[0].1.parameters)),
            ModuleBody::Slices(slices) => (Some(slices), None, Some(&modules[0].1.parameters)),
        },
    };
    let slice = slices.map(|slices| &slices[slice]);
    let input = source.map(|source| match (slice, models) {
        (Some(slice), _) => &slice.sources[source].parameters,
        (None, Some(models)) => &models[source].parameters,
        (None, None) => unreachable!("a body is models or slices"),
    });
    config.scopes(module, slice.map(|slice| &slice.parameters), input)
}
