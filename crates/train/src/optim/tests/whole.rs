//! With whole models: steps, clipping, averages, and what users may get wrong.

use std::path::{Path, PathBuf};

use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor};
use posttrain_model::checkpoint::SaveOptions;
use posttrain_model::config::Config;
use posttrain_model::{Decoder, Gradients, Parameter};

use super::{config, noise, numbers, optimizer, tensor, weight};
use crate::optim::{Ema, Optimizer, OptimizerConfig, clip_global_norm, global_norm};

fn model() -> Decoder {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/tiny");
    let config = Config::from_model(&folder).unwrap();
    Decoder::random(&config, 0.02, 7, &Device::flex()).unwrap()
}

fn gradients(model: &Decoder, seed: u64) -> Gradients {
    let mut gradients = Gradients::default();
    for (index, Parameter { name, shape, trainable }) in (0..).zip(model.parameters()) {
        if trainable {
            let shape = crate::optim::rule::matrix(&shape);
            let numbers = noise(seed * 1000 + index, shape[0] * shape[1]);
            gradients.add(&name, tensor(shape, numbers));
        }
    }
    gradients
}

/// The numbers of every parameter.
fn all(model: &Decoder) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    let _ = model.clone().with_trainable(|_| true).map_trainable(&mut |parameter, weight| {
        all.push((parameter.name.clone(), numbers(&weight)));
        weight
    });
    all
}

fn places(model: Decoder) -> (Decoder, Vec<usize>) {
    let mut places = Vec::new();
    let model = model.map_trainable(&mut |_, weight| {
        let primitive = weight.try_into_primitive::<Flex>().unwrap();
        places.push(primitive.bytes().as_ptr().addr());
        Tensor::from_primitive::<Flex>(primitive)
    });
    (model, places)
}

#[test]
fn only_what_is_trainable_moves_and_nothing_is_copied() {
    let model = model().with_trainable(|name| !name.contains("layers.0"));
    let before = all(&model);
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), 1e-3, &model).unwrap();
    let gradients = gradients(&model, 1);
    let (model, places_before) = places(model);
    let model = optimizer.step(1e-3, model, gradients);
    let (model, places_after) = places(model);
    assert_eq!(places_before, places_after);
    assert_eq!(optimizer.steps(), 1);
    for ((name, before), (_, after)) in before.iter().zip(all(&model)) {
        assert_eq!(*before == after, name.contains("layers.0"), "{name}");
    }
}

#[test]
fn ten_steps_are_five_and_a_pause_and_five() {
    let folder = tempfile::tempdir().unwrap();
    let (model_path, path) = (folder.path().join("model"), folder.path().join("optim"));
    let settings = config("{optim: adamw_8bit, weight_decay: 0.1}");
    let run = |mut model: Decoder, optimizer: &mut Optimizer, steps: std::ops::Range<u64>| {
        for step in steps {
            let mut gradients = gradients(&model, step);
            clip_global_norm(&mut gradients, 1.0);
            model = optimizer.step(1e-3, model, gradients);
        }
        model
    };
    let mut optimizer = Optimizer::new(&settings, 1e-3, &model()).unwrap();
    let whole = run(model(), &mut optimizer, 0..10);

    let mut optimizer = Optimizer::new(&settings, 1e-3, &model()).unwrap();
    let half = run(model(), &mut optimizer, 0..5);
    half.save(&model_path, &SaveOptions::default()).unwrap();
    optimizer.save(&path).unwrap();
    let loaded = Decoder::load(&model_path, &Device::flex()).unwrap();
    let mut optimizer = Optimizer::load(&path, &settings, 1e-3, &loaded).unwrap();
    assert_eq!(optimizer.steps(), 5);
    let resumed = run(loaded, &mut optimizer, 5..10);
    assert_eq!(all(&resumed), all(&whole));
    // The weights that were loaded lay in the file: it has not been written to.
    let unchanged = Decoder::load(&model_path, &Device::flex()).unwrap();
    assert_eq!(all(&unchanged), all(&half));
}

#[test]
#[should_panic(expected = "gradients of parameters that are not trained: [\"elsewhere\"]")]
fn a_gradient_of_nothing_is_not_dropped() {
    let model = model();
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), 1e-3, &model).unwrap();
    let mut gradients = gradients(&model, 1);
    gradients.add("elsewhere", tensor([1, 1], vec![1.0]));
    let _ = optimizer.step(1e-3, model, gradients);
}

#[test]
#[should_panic(expected = "is not among the optimizer's parameters")]
fn a_parameter_that_was_frozen_is_not_trained() {
    let model = model().with_trainable(|name| name == "lm_head.weight");
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), 1e-3, &model).unwrap();
    let model = model.with_trainable(|_| true);
    let gradients = gradients(&model, 1);
    let _ = optimizer.step(1e-3, model, gradients);
}

