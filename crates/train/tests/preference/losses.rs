//! Every loss learns a few rows by heart.

use posttrain_train::data::Answers;

use crate::kit::{NEW_ADAPTER, config, labelled, pairs, rankings, train, triples};

/// Eight steps over the same rows: every number is finite, and the loss goes down.
fn learns(sets: &[&str], rows: Answers) {
    let folder = tempfile::tempdir().unwrap();
    let more = ["max_steps=8", "per_device_train_batch_size=4", "learning_rate=5e-3"];
    let config = config(&folder.path().join("run"), &[&more[..], sets].concat());
    let (_, memory) = train(&config, rows, None).unwrap();
    let losses: Vec<f64> = memory.steps.iter().map(|step| step.loss).collect();
    assert_eq!(losses.len(), 8);
    for step in &memory.steps {
        let numbers = step.extra.iter().chain([("loss", step.loss), ("norm", step.grad_norm)]);
        for (name, number) in numbers.chain([("entropy", step.entropy.unwrap())]) {
            assert!(number.is_finite(), "{sets:?}, step {}: {name} is {number}", step.step);
        }
    }
    // Later ones may be 0: a hinge has learned all there is.
    assert!(memory.steps[0].grad_norm > 0.0, "{sets:?}: no gradient");
    assert!(losses[7] < losses[0], "{sets:?}: {losses:?}");
}

#[test]
fn the_fifteen_of_dpo() {
    for kind in [
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair, label_smoothing: 1e-3",
        "nca_pair",
        "robust, label_smoothing: 0.1",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sft",
        "sigmoid_norm",
    ] {
        learns(&[&format!("loss={{type: dpo, loss_type: {kind}}}")], pairs(0..3));
    }
}

#[test]
fn what_else_dpo_can_be() {
    for more in [
        "label_smoothing: 0.1",
        "ld_alpha: 0.3",
        "f_divergence_type: forward_kl",
        "f_divergence_type: js_divergence",
        "f_divergence_type: alpha_divergence, f_alpha_divergence_coef: 0.5",
        "loss_type: [sigmoid, bco_pair, sft], loss_weights: [0.8, 0.2, 1.0]",
        "loss_type: aot, label_smoothing: 0.2",
        "loss_type: sigmoid_norm, ld_alpha: 0.5",
    ] {
        learns(&[&format!("loss={{type: dpo, {more}}}")], pairs(0..3));
    }
    learns(&["loss={type: dpo, use_weighting: true}", NEW_ADAPTER], pairs(0..3));
}

#[test]
fn of_labelled_answers() {
    for loss in ["kto", "{type: kto, loss_type: apo_zero_unpaired}", "bco"] {
        learns(&[&format!("loss={loss}")], labelled(0..4));
    }
    let weighted = "loss={type: kto, desirable_weight: 0.5, undesirable_weight: 2.0}";
    learns(&[weighted, NEW_ADAPTER], labelled(0..4));
}

#[test]
fn of_pairs_without_a_reference() {
    for loss in [
        "orpo",
        "cpo",
        "{type: cpo, loss_type: hinge}",
        "{type: cpo, loss_type: ipo}",
        "{type: cpo, loss_type: simpo, beta: 2.0, simpo_gamma: 1.0}",
        "{type: cpo, loss_type: simpo, beta: 2.0, cpo_alpha: 1.0}",
        "{type: cpo, loss_type: alphapo, alpha: 0.25, beta: 2.0}",
        "{type: cpo, label_smoothing: 0.1, cpo_alpha: 0.0}",
        "{type: tpo, tpo_alpha: 0.0, beta: 0.1}",
    ] {
        learns(&[&format!("loss={loss}")], pairs(0..3));
    }
}

#[test]
fn of_pairs_with_a_gold_answer() {
    for kind in ["sigmoid", "hinge", "ipo", "tpo-l"] {
        learns(&[&format!("loss={{type: tpo, loss_type: {kind}}}")], triples(0..3));
    }
}

#[test]
fn of_rankings_and_of_pairs() {
    for loss in
        ["rrhf", "slic", "{type: slic, delta: 2.0, lambda: 0.0}", "{type: rrhf, rrhf_weight: 5.0}"]
    {
        learns(&[&format!("loss={loss}")], pairs(0..3));
        learns(&[&format!("loss={loss}")], rankings(0..3));
    }
}

#[test]
fn of_an_adapter_on_four_bits() {
    let four = "quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}";
    learns(&[NEW_ADAPTER, four], pairs(0..3));
}
