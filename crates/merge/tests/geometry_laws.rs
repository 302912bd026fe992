//! The spherical methods and those that select: by hand, by their laws, at their edges.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use posttrain_merge::Error;
use posttrain_merge::methods::{
    ArceeFusion, Karcher, Linear, Merge, ModelStock, MultiSlerp, NearSwap, NuSlerp, Passthrough,
    Ram, RamPlus, Registry, Resolved, Sce, Scope, Slerp, Value, merge,
};

fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..n).map(|_| next() + next()).collect()
}

fn near(got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len());
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert!((got - wanted).abs() <= tolerance, "{i}: {got}, expected {wanted}");
    }
}

fn direction(x: &[f32]) -> Vec<f32> {
    let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    x.iter().map(|x| (f64::from(*x) / norm) as f32).collect()
}

fn nuslerp(weight: [f64; 2]) -> NuSlerp {
    NuSlerp { weight, nuslerp_flatten: true, nuslerp_row_wise: false }
}

fn multislerp(weight: &[f64]) -> MultiSlerp {
    MultiSlerp { weight: weight.to_vec(), normalize_weights: true, eps: 1e-8 }
}

const KARCHER: Karcher = Karcher { max_iter: 10, tol: 1e-5 };
const RAM: Ram = Ram { epsilon: 1e-5 };

#[test]
fn nuslerp_by_hand() {
    // Orthogonal vectors of length 1 and 2, a third of the way: sin 60, sin 30.
    let y = merge(&nuslerp([2.0, 1.0]), &[2], None, &[&[1.0, 0.0], &[0.0, 2.0]], 0).unwrap();
    near(&y, &[0.866_025_4, 1.0], 1e-6);
    // The same, of the differences from a base.
    let y = merge(&nuslerp([2.0, 1.0]), &[2], Some(&[5.0, 5.0]), &[&[6.0, 5.0], &[5.0, 7.0]], 0)
        .unwrap();
    near(&y, &[5.866_025_4, 6.0], 1e-6);
    // Without base it is SLERP, at least off the line.
    let (a, b) = (numbers(1, 100), numbers(2, 100));
    let wanted = merge(&Slerp { t: 0.3 }, &[100], Some(&a), &[&b], 0).unwrap();
    near(&merge(&nuslerp([0.7, 0.3]), &[100], None, &[&a, &b], 0).unwrap(), &wanted, 1e-6);
}

#[test]
fn nuslerp_on_a_line() {
    let a = numbers(1, 50);
    let minus: Vec<f32> = a.iter().map(|a| -0.3 * a).collect();
    let wanted =
        merge(&Linear { weight: vec![0.75, 0.25], normalize: true }, &[50], None, &[&a, &minus], 0);
    let y = merge(&nuslerp([3.0, 1.0]), &[50], None, &[&a, &minus], 0).unwrap();
    near(&y, &wanted.unwrap(), 1e-6);
    near(&merge(&nuslerp([3.0, 1.0]), &[50], None, &[&a, &a], 0).unwrap(), &a, 1e-7);
    // A zero vector is a right angle away from any.
    let zero = vec![0.0; 50];
    let y = merge(&nuslerp([2.0, 1.0]), &[50], None, &[&a, &zero], 0).unwrap();
    let wanted: Vec<f32> = a.iter().map(|a| 0.866_025_4 * a).collect();
    near(&y, &wanted, 1e-6);
    // Weights that sum to zero: one half.
    let b = numbers(2, 50);
    let half = merge(&nuslerp([1.0, 1.0]), &[50], None, &[&a, &b], 0).unwrap();
    assert_eq!(merge(&nuslerp([1.0, -1.0]), &[50], None, &[&a, &b], 0).unwrap(), half);
}