#[test]
fn wrong_settings_are_named() {
    let model = model();
    let error =
        |yaml: &str| Optimizer::new(&config(yaml), 1e-3, &model).map(drop).unwrap_err().to_string();
    for (yaml, expected) in [
        ("adam_beta1: 1.0", "`adam_beta1` is 1, expected at least 0 and below 1"),
        ("weight_decay: -0.1", "`weight_decay` is -0.1, expected at least 0"),
        (
            "optim_args: 'momentum=0.9'",
            "`optim_args` is `momentum`, expected nothing: adamw_torch has no arguments",
        ),
        (
            "{optim: sgd, optim_args: 'momentun=0.9'}",
            "`optim_args` is `momentun`, expected one of momentum, dampening, nesterov, which sgd \
             has",
        ),
        (
            "{optim: sgd, optim_args: 'momentum=high'}",
            "`optim_args.momentum` is `high`, expected a number",
        ),
        (
            "{optim: sgd, optim_args: 'momentum'}",
            "`optim_args` is `momentum`, expected `key=value`",
        ),
        (
            "{optim: sgd, optim_args: 'nesterov=true'}",
            "`optim_args.momentum` is 0, expected above 0 with nesterov",
        ),
        (
            "{optim: muon, optim_args: 'adjust_lr_fn=keller'}",
            "`optim_args.adjust_lr_fn` is `keller`, expected original, match_rms_adamw or \
             spectral_unclamped",
        ),
        (
            "{optim: adafactor, optim_args: 'warmup_init=true'}",
            "`optim_args.warmup_init` is true, expected false without relative_step",
        ),
        (
            "{optim: adafactor, optim_args: 'relative_step=true', \
             learning_rate_groups: [{pattern: layers, factor: 2}]}",
            "`optim_args.relative_step` is true, expected false beside other learning rates",
        ),
        (
            "loraplus_lr_ratio: 2",
            "`loraplus_lr_ratio` is 2, expected none where no lora_B is trained",
        ),
        ("loraplus_lr_ratio: 0", "`loraplus_lr_ratio` is 0, expected above 0"),
    ] {
        assert_eq!(error(yaml), expected, "{yaml}");
    }
    let frozen = model.clone().with_trainable(|_| false);
    let error = Optimizer::new(&OptimizerConfig::default(), 1e-3, &frozen).unwrap_err().to_string();
    assert_eq!(error, "`optim` is for no parameter, expected a trainable parameter");
    assert!(serde_saphyr::from_str::<OptimizerConfig>("optim: adam").is_err());
    assert!(serde_saphyr::from_str::<OptimizerConfig>("adam_beta3: 0.9").is_err());
}

#[test]
fn names_go_into_yaml_and_back() {
    for name in ["adamw_torch", "adamw_8bit", "adafactor", "lion_32bit", "muon", "sgd"] {
        let read = config(&format!("optim: {name}"));
        assert_eq!(read.optim.name(), name);
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written["optim"], name);
    }
}

#[test]
fn bytes_are_counted_before_anything_is_made() {
    let bytes = |yaml: &str, name: &str, shape: &[usize], dtype| {
        let (parameter, _) = weight(name, shape, noise(1, shape.iter().product()));
        config(yaml).state_bytes(&parameter, dtype).unwrap()
    };
    let (matrix, shape) = ("model.layers.0.q_proj.weight", [64, 96]);
    let n = 64 * 96;
    assert_eq!(bytes("optim: adamw_torch", matrix, &shape, DType::F32), 8 * n);
    assert_eq!(bytes("optim: adamw_torch", matrix, &shape, DType::BF16), 12 * n);
    assert_eq!(bytes("optim: adamw_8bit", matrix, &shape, DType::F32), 2 * n + 8 * (n / 256));
    assert_eq!(bytes("optim: adamw_8bit", "model.norm.weight", &[64], DType::F32), 8 * 64);
    let embedding = "model.embed_tokens.weight";
    assert_eq!(bytes("optim: adamw_8bit", embedding, &shape, DType::F32), 8 * n);
    assert_eq!(bytes("optim: adafactor", matrix, &shape, DType::F32), 4 * (64 + 96));
    assert_eq!(bytes("optim: muon", matrix, &shape, DType::F32), 4 * n);
    assert_eq!(bytes("optim: muon", embedding, &shape, DType::F32), 8 * n);
    assert_eq!(bytes("optim: sgd", matrix, &shape, DType::F32), 0);
    assert_eq!(bytes("optim: lion", matrix, &shape, DType::F32), 4 * n);
}

