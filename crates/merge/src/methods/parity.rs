//! The task-vector methods against mergekit's results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value as Json};

use super::della::{by_rank, probabilities, row};
use super::{Apply, Registry, Resolved, Scope, TaskVectors, Value, block_len, rescale};
use crate::group::Group;
use crate::methods::{Kind, Rescale};
use crate::{Checkpoint, Error, Source, dtype};

const METHODS: [&str; 8] = [
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
];
/// What this test can do without a plan.
const FEATURES: [&str; 4] = ["mask", "input_dtype", "raw", "encoder"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merge")
}

fn json(path: &Path) -> Json {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).expect("JSON or YAML")
}

/// The parameters of a method, for configurations of scalars only.
fn resolve(method: &str, config: &Json, models: &[&Json]) -> Resolved {
    let registry = Registry::default();
    let empty = Map::new();
    let of = |value: &Json| value["parameters"].as_object().cloned().unwrap_or(empty.clone());
    let mut resolved = Resolved { shared: BTreeMap::new(), inputs: vec![] };
    resolved.inputs = models.iter().map(|_| BTreeMap::new()).collect();
    for parameter in &registry.get(method).expect("a method").parameters {
        let value = |scopes: &[&Json]| {
            let found = scopes.iter().find_map(|scope| of(scope).get(parameter.name).cloned());
            match (parameter.kind, found) {
                (_, None) => parameter.default.expect("a default"),
                (Kind::Flag, Some(value)) => Value::Flag(value.as_bool().expect("a flag")),
                (_, Some(value)) => Value::Number(value.as_f64().expect("a number")),
            }
        };
        if parameter.scope == Scope::Shared {
            resolved.shared.insert(parameter.name, value(&[config]));
            continue;
        }
        for (input, model) in resolved.inputs.iter_mut().zip(models) {
            input.insert(parameter.name, value(&[model, config]));
        }
    }
    resolved
}

fn run(apply: &Apply<'_>, group: &Group<'_>) -> Vec<f32> {
    let mut out = vec![0.0; group.numel()];
    let mut block = group.buffers();
    for (index, out) in out.chunks_mut(group.block).enumerate() {
        group.read(index, &mut block);
        apply(&mut block, out);
    }
    out
}

/// The numbers of a file; of whole numbers, none.
fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |tensor: safetensors::tensor::TensorView<'_>| {
        let mut values = vec![0.0; tensor.shape().iter().product()];
        match tensor.dtype() {
            Dtype::U8 => values = tensor.data().iter().map(|bit| f32::from(*bit)).collect(),
            Dtype::I64 => values.clear(),
            float => dtype::decode(float, tensor.data(), &mut values),
        }
        values
    };
    tensors.iter().map(|(name, tensor)| (name.into(), values(tensor))).collect()
}

struct Case {
    name: String,
    method: String,
    tolerance: String,
    masked: bool,
    config: Json,
}

fn cases() -> Vec<Case> {
    let all = json(&folder().join("cases.json"));
    let text = |case: &Json, key: &str| case[key].as_str().unwrap_or_default().to_owned();
    let mut cases = Vec::new();
    for case in all["cases"].as_array().expect("cases") {
        let features = case["features"].as_array().expect("features");
        let known = |feature: &Json| FEATURES.contains(&feature.as_str().unwrap_or_default());
        let method = text(case, "method");
        if METHODS.contains(&&*method)
            && case.get("expected_error").is_none()
            && case.get("union").is_none()
            && features.iter().all(known)
        {
            let name = text(case, "name");
            let config = json(&folder().join("cases").join(&name).join("config.yaml"));
            let masked = features.iter().any(|f| f == "mask")
                || folder().join("cases").join(&name).join("masks.safetensors").exists();
            cases.push(Case { name, method, tolerance: text(case, "tolerance"), masked, config });
        }
    }
    cases
}

impl Case {
    fn models(&self) -> Vec<&Json> {
        let models = self.config["models"].as_array().expect("models");
        models.iter().filter(|m| m["model"] != self.config["base_model"]).collect()
    }

