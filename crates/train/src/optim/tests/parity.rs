//! The numbers of PyTorch, transformers, PEFT and bitsandbytes: `tests/fixtures/optim`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::Tensor;
use posttrain_model::{Gradients, Parameter};
use safetensors::SafeTensors;
use serde::Deserialize;

use super::super::rule::Kept;
use super::{config, numbers, optimizer, tensor, weight};
use crate::optim::dynamic::{BLOCK, SIGNED, UNSIGNED};
use crate::optim::groups::treatments;
use crate::optim::{OptimizerConfig, clip_global_norm};
use crate::schedule::{Schedule, ScheduleConfig, SchedulerArguments};

/// The cases of the fixtures and the configurations that say the same, with how close the numbers
/// have to be.
const CASES: &[(&str, &str, f64)] = &[
    ("adamw", "{optim: adamw_torch}", 1e-6),
    (
        "adamw_decay",
        "{optim: adamw_torch, weight_decay: 0.1, adam_beta2: 0.95, adam_epsilon: 1e-6}",
        1e-6,
    ),
    (
        "adamw_large_eps",
        "{optim: adamw_torch, weight_decay: 0.01, adam_beta1: 0.8, adam_beta2: 0.99, adam_epsilon: 0.01}",
        1e-6,
    ),
    ("sgd", "{optim: sgd}", 1e-6),
    ("sgd_momentum", "{optim: sgd, weight_decay: 0.05, optim_args: 'momentum=0.9'}", 1e-6),
    (
        "sgd_nesterov",
        "{optim: sgd, weight_decay: 0.01, optim_args: 'momentum=0.9,nesterov=True'}",
        1e-6,
    ),
    ("adafactor", "{optim: adafactor}", 1e-6),
    (
        "adafactor_beta1",
        "{optim: adafactor, weight_decay: 0.1, optim_args: 'beta1=0.9, clip_threshold=0.5'}",
        1e-6,
    ),
    ("adafactor_scale", "{optim: adafactor, optim_args: 'scale_parameter=true'}", 1e-6),
    (
        "adafactor_relative",
        "{optim: adafactor, optim_args: 'scale_parameter=true, relative_step=true'}",
        1e-6,
    ),
    (
        "adafactor_warmup",
        "{optim: adafactor, optim_args: 'scale_parameter=true, relative_step=true, warmup_init=true'}",
        1e-6,
    ),
    ("lion", "{optim: lion_32bit, weight_decay: 0.1, adam_beta2: 0.99}", 1e-6),
    ("muon_f32", "{optim: muon, weight_decay: 0.1}", 1e-6),
    (
        "muon_f32_rms",
        "{optim: muon, weight_decay: 0.02, optim_args: 'momentum=0.9, nesterov=false, adjust_lr_fn=match_rms_adamw'}",
        1e-6,
    ),
    // The iteration of PyTorch is in bf16, which has three digits.
    ("muon", "{optim: muon, weight_decay: 0.1}", 1e-2),
    ("adamw8bit_nearest", "{optim: adamw_8bit, weight_decay: 0.01}", 1e-6),
];

const SHAPES: &[(&str, &[usize])] =
    &[("small", &[7, 5]), ("matrix", &[64, 96]), ("vector", &[33]), ("large", &[256, 300])];
/// The rows of `large` that the fixtures have.
const ROWS: [usize; 4] = [0, 1, 101, 255];
const STEPS: u64 = 12;

#[derive(Deserialize)]
struct Case {
    rates: Option<Vec<f64>>,
    params: Vec<String>,
    large: BTreeMap<String, Sums>,
}

#[derive(Deserialize)]
struct Sums {
    sum: f64,
    norm: f64,
}

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/optim");
    std::fs::read(folder.join(name)).unwrap()
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&file(name)).unwrap()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok()?;
    let words = tensor.data();
    Some(match tensor.dtype() {
        safetensors::Dtype::F16 => words
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&bytes| half::f16::from_le_bytes(bytes).to_f32())
            .collect(),
        safetensors::Dtype::F32 => {
            words.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        }
        other => panic!("{name} is {other}"),
    })
}

