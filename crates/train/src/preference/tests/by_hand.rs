//! One case of each loss, worked out by hand.
//!
//! Most stand at c = ln 3, r = −ln 3 with β = 1, where s(c) = 3/4, s(r) = 1/4 and
//! s(c − r) = s(ln 9) = 9/10.

use serde_json::{Value, json};

use super::setting;
use crate::preference::{
    Answer, Bco, BradleyTerry, Cpo, Dpo, Group, Kto, Loss, Orpo, Pair, PairGradient, Rrhf, Shift,
    Slic, Tpo, reference_point,
};

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
}

fn answer(sum: f64, tokens: usize) -> Answer {
    Answer { sum, tokens, ..Answer::default() }
}

fn pair(chosen: (f64, usize), rejected: (f64, usize)) -> Pair {
    Pair { chosen: answer(chosen.0, chosen.1), rejected: answer(rejected.0, rejected.1) }
}

fn ln(x: f64) -> f64 {
    x.ln()
}

#[track_caller]
fn check(found: &Loss<PairGradient>, loss: f64, by: [f64; 2]) {
    close(found.loss, loss);
    close(found.gradient[0].chosen.sum, by[0]);
    close(found.gradient[0].rejected.sum, by[1]);
}

/// At the point above, with a chosen answer of two tokens and −1, and a rejected one of one token.
fn dpo(mut config: Value) -> Loss<PairGradient> {
    if config.get("beta").is_none() {
        config["beta"] = json!(1.0);
    }
    let loss: Dpo = setting(&config);
    loss.validate().unwrap();
    let policy = [pair((-1.0, 2), (-3.0, 1))];
    loss.loss(&policy, &[pair((-1.0 - ln(3.0), 2), (-3.0 + ln(3.0), 1))])
}

#[test]
fn dpo_losses() {
    let one = |kind: &str| dpo(json!({"loss_type": kind}));
    let smoothed =
        |kind: &str, epsilon: f64| dpo(json!({"loss_type": kind, "label_smoothing": epsilon}));
    check(&one("sigmoid"), -ln(0.9), [-0.1, 0.1]);
    check(&smoothed("sigmoid", 0.1), -0.9 * ln(0.9) - 0.1 * ln(0.1), [0.0, 0.0]);
    let hinge = dpo(json!({"loss_type": "hinge", "beta": 0.25}));
    check(&hinge, 1.0 - 0.25 * ln(9.0), [-0.25, 0.25]);
    let off = 1.5 * ln(3.0) - 0.5;
    check(&one("ipo"), off * off, [off, -2.0 * off]);
    let slope = 0.09 * ln(3.0);
    check(&smoothed("exo_pair", 0.25), 0.9 * ln(1.2) + 0.1 * ln(0.4), [slope, -slope]);
    check(&one("nca_pair"), -1.5 * ln(0.75) - 0.5 * ln(0.25), [0.125, 0.125]);
    let robust = (-0.9 * ln(0.9) + 0.1 * ln(0.1)) / 0.8;
    check(&smoothed("robust", 0.1), robust, [-0.225, 0.225]);
    check(&one("bco_pair"), -2.0 * ln(0.75), [-0.25, 0.25]);
    let off = ln(3.0) - 0.5;
    check(&one("sppo_hard"), 2.0 * off * off, [2.0 * off, -2.0 * off]);
    check(&one("apo_zero"), 0.5, [-0.1875, 0.1875]);
    check(&one("apo_down"), 0.85, [0.0975, 0.09]);
    let slope = 0.09 * ln(0.9) - 0.1;
    let discopop = dpo(json!({"loss_type": "discopop", "discopop_tau": 1.0}));
    check(&discopop, 0.1 - 0.1 * ln(0.9), [slope, -slope]);
    check(&one("sft"), 0.5, [-0.5, 0.0]);
    let odds = 3_f64.powf(1.5);
    let slope = 1.0 / (1.0 + odds);
    check(&one("sigmoid_norm"), ln(1.0 + 1.0 / odds), [-slope / 2.0, slope]);
}

