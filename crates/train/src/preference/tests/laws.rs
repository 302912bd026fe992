//! What holds for every loss, in one table.

use serde_json::{Value, json};

use super::setting;
use crate::preference::{
    Answer, AnswerGradient, Bco, BradleyTerry, Cpo, Dpo, Group, Kto, Loss, Orpo, Pair,
    PairGradient, Rrhf, Shift, Slic, Tpo,
};

/// The loss of pairs and its gradient by their sums.
type Run = Box<dyn Fn(&[Pair], &[Pair]) -> (f64, Vec<[f64; 2]>)>;

/// Where a loss leaves a law, because its formula says so.
#[derive(Clone, Copy, PartialEq)]
enum But {
    Nothing,
    /// Looks at the whole batch.
    Batch,
    /// Makes chosen answers less likely too.
    LowersChosen,
}

fn by_sums(loss: &Loss<PairGradient>) -> (f64, Vec<[f64; 2]>) {
    (loss.loss, loss.gradient.iter().map(|by| [by.chosen.sum, by.rejected.sum]).collect())
}

/// Chosen answers as good ones, rejected as bad ones.
fn apart(pairs: &[Pair]) -> Vec<Answer> {
    pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]).collect()
}

fn labels(pairs: &[Pair]) -> Vec<bool> {
    pairs.iter().flat_map(|_| [true, false]).collect()
}

fn together(loss: &Loss<AnswerGradient>) -> (f64, Vec<[f64; 2]>) {
    (loss.loss, loss.gradient.chunks(2).map(|by| [by[0].sum, by[1].sum]).collect())
}

fn groups(pairs: &[Pair]) -> Vec<Group> {
    let group =
        |pair: &Pair| Group { answers: vec![pair.chosen, pair.rejected], rewards: vec![1.0, 0.0] };
    pairs.iter().map(group).collect()
}

fn ranked(loss: &Loss<Vec<f64>>) -> (f64, Vec<[f64; 2]>) {
    (loss.loss, loss.gradient.iter().map(|by| [by[0], by[1]]).collect())
}