fn gradient(inputs: &SafeTensors<'_>, step: u64, name: &str, shape: &[usize]) -> Tensor<2> {
    let step = if name == "large" { step % 4 } else { step };
    let numbers = floats(inputs, &format!("grad.{step}.{name}")).unwrap();
    tensor(super::super::rule::matrix(shape), numbers)
}

/// The largest difference relative to the number or to the root mean square, whichever is larger.
fn off(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let rms = (squares(expected) / expected.len() as f64).sqrt();
    let differences = found.iter().zip(expected).map(|(&found, &expected)| {
        let (found, expected) = (f64::from(found), f64::from(expected));
        if found == expected { 0.0 } else { (found - expected).abs() / expected.abs().max(rms) }
    });
    differences.fold(0.0, f64::max)
}

#[test]
fn steps_of_the_references() {
    let inputs = file("inputs.safetensors");
    let inputs = SafeTensors::deserialize(&inputs).unwrap();
    let cases: BTreeMap<String, Case> = json("cases.json");
    for &(case, yaml, limit) in CASES {
        let expected = file(&format!("{case}.safetensors"));
        let expected = SafeTensors::deserialize(&expected).unwrap();
        let Case { rates, params, large } = &cases[case];
        for (name, shape) in SHAPES.iter().filter(|(name, _)| params.iter().any(|p| p == name)) {
            let full = format!("model.{name}");
            let start = floats(&inputs, &format!("param.{name}")).unwrap();
            let weights = [weight(&full, shape, start)];
            let mut optimizer = optimizer(&config(yaml), &weights);
            let [(_, mut weight)] = weights;
            for step in 0..STEPS {
                let rate = rates.as_ref().map_or(f64::NAN, |rates| rates[step as usize]);
                let gradient = gradient(&inputs, step, name, shape);
                weight = optimizer.update(rate, &full, weight, gradient);
                let slot = &optimizer.slots[&full];
                let parts = slot.rule.parts(&slot.shape).into_iter().map(|part| part.name);
                let weight = Kept::Numbers(weight.clone());
                for (part, kept) in std::iter::once(("param", &weight)).chain(parts.zip(&slot.kept))
                {
                    let key = format!("{}.{part}.{name}", step + 1);
                    let what = format!("{case} {key}");
                    match kept {
                        Kept::Codes(codes) => same_codes(&expected, &key, codes),
                        Kept::Numbers(found) => {
                            let found = numbers(found);
                            if *name == "large" && step + 1 == STEPS {
                                sums(&found, &large[part], limit, &what);
                            }
                            close(&expected, &key, &found, limit, &what);
                        }
                    }
                }
            }
        }
    }
}

fn close(expected: &SafeTensors<'_>, key: &str, found: &[f32], limit: f64, what: &str) {
    let Some(expected) = floats(expected, key) else { return };
    let rows = key.ends_with("large") && expected.len() == ROWS.len() * 300;
    let off = if rows {
        let found: Vec<f32> =
            ROWS.iter().flat_map(|row| &found[row * 300..(row + 1) * 300]).copied().collect();
        off(&found, &expected)
    } else {
        off(found, &expected)
    };
    assert!(off <= limit, "{what}: off by {off:e}");
}

fn sums(found: &[f32], Sums { sum, norm }: &Sums, limit: f64, what: &str) {
    let wide = || found.iter().map(|&x| f64::from(x));
    let (found_sum, found_norm) = (wide().sum::<f64>(), wide().map(|x| x * x).sum::<f64>().sqrt());
    assert!((found_norm / norm - 1.0).abs() <= limit, "{what}: norm {found_norm}, not {norm}");
    // A sum of numbers of both signs is as exact as its terms.
    let size = norm * (found.len() as f64).sqrt();
    assert!((found_sum - sum).abs() <= limit * size, "{what}: sum {found_sum}, not {sum}");
}