#[test]
fn optimal_transport_pairs_by_rank() {
    let k = ln(3.0);
    // Margins of the policy ln 3 and −ln 3, of the reference the other way round: sorted, they are
    // the same.
    let policy = [pair((0.0, 1), (-k, 1)), pair((-k, 1), (0.0, 1))];
    let reference = [policy[1], policy[0]];
    let aot: Dpo = setting(&json!({"loss_type": "aot", "beta": 1.0}));
    let found = aot.loss(&policy, &reference);
    check(&found, ln(2.0), [-0.25, 0.25]);
    close(found.gradient[1].chosen.sum, -0.25);
    // c = ln 3, 0 and r = 0, ln 3.
    let none = [Pair::default(); 2];
    let policy = [pair((k, 1), (0.0, 1)), pair((0.0, 1), (k, 1))];
    let unpaired: Dpo = setting(&json!({"loss_type": "aot_unpaired", "beta": 1.0}));
    check(&unpaired.loss(&policy, &none), ln(2.0), [-0.25, 0.25]);
}

#[test]
fn divergences() {
    // Scores of ln 3 and −ln 3, and their slopes.
    let root = 3_f64.sqrt();
    for (name, [c, r], [u, v]) in [
        ("forward_kl", [2.0 / 3.0, -2.0], [1.0 / 3.0, 3.0]),
        ("js_divergence", [ln(1.5), ln(0.5)], [0.25, 0.75]),
        ("alpha_divergence", [2.0 - 2.0 / root, 2.0 - 2.0 * root], [1.0 / root, root]),
    ] {
        let wrong = 1.0 / (1.0 + (c - r).exp());
        let found = dpo(json!({"f_divergence_type": name}));
        check(&found, -ln(1.0 - wrong), [-wrong * u, wrong * v]);
    }
}

#[test]
fn several_losses_add_up_with_their_weights() {
    let config =
        json!({"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [2.0, 0.5, 1.0]});
    check(&dpo(config), -2.0 * ln(0.9) - ln(0.75) + 0.5, [-0.2 - 0.125 - 0.5, 0.2 + 0.125]);
}

#[test]
fn ld_dpo_weighs_the_longer_answers_tail() {
    let policy = [Pair::of(&[-1.0, -1.0], &[-1.0])];
    let reference = [Pair::of(&[0.0, 0.0], &[-1.0])];
    let loss: Dpo = setting(&json!({"ld_alpha": 0.5, "beta": 1.0}));
    // c = −1 − ½, r = 0
    let found = loss.loss(&policy, &reference);
    let wrong = 1.0 / (1.0 + (-1.5_f64).exp());
    check(&found, ln(1.0 + 1.5_f64.exp()), [-wrong, wrong]);
    let tokens: Vec<f64> = found.gradient[0].chosen.by_token(2, 1).collect();
    close(tokens[0], -wrong);
    close(tokens[1], -wrong / 2.0);
}

#[test]
fn wpo_weighs_pairs() {
    let mut policy = pair((-1.0, 2), (-1.0, 1));
    policy.chosen.log_sum_sq = -2.0; // (−1 + 2)/2 = ½
    policy.rejected.log_sum_sq = -1.0; // 0
    let loss: Dpo = setting(&json!({"use_weighting": true, "beta": 1.0}));
    let weight = 0.5_f64.exp();
    check(&loss.loss(&[policy], &[policy]), weight * ln(2.0), [-weight / 2.0, weight / 2.0]);
}

#[test]
fn metrics_of_pairs() {
    let expected = [
        ("rewards/chosen", ln(3.0)),
        ("rewards/rejected", -ln(3.0)),
        ("rewards/accuracies", 1.0),
        ("rewards/margins", ln(9.0)),
        ("logps/chosen", -1.0),
        ("logps/rejected", -3.0),
    ];
    let found = dpo(json!({})).metrics;
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.0, expected.0);
        close(found.1, expected.1);
    }
}

