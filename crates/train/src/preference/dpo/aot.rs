//! Alignment by optimal transport (Melnyk et al. 2024, arXiv:2406.05882): what is compared are not
//! answers of one pair but the distributions over the batch.
//!
//! ```text
//! aot:           d = sort(log π(y_c) − log π(y_r)) − sort(log π_ref(y_c) − log π_ref(y_r))
//! aot_unpaired:  d = sort(c) − sort(r)
//! L = −(1 − ε) log s(β d) − ε log s(−β d)
//! ```
//!
//! The loss depends on who is in the batch; a batch of one pair is DPO.

use super::{Term, sigmoid};

/// Where each rank of the sorted numbers stands among them; equal numbers keep their order.
fn ranks(numbers: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    order
}

/// `policy`, `reference`: log-probabilities `[chosen, rejected]` of each pair.
pub(super) fn paired(
    beta: f64,
    epsilon: f64,
    policy: &[[f64; 2]],
    reference: &[[f64; 2]],
) -> Vec<Term> {
    let margins = |pairs: &[[f64; 2]]| pairs.iter().map(|[c, r]| c - r).collect::<Vec<f64>>();
    let (policy, reference) = (margins(policy), margins(reference));
    let mut terms = vec![Term::default(); policy.len()];
    for (at, of) in ranks(&policy).into_iter().zip(ranks(&reference)) {
        let (loss, slope) = sigmoid::loss(beta, epsilon, policy[at] - reference[of]);
        terms[at] = Term { loss, by: [slope, -slope] };
    }
    terms
}

/// `ratios`: c and r of each pair.
pub(super) fn unpaired(beta: f64, epsilon: f64, ratios: &[[f64; 2]]) -> Vec<Term> {
    let side = |which: usize| ratios.iter().map(|pair| pair[which]).collect::<Vec<f64>>();
    let (chosen, rejected) = (side(0), side(1));
    let mut terms = vec![Term::default(); ratios.len()];
    for (at, of) in ranks(&chosen).into_iter().zip(ranks(&rejected)) {
        let (loss, slope) = sigmoid::loss(beta, epsilon, chosen[at] - rejected[of]);
        terms[at].loss = loss;
        terms[at].by[0] = slope;
        terms[of].by[1] = -slope;
    }
    terms
}