/// Codes of numbers that differ in the last place may differ by one.
fn same_codes(expected: &SafeTensors<'_>, key: &str, found: &Tensor<2, burn::tensor::Int>) {
    let Ok(expected) = expected.tensor(key) else { return };
    let found = found.clone().into_data();
    let pairs = found.as_bytes().iter().zip(expected.data());
    let steps: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
    let differ = steps.iter().filter(|&&step| step > 0).count();
    assert!(steps.iter().all(|&step| step <= 1), "{key}");
    assert!(differ * 10_000 <= steps.len(), "{key}: {differ} of {} codes differ", steps.len());
}

/// The tables, and rounding to them: exactly those of bitsandbytes.
#[test]
fn codes_of_bitsandbytes() {
    let bytes = file("adamw8bit_nearest.safetensors");
    let fixture = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(floats(&fixture, "map.signed").unwrap(), SIGNED.values);
    assert_eq!(floats(&fixture, "map.unsigned").unwrap(), UNSIGNED.values);
    for (table, name) in [(&*SIGNED, "signed"), (&*UNSIGNED, "unsigned")] {
        let numbers = floats(&fixture, &format!("quantized.{name}.numbers")).unwrap();
        let scales = floats(&fixture, &format!("quantized.{name}.scales")).unwrap();
        let widened = floats(&fixture, &format!("quantized.{name}.widened")).unwrap();
        let codes = fixture.tensor(&format!("quantized.{name}.codes")).unwrap();
        let blocks = numbers.chunks(BLOCK).zip(widened.chunks(BLOCK)).zip(scales);
        for (((numbers, widened), scale), codes) in blocks.zip(codes.data().chunks(BLOCK)) {
            let (mut found, mut wide) = (vec![0; numbers.len()], vec![0.0; numbers.len()]);
            assert_eq!(table.quantize(numbers, &mut found), scale);
            assert_eq!(found, codes);
            table.dequantize(codes, scale, &mut wide);
            assert_eq!(wide, widened);
        }
    }
}

/// A difference on purpose: the CPU library of bitsandbytes rounds numbers to multiples of 2⁻¹⁵ of
/// the largest before it looks for their code, so that a zero becomes 1.5e-5 and a weight without
/// gradient moves. Before there are codes all agree, and codes of numbers well above 2⁻¹⁵ are the
/// same but for those half-way between two.
#[test]
fn the_cpu_library_of_bitsandbytes_is_coarser() {
    let (inputs, expected) = (file("inputs.safetensors"), file("adamw8bit.safetensors"));
    let inputs = SafeTensors::deserialize(&inputs).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let start = floats(&inputs, "param.matrix").unwrap();
    let weights = [weight("model.matrix", &[64, 96], start)];
    let mut optimizer = optimizer(&config("{optim: adamw_8bit, weight_decay: 0.01}"), &weights);
    let [(_, weight)] = weights;
    let gradient = gradient(&inputs, 0, "matrix", &[64, 96]);
    let weight = optimizer.update(0.01, "model.matrix", weight, gradient);
    let off = off(&numbers(&weight), &floats(&expected, "1.param.matrix").unwrap());
    assert!(off < 1e-6, "{off}");
    let kept = &optimizer.slots["model.matrix"].kept;
    for (index, table) in [&*SIGNED, &*UNSIGNED].into_iter().enumerate() {
        let Kept::Codes(codes) = &kept[index] else { panic!("codes come first") };
        let codes = codes.clone().into_data();
        let theirs = expected.tensor(&format!("1.state{}.matrix", index + 1)).unwrap();
        let (mut large, mut differ) = (0, 0);
        for (&ours, &theirs) in codes.as_bytes().iter().zip(theirs.data()) {
            if table.values[usize::from(ours)].abs() > 0.01 {
                large += 1;
                differ += u8::from(ours != theirs);
                assert!(ours.abs_diff(theirs) <= 1);
            }
        }
        assert!(large > 1000 && differ < 50, "{differ} of {large}");
    }
}

