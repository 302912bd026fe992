//! Task-vector methods: cases by hand, and the laws of those that draw.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use posttrain_merge::Source;
use posttrain_merge::group::Group;
use posttrain_merge::methods::{
    Breadcrumbs, Dare, Della, Edge, Election, First, Merge, Registry, Rescale, Resolved, Scope,
    TaskArithmetic, TaskVectors, Ties, Value, block_len, edges, merge,
};
use posttrain_merge::philox::Stream;
use rayon::prelude::*;
use safetensors::Dtype;

fn sum(weight: &[f64], normalize: bool, election: Option<Election>) -> TaskVectors {
    TaskVectors { weight: weight.to_vec(), lambda: 1.0, normalize, election }
}

/// Numbers like those of a normal distribution, none of them 0.
fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut u = vec![0.0; 4 * n];
    Stream::new(seed, "values", 0).fill(0, &mut u);
    u.as_chunks::<4>().0.iter().map(|u| u.iter().sum::<f32>() - 2.0 + 1e-7).collect()
}

/// A tensor as the executor merges it: in parallel, into stretches.
fn executed(
    method: &dyn Merge,
    name: &str,
    shape: &[usize],
    inputs: &[Source],
    seed: u64,
) -> Vec<f32> {
    let base = Source::memory(vec![0.0; shape.iter().product()], shape);
    let group = Group {
        name,
        shape,
        base: Some(&base),
        inputs,
        seed,
        arithmetic: Dtype::F32,
        block: block_len(method, shape),
    };
    let apply = method.prepare(&group).unwrap();
    let mut out = vec![0.0; group.numel()];
    out.par_chunks_mut(group.block).enumerate().for_each_init(
        || group.buffers(),
        |block, (index, out)| {
            group.read(index, block);
            apply(block, out);
        },
    );
    out
}

#[test]
fn selection_is_that_of_a_sort() {
    // From 64 blocks on a sample is taken; few levels are heavy sizes, many are not.
    for (n, levels, block) in [
        (1, 1, 4),
        (7, 2, 3),
        (1000, 5, 64),
        (5000, 3000, 512),
        (40_000, 90, 1000),
        (40_000, 90, 500),
        (40_000, 4, 100),
        (50_000, 700, 512),
        (100_000, 1_000_000, 1000),
    ] {
        for arithmetic in [Dtype::F32, Dtype::BF16] {
            let mut d: Vec<f32> = random(n as u64, n);
            for d in &mut d {
                // Few levels: many equal sizes, of both signs.
                *d = (*d * levels as f32).round() / levels as f32;
            }
            posttrain_merge::dtype::round(arithmetic, &mut d);
            let base = Source::memory(vec![0.0; n], &[n]);
            let inputs = [Source::memory(d.clone(), &[n])];
            let group = Group {
                name: "x",
                shape: &[n],
                base: Some(&base),
                inputs: &inputs,
                seed: 0,
                arithmetic,
                block,
            };
            let counts = [0, 1, 2, n / 3, n / 2, n - 1, n];
            let questions: Vec<(usize, First)> = counts
                .iter()
                .flat_map(|c| [(0, First::Smallest(*c)), (0, First::Largest(*c))])
                .collect();
            let found = edges(&group, &questions).unwrap();
            for (edge, question) in found.iter().zip(&questions) {
                let first = &question.1;
                assert_eq!(edges(&group, &[*question]).unwrap(), [*edge], "{n} {question:?} alone");
                let mut order: Vec<usize> = (0..n).collect();
                let (from, to, count) = match first {
                    First::Smallest(count) => {
                        order.sort_by(|a, b| d[*a].abs().total_cmp(&d[*b].abs()));
                        (Edge::BOTTOM, *edge, *count)
                    }
                    First::Largest(count) => {
                        order.sort_by(|a, b| d[*b].abs().total_cmp(&d[*a].abs()));
                        (*edge, Edge::TOP, *count)
                    }
                };
                let mut wanted = vec![0.0; n];
                for place in &order[..count.min(n)] {
                    wanted[*place] = d[*place];
                }
                // In stretches, as blocks are.
                let mut kept = d.clone();
                for (i, kept) in kept.chunks_mut(block).enumerate() {
                    from.keep(to, i * block, kept);
                }
                assert_eq!(kept, wanted, "{n} {levels} {arithmetic:?} {first:?}");
            }
        }
    }
}