/// Every vector of the tensor as a tensor of its own: `vector` is the one that holds the element.
fn vector_by_vector(
    vector: impl Fn(usize) -> usize,
    base: Option<&[f32]>,
    a: &[f32],
    b: &[f32],
) -> Vec<f32> {
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..a.len()).for_each(|i| places.entry(vector(i)).or_default().push(i));
    let mut y = vec![0.0; a.len()];
    for places in places.values() {
        let of = |x: &[f32]| places.iter().map(|i| x[*i]).collect::<Vec<f32>>();
        let part = merge(
            &nuslerp([0.4, 0.6]),
            &[places.len()],
            base.map(of).as_deref(),
            &[&of(a), &of(b)],
            0,
        );
        for (i, value) in places.iter().zip(part.unwrap()) {
            y[*i] = value;
        }
    }
    y
}

#[test]
fn nuslerp_along_dimensions() {
    for shape in [
        vec![7, 5],
        vec![1, 5],
        vec![5, 1],
        vec![3, 4, 5],
        vec![3, 5000],
        vec![700, 60],
        vec![9],
        vec![],
    ] {
        let n: usize = shape.iter().product();
        let (base, a, b) = (numbers(3, n), numbers(4, n), numbers(5, n));
        let columns: usize = shape.iter().skip(1).product();
        let row = shape.last().copied().unwrap_or(1);
        for base in [None, Some(base.as_slice())] {
            let mut method =
                NuSlerp { weight: [0.4, 0.6], nuslerp_flatten: false, nuslerp_row_wise: true };
            let y = merge(&method, &shape, base, &[&a, &b], 0).unwrap();
            near(&y, &vector_by_vector(|i| i % columns, base, &a, &b), 2e-6);
            method.nuslerp_row_wise = false;
            let y = merge(&method, &shape, base, &[&a, &b], 0).unwrap();
            near(&y, &vector_by_vector(|i| i / row, base, &a, &b), 2e-6);
        }
    }
}

#[test]
fn multislerp_by_hand() {
    // Orthogonal vectors of length 1 and 2: their directions in the middle, the mean length.
    let y = merge(&multislerp(&[1.0, 1.0]), &[2], None, &[&[1.0, 0.0], &[0.0, 2.0]], 0).unwrap();
    near(&y, &[1.060_660_2, 1.060_660_2], 1e-6);
    let unscaled = MultiSlerp { normalize_weights: false, ..multislerp(&[1.0, 1.0]) };
    let y = merge(&unscaled, &[2], None, &[&[1.0, 0.0], &[0.0, 2.0]], 0).unwrap();
    near(&y, &[2.121_320_3, 2.121_320_3], 1e-6);
    // One input is the result, whatever the weight and the base.
    let alone = multislerp(&[0.3]);
    assert_eq!(merge(&alone, &[2], Some(&[9.0, 9.0]), &[&[1.0, 4.0]], 0).unwrap(), [1.0, 4.0]);
    assert_eq!(alone.copies(), Some(0));
}

#[test]
fn multislerp_does_not_depend_on_the_order() {
    let x: Vec<Vec<f32>> = (0..3).map(|seed| numbers(seed, 40_000)).collect();
    let y =
        merge(&multislerp(&[0.5, 0.3, 0.4]), &[40_000], None, &[&x[0], &x[1], &x[2]], 0).unwrap();
    let other =
        merge(&multislerp(&[0.4, 0.5, 0.3]), &[40_000], None, &[&x[2], &x[0], &x[1]], 0).unwrap();
    near(&y, &other, 1e-6);
}