#[test]
fn groups_learn_at_their_rates() {
    // The first step of AdamW is as long as the rate.
    let yaml = r"learning_rate_groups: [{pattern: 'layers\.0\.', factor: 0.5}]";
    let weights = [
        weight("model.layers.0.w", &[1, 2], vec![0.0; 2]),
        weight("model.layers.1.w", &[1, 2], vec![0.0; 2]),
    ];
    let mut optimizer = optimizer(&config(yaml), &weights);
    for ((parameter, weight), expected) in weights.into_iter().zip([-0.05, -0.1]) {
        let after = optimizer.update(0.1, &parameter.name, weight, tensor([1, 2], vec![3.0; 2]));
        assert!(numbers(&after).iter().all(|w| (w - expected).abs() < 1e-7));
    }
}

#[test]
fn clipping_by_hand() {
    // √(3² + 4² + 12²) = 13.
    let make = || {
        let mut gradients = Gradients::default();
        gradients.add("a", tensor([1, 2], vec![3.0, 4.0]));
        gradients.add("b", tensor([1, 1], vec![12.0]));
        gradients
    };
    let mut gradients = make();
    assert_eq!(global_norm(&gradients), 13.0);
    assert_eq!(clip_global_norm(&mut gradients, 6.5), 13.0);
    let b = numbers(gradients.get("b").unwrap())[0];
    assert!((f64::from(b) - 12.0 * 6.5 / 13.000_001).abs() < 1e-6, "{b}");
    // What is short enough stays bit for bit.
    let mut gradients = make();
    assert_eq!(clip_global_norm(&mut gradients, 13.1), 13.0);
    assert_eq!(numbers(gradients.get("a").unwrap()), [3.0, 4.0]);
    let on_tensors = super::on_tensors(|| global_norm(&make()));
    assert!((on_tensors - 13.0).abs() < 1e-6);
    assert_eq!(global_norm(&Gradients::default()), 0.0);
    gradients.add("c", tensor([1, 1], vec![f32::NAN]));
    assert!(clip_global_norm(&mut gradients, 1.0).is_nan());
}

#[test]
fn the_norm_does_not_depend_on_threads() {
    let mut gradients = Gradients::default();
    gradients.add("a", tensor([999, 777], noise(3, 999 * 777)));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| global_norm(&gradients)).to_bits()
    };
    assert_eq!(with(1), with(2));
    assert_eq!(with(1), with(7));
}

#[test]
fn averages_follow_the_weights() {
    let model = model().with_trainable(|name| name == "model.norm.weight");
    let set = |model: Decoder, to: f32| {
        model.map_trainable(&mut |_, weight| Tensor::full(weight.dims(), to, &weight.device()))
    };
    let norm = |model: &Decoder| {
        let all = all(model);
        all.into_iter().find(|(name, _)| name == "model.norm.weight").unwrap().1[5]
    };
    let mut ema = Ema::new(0.75, &model).unwrap();
    // a = 1, then ¾ · 1 + ¼ · 5 = 2, then ¾ · 2 + ¼ · (−2) = 1.
    assert_eq!(norm(&ema.applied_to(&model)), 1.0);
    let model = set(model, 5.0);
    ema.update(&model);
    let averaged = ema.applied_to(&model);
    assert_eq!((norm(&averaged), norm(&model)), (2.0, 5.0));
    let model = set(model, -2.0);
    ema.update(&model);
    assert_eq!(norm(&ema.applied_to(&model)), 1.0);
    // What was handed out does not move.
    assert_eq!(norm(&averaged), 2.0);

    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("ema.safetensors");
    ema.save(path).unwrap();
    let loaded = Ema::load(path, 0.75, &set(model.clone(), 9.0)).unwrap();
    assert_eq!(norm(&loaded.applied_to(&model)), 1.0);
    let wider = model.clone().with_trainable(|name| name.contains("norm"));
    let error = Ema::load(path, 0.75, &wider).unwrap_err().to_string();
    assert!(error.contains("missing: model.layers.0.input_layernorm.weight"), "{error}");
    let error = Ema::new(1.0, &model).unwrap_err().to_string();
    assert_eq!(error, "`ema_decay` is 1, expected above 0 and below 1");
}

#[test]
fn averages_do_not_tie_up_the_weights() {
    let model = model();
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), 1e-3, &model).unwrap();
    let mut ema = Ema::new(0.9, &model).unwrap();
    let (mut model, before) = places(model);
    for step in 0..2 {
        let gradients = gradients(&model, step);
        model = optimizer.step(1e-3, model, gradients);
        ema.update(&model);
    }
    assert_eq!(places(model).1, before);
}