#[test]
fn a_delta_that_is_no_number_is_an_error() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = random(1, 100);
        x[37] = bad;
        let ties =
            Ties { density: vec![1.0, 0.5], rescale: None, sum: sum(&[1.0, 1.0], true, None) };
        let good = random(2, 100);
        let error =
            merge(&ties, &[100], Some(&[0.0; 100]), &[&good, &x], 0).unwrap_err().to_string();
        assert!(error.contains("1 deltas of input 1 are infinite or no number"), "{error}");
        let rescale = Some(Rescale::L1);
        let dare = Dare { density: vec![0.5], rescale, sum: sum(&[1.0], false, None) };
        let error = merge(&dare, &[100], Some(&[0.0; 100]), &[&x], 0).unwrap_err().to_string();
        assert!(error.contains("the deltas of input 0"), "{error}");
        // Nothing looks at the deltas first: it shows in the result, kept or not.
        let dare = Dare { density: vec![0.5], rescale: None, sum: sum(&[1.0], false, None) };
        for seed in 0..8 {
            let y = merge(&dare, &[100], Some(&[0.0; 100]), &[&x], seed).unwrap();
            assert!(!y[37].is_finite());
        }
    }
}

#[test]
fn without_a_base_there_are_no_deltas() {
    let method = TaskArithmetic(sum(&[1.0], false, None));
    let error = merge(&method, &[1], None, &[&[1.0]], 0).unwrap_err().to_string();
    assert!(error.contains("the base model has no such tensor"), "{error}");
}

#[test]
fn only_the_base() {
    let method = TaskArithmetic(sum(&[], true, None));
    let y = merge(&method, &[2], Some(&[-0.0, 3.0]), &[], 0).unwrap();
    assert!(y[0].is_sign_negative() && y == [0.0, 3.0]);
}

#[test]
fn election_by_hand() {
    let base = [10.0; 6];
    // Deltas:      agree, differ, sum of zero, one is zero, both are zero, negative
    let a = [11.0, 13.0, 12.0, 10.0, 10.0, 9.0];
    let b = [13.0, 9.0, 8.0, 8.0, 10.0, 8.0];
    let ties = |weight: [f64; 2], normalize, election| {
        let method = Ties {
            density: vec![1.0; 2],
            rescale: None,
            sum: sum(&weight, normalize, Some(election)),
        };
        merge(&method, &[6], Some(&base), &[&a, &b], 0).unwrap()
    };
    let (weighted, unweighted) = (Election::Weighted, Election::Unweighted);
    // A sum of zero elects plus; a zero takes no part; where nobody does nothing is divided.
    assert_eq!(ties([1.0, 1.0], true, weighted), [12.0, 13.0, 12.0, 8.0, 10.0, 8.5]);
    assert_eq!(ties([1.0, 1.0], true, unweighted), [12.0, 13.0, 12.0, 8.0, 10.0, 8.5]);
    assert_eq!(ties([1.0, 1.0], false, weighted), [14.0, 13.0, 12.0, 8.0, 10.0, 7.0]);
    // With weights 1 and 4 the second model decides the second place, unless signs alone are counted:
    // 3 - 1 is positive.
    assert_eq!(ties([1.0, 4.0], false, weighted)[1], 6.0);
    assert_eq!(ties([1.0, 4.0], false, unweighted)[1], 13.0);
    // A negative weight turns the vote (1 - 3 < 0: the second model alone), but not of deltas as they are.
    assert_eq!(ties([1.0, -1.0], false, weighted)[0], 7.0);
    assert_eq!(ties([1.0, -1.0], false, unweighted)[0], 8.0);
    // Weights of those that take part with the sum zero: nothing is divided.
    assert_eq!(ties([1.0, -1.0], true, unweighted)[0], 8.0);
}