#[test]
fn multislerp_of_vectors_that_cancel() {
    let a = numbers(1, 50);
    for factor in [-1.0, -0.3] {
        let other: Vec<f32> = a.iter().map(|a| factor * a).collect();
        let y = merge(&multislerp(&[1.0, 1.0]), &[50], None, &[&a, &other], 0).unwrap();
        let wanted: Vec<f32> = a.iter().map(|a| (1.0 + factor) / 2.0 * a).collect();
        near(&y, &wanted, 1e-6);
    }
    // Three cannot be merged so, nor three that equal their base.
    let minus: Vec<f32> = a.iter().map(|a| -a).collect();
    let zero = vec![0.0; 50];
    let failed = |base, inputs: &[&[f32]]| {
        let method = multislerp(&vec![1.0; inputs.len()]);
        matches!(merge(&method, &[50], base, inputs, 0), Err(Error::Tensor { .. }))
    };
    assert!(failed(None, &[&a, &minus, &zero]));
    assert!(failed(Some(&a), &[&a, &a, &a]));
    // Two that equal their base are their base.
    assert_eq!(merge(&multislerp(&[0.5, 0.5]), &[50], Some(&a), &[&a, &a], 0).unwrap(), a);
    let sum = merge(&multislerp(&[1.0, -1.0]), &[50], None, &[&a, &zero], 0).unwrap_err();
    assert!(sum.to_string().contains("sum 0"), "{sum}");
}

#[test]
fn karcher_of_two_is_the_middle_of_the_arc() {
    for (seed, distance) in [(1, 1.0), (2, 0.1), (3, 1e-3), (4, 1e-5)] {
        let a = numbers(seed, 500);
        let b: Vec<f32> =
            a.iter().zip(numbers(seed + 100, 500)).map(|(a, d)| a + distance * d).collect();
        let mean = merge(&KARCHER, &[500], None, &[&a, &b], 0).unwrap();
        let middle =
            merge(&nuslerp([1.0, 1.0]), &[500], None, &[&direction(&a), &direction(&b)], 0)
                .unwrap();
        near(&direction(&mean), &direction(&middle), 1e-6);
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((norm(&mean) - f64::midpoint(norm(&a), norm(&b))).abs() < 1e-5);
    }
}

#[test]
fn karcher_pulls_equally_from_all_sides() {
    // At the mean the arcs to the inputs cancel: sum theta / sin theta (u - cos theta m) = 0.
    let x: Vec<Vec<f32>> = (0..4).map(|seed| numbers(seed, 200)).collect();
    let exact = Karcher { max_iter: 200, tol: 1e-9 };
    let m = direction(&merge(&exact, &[200], None, &[&x[0], &x[1], &x[2], &x[3]], 0).unwrap());
    let mut pull = vec![0.0f64; 200];
    for x in &x {
        let u = direction(x);
        let cos: f64 = u.iter().zip(&m).map(|(u, m)| f64::from(*u) * f64::from(*m)).sum();
        let theta = cos.acos();
        for ((pull, u), m) in pull.iter_mut().zip(&u).zip(&m) {
            *pull += theta / theta.sin() * (f64::from(*u) - cos * f64::from(*m));
        }
    }
    assert!(pull.iter().all(|pull| pull.abs() < 1e-6), "{pull:?}");
}

#[test]
fn karcher_at_its_edges() {
    let a = numbers(1, 50);
    near(&merge(&KARCHER, &[50], None, &[&a, &a, &a], 0).unwrap(), &a, 1e-6);
    assert_eq!(merge(&KARCHER, &[50], None, &[&a], 0).unwrap(), a);
    let zero = vec![0.0; 50];
    assert_eq!(merge(&KARCHER, &[50], None, &[&zero, &zero], 0).unwrap(), zero);
    // A zero counts in the mean norm only; of opposite inputs the first gives the direction.
    let half: Vec<f32> = a.iter().map(|a| a / 2.0).collect();
    near(&merge(&KARCHER, &[50], None, &[&zero, &a], 0).unwrap(), &half, 1e-6);
    let minus: Vec<f32> = a.iter().map(|a| -3.0 * a).collect();
    let twice: Vec<f32> = a.iter().map(|a| 2.0 * a).collect();
    near(&merge(&KARCHER, &[50], None, &[&a, &minus], 0).unwrap(), &twice, 1e-6);
}