    /// The result for a tensor, and the type it is of.
    fn merge(&self, tensor: &str, checkpoints: &[Checkpoint]) -> Result<(Vec<f32>, Dtype), Error> {
        let stored: Vec<Source> =
            checkpoints.iter().map(|c| Source::Stored(c.tensors()[tensor].clone())).collect();
        let promoted = stored.iter().map(Source::dtype).reduce(dtype::promote).expect("a base");
        let arithmetic = match self.config["dtype"].as_str() {
            None => promoted,
            Some("float32") => Dtype::F32,
            Some("bfloat16") => Dtype::BF16,
            other => panic!("{other:?}"),
        };
        let mut inputs: Vec<Source> = stored.into_iter().map(|s| s.cast(arithmetic)).collect();
        let base = inputs.remove(0);
        let shape = base.shape().to_vec();
        let models = self.models();
        let resolved = resolve(&self.method, &self.config, &models);
        let registry = Registry::default();
        let method = registry.get(&self.method).expect("a method").with(&resolved)?;
        let group = Group {
            name: tensor,
            shape: &shape,
            base: Some(&base),
            inputs: &inputs,
            seed: 0,
            arithmetic,
            block: block_len(&*method, &shape),
        };
        if !self.masked {
            return Ok((run(&method.prepare(&group)?, &group), arithmetic));
        }
        let masks = tensors(&folder().join("cases").join(&self.name).join("masks.safetensors"));
        let masks: Vec<Option<&Vec<f32>>> = models
            .iter()
            .map(|m| masks.get(&format!("{}:{tensor}", m["model"].as_str().expect("a name"))))
            .collect();
        let keep = |i: usize, start: usize, d: &mut [f32]| match masks[i] {
            Some(mask) => d.iter_mut().zip(&mask[start..]).for_each(|(d, m)| *d *= m),
            None => d.fill(0.0),
        };
        let density = resolved.numbers("density");
        let election = self.method == "della" || self.method == "dare_ties";
        let sum = TaskVectors::new(&resolved, election)?;
        let rescale = Rescale::new(&resolved);
        let apply = rescale::merge(rescale, &group, &density, arithmetic, keep, &sum)?;
        Ok((run(&apply, &group), arithmetic))
    }
}

#[test]
fn results_are_those_of_mergekit() {
    let mut seen = BTreeSet::new();
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in cases() {
        let base = &case.config["base_model"];
        let names = [base].into_iter().chain(case.models().into_iter().map(|m| &m["model"]));
        let checkpoints: Vec<Checkpoint> = names
            .map(|name| folder().join("models").join(name.as_str().expect("a name")))
            .map(|path| Checkpoint::open(path).expect("a checkpoint"))
            .collect();
        let expected = folder().join("cases").join(&case.name).join("expected.safetensors");
        for (tensor, expected) in tensors(&expected) {
            if !dtype::is_float(checkpoints[0].tensors()[&tensor].dtype()) {
                continue;
            }
            let (got, arithmetic) = case.merge(&tensor, &checkpoints).expect("a result");
            let close = |(got, expected): (&f32, &f32)| match &*case.tolerance {
                "bit" => got.to_bits() == expected.to_bits(),
                "1e-6" if arithmetic == Dtype::F32 => (got - expected).abs() <= 1e-6,
                "bf16" => got == expected,
                other => panic!("{}: {other} for {arithmetic:?}", case.name),
            };
            let same = got.iter().zip(&expected).filter(|pair| close(*pair)).count();
            if same < expected.len() || got.len() != expected.len() {
                wrong.push(format!("{} {tensor}: {same} of {}", case.name, expected.len()));
            }
            compared += 1;
        }
        seen.insert(case.method);
    }
    assert!(wrong.is_empty(), "of {compared}:\n{}", wrong.join("\n"));
    assert_eq!(seen, METHODS.map(String::from).into());
    assert!(compared > 500, "{compared} tensors");
}

#[test]
fn probabilities_by_rank_are_those_of_mergekit() {
    let mut compared = 0;
    for case in cases() {
        let path = folder().join("cases").join(&case.name).join("probabilities.safetensors");
        if !path.exists() {
            continue;
        }
        let resolved = resolve(&case.method, &case.config, &case.models());
        for (key, expected) in tensors(&path) {
            let (model, tensor) = key.split_once(':').expect("model:tensor");
            let input = case.models().iter().position(|m| m["model"] == model).expect("a model");
            let base = case.config["base_model"].as_str().expect("a name");
            let [x, base] = [model, base].map(|name| {
                let path = folder().join("models").join(name);
                let checkpoint = Checkpoint::open(path).expect("a checkpoint");
                Source::Stored(checkpoint.tensors()[tensor].clone())
            });
            let [mut d, mut b] = [vec![0.0; x.numel()], vec![0.0; x.numel()]];
            x.read(0, &mut d);
            base.read(0, &mut b);
            crate::ops::sub_from(&mut d, &b);
            let (density, epsilon) =
                (resolved.numbers("density")[input], resolved.numbers("epsilon")[input]);
            let row = row(x.shape());
            let of_rank = probabilities(row.0, density, epsilon, Dtype::F32);
            let mut p = vec![0.0; d.len()];
            by_rank(&d, row, &of_rank, &mut p);
            for ((p, expected), d) in p.iter().zip(&expected).zip(&d) {
                // Among deltas of zero mergekit's ranks are arbitrary.
                assert!(*d == 0.0 || p == expected, "{} {key}: {p}, {expected}", case.name);
                compared += usize::from(*d != 0.0);
            }
        }
    }
    assert!(compared > 5000, "{compared} probabilities");
}
