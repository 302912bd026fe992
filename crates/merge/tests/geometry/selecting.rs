//! The methods that choose element by element, by hand and against plain sorting.

use posttrain_merge::methods::{
    ArceeFusion, Linear, Merge, NearSwap, Passthrough, Ram, RamPlus, Sce, merge,
};

use super::numbers::{near, numbers};
use super::spherical::KARCHER;

pub(crate) const RAM: Ram = Ram { epsilon: 1e-5 };

#[test]
fn sce_by_hand() {
    let base = [0.0; 4];
    let (a, b) = ([1.0, 2.0, -1.0, 0.0], [1.0, -1.0, -3.0, 0.0]);
    // Mean squares 6/4 and 11/4: q = 6/17 and 11/17. Where the signs differ, the larger sum wins.
    let y = merge(&Sce { select_topk: 1.0 }, &[4], Some(&base), &[&a, &b], 0).unwrap();
    near(&y, &[1.0, 2.0, -39.0 / 17.0, 0.0], 1e-6);
    // The variances are 0, 2.25, 1, 0: a half of the two that are not zero is the second place.
    let y = merge(&Sce { select_topk: 0.5 }, &[4], Some(&base), &[&a, &b], 0).unwrap();
    near(&y, &[0.0, 2.0, 0.0, 0.0], 1e-6);
    assert_eq!(merge(&Sce { select_topk: 0.0 }, &[4], Some(&a), &[&b], 0).unwrap(), a);
    assert_eq!(merge(&Sce { select_topk: 0.3 }, &[4], Some(&a), &[], 0).unwrap(), a);
}

#[test]
fn sce_takes_the_first_of_equal_variances() {
    let n = 50_000;
    let (zero, one) = (vec![0.0; n], vec![1.0; n]);
    let y = merge(&Sce { select_topk: 0.5 }, &[n], Some(&zero), &[&zero, &one], 0).unwrap();
    assert!(y[..n / 2].iter().all(|y| *y == 1.0) && y[n / 2..].iter().all(|y| *y == 0.0));
}

#[test]
fn sce_selects_as_sorting_does() {
    let n = 40_000;
    let (base, a, b) = (numbers(1, n), numbers(2, n), numbers(3, n));
    let y = merge(&Sce { select_topk: 0.2 }, &[n], Some(&base), &[&a, &b], 0).unwrap();
    let variance = |i: usize| {
        let (a, b) = (f64::from(a[i] - base[i]), f64::from(b[i] - base[i]));
        let mean = f64::midpoint(a, b);
        f64::midpoint((a - mean).powi(2), (b - mean).powi(2)) as f32
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| variance(*j).total_cmp(&variance(*i)).then(i.cmp(j)));
    assert!(order[n / 5..].iter().all(|i| y[*i] == base[*i]));
    assert!(order[..n / 5].iter().all(|i| y[*i] != base[*i]));
}

#[test]
fn ram_by_hand() {
    let base = [1.0, 1.0, 1.0, 1.0];
    let (a, b) = ([2.0, 1.0, 3.0, 1.000_005], [1.0, 0.0, 5.0, 1.0]);
    let y = merge(&RAM, &[4], Some(&base), &[&a, &b], 0).unwrap();
    assert_eq!(y, [2.0, 0.0, 4.0, 1.0]);
    // One shared and one own change each: 1 + 0.5 clip(1, 0, 0.4) = 1.2.
    let plus = RamPlus { r: 0.5, alpha: 0.4, epsilon: 1e-5 };
    near(&merge(&plus, &[4], Some(&base), &[&a, &b], 0).unwrap(), &[2.2, -0.2, 4.0, 1.0], 1e-6);
    // No input is the base, and one is itself with the factor 1: it shares nothing.
    assert_eq!(merge(&plus, &[4], Some(&base), &[], 0).unwrap(), base);
    assert_eq!(merge(&plus, &[4], Some(&base), &[&b], 0).unwrap(), b);
    // Without own changes nothing is undefined.
    let zero = RamPlus { epsilon: 0.0, ..plus };
    assert_eq!(merge(&zero, &[1], Some(&[0.0]), &[&[1.0], &[2.0]], 0).unwrap(), [1.5]);
}

#[test]
fn ram_of_disjoint_changes_is_their_sum() {
    let base = numbers(1, 30_000);
    let change = |part: usize| -> Vec<f32> {
        base.iter().enumerate().map(|(i, b)| if i % 3 == part { b + 0.5 } else { *b }).collect()
    };
    let y = merge(&RAM, &[30_000], Some(&base), &[&change(0), &change(1), &change(2)], 0).unwrap();
    let wanted: Vec<f32> = base.iter().map(|b| b + 0.5).collect();
    near(&y, &wanted, 1e-6);
}