#[test]
fn model_stock_by_hand() {
    let stock = ModelStock { filter_wise: false };
    let of = |base: &[f32], inputs: &[&[f32]]| merge(&stock, &[2], Some(base), inputs, 0).unwrap();
    // cos 45 degrees: t = 2 cos / (1 + cos).
    let t = std::f32::consts::SQRT_2 / (1.0 + std::f32::consts::FRAC_1_SQRT_2);
    near(&of(&[0.0, 0.0], &[&[1.0, 0.0], &[1.0, 1.0]]), &[t, t / 2.0], 1e-6);
    // Equal updates: the inputs. Orthogonal or opposite ones, or none: the base.
    near(&of(&[1.0, 1.0], &[&[2.0, 3.0], &[2.0, 3.0], &[2.0, 3.0]]), &[2.0, 3.0], 1e-6);
    near(&of(&[1.0, 1.0], &[&[2.0, 1.0], &[1.0, 3.0]]), &[1.0, 1.0], 1e-6);
    near(&of(&[1.0, 1.0], &[&[2.0, 2.0], &[0.0, 0.0]]), &[1.0, 1.0], 1e-6);
    near(&of(&[1.0, 1.0], &[&[1.0, 1.0], &[1.0, 1.0]]), &[1.0, 1.0], 1e-6);
    assert!(matches!(merge(&stock, &[1], Some(&[0.0]), &[&[1.0]], 0), Err(Error::Tensor { .. })));
}

#[test]
fn model_stock_filter_wise_is_row_by_row() {
    let (base, a, b) = (numbers(1, 60_000), numbers(2, 60_000), numbers(3, 60_000));
    let y =
        merge(&ModelStock { filter_wise: true }, &[600, 100], Some(&base), &[&a, &b], 0).unwrap();
    for row in [0, 1, 333, 599] {
        let at = row * 100..(row + 1) * 100;
        let inputs: [&[f32]; 2] = [&a[at.clone()], &b[at.clone()]];
        let whole = ModelStock { filter_wise: false };
        let wanted = merge(&whole, &[100], Some(&base[at.clone()]), &inputs, 0).unwrap();
        near(&y[at], &wanted, 1e-6);
    }
}

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
        (((a - mean).powi(2) + (b - mean).powi(2)) / 2.0) as f32
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| variance(*j).total_cmp(&variance(*i)).then(i.cmp(j)));
    order[n / 5..].iter().for_each(|i| assert_eq!(y[*i], base[*i]));
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

/// Every method of this file with the number of its inputs and whether it takes a base.
fn all() -> Vec<(Box<dyn Merge>, usize, bool)> {
    let along = |row_wise| NuSlerp {
        weight: [0.4, 0.6],
        nuslerp_flatten: false,
        nuslerp_row_wise: row_wise,
    };
    vec![
        (Box::new(nuslerp([0.4, 0.6])), 2, false),
        (Box::new(along(true)), 2, true),
        (Box::new(along(false)), 2, true),
        (Box::new(multislerp(&[0.5, 0.3, 0.4])), 3, false),
        (Box::new(KARCHER), 3, false),
        (Box::new(ModelStock { filter_wise: false }), 3, true),
        (Box::new(ModelStock { filter_wise: true }), 3, true),
        (Box::new(Sce { select_topk: 1.0 }), 3, true),
        (Box::new(Sce { select_topk: 0.37 }), 3, true),
        (Box::new(RAM), 3, true),
        (Box::new(RamPlus { r: 0.5, alpha: 0.4, epsilon: 0.1 }), 3, true),
        (Box::new(NearSwap { t: 0.1 }), 1, true),
        (Box::new(ArceeFusion), 1, true),
        (Box::new(Passthrough { scale: 0.7 }), 1, false),
    ]
}

fn merge_numbers(
    method: &dyn Merge,
    shape: &[usize],
    inputs: usize,
    base: bool,
) -> Result<Vec<f32>, Error> {
    let n = shape.iter().product();
    let x: Vec<Vec<f32>> = (0..=inputs as u32).map(|seed| numbers(seed, n)).collect();
    let refs: Vec<&[f32]> = x[1..].iter().map(Vec::as_slice).collect();
    merge(method, shape, base.then_some(&x[0]), &refs, 0)
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for (method, inputs, base) in all() {
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let y = pool.install(|| merge_numbers(&*method, &[130, 1001], inputs, base)).unwrap();
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = of(1);
        assert_eq!(one, of(2), "{method:?}");
        assert_eq!(one, of(4), "{method:?}");
    }
}