#[test]
fn kto_and_its_reference_point() {
    close(reference_point(&[-1.0, -1.0], &[-2.0, -4.0]), 2.0);
    close(reference_point(&[-3.0], &[-1.0]), 0.0);
    let k = ln(3.0);
    let policy = [answer(-1.0 + k, 2), answer(-2.0 + k, 1)];
    let (reference, good) = ([answer(-1.0, 2), answer(-2.0, 1)], [true, false]);
    let loss: Kto = setting(&json!({"beta": 1.0, "undesirable_weight": 2.0}));
    // u = ln 3: the good costs 1/4, the bad twice 3/4.
    let found = loss.loss(&policy, &reference, &good, 0.0);
    close(found.loss, f64::midpoint(0.25, 1.5));
    close(found.gradient[0].sum, -0.1875 / 2.0);
    close(found.gradient[1].sum, 0.1875);
    // z = ln 3 takes it back to u − z = 0.
    close(loss.loss(&policy, &reference, &good, k).loss, f64::midpoint(0.5, 1.0));
    let apo: Kto = setting(&json!({"beta": 1.0, "loss_type": "apo_zero_unpaired"}));
    close(apo.loss(&policy, &reference, &good, k).loss, f64::midpoint(0.25, 0.75));
}

#[test]
fn bco_and_its_shift() {
    let mut shift = Shift::default();
    shift.update(&[1.0, 3.0]);
    shift.update(&[-4.0]);
    assert_eq!(shift, Shift { mean: 0.0, count: 3 });
    let k = ln(3.0);
    let loss: Bco = setting(&json!({"beta": 1.0}));
    let policy = [answer(k - 1.0, 1), answer(-k - 1.0, 1)];
    let reference = [answer(-1.0, 1); 2];
    let found = loss.loss(&policy, &reference, &[true, false], shift);
    close(found.loss, -ln(0.75));
    close(found.gradient[0].sum, -0.125);
    close(found.gradient[1].sum, 0.125);
    // δ = ln 3: the good at 0, the bad at −ln 9.
    let found = loss.loss(&policy, &reference, &[true, false], Shift { mean: k, count: 1 });
    close(found.loss, f64::midpoint(ln(2.0), -ln(0.9)));
}

#[test]
fn orpo() {
    // Odds of 3 and 1: their ratio is 3.
    let policy = [pair((2.0 * ln(0.75), 2), (ln(0.5), 1))];
    let loss: Orpo = setting(&json!({"beta": 1.0}));
    let found = loss.loss(&policy, &[answer(-6.0, 4)]);
    check(&found, 1.5 - ln(0.75), [-0.5, 0.5]);
    close(found.by_nll_token, -0.25);
}

#[test]
fn cpo_simpo_alphapo() {
    let cpo = |config: Value, pair: Pair| setting::<Cpo>(&config).loss(&[pair]);
    let nine = pair((-2.0, 2), (-2.0 - ln(9.0), 1));
    check(&cpo(json!({"beta": 1.0}), nine), 1.0 - ln(0.9), [-0.1 - 0.5, 0.1]);
    check(
        &cpo(json!({"beta": 0.25, "loss_type": "hinge", "cpo_alpha": 0.0}), nine),
        1.0 - 0.25 * ln(9.0),
        [-0.25, 0.25],
    );
    // Averages −1 and −1 − ln 9.
    let nine = pair((-2.0, 2), (-1.0 - ln(9.0), 1));
    let simpo = json!({"beta": 1.0, "loss_type": "simpo", "simpo_gamma": 3_f64.ln()});
    check(&cpo(simpo, nine), -ln(0.75), [-0.125, 0.25]);
    let off = ln(9.0) - 0.5;
    let ipo = json!({"beta": 1.0, "loss_type": "ipo", "cpo_alpha": 0.0});
    check(&cpo(ipo, nine), off * off, [off, -2.0 * off]);
    // 1 − 1/p of 1/2 and 1/4: −1 and −3, with slopes 2 and 4.
    let alphapo = json!({"beta": 1.0, "loss_type": "alphapo", "alpha": 1.0, "simpo_gamma": 2.0});
    let halves = pair((2.0 * ln(0.5), 2), (ln(0.25), 1));
    check(&cpo(alphapo, halves), ln(2.0), [-0.5, 2.0]);
}

