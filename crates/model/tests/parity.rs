//! Every family against transformers 5.23: logits, batches, packing, cache, greedy generation,
//! gradients. To 1e-4, on CUDA to its TF32; `POSTTRAIN_DEVICE` chooses another device than the CPU.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use posttrain_core::{FinishReason, Sampling};
use posttrain_model::{
    Activations, Batch, Decoder, Gradients, KvCache, LoadOptions, Next, Objective, Targets,
    TokenRequest,
};
use support::{Expected, cases, device, distance, models, numbers};

/// Absolute tolerance of logits. CUDA multiplies f32 matrices in TF32, with 10 bits of mantissa.
fn tolerance() -> f32 {
    if format!("{:?}", device()).to_lowercase().contains("cuda") { 5e-2 } else { 1e-4 }
}

fn load(case: &str) -> (Decoder, Expected) {
    let folder = models().join(case);
    let model = Decoder::load(&folder, &device()).unwrap_or_else(|error| panic!("{case}: {error}"));
    (model, Expected::read(&folder.join("expected.safetensors")))
}

/// Runs a check for every case and lists those that fail.
fn for_all_cases(check: impl Fn(&str) -> f32) {
    let worst = cases().into_iter().map(|case| (check(&case), case)).collect::<Vec<_>>();
    for (distance, case) in &worst {
        println!("{case:20} {distance:.1e}");
    }
    let failed: Vec<_> = worst.iter().filter(|(distance, _)| *distance > tolerance()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn logits_and_hidden_states_of_one_text() {
    for_all_cases(|case| {
        let (model, expected) = load(case);
        let (ids, _) = expected.ids("ids");
        let hidden = model.forward(&Batch::padded(&[&ids], 0).unwrap());
        let logits = numbers(model.logits(hidden.clone()));
        distance(&numbers(hidden), &expected.floats("hidden").0)
            .max(distance(&logits, &expected.floats("logits").0))
    });
}

/// The texts of the batch of a case, and the logits of each.
fn texts(expected: &Expected) -> Vec<(Vec<u32>, Vec<f32>)> {
    let (ids, shape) = expected.ids("batch_ids");
    let (lengths, _) = expected.ids("batch_lengths");
    let (logits, logits_shape) = expected.floats("batch_logits");
    let vocab = logits_shape[2];
    let text = |(row, &length): (usize, &u32)| {
        let (start, length) = (row * shape[1], length as usize);
        let end = start + length;
        (ids[start..end].to_vec(), logits[start * vocab..end * vocab].to_vec())
    };
    lengths.iter().enumerate().map(text).collect()
}

#[test]
fn padded_batches_of_unequal_lengths() {
    for_all_cases(|case| {
        let (model, expected) = load(case);
        let texts = texts(&expected);
        let rows: Vec<&[u32]> = texts.iter().map(|(ids, _)| ids.as_slice()).collect();
        let batch = Batch::padded(&rows, 0).unwrap();
        let logits = model.logits(model.forward(&batch));
        let distances = texts.iter().enumerate().map(|(row, (ids, expected))| {
            let found = logits.clone().narrow(0, row, 1).narrow(1, 0, ids.len());
            distance(&numbers(found), expected)
        });
        distances.fold(0.0, f32::max)
    });
}

#[test]
fn packed_texts_do_not_see_each_other() {
    for_all_cases(|case| {
        let (model, expected) = load(case);
        let texts = texts(&expected);
        // Two texts in the first row, one in the second, which is padded.
        let rows: Vec<&[u32]> = texts.iter().map(|(ids, _)| ids.as_slice()).collect();
        let batch = Batch::packed(&[&rows[..2], &rows[2..]], 0).unwrap();
        let logits = model.logits(model.forward(&batch));
        let places = [(0, 0), (0, rows[0].len()), (1, 0)];
        let distances = texts.iter().zip(places).map(|((ids, expected), (row, start))| {
            let found = logits.clone().narrow(0, row, 1).narrow(1, start, ids.len());
            distance(&numbers(found), expected)
        });
        distances.fold(0.0, f32::max)
    });
}

/// Whether one pass over the text rotates early tokens otherwise than passes over its parts, so
/// that a cache cannot give the same: dynamic rotary scaling beyond the first context. What
/// transformers does there with its cache is in the greedy generation.
fn depends_on_length(case: &str, ids: &[u32]) -> bool {
    case == "llama_dynamic" && ids.len() > 16
}

#[test]
fn token_by_token_with_the_cache() {
    for_all_cases(|case| {
        let (model, expected) = load(case);
        let texts = texts(&expected);
        let vocab = model.config().vocab_size;
        let mut cache = KvCache::new(&model, 3);
        let mut worst = 0f32;
        // Row 1 in pieces of 3, then of 1; row 2 in between, in another sequence.
        for (sequence, piece) in [(1, 3), (2, 1), (0, 5)] {
            let (ids, expected) = &texts[sequence];
            if depends_on_length(case, ids) {
                continue;
            }
            let mut start = 0;
            while start < ids.len() {
                let end = (start + piece).min(ids.len());
                let part = (sequence, &ids[start..end]);
                let hidden = model.forward_cached(&[part], &mut cache).unwrap();
                let found = numbers(model.logits(hidden));
                worst = worst.max(distance(&found, &expected[start * vocab..end * vocab]));
                start = end;
            }
            assert_eq!(cache.len(sequence), ids.len());
        }
        worst
    });
}

#[test]
fn several_sequences_of_a_cache_at_once() {
    for_all_cases(|case| {
        let (model, expected) = load(case);
        let texts = texts(&expected);
        let vocab = model.config().vocab_size;
        let mut cache = KvCache::new(&model, 4);
        let mut worst = 0f32;
        // Unequal parts of all texts in one pass, in any order of the sequences; then as many
        // tokens for each; then unequal ones again behind what is there, of one text none.
        let passes = [[(2, 0..4), (0, 0..9), (1, 0..14)], [(0, 9..10), (1, 14..15), (2, 4..5)]];
        let last = vec![(1, 15..texts[1].0.len()), (0, 10..11)];
        for pass in passes.map(Vec::from).into_iter().chain([last]) {
            let parts: Vec<(usize, &[u32])> =
                pass.iter().map(|(text, at)| (text + 1, &texts[*text].0[at.clone()])).collect();
            let found = numbers(model.logits(model.forward_cached(&parts, &mut cache).unwrap()));
            let mut found = found.as_slice();
            for (text, at) in pass {
                let (logits, rest) = found.split_at(at.len() * vocab);
                found = rest;
                let (ids, expected) = &texts[text];
                if !depends_on_length(case, ids) {
                    let expected = &expected[at.start * vocab..at.end * vocab];
                    worst = worst.max(distance(logits, expected));
                }
            }
            assert!(found.is_empty());
        }
        worst
    });
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for case in cases() {
        let (model, expected) = load(&case);
        let ((ids, _), (greedy, _)) = (expected.ids("prompt"), expected.ids("greedy"));
        let max_tokens = greedy.len() - ids.len();
        let sampling = Sampling { max_tokens, ..Sampling::greedy() };
        let request = TokenRequest { ids: ids.clone(), sampling };
        let stop_ids = &model.config().eos_token_ids;
        let mut answers = model.continue_ids(&[request], stop_ids, 1, &mut |_, _| Next::Continue);
        let answer = answers.remove(0).unwrap();
        assert_eq!(answer.ids, greedy[ids.len()..], "{case}");
        assert_eq!(answer.finish_reason, FinishReason::Length, "{case}");
    }
}

#[test]
fn without_targets_there_is_nothing() {
    let (model, _) = load("llama3");
    let batch = Batch::padded(&[&[5, 6, 7], &[8]], 0).unwrap();
    let targets = Targets::masked(&batch, &[false; 6]).unwrap();
    let scored = model.logprobs(model.forward(&batch), &targets);
    assert_eq!(numbers(scored.sums()), [0.0, 0.0]);
    assert!(numbers(scored.logprobs).is_empty() && numbers(scored.entropy).is_empty());
}

#[test]
fn logprobs_equal_those_of_the_logits() {
    for_all_cases(|case| {
        let (model, expected) = load(case);
        let texts = texts(&expected);
        let rows: Vec<&[u32]> = texts.iter().map(|(ids, _)| ids.as_slice()).collect();
        let batch = Batch::padded(&rows, 0).unwrap();
        let scored = model.logprobs(model.forward(&batch), &Targets::all(&batch));
        let vocab = model.config().vocab_size;
        let (mut logprobs, mut entropy, mut sums) = (vec![], vec![], vec![]);
        for (ids, logits) in &texts {
            let mut sum = 0.0;
            for (row, &next) in logits.chunks(vocab).zip(&ids[1..]) {
                let row: Vec<f64> = row.iter().map(|&z| f64::from(z)).collect();
                let lse = row.iter().map(|z| z.exp()).sum::<f64>().ln();
                logprobs.push((row[next as usize] - lse) as f32);
                entropy.push(-row.iter().map(|z| (z - lse) * (z - lse).exp()).sum::<f64>() as f32);
                sum += row[next as usize] - lse;
            }
            sums.push(sum as f32);
        }
        distance(&numbers(scored.sums()), &sums)
            .max(distance(&numbers(scored.logprobs), &logprobs))
            .max(distance(&numbers(scored.entropy), &entropy))
    });
}

/// The cases whose gradients are known, of those that are wanted.
fn cases_with_gradients() -> impl Iterator<Item = &'static str> {
    let wanted = cases();
    let known = ["llama3", "qwen3", "gemma3_text"].into_iter();
    known.filter(move |case| wanted.iter().any(|wanted| wanted == case))
}

/// A model in f32 with its batch and the known gradients.
fn with_gradients(case: &str, device: &Device) -> (Decoder, Batch, Expected) {
    let folder = models().join(case);
    let dtype = Some(posttrain_model::checkpoint::Dtype::F32);
    let f32 = LoadOptions { dtype, ..LoadOptions::default() };
    let model = Decoder::load_with(&folder, device, &f32).unwrap();
    let texts = texts(&Expected::read(&folder.join("expected.safetensors")));
    let rows: Vec<&[u32]> = texts.iter().map(|(ids, _)| ids.as_slice()).collect();
    let batch = Batch::padded(&rows, 0).unwrap();
    (model, batch, Expected::read(&folder.join("gradients.safetensors")))
}

fn check_gradient(case: &str, name: &str, found: &[f32], known: &Expected) {
    let (known, _) = known.floats(name);
    let scale = known.iter().fold(0f32, |scale, g| scale.max(g.abs()));
    let relative = distance(found, &known) / scale;
    assert!(relative < tolerance(), "{case}: {name} is off by {relative:.1e}");
}

fn check_loss(case: &str, found: f32, known: &Expected) {
    let known = known.floats("loss").0[0];
    let relative = (found / known - 1.0).abs();
    assert!(relative < tolerance() / 10.0, "{case}: loss {found}, not {known}");
}

/// The training path: a model on a plain device, the loss and its gradient in one pass, with all
/// activations or those of one layer; and the same through the gradient by log-probabilities.
#[test]
fn gradients_of_the_backward_pass() {
    for case in cases_with_gradients() {
        let (model, batch, known) = with_gradients(case, &device());
        let model = model.with_trainable(|_| true);
        let targets = Targets::all(&batch);
        let weights = vec![1.0 / targets.len() as f32; targets.len()];
        let mut names = known.names();
        names.retain(|name| name != "loss");
        for activations in [Activations::Keep, Activations::Recompute] {
            let mut gradients = Gradients::default();
            model.backward(&batch, None, activations, &mut gradients, |hidden, gradients| {
                let objective = Objective::Nll;
                let evaluated =
                    model.cross_entropy(hidden.clone(), &targets, &weights, objective, None);
                let found =
                    model.cross_entropy(hidden, &targets, &weights, objective, Some(gradients));
                check_loss(case, found.loss as f32, &known);
                assert!(evaluated.by_hidden.is_none());
                assert_eq!(evaluated.loss, found.loss);
                assert_eq!(evaluated.logprobs, found.logprobs);
                found.by_hidden.unwrap()
            });
            let mut scored = Gradients::default();
            model.backward(&batch, None, activations, &mut scored, |hidden, gradients| {
                let by_logprobs: Vec<f32> = weights.iter().flat_map(|&w| [-w, 0.0]).collect();
                let by_logprobs = TensorData::new(by_logprobs, [targets.len(), 2]);
                let by_logprobs = Tensor::from_data(by_logprobs, &model.device());
                model.logprobs_backward(hidden, &targets, by_logprobs, gradients)
            });
            for found in [gradients, scored] {
                assert_eq!(found.iter().count(), names.len(), "{case}");
                for name in &names {
                    let found = numbers(found.get(name).unwrap().clone());
                    check_gradient(case, name, &found, &known);
                }
            }
        }
    }
}

/// What is frozen gets no gradient, and the others' do not change.
#[test]
fn gradients_of_a_part_of_the_weights() {
    let parts: [fn(&str) -> bool; 4] = [
        |name| name.starts_with("model.layers.1."),
        |name| name.ends_with("norm.weight"),
        |name| name.contains("embed_tokens"),
        |name| name.contains("self_attn.v_proj"),
    ];
    let (model, batch, known) = with_gradients("qwen3", &device());
    let targets = Targets::all(&batch);
    let weights = vec![1.0 / targets.len() as f32; targets.len()];
    for part in parts {
        let model = model.clone().with_trainable(part);
        let mut names = known.names();
        names.retain(|name| name != "loss" && part(name));
        names.sort_unstable();
        assert!(!names.is_empty());
        for activations in [Activations::Keep, Activations::Recompute] {
            let mut found = Gradients::default();
            model.backward(&batch, None, activations, &mut found, |hidden, found| {
                let nll = Objective::Nll;
                let found = model.cross_entropy(hidden, &targets, &weights, nll, Some(found));
                found.by_hidden.unwrap()
            });
            assert_eq!(found.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
            for name in &names {
                let found = numbers(found.get(name).unwrap().clone());
                check_gradient("qwen3", name, &found, &known);
            }
        }
    }
}

#[test]
fn gradients_of_all_weights() {
    for case in cases_with_gradients() {
        let (model, batch, known) = with_gradients(case, &device().autodiff());
        let scored = model.logprobs(model.forward(&batch), &Targets::all(&batch));
        let loss = scored.logprobs.mean().neg();
        check_loss(case, numbers(loss.clone())[0], &known);
        let found = Collected::of(&model, &mut loss.backward());
        let mut names = known.names();
        names.retain(|name| name != "loss");
        assert_eq!(names.len(), found.len(), "{case}");
        for name in names {
            let found = &found.iter().find(|(known, _)| *known == name).unwrap().1;
            check_gradient(case, &name, found, &known);
        }
    }
}

/// Collects the gradients by the names of the parameters.
struct Collected<'a> {
    of_tensors: &'a mut burn::tensor::Gradients,
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl<'a> Collected<'a> {
    fn of(model: &Decoder, gradients: &'a mut burn::tensor::Gradients) -> Vec<(String, Vec<f32>)> {
        let mut visitor = Self { of_tensors: gradients, path: vec![], found: vec![] };
        model.visit(&mut visitor);
        visitor.found
    }
}

impl burn::module::ModuleVisitor for Collected<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(
        &mut self,
        param: &burn::module::Param<burn::tensor::Tensor<D>>,
    ) {
        let name = self.path.join(".");
        let gradient =
            param.val().grad(self.of_tensors).unwrap_or_else(|| panic!("none of {name}"));
        self.found.push((name, numbers(gradient)));
    }
}