#[test]
fn schedules_of_transformers() {
    #[derive(Deserialize)]
    struct Run {
        name: serde_json::Value,
        lr: f64,
        warmup_steps: u64,
        training_steps: u64,
        options: SchedulerArguments,
        rates: Vec<f64>,
    }
    let runs: Vec<Run> = json("schedules.json");
    assert!(runs.len() > 50);
    for Run { name, lr, warmup_steps, training_steps, options, rates } in runs {
        let config = ScheduleConfig {
            lr_scheduler_type: serde_json::from_value(name.clone()).unwrap(),
            lr_scheduler_kwargs: options.clone(),
            warmup_steps: warmup_steps as f64,
            ..ScheduleConfig::default()
        };
        let schedule = Schedule::new(&config, lr, training_steps).unwrap();
        for (step, expected) in (0..).zip(rates) {
            let found = schedule.rate(step);
            assert!(
                (found - expected).abs() <= 1e-12 * expected.abs().max(lr),
                "{name} {options:?} {warmup_steps}/{training_steps}, step {step}: {found}, not {expected}"
            );
        }
    }
}

fn squares(numbers: &[f32]) -> f64 {
    numbers.iter().map(|&x| f64::from(x).powi(2)).sum()
}

#[test]
fn clipping_of_pytorch() {
    #[derive(Deserialize)]
    struct Run {
        step: u64,
        max_norm: f64,
        norm: f64,
        after: BTreeMap<String, f64>,
        first: BTreeMap<String, f64>,
    }
    let inputs = file("inputs.safetensors");
    let inputs = SafeTensors::deserialize(&inputs).unwrap();
    for Run { step, max_norm, norm, after, first } in json::<Vec<Run>>("clipping.json") {
        let (mut gradients, mut exact) = (Gradients::default(), 0.0);
        for (name, shape) in SHAPES {
            let gradient = gradient(&inputs, step, name, shape);
            exact += squares(&numbers(&gradient));
            gradients.add(name, gradient);
        }
        let exact = exact.sqrt();
        let found = clip_global_norm(&mut gradients, max_norm);
        assert!((found / exact - 1.0).abs() < 1e-12, "{found}, not {exact}");
        // PyTorch adds the squares in f32, and is off by 4e-6.
        assert!((found / norm - 1.0).abs() < 1e-5, "{found}, not {norm}");
        for (name, gradient) in gradients.iter() {
            let gradient = numbers(gradient);
            assert!((squares(&gradient).sqrt() / after[name] - 1.0).abs() < 1e-5, "{name}");
            assert!((f64::from(gradient[0]) / first[name] - 1.0).abs() < 1e-5, "{name}");
        }
    }
}

#[test]
fn groups_of_lora_plus() {
    #[derive(Deserialize)]
    struct Settings {
        lr: f64,
        loraplus_lr_ratio: f64,
        loraplus_weight_decay: f64,
        loraplus_lr_embedding: f64,
    }
    #[derive(Deserialize)]
    struct Group {
        lr: f64,
        weight_decay: f64,
    }
    #[derive(Deserialize)]
    struct Fixture {
        settings: Settings,
        groups: BTreeMap<String, Group>,
    }
    let Fixture { settings, groups } = json("loraplus.json");
    let config = OptimizerConfig {
        weight_decay: settings.loraplus_weight_decay,
        loraplus_lr_ratio: Some(settings.loraplus_lr_ratio),
        loraplus_lr_embedding: settings.loraplus_lr_embedding,
        ..OptimizerConfig::default()
    };
    let parameters: Vec<Parameter> = groups
        .keys()
        .map(|name| {
            let shape = if name.contains("norm") { vec![16] } else { vec![2, 16] };
            Parameter { name: name.clone(), shape, trainable: true }
        })
        .collect();
    let found = treatments(&config, settings.lr, &parameters).unwrap();
    for ((name, Group { lr, weight_decay }), found) in groups.iter().zip(found) {
        assert!((found.factor * settings.lr / lr - 1.0).abs() < 1e-12, "{name}");
        // A difference on purpose: PEFT lets the norms of Llama decay, since it looks for
        // `nn.LayerNorm` alone; the Trainer does not, and neither do we.
        let expected = if name.contains("norm") { 0.0 } else { *weight_decay };
        assert_eq!(found.decay, expected, "{name}");
    }
}
