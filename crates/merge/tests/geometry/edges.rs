//! What all these methods have in common: threads, shapes, values that are no numbers, ranges.

use std::collections::BTreeMap;

use posttrain_merge::Error;
use posttrain_merge::methods::{
    ArceeFusion, Merge, ModelStock, NearSwap, NuSlerp, Passthrough, RamPlus, Registry, Resolved,
    Sce, Scope, Value, merge,
};

use super::numbers::numbers;
use super::selecting::RAM;
use super::spherical::{KARCHER, multislerp, nuslerp};

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

/// A method, a base and inputs.
type Case<'a> = (&'a dyn Merge, Option<&'a [f32]>, &'a [&'a [f32]]);

#[test]
fn nan_is_an_error_where_it_would_spread() {
    let bad = [1.0, f32::NAN, 2.0, 3.0];
    let (good, base) = ([2.0, 1.0, 0.5, 1.0], [0.0; 4]);
    let inputs: [&[f32]; 3] = [&good, &bad, &good];
    let methods: [Case<'_>; 7] = [
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