#[test]
fn tpo() {
    let nine = pair((-1.0, 2), (-1.0 - ln(9.0), 1));
    let loss: Tpo = setting(&json!({"beta": 1.0, "tpo_alpha": 0.5}));
    let found = loss.loss(&[nine], &[answer(-6.0, 3)]);
    check(&found, 1.0 - ln(0.9), [-0.1, 0.1]);
    close(found.by_nll_token, -0.5 / 3.0);
    let nine = pair((-2.0, 2), (-1.0 - ln(9.0), 1));
    let config =
        json!({"loss_type": "tpo-l", "beta": 1.0, "tpo_l_gamma": 3_f64.ln(), "tpo_alpha": 0.0});
    check(&setting::<Tpo>(&config).loss(&[nine], &[]), -ln(0.75), [-0.125, 0.25]);
}

#[test]
fn rankings() {
    // The best has an average of −2, the other −1.
    let wrong = Group { answers: vec![answer(-1.0, 1), answer(-4.0, 2)], rewards: vec![0.0, 1.0] };
    let found = Rrhf::default().loss(&[wrong]);
    close(found.loss, 1.0 + 2.0);
    assert_eq!(found.gradient, [[1.0, -0.5 - 0.5]]);
    let metrics = |found: &Loss<Vec<f64>>, expected: [f64; 6]| {
        let names = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"];
        let names = names.into_iter().chain(["logps/chosen", "logps/rejected"]);
        for ((name, expected), (found, value)) in names.zip(expected).zip(&found.metrics) {
            assert_eq!(name, *found);
            close(*value, expected);
        }
    };
    metrics(&found, [-2.0, -1.0, 0.0, -1.0, -4.0, -1.0]);
    // First and second are equal and lack 1; second and third, first and third keep their margins.
    let answers = vec![answer(-3.0, 1), answer(-1.0, 1), answer(-1.0, 1)];
    let group = Group { answers, rewards: vec![1.0, 3.0, 2.0] };
    let found = Slic::default().loss(&[group], &[answer(-1.0, 2)]);
    close(found.loss, 1.0 + 0.5);
    assert_eq!(found.gradient, [[0.0, -1.0, 1.0]]);
    close(found.by_nll_token, -0.5);
    metrics(&found, [-1.0, -2.0, 2.0 / 3.0, 1.0, -1.0, -2.0]);
}

#[test]
fn bradley_terry() {
    let loss: BradleyTerry = setting(&json!({"center_rewards_coefficient": 0.01}));
    let found = loss.loss(&[[ln(9.0) + 1.0, 1.0]], Some(&[ln(3.0)]));
    let sum = ln(9.0) + 2.0;
    close(found.loss, -ln(0.75) + 0.01 * sum * sum);
    close(found.gradient[0][0], -0.25 + 0.02 * sum);
    close(found.gradient[0][1], 0.25 + 0.02 * sum);
    let tie = BradleyTerry::default().loss(&[[1.0, 1.0]], None);
    close(tie.loss, ln(2.0));
    assert_eq!(tie.metrics[3], ("accuracy", 0.0));
}

/// Twice as many bad answers as good ones: w₊ from 2 to 2⅔, or w₋ from ⅜ to ½.
#[test]
fn balance_of_kto() {
    let told = Kto::default().balance(100, 200).unwrap();
    assert!(told.contains("0.50 to 1") && told.contains("from 2.00 to 2.67"), "{told}");
    assert!(told.contains("from 0.38 to 0.50"), "{told}");
    let weighted = |weight| Kto { desirable_weight: weight, ..Kto::default() };
    assert!(weighted(2.0).balance(100, 200).is_none());
    assert!(weighted(8.0 / 3.0).balance(100, 200).is_none());
    assert!(weighted(3.0).balance(100, 200).is_some());
    assert!(Kto::default().balance(0, 5).unwrap().contains("no answer is good"));
}