fn table() -> Vec<(String, Run, But)> {
    let mut table: Vec<(String, Run, But)> = Vec::new();
    let mut dpo = |config: Value, but: But| {
        let loss: Dpo = setting(&config);
        loss.validate().unwrap();
        let run = move |policy: &[Pair], reference: &[Pair]| by_sums(&loss.loss(policy, reference));
        table.push((config.to_string(), Box::new(run), but));
    };
    // With β = 1 these pairs are past the dip of `discopop`.
    let differences = ["sigmoid", "hinge", "ipo", "robust", "discopop", "sigmoid_norm"];
    for kind in differences {
        dpo(json!({"loss_type": kind, "beta": 1.0}), But::Nothing);
        dpo(json!({"loss_type": kind, "beta": 1.0, "ld_alpha": 0.5}), But::Nothing);
    }
    for kind in ["nca_pair", "bco_pair", "sppo_hard", "apo_zero"] {
        dpo(json!({"loss_type": kind}), But::Nothing);
    }
    for divergence in ["forward_kl", "js_divergence", "alpha_divergence"] {
        for kind in differences {
            dpo(
                json!({"loss_type": kind, "beta": 1.0, "f_divergence_type": divergence}),
                But::Nothing,
            );
        }
    }
    for kind in ["sigmoid", "robust", "exo_pair"] {
        dpo(json!({"loss_type": kind, "label_smoothing": 0.1}), But::Nothing);
    }
    for kind in ["aot", "aot_unpaired"] {
        dpo(json!({"loss_type": kind, "label_smoothing": 0.1}), But::Batch);
    }
    dpo(json!({"loss_type": "apo_down"}), But::LowersChosen);
    dpo(json!({"loss_type": "sft"}), But::Nothing);
    dpo(
        json!({"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}),
        But::Nothing,
    );
    for kind in ["kto", "apo_zero_unpaired"] {
        let loss: Kto = setting(&json!({"loss_type": kind}));
        let run = move |policy: &[Pair], reference: &[Pair]| {
            together(&loss.loss(&apart(policy), &apart(reference), &labels(policy), 0.3))
        };
        table.push((kind.into(), Box::new(run), But::Nothing));
    }
    let bco = |policy: &[Pair], reference: &[Pair]| {
        let shift = Shift { mean: 0.3, count: 1 };
        together(&Bco::default().loss(&apart(policy), &apart(reference), &labels(policy), shift))
    };
    table.push(("bco".into(), Box::new(bco), But::Nothing));
    let orpo = |policy: &[Pair], _: &[Pair]| {
        let whole = vec![Answer { sum: -3.0, tokens: 4, ..Answer::default() }; policy.len()];
        by_sums(&Orpo::default().loss(policy, &whole))
    };
    table.push(("orpo".into(), Box::new(orpo), But::Nothing));
    for config in [
        json!({}),
        json!({"loss_type": "hinge"}),
        json!({"loss_type": "ipo"}),
        json!({"loss_type": "simpo"}),
        json!({"loss_type": "alphapo", "alpha": 0.25}),
        json!({"loss_type": "alphapo", "alpha": -0.5}),
    ] {
        let loss: Cpo = setting(&config);
        let run = move |policy: &[Pair], _: &[Pair]| by_sums(&loss.loss(policy));
        table.push((format!("cpo {config}"), Box::new(run), But::Nothing));
    }
    for kind in ["sigmoid", "hinge", "ipo", "tpo-l"] {
        let loss: Tpo = setting(&json!({"loss_type": kind}));
        let run = move |policy: &[Pair], _: &[Pair]| {
            let gold = vec![Answer { sum: -3.0, tokens: 4, ..Answer::default() }; policy.len()];
            by_sums(&loss.loss(policy, &gold))
        };
        table.push((format!("tpo {kind}"), Box::new(run), But::Nothing));
    }
    let rrhf = |policy: &[Pair], _: &[Pair]| ranked(&Rrhf::default().loss(&groups(policy)));
    table.push(("rrhf".into(), Box::new(rrhf), But::Nothing));
    let slic = |policy: &[Pair], _: &[Pair]| {
        let loss: Slic = setting(&json!({"lambda": 0.0}));
        ranked(&loss.loss(&groups(policy), &[]))
    };
    table.push(("slic".into(), Box::new(slic), But::Nothing));
    let reward = |policy: &[Pair], _: &[Pair]| {
        let loss: BradleyTerry = setting(&json!({"center_rewards_coefficient": 0.001}));
        let rewards: Vec<[f64; 2]> =
            policy.iter().map(|pair| [pair.chosen.sum, pair.rejected.sum]).collect();
        let found = loss.loss(&rewards, None);
        (found.loss, found.gradient)
    };
    table.push(("reward".into(), Box::new(reward), But::Nothing));
    table
}

fn pair(chosen: f64, rejected: f64, tokens: [usize; 2]) -> Pair {
    let answer = |sum, tokens| Answer { sum, tokens, ..Answer::default() };
    Pair { chosen: answer(chosen, tokens[0]), rejected: answer(rejected, tokens[1]) }
}

/// Pairs whose chosen answers are too unlikely, with c from −3.25 to −1.5 and r from −1.8 to 3.
fn batch(tokens: [usize; 2]) -> (Vec<Pair>, Vec<Pair>) {
    let policy = [[-8.0, -6.0], [-7.0, -5.5], [-9.5, -4.0], [-6.6, -4.8]];
    let reference = [[-5.0, -5.0], [-5.5, -5.25], [-6.25, -7.0], [-4.25, -3.0]];
    let pairs = |sums: [[f64; 2]; 4]| sums.iter().map(|[c, r]| pair(*c, *r, tokens)).collect();
    (pairs(policy), pairs(reference))
}

#[test]
fn everything_is_finite_from_minus_ten_thousand_to_zero() {
    let sums = [-1e4, -4321.0, -1.0, -1e-9, 0.0];
    for (name, run, _) in table() {
        for tokens in [[1, 1], [7, 2]] {
            for c in sums {
                for r in sums {
                    for ref_c in sums {
                        for ref_r in sums {
                            let (p, q) = (pair(c, r, tokens), pair(ref_c, ref_r, tokens));
                            let (loss, by) = run(&[p], &[q]);
                            let fine = loss.is_finite() && by[0].iter().all(|x| x.is_finite());
                            assert!(fine, "{name} {p:?} {q:?}: {loss} {by:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_better_pair_costs_less() {
    let (policy, reference) = batch([2, 2]);
    for (name, run, but) in table() {
        let before = run(&policy, &reference).0;
        for i in 0..policy.len() {
            let mut better = policy.clone();
            better[i].chosen.sum += 0.01;
            let after = run(&better, &reference).0;
            if but != But::LowersChosen {
                assert!(after < before, "{name}: chosen {i}: {after}, {before}");
            }
            let mut better = policy.clone();
            better[i].rejected.sum -= 0.01;
            let after = run(&better, &reference).0;
            let free = name.contains(r#""sft"}"#);
            assert!(after < before || free && after == before, "{name}: rejected {i}");
        }
    }
}

#[test]
fn gradients_are_slopes() {
    let (policy, reference) = batch([3, 2]);
    let step = 1e-5;
    for (name, run, _) in table() {
        let (loss, by) = run(&policy, &reference);
        for i in 0..policy.len() {
            for side in 0..2 {
                let at = |off: f64| {
                    let mut moved = policy.clone();
                    let of = &mut moved[i];
                    [&mut of.chosen, &mut of.rejected][side].sum += off;
                    run(&moved, &reference).0
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                let off = (slope - by[i][side]).abs();
                let size = by[i][side].abs().max(1e-4 * loss.abs());
                assert!(off <= 1e-5 * size, "{name} {i} {side}: {slope}, {by:?}");
            }
        }
    }
}

#[test]
fn the_order_of_pairs_does_not_matter() {
    let (policy, reference) = batch([3, 2]);
    let order = [2, 0, 3, 1];
    let moved = |pairs: &[Pair]| order.map(|i| pairs[i]).to_vec();
    for (name, run, _) in table() {
        let (loss, by) = run(&policy, &reference);
        let (other, moved_by) = run(&moved(&policy), &moved(&reference));
        assert!((loss - other).abs() <= 1e-14 * loss.abs(), "{name}: {loss}, {other}");
        assert_eq!(order.map(|i| by[i]).to_vec(), moved_by, "{name}");
    }
}

#[test]
fn halves_of_a_batch_add_up() {
    let (policy, reference) = batch([3, 2]);
    for (name, run, but) in table() {
        let (loss, by) = run(&policy, &reference);
        let halves = [0..2, 2..4].map(|half| run(&policy[half.clone()], &reference[half]));
        let mean = f64::midpoint(halves[0].0, halves[1].0);
        if but == But::Batch {
            assert!((mean - loss).abs() > 1e-6, "{name} looks at pairs alone");
            continue;
        }
        assert!((mean - loss).abs() <= 1e-14 * loss.abs(), "{name}: {mean}, {loss}");
        for (by, half) in
            by.iter().flatten().zip(halves.iter().flat_map(|it| it.1.iter().flatten()))
        {
            assert!((by - half / 2.0).abs() <= 1e-14 * half.abs(), "{name}");
        }
    }
}
