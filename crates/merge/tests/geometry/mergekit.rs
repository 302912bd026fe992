//! Against mergekit 0.1.5's results on tiny checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use posttrain_merge::dtype::Dtype;
use posttrain_merge::group::Group;
use posttrain_merge::methods::{Base, Merge, Method, Registry, Resolved, Scope, Value, block_len};
use posttrain_merge::{Checkpoint, Source, dtype};
use serde_json::Value as Json;

const METHODS: [&str; 10] = [
    "nuslerp",
    "multislerp",
    "karcher",
    "model_stock",
    "sce",
    "ram",
    "ramplus_tl",
    "nearswap",
    "arcee_fusion",
    "passthrough",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge")
}

fn merge(
    method: &dyn Merge,
    name: &str,
    base: Option<&Source>,
    inputs: &[Source],
    arithmetic: Dtype,
) -> Result<Vec<f32>, posttrain_merge::Error> {
    let shape = base.or(inputs.first()).unwrap().shape();
    let group =
        Group { name, shape, base, inputs, seed: 0, arithmetic, block: block_len(method, shape) };
    let apply = method.prepare(&group)?;
    let mut out = vec![0.0; group.numel()];
    let mut block = group.buffers();
    for (index, out) in out.chunks_mut(group.block).enumerate() {
        group.read(index, &mut block);
        apply(&mut block, out);
    }
    Ok(out)
}

/// A case of one merge without filters, gradients and slices, except what `resolved.json` has resolved.
struct Case {
    base: Option<String>,
    inputs: Vec<String>,
    config: Json,
    resolved: Option<Json>,
}

impl Case {
    fn read(name: &str, method: &Method) -> Self {
        let folder = fixtures().join("cases").join(name);
        let text = std::fs::read_to_string(folder.join("config.yaml")).unwrap();
        let config: Json = serde_saphyr::from_str(&text).unwrap();
        let base = config["base_model"].as_str().map(String::from);
        let models = match &config["slices"] {
            Json::Array(slices) => &slices[0]["sources"],
            _ => &config["models"],
        };
        let mut inputs: Vec<String> = models
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["model"].as_str().unwrap().to_owned())
            .collect();
        let base = base.filter(|_| method.base != Base::Ignored);
        inputs.retain(|input| Some(input) != base.as_ref());
        let resolved = std::fs::read_to_string(folder.join("resolved.json"))
            .ok()
            .map(|text| serde_json::from_str(&text).unwrap());
        Self { base, inputs, config, resolved }
    }

    fn parameters(&self, method: &Method, tensor: &str) -> Resolved {
        let mut all =
            Resolved { shared: BTreeMap::new(), inputs: vec![BTreeMap::new(); self.inputs.len()] };
        for parameter in &method.parameters {
            let pick = |found: [&Json; 2]| {
                let value = found.into_iter().find(|value| !value.is_null());
                match value {
                    None => parameter.default.unwrap(),
                    Some(Json::Bool(flag)) => Value::Flag(*flag),
                    Some(value) => Value::Number(value.as_f64().unwrap()),
                }
            };
            let name = parameter.name;
            if parameter.scope == Scope::Shared {
                let of_tensor =
                    self.resolved.as_ref().map_or(&Json::Null, |r| &r[tensor]["shared"][name]);
                all.shared.insert(name, pick([of_tensor, &self.config["parameters"][name]]));
                continue;
            }
            for (input, values) in self.inputs.iter().zip(&mut all.inputs) {
                let value = if let Some(resolved) = &self.resolved {
                    [&resolved[tensor]["inputs"][input][name], &Json::Null]
                } else {
                    let models = match &self.config["slices"] {
                        Json::Array(slices) => &slices[0]["sources"],
                        _ => &self.config["models"],
                    };
                    let models = models.as_array().unwrap();
                    let of_input = models.iter().find(|m| m["model"] == **input).unwrap();
                    [&of_input["parameters"][name], &self.config["parameters"][name]]
                };
                values.insert(name, pick(value));
            }
        }
        all
    }

    /// The name in the inputs of an output's tensor.
    fn source(&self, tensor: &str) -> String {
        if self.config["slices"].is_null() {
            return tensor.to_owned();
        }
        tensor.replace("layers.1", "layers.3").replace("layers.0", "layers.2")
    }
}

/// What a tolerance of the fixtures allows.
fn close(tolerance: &str, got: f32, wanted: f32) -> bool {
    match tolerance {
        "bit" => got.to_bits() == wanted.to_bits(),
        "1e-6" => (got - wanted).abs() <= 1e-6 * wanted.abs().max(1.0),
        "bf16" => {
            let step = f32::from_bits(wanted.abs().to_bits() + (1 << 16)) - wanted.abs();
            (got - wanted).abs() <= 2.0 * step
        }
        other => panic!("{other}"),
    }
}

#[test]
fn as_mergekit() {
    let index = std::fs::read_to_string(fixtures().join("cases.json")).unwrap();
    let index: Json = serde_json::from_str(&index).unwrap();
    let registry = Registry::default();
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in index["cases"].as_array().unwrap() {
        let (name, method) = (entry["name"].as_str().unwrap(), entry["method"].as_str().unwrap());
        if !METHODS.contains(&method) || !name.trim_start_matches("bf16_").starts_with(method) {
            continue;
        }
        let Some(tolerance) = entry["tolerance"].as_str() else { continue };
        let Some(method) = registry.get(method) else {
            wrong.push(format!("no {method}"));
            continue;
        };
        cases += 1;
        let case = Case::read(name, method);
        let open = |name: &String| Checkpoint::open(fixtures().join("models").join(name)).unwrap();
        let base = case.base.as_ref().map(open);
        let inputs: Vec<Checkpoint> = case.inputs.iter().map(open).collect();
        let folder = fixtures().join("cases").join(name);
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        for (tensor, wanted) in expected.tensors() {
            let source = |c: &Checkpoint| Source::Stored(c.tensors()[&case.source(tensor)].clone());
            let (base, inputs): (_, Vec<Source>) =
                (base.as_ref().map(source), inputs.iter().map(source).collect());
            let arithmetic = if name.starts_with("bf16_") { Dtype::BF16 } else { Dtype::F32 };
            let built = method.with(&case.parameters(method, tensor)).unwrap();
            let mut got = match merge(&*built, tensor, base.as_ref(), &inputs, arithmetic) {
                Ok(got) => got,
                Err(error) => {
                    wrong.push(format!("{name} {error}"));
                    continue;
                }
            };
            dtype::round(wanted.dtype(), &mut got);
            let wanted = Source::Stored(wanted.clone());
            let mut values = vec![0.0; wanted.numel()];
            wanted.read(0, &mut values);
            let far: Vec<(&f32, &f32)> =
                got.iter().zip(&values).filter(|(g, w)| !close(tolerance, **g, **w)).collect();
            if !far.is_empty() {
                wrong.push(format!(
                    "{name} {tensor}: {} of {} differ, {:?}",
                    far.len(),
                    got.len(),
                    &far[..far.len().min(3)]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 52, "only {cases} cases");
}