#[test]
fn trimming_by_hand() {
    let d = [0.5, -4.0, 1.0, -1.0, 3.0, 1.0, 0.0, -2.0];
    let zero = [0.0; 8];
    let ties = |density| {
        let method = Ties { density: vec![density], rescale: None, sum: sum(&[1.0], false, None) };
        merge(&method, &[8], Some(&zero), &[&d], 0).unwrap()
    };
    // Of the three sizes of 1 the first comes first.
    assert_eq!(ties(0.5), [0.0, -4.0, 1.0, 0.0, 3.0, 0.0, 0.0, -2.0]);
    assert_eq!(ties(0.625), [0.0, -4.0, 1.0, -1.0, 3.0, 0.0, 0.0, -2.0]);
    assert_eq!(ties(0.01), [0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(ties(0.0), zero);
    assert_eq!(ties(1.0), d);
    let breadcrumbs = |density, gamma| {
        let (density, gamma) = (vec![density], vec![gamma]);
        let method = Breadcrumbs { density, gamma, rescale: None, sum: sum(&[1.0], false, None) };
        merge(&method, &[8], Some(&zero), &[&d], 0).unwrap()
    };
    // Ascending: 0, 0.5, 1, -1, 1, -2, 3, -4. One of the largest is dropped, four are kept.
    assert_eq!(breadcrumbs(0.5, 0.125), [0.0, 0.0, 0.0, -1.0, 3.0, 1.0, 0.0, -2.0]);
    // No room for all of gamma: the seven smallest.
    assert_eq!(breadcrumbs(0.875, 0.5), [0.5, 0.0, 1.0, -1.0, 3.0, 1.0, 0.0, -2.0]);
    assert_eq!(breadcrumbs(0.0, 0.125), zero);
    assert_eq!(breadcrumbs(1.0, 0.125), d);
}

const N: usize = 60_000;

fn dare(density: f64, rescale: Option<Rescale>) -> Dare {
    Dare { density: vec![density], rescale, sum: sum(&[1.0], false, None) }
}

#[test]
fn dare_keeps_a_share_and_scales_it() {
    let d = random(5, N);
    let inputs = [Source::memory(d.clone(), &[N])];
    for p in [0.1, 0.5, 0.9] {
        let y = executed(&dare(p, Some(Rescale::InverseDensity)), "w", &[N], &inputs, 3);
        let kept = y.iter().filter(|y| **y != 0.0).count() as f64;
        let deviation = (N as f64 * p * (1.0 - p)).sqrt();
        assert!((kept - N as f64 * p).abs() < 4.0 * deviation, "{p}: {kept}");
        let factor = (1.0 / p) as f32;
        assert!(y.iter().zip(&d).all(|(y, d)| *y == 0.0 || *y == d * factor));
        // The other norm: what is kept has together the size of all.
        let y = executed(&dare(p, Some(Rescale::L1)), "w", &[N], &inputs, 3);
        let l1 = |x: &[f32]| x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        assert!((l1(&y) / l1(&d) - 1.0).abs() < 1e-6);
        // And without, they are what they were.
        let y = executed(&dare(p, None), "w", &[N], &inputs, 3);
        assert!(y.iter().zip(&d).all(|(y, d)| *y == 0.0 || y == d));
    }
    let none = executed(&dare(0.0, Some(Rescale::InverseDensity)), "w", &[N], &inputs, 3);
    assert_eq!(none, vec![0.0; N]);
    assert_eq!(executed(&dare(1.0, Some(Rescale::InverseDensity)), "w", &[N], &inputs, 3), d);
}

#[test]
fn the_expectation_of_dare_and_della_is_the_delta() {
    let d = random(6, 64);
    let inputs = [Source::memory(d.clone(), &[4, 16])];
    let rescale = Some(Rescale::InverseDensity);
    let della =
        Della { density: vec![0.5], epsilon: vec![0.3], rescale, sum: sum(&[1.0], false, None) };
    for method in [&dare(0.4, rescale) as &dyn Merge, &della] {
        let (mut mean, runs) = (vec![0.0f64; 64], 4000);
        for seed in 0..runs {
            for (mean, y) in mean.iter_mut().zip(executed(method, "w", &[4, 16], &inputs, seed)) {
                *mean += f64::from(y) / runs as f64;
            }
        }
        for (mean, d) in mean.iter().zip(&d) {
            // The least probability is 0.2: a deviation of 2 |d| for one run.
            let deviation = 2.0 * f64::from(d.abs()) / (runs as f64).sqrt();
            assert!((mean - f64::from(*d)).abs() < 4.5 * deviation, "{method:?}: {mean} {d}");
        }
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let shape = [300, 200];
    let inputs = [7, 8].map(|seed| Source::memory(random(seed, N), &shape));
    let sum = |election| sum(&[0.6, 0.3], true, election);
    let (density, rescale) = (vec![0.5, 0.3], Some(Rescale::L1));
    let elect = Some(Election::Weighted);
    let methods: [&dyn Merge; 4] = [
        &Ties { density: density.clone(), rescale, sum: sum(elect) },
        &Dare { density: density.clone(), rescale, sum: sum(None) },
        &Della { density: density.clone(), epsilon: vec![0.1, 0.2], rescale, sum: sum(elect) },
        &Breadcrumbs { density, gamma: vec![0.1, 0.2], rescale, sum: sum(None) },
    ];
    for method in methods {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| executed(method, "w", &shape, &inputs, 11))
        };
        let one = with(1);
        assert_eq!(one, with(1));
        assert_eq!(one, with(2));
        assert_eq!(one, with(7));
    }
    let dare = methods[1];
    let first = executed(dare, "w", &shape, &inputs, 11);
    assert_ne!(first, executed(dare, "w", &shape, &inputs, 12), "another seed");
    assert_ne!(first, executed(dare, "v", &shape, &inputs, 11), "another tensor");
    // Two equal models keep different elements.
    let twins = [inputs[0].clone(), inputs[0].clone()];
    let masked = |weight: [f64; 2]| {
        let sum =
            TaskVectors { weight: weight.to_vec(), lambda: 1.0, normalize: false, election: None };
        executed(&Dare { density: vec![0.5; 2], rescale: None, sum }, "w", &shape, &twins, 11)
    };
    assert_ne!(masked([1.0, 0.0]), masked([0.0, 1.0]), "another model");
}

#[test]
fn della_keeps_the_larger_more_often() {
    let (rows, m) = (2000, 16);
    let d = random(9, rows * m);
    let della = |epsilon| Della {
        density: vec![0.5],
        epsilon: vec![epsilon],
        rescale: None,
        sum: sum(&[1.0], false, None),
    };
    // As rows of a matrix, and along the second dimension of a tensor of three.
    for shape in [vec![rows, m], vec![rows / 4, m, 4]] {
        let inputs = [Source::memory(d.clone(), &shape)];
        let y = executed(&della(0.4), "w", &shape, &inputs, 1);
        let inner: usize = shape[2..].iter().product();
        let mut kept = vec![0usize; m];
        for (d, y) in d.chunks(m * inner).zip(y.chunks(m * inner)) {
            for column in 0..inner {
                let mut order: Vec<usize> = (0..m).map(|i| i * inner + column).collect();
                order.sort_by(|a, b| d[*a].abs().total_cmp(&d[*b].abs()));
                for (rank, place) in order.iter().enumerate() {
                    kept[rank] += usize::from(y[*place] != 0.0);
                }
            }
        }
        for (rank, kept) in kept.iter().enumerate() {
            let p = 0.1 + 0.8 * rank as f64 / 15.0;
            let deviation = (rows as f64 * p * (1.0 - p)).sqrt();
            let off = *kept as f64 - rows as f64 * p;
            assert!(off.abs() < 4.0 * deviation, "{shape:?} rank {rank}: {kept}");
        }
    }
}

/// mergekit divides 0 by 0 there and fails.
#[test]
fn della_takes_rows_of_one_element_with_the_density() {
    let inputs = [Source::memory(vec![1.0; N], &[N, 1])];
    let sum = sum(&[1.0], false, None);
    let della = Della { density: vec![0.3], epsilon: vec![0.1], rescale: None, sum };
    let kept: f32 = executed(&della, "w", &[N, 1], &inputs, 1).iter().sum();
    let deviation = (N as f32 * 0.3 * 0.7).sqrt();
    assert!((kept - 0.3 * N as f32).abs() < 4.0 * deviation, "{kept}");
    // And a scalar, which has no second dimension there.
    let scalar = Source::memory(vec![1.0], &[]);
    let y = executed(&della, "w", &[], &[scalar], 1);
    assert!(y == [0.0] || y == [1.0]);
}

#[test]
fn parameters_out_of_range_are_errors() {
    let registry = Registry::default();
    let build = |name: &str, changes: &[(&'static str, f64)]| {
        let method = registry.get(name).unwrap();
        let (mut shared, mut input) = (BTreeMap::new(), BTreeMap::new());
        for parameter in &method.parameters {
            let changed = changes.iter().find(|(name, _)| *name == parameter.name);
            let value = changed.map(|(_, value)| Value::Number(*value)).or(parameter.default);
            let map = if parameter.scope == Scope::Shared { &mut shared } else { &mut input };
            map.insert(parameter.name, value.unwrap_or(Value::Number(1.0)));
        }
        let parameters = Resolved { shared, inputs: vec![input.clone(), input] };
        method.with(&parameters).map(drop).map_err(|error| error.to_string())
    };
    for method in [
        "ties",
        "dare_linear",
        "dare_ties",
        "della",
        "della_linear",
        "breadcrumbs",
        "breadcrumbs_ties",
    ] {
        assert_eq!(build(method, &[]), Ok(()));
        for density in [-0.1, 1.5, f64::NAN] {
            let error = build(method, &[("density", density)]).unwrap_err();
            let found = format!("`inputs[0].density` is {density}, expected a number from 0 to 1");
            assert_eq!(error, found, "{method}");
        }
    }
    let error = build("breadcrumbs", &[("gamma", 2.0)]).unwrap_err();
    assert_eq!(error, "`inputs[0].gamma` is 2, expected a number from 0 to 1");
    let error = build("task_arithmetic", &[("weight", f64::INFINITY)]).unwrap_err();
    assert_eq!(error, "`inputs[0].weight` is inf, expected a finite number");
    let error = build("ties", &[("lambda", f64::NAN)]).unwrap_err();
    assert_eq!(error, "`lambda` is NaN, expected a finite number");
    for (density, epsilon) in [(0.9, 0.15), (0.1, 0.15), (0.9, -0.2), (0.5, 0.5)] {
        let error = build("della", &[("density", density), ("epsilon", epsilon)]).unwrap_err();
        let expected = format!(
            "`inputs[0].epsilon` is {epsilon}, expected such that the density {density} plus and minus it is in (0, 1)"
        );
        assert_eq!(error, expected);
    }
    // Nothing is drawn there.
    assert_eq!(build("della", &[("density", 1.0)]), Ok(()));
    assert_eq!(build("della", &[("density", 0.0)]), Ok(()));
}

#[test]
fn sums_that_the_type_does_not_hold_are_an_error() {
    // 60000 deltas of 2 have the sum 120000; float16 ends at 65504.
    let base = Source::memory(vec![0.0; N], &[N]);
    let inputs = [Source::memory(vec![2.0; N], &[N])];
    let ties =
        Ties { density: vec![0.5], rescale: Some(Rescale::L1), sum: sum(&[1.0], true, None) };
    let group = Group {
        name: "w",
        shape: &[N],
        base: Some(&base),
        inputs: &inputs,
        seed: 0,
        arithmetic: Dtype::F16,
        block: 1024,
    };
    let error = ties.prepare(&group).err().unwrap().to_string();
    assert!(error.contains("120000") && error.contains("float16"), "{error}");
}