#[test]
fn nearswap_by_hand() {
    let y =
        merge(&NearSwap { t: 0.5 }, &[4], Some(&[1.0; 4]), &[&[1.25, 2.0, -1.0, 1.0]], 0).unwrap();
    near(&y, &[1.25, 1.5, 0.5, 1.0], 1e-6);
    let y = merge(&NearSwap { t: -0.5 }, &[2], Some(&[1.0, 2.0]), &[&[1.25, 3.0]], 0).unwrap();
    assert_eq!(y, [1.0, 2.0]);
}

/// The elements of a sorted importance at `floor((n - 1) k / 4)`, computed plainly.
fn arcee_fusion(row: usize, base: &[f32], x: &[f32]) -> Vec<f32> {
    let softmax = |x: &[f32]| -> Vec<f64> {
        let e: Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| e / sum + 1e-8).collect()
    };
    let importance: Vec<f64> = x
        .chunks(row)
        .zip(base.chunks(row))
        .flat_map(|(x, b)| {
            let kl: f64 = softmax(x).iter().zip(softmax(b)).map(|(p, q)| p * (p / q).ln()).sum();
            x.iter().zip(b).map(move |(x, b)| f64::from((x - b).abs()) * kl).collect::<Vec<_>>()
        })
        .collect();
    let mut sorted = importance.clone();
    sorted.sort_by(f64::total_cmp);
    let quartile = |k: usize| sorted[(sorted.len() - 1) * k / 4];
    let threshold = quartile(2) + 1.5 * (quartile(3) - quartile(1));
    let pick = |((x, b), i): ((&f32, &f32), &f64)| if *i >= threshold { b + (x - b) } else { *b };
    x.iter().zip(base).zip(&importance).map(pick).collect()
}

#[test]
fn arcee_fusion_selects_as_sorting_does_for_any_size() {
    // The largest has more than the million elements from which mergekit draws a sample.
    for (rows, row) in [(1, 9), (30, 17), (3, 3), (1100, 1000)] {
        let n = rows * row;
        let base: Vec<f32> = numbers(1, n).iter().map(|x| 4.0 * x).collect();
        let x: Vec<f32> = base.iter().zip(numbers(2, n)).map(|(b, d)| b + 3.0 * d).collect();
        let y = merge(&ArceeFusion, &[rows, row], Some(&base), &[&x], 0).unwrap();
        let wanted = arcee_fusion(row, &base, &x);
        // Within rounding of the threshold, an element can fall on either side.
        let differ = y.iter().zip(&wanted).filter(|(y, wanted)| y != wanted).count();
        assert!(differ <= n / 100_000, "{differ} of {n}");
        let changed = y.iter().zip(&base).filter(|(y, base)| y != base).count();
        assert!(changed < n / 2 && (changed > 0 || n < 100), "{changed} of {n}");
    }
}

#[test]
fn arcee_fusion_at_its_edges() {
    // Nothing changed; one element, which is its own threshold.
    let a = numbers(1, 30);
    assert_eq!(merge(&ArceeFusion, &[5, 6], Some(&a), &[&a], 0).unwrap(), a);
    assert_eq!(merge(&ArceeFusion, &[], Some(&[1.0]), &[&[3.0]], 0).unwrap(), [3.0]);
}

#[test]
fn passthrough_and_copies() {
    let odd = [f32::from_bits(0x7fc1_2345), -0.0, 1e-40];
    let y = merge(&Passthrough { scale: 1.0 }, &[3], None, &[&odd], 0).unwrap();
    assert!(y[1..].iter().zip(&odd[1..]).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert_eq!(
        merge(&Passthrough { scale: -2.0 }, &[2], None, &[&[1.0, 3.0]], 0).unwrap(),
        [-2.0, -6.0]
    );
    assert_eq!(Passthrough { scale: 1.0 }.copies(), Some(0));
    assert_eq!(Passthrough { scale: 0.5 }.copies(), None);
    assert_eq!(Linear { weight: vec![1.0], normalize: true }.copies(), Some(0));
    // 0.3 x / 0.3 is not x for every x.
    assert_eq!(Linear { weight: vec![0.3], normalize: true }.copies(), None);
    assert_eq!(Linear { weight: vec![1.0, 0.0], normalize: true }.copies(), None);
    assert_eq!(KARCHER.copies(), None);
}