#[test]
fn tensors_without_elements_scalars_and_vectors() {
    for (method, inputs, base) in all() {
        for shape in [&[0][..], &[0, 5], &[5, 0]] {
            match merge_numbers(&*method, shape, inputs, base) {
                Ok(y) => assert!(y.is_empty()),
                Err(error) => panic!("{method:?} {shape:?} {error}"),
            }
        }
        for shape in [&[][..], &[1], &[7], &[1, 7], &[7, 1], &[2, 3, 4]] {
            let y = merge_numbers(&*method, shape, inputs, base).unwrap();
            assert!(y.iter().all(|y| y.is_finite()), "{method:?} {shape:?} {y:?}");
        }
    }
}

#[test]
fn nan_is_an_error_where_it_would_spread() {
    let bad = [1.0, f32::NAN, 2.0, 3.0];
    let (good, base) = ([2.0, 1.0, 0.5, 1.0], [0.0; 4]);
    let inputs: [&[f32]; 3] = [&good, &bad, &good];
    let methods: [(&dyn Merge, Option<&[f32]>, &[&[f32]]); 7] = [
        (&nuslerp([1.0, 1.0]), None, &inputs[..2]),
        (&multislerp(&[1.0; 3]), None, &inputs),
        (&KARCHER, None, &inputs),
        (&ModelStock { filter_wise: false }, Some(&base), &inputs),
        (&Sce { select_topk: 1.0 }, Some(&base), &inputs),
        (&Sce { select_topk: 0.5 }, Some(&base), &inputs),
        (&ArceeFusion, Some(&base), &inputs[1..2]),
    ];
    for (method, base, inputs) in methods {
        let error = merge(method, &[2, 2], base, inputs, 0).unwrap_err();
        assert!(error.to_string().contains("NaN"), "{method:?} {error}");
    }
}

#[test]
fn parameters_out_of_range_are_errors() {
    let with = |method: &str, name: &str, value: f64| {
        let registry = Registry::default();
        let method = registry.get(method).unwrap();
        let n = *method.inputs.start();
        let mut all = Resolved { shared: BTreeMap::new(), inputs: vec![BTreeMap::new(); n] };
        for parameter in &method.parameters {
            let given = if parameter.name == name { None } else { parameter.default };
            let given =
                given.unwrap_or(Value::Number(if parameter.name == name { value } else { 0.5 }));
            match parameter.scope {
                Scope::Shared => _ = all.shared.insert(parameter.name, given),
                Scope::PerInput => {
                    for input in &mut all.inputs {
                        input.insert(parameter.name, given);
                    }
                }
            }
        }
        method.with(&all).map(|_| ()).map_err(|error| error.to_string())
    };
    for (method, name, bad, good) in [
        ("nuslerp", "weight", f64::NAN, -1.0),
        ("multislerp", "weight", f64::INFINITY, 0.0),
        ("multislerp", "eps", -1e-8, 0.0),
        ("karcher", "max_iter", 2.5, 0.0),
        ("karcher", "max_iter", -1.0, 100.0),
        ("karcher", "tol", -1.0, 0.0),
        ("sce", "select_topk", 1.5, 1.0),
        ("sce", "select_topk", -0.1, 0.0),
        ("ram", "epsilon", -1e-5, 0.0),
        ("ramplus_tl", "alpha", -0.2, 0.0),
        ("ramplus_tl", "r", f64::NAN, -0.1),
        ("nearswap", "t", f64::NAN, -1.0),
        ("passthrough", "scale", f64::NEG_INFINITY, 0.0),
    ] {
        let error = with(method, name, bad).unwrap_err();
        assert!(error.contains(name) && error.contains("expected"), "{error}");
        with(method, name, good).unwrap();
    }
}
