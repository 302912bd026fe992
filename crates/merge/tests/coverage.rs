//! Every stored tensor of every input is accounted for, whatever the configuration takes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checkpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use checkpoints::{Entry, Random, plan, plan_with, write_model};
use posttrain_merge::dtype::Dtype;
use posttrain_merge::plan::Fate;
use posttrain_merge::{Error, Missing, Plan, PlanOptions, ProblemKind};
use serde_json::json;

/// A language model, with a vision tower and what connects them if `vision`, and a few tensors of its own.
fn model(folder: &Path, random: &mut Random, layers: usize, vision: bool) -> PathBuf {
    let mut names =
        vec!["lm_head.weight".to_owned(), "model.language_model.embed_tokens.weight".to_owned()];
    names.push("model.language_model.norm.weight".into());
    for layer in 0..layers {
        for name in ["input_layernorm.weight", "self_attn.q_proj.weight", "mlp.gate.weight"] {
            names.push(format!("model.language_model.layers.{layer}.{name}"));
        }
    }
    if random.below(3) == 0 {
        // In one layer only, or beside the layers.
        names.push(format!(
            "model.language_model.layers.{}.self_attn.q_proj.bias",
            random.below(layers)
        ));
    }
    if random.below(4) == 0 {
        names.push("model.language_model.rotary.inv_freq".into());
    }
    if vision {
        for block in 0..3 {
            names.push(format!("model.visual.blocks.{block}.attn.qkv.weight"));
        }
        names.push("model.visual.patch_embed.proj.weight".into());
        names.push("model.visual.merger.mlp.weight".into());
    }
    // Empty ones, too, which share a place in the file.
    names.extend(
        ["model.language_model.empty_norm_a", "model.language_model.empty_norm_b"].map(Into::into),
    );
    let entries: Vec<Entry> = names
        .iter()
        .map(|name| {
            let rows = if name.contains("empty") { 0 } else { 2 };
            Entry::random(name, Dtype::F32, &[rows, 2], random)
        })
        .collect();
    let config = json!({
        "architectures": ["XForConditionalGeneration"], "model_type": "x",
        "text_config": {"num_hidden_layers": layers}, "vision_config": {"depth": if vision { 3 } else { 0 }},
    });
    write_model(folder, &config, &entries)
}

fn slices(
    text: &mut String,
    indent: &str,
    models: &[PathBuf],
    layers: usize,
    random: &mut Random,
    pairs: bool,
) {
    for _ in 0..=random.below(3) {
        let start = random.below(layers);
        let end = start + random.below(layers - start + 1);
        let _ = writeln!(text, "{indent}- sources:");
        let count = if pairs { 2 } else { 1 };
        let first = random.below(models.len());
        for source in 0..count {
            let model = &models[(first + source) % models.len()];
            let _ = writeln!(
                text,
                "{indent}  - {{model: '{}', layer_range: [{start}, {end}], parameters: {{weight: 1}}}}",
                model.display()
            );
        }
    }
}

fn listed(text: &mut String, indent: &str, models: &[PathBuf]) {
    for model in models {
        let _ =
            writeln!(text, "{indent}- {{model: '{}', parameters: {{weight: 1}}}}", model.display());
    }
}

