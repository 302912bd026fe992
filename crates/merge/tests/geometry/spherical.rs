//! The spherical methods and Model Stock by hand and by their laws.

use std::collections::BTreeMap;

use posttrain_merge::Error;
use posttrain_merge::methods::{
    Karcher, Linear, Merge, ModelStock, MultiSlerp, NuSlerp, Slerp, merge,
};

use super::numbers::{near, numbers};

fn direction(x: &[f32]) -> Vec<f32> {
    let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    x.iter().map(|x| (f64::from(*x) / norm) as f32).collect()
}

pub(crate) fn nuslerp(weight: [f64; 2]) -> NuSlerp {
    NuSlerp { weight, nuslerp_flatten: true, nuslerp_row_wise: false }
}

pub(crate) fn multislerp(weight: &[f64]) -> MultiSlerp {
    MultiSlerp { weight: weight.to_vec(), normalize_weights: true, eps: 1e-8 }
}

pub(crate) const KARCHER: Karcher = Karcher { max_iter: 10, tol: 1e-5 };

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
        let wanted: Vec<f32> = a.iter().map(|a| f32::midpoint(1.0, factor) * a).collect();
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