/// Asserts what is promised of a plan.
fn is_complete(plan: &Plan, text: &str) {
    // By input and name: in how many outputs, and whether one of them is computed.
    let mut used: BTreeMap<(usize, &str), (usize, bool)> = BTreeMap::new();
    for output in plan.outputs() {
        let computed = matches!(output.origin, posttrain_merge::plan::Origin::Merge { .. });
        let own: BTreeSet<(usize, &str)> =
            output.stored().into_iter().map(|(input, tensor)| (input, tensor.name())).collect();
        for key in own {
            let entry = used.entry(key).or_default();
            *entry = (entry.0 + 1, entry.1 || computed);
        }
    }
    for (index, (input, coverage)) in plan.inputs().iter().zip(plan.coverage()).enumerate() {
        let stored: Vec<&String> = input.checkpoint().tensors().keys().collect();
        let told: Vec<&String> = coverage.tensors.iter().map(|(name, _)| name).collect();
        assert_eq!(told, stored, "each once: {text}");
        for (name, fate) in &coverage.tensors {
            let wanted = used.get(&(index, name.as_str()));
            match (fate, wanted) {
                (Fate::Merged(count), Some((outputs, true)))
                | (Fate::Copied(count), Some((outputs, false))) => {
                    assert_eq!(count, outputs, "{name}: {text}");
                }
                (Fate::Left(reason), None) => {
                    assert!(
                        reason.len() > 10 && reason != "see the problems",
                        "{name}: {reason}: {text}"
                    );
                }
                other => panic!("{name} is {other:?}: {text}"),
            }
        }
    }
}

#[test]
fn of_random_configurations() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut plans, mut refused, mut lost) = (0, 0, 0);
    for seed in 0..600 {
        let mut random = Random(seed);
        let vision = random.below(2) == 0;
        let layers = 1 + random.below(4);
        let models: Vec<PathBuf> = (0..=random.below(3))
            .map(|i| model(&scratch.path().join(i.to_string()), &mut random, layers, vision))
            .collect();
        let pairs = models.len() > 1 && random.below(2) == 0;
        let mut text = format!("merge_method: {}\n", if pairs { "linear" } else { "passthrough" });
        let one = if pairs { &models[..] } else { &models[..1] };
        match random.below(3) {
            0 => {
                text += "models:\n";
                listed(&mut text, "", one);
            }
            1 => {
                text += "slices:\n";
                slices(&mut text, "", &models, layers, &mut random, pairs);
            }
            _ => {
                text += "modules:\n";
                let names: &[&str] = if vision {
                    &["text_decoder", "visual", "multi_modal_projector"]
                } else {
                    &["default"]
                };
                for name in names {
                    // One that is left out is a loss.
                    if random.below(8) == 0 && vision {
                        continue;
                    }
                    let _ = writeln!(text, "  {name}:");
                    if *name != "multi_modal_projector" && random.below(2) == 0 {
                        let layers = if *name == "visual" { 3 } else { layers };
                        text += "    slices:\n";
                        slices(&mut text, "    ", &models, layers, &mut random, pairs);
                    } else {
                        text += "    models:\n";
                        listed(&mut text, "    ", one);
                    }
                }
            }
        }
        let missing = [Missing::Error, Missing::Union, Missing::Intersection][random.below(3)];
        match plan_with(&text, PlanOptions { missing, ..PlanOptions::default() }) {
            Ok(plan) => {
                is_complete(&plan, &text);
                plans += 1;
            }
            Err(Error::Problems { problems }) => {
                refused += 1;
                lost +=
                    usize::from(problems.iter().any(|problem| problem.kind == ProblemKind::Unused));
                assert!(problems.iter().all(|problem| !problem.text.is_empty()));
            }
            Err(Error::ConfigFile { .. }) => refused += 1,
            Err(other) => panic!("{other}: {text}"),
        }
    }
    assert!(
        plans > 150 && refused > 50 && lost > 5,
        "{plans} plans, {refused} refused, {lost} of them lost"
    );
}

#[test]
fn a_tensor_in_no_section_is_a_problem() {
    let scratch = tempfile::tempdir().unwrap();
    let a = model(&scratch.path().join("a"), &mut Random(1), 2, true);
    let text = format!(
        "merge_method: passthrough\nmodules:\n  text_decoder:\n    models:\n    - model: '{0}'\n  visual:\n    models:\n    - model: '{0}'\n",
        a.display()
    );
    let Err(Error::Problems { problems }) = plan(&text) else { panic!("no problem") };
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(problem.kind, ProblemKind::Unused);
    let wanted =
        format!("tensor `model.visual.merger.mlp.weight` of {} would go nowhere", a.display());
    assert_eq!(problem.text, wanted);
}
