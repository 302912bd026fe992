//! Which numbers are searched, and grids over them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use posttrain_merge::Error;
use posttrain_merge::search::{Grid, Number, Space};
use serde_json::{Value, json};

fn config() -> Value {
    json!({
        "merge_method": "ties",
        "models": [
            { "model": "a", "parameters": { "weight": 0.25, "density": "5e-1" } },
            { "model": "b", "parameters": { "weight": 1, "density": 0.5 } }
        ],
        "parameters": { "t": [
            { "filter": "self_attn", "value": [0.0, 0.5, 1.0] },
            { "value": 0.5 }
        ] },
        "slices": [{ "sources": [{ "model": "a", "layer_range": [0, 16] }] }]
    })
}

fn fault(numbers: impl IntoIterator<Item = Number>) -> String {
    Space::new(&config(), numbers).unwrap_err().to_string()
}

#[test]
fn start_and_apply() {
    let space = Space::new(
        &config(),
        [
            Number::real("models[0].parameters.weight", -1.0..=1.0),
            Number::log("models[0].parameters.density", 0.01..=1.0)
                .tied_to("models[1].parameters.density")
                .named("density"),
            Number::real("parameters.t[0].value", 0.0..=1.0).named("t"),
            Number::integer("slices[0].sources[0].layer_range[1]", 8..=16),
        ],
    )
    .unwrap();
    let names: Vec<&str> = space.numbers().iter().map(Number::name).collect();
    let layer = "slices[0].sources[0].layer_range[1]";
    assert_eq!(names, ["models[0].parameters.weight", "density", "t[0]", "t[1]", "t[2]", layer]);
    assert_eq!(space.start(&config()).unwrap(), [0.25, 0.5, 0.0, 0.5, 1.0, 16.0]);

    let applied = space.apply(&config(), &[-0.5, 0.1, 0.2, 0.3, 0.4, 9.0]).unwrap();
    let mut wanted = config();
    wanted["models"][0]["parameters"] = json!({ "weight": -0.5, "density": 0.1 });
    wanted["models"][1]["parameters"]["density"] = json!(0.1);
    wanted["parameters"]["t"][0]["value"] = json!([0.2, 0.3, 0.4]);
    // A whole number where a whole number stood.
    wanted["slices"][0]["sources"][0]["layer_range"][1] = json!(9);
    assert_eq!(applied, wanted);

    for (point, words) in [
        (vec![0.0], "`point` is 1 values, expected 6 values"),
        (vec![2.0, 0.1, 0.0, 0.0, 0.0, 9.0], "weight` is 2, expected -1 to 1"),
        (vec![0.0, 0.1, 0.0, 0.0, f64::NAN, 9.0], "`t[2]` is NaN"),
        (vec![0.0, 0.1, 0.0, 0.0, 0.0, 9.5], "9.5, expected a whole number from 8 to 16"),
    ] {
        let error = space.apply(&config(), &point).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn nested_gradients() {
    let config = json!({ "slices": [{ "sources": [
        { "model": "a" },
        { "model": "b", "parameters": { "density": [{ "filter": "mlp", "value": 0.3 }] } }
    ] }] });
    let path = "slices[0].sources[1].parameters.density[0].value";
    let space = Space::new(&config, [Number::real(path, 0.0..=1.0)]).unwrap();
    let applied = space.apply(&config, &[0.75]).unwrap();
    assert_eq!(applied.pointer("/slices/0/sources/1/parameters/density/0/value").unwrap(), 0.75);
}

#[test]
fn tied_lists_go_entry_by_entry() {
    let config = json!({ "a": [0.1, 0.2], "b": [0.1, 0.2], "c": [0.1, 0.2, 0.3], "d": [0.9, 0.2] });
    let space = Space::new(&config, [Number::real("a", 0.0..=1.0).tied_to("b")]).unwrap();
    let applied = space.apply(&config, &[0.6, 0.7]).unwrap();
    assert_eq!((&applied["a"], &applied["b"]), (&json!([0.6, 0.7]), &json!([0.6, 0.7])));
    let tied = |path: &str| {
        let number = Number::real("a", 0.0..=1.0).tied_to(path);
        Space::new(&config, [number]).unwrap_err().to_string()
    };
    assert_eq!(tied("c"), "`c` is a list of 3, expected a list of 2 as `a`, to which it is tied");
    assert_eq!(tied("d"), "`d[0]` is 0.9, expected 0.1 as `a[0]`, to which it is tied");
    assert_eq!(
        tied("c[0]"),
        "`c[0]` is one value, expected a list of 2 as `a`, to which it is tied"
    );
}

#[test]
fn a_wrong_path_is_named_with_the_nearest() {
    let error = fault([Number::real("models[1].parameter.weight", 0.0..=1.0)]);
    assert!(
        error.starts_with("`models[1].parameter.weight` is not in the configuration"),
        "{error}"
    );
    assert!(error.contains("did you mean `models[1].parameters.weight`?"), "{error}");
    assert!(error.contains("`parameters.t[0].value[2]`"), "the others are listed: {error}");
    // Not a number, and a list that holds others.
    let error = fault([Number::real("models[0].model", 0.0..=1.0)]);
    assert!(error.starts_with("`models[0].model` is `\"a\"`, expected a number"), "{error}");
    let error = fault([Number::real("parameters.t", 0.0..=1.0)]);
    assert!(error.starts_with("`parameters.t[0]` is `{\"filter\""), "{error}");
    let error = fault([Number::real("models[0]parameters", 0.0..=1.0)]);
    assert!(error.contains("not a key path"), "{error}");
    let nothing = Space::new(&json!({ "a": "b" }), [Number::real("a", 0.0..=1.0)]).unwrap_err();
    assert!(nothing.to_string().contains("the configuration has none"), "{nothing}");
}

#[test]
fn ranges_and_places_are_checked() {
    let weight = "models[0].parameters.weight";
    assert_eq!(fault([]), "`space` is empty, expected at least one number to search");
    for (number, words) in [
        (Number::real(weight, 0.5..=1.0), "is 0.25, expected 0.5 to 1"),
        (Number::real(weight, 1.0..=1.0), "low below high, both finite"),
        (Number::real(weight, 0.0..=f64::INFINITY), "low below high, both finite"),
        (Number::real(weight, f64::NAN..=1.0), "low below high, both finite"),
        (Number::real(weight, -f64::MAX..=f64::MAX), "a finite range"),
        (Number::log(weight, 0.0..=1.0), "both positive and finite"),
        (Number::integer(weight, 0..=3), "a whole number from 0 to 3"),
        (Number::integer(weight, 0..=i64::MAX), "at most 2^53"),
        (Number::choices(weight, []), "at least one value"),
        (Number::choices(weight, [0.25, 0.25]), "finite values, each once"),
        (Number::choices(weight, [0.5]), "is 0.25, expected one of [0.5]"),
    ] {
        let error = fault([number.clone()]);
        assert!(error.contains(words), "{number:?}: {error}");
    }
    let twice = fault([Number::real(weight, 0.0..=1.0), Number::real(weight, 0.0..=1.0)]);
    assert!(twice.contains("the name of two numbers"), "{twice}");
    let again = Number::real("models[0][\"parameters\"].weight", 0.0..=1.0);
    let twice = fault([Number::real(weight, 0.0..=1.0), again]);
    assert!(twice.contains("expected one number for one place"), "{twice}");
}

#[test]
fn a_grid_by_hand() {
    let config = json!({ "a": 0.0, "b": 0.1, "c": 1, "d": 0.5 });
    let space = Space::new(
        &config,
        [
            Number::real("a", 0.0..=1.0),
            Number::log("b", 0.01..=1.0),
            Number::integer("c", 1..=2),
            Number::choices("d", [0.5, 0.2]),
        ],
    )
    .unwrap();
    let grid = Grid::new(&space, 3).unwrap();
    assert_eq!(grid.len(), 3 * 3 * 2 * 2);
    let points: Vec<_> = grid.points().collect();
    assert_eq!(points.len(), grid.len());
    assert_eq!(points[0], [0.0, 0.01, 1.0, 0.5]);
    assert_eq!(points[1], [0.0, 0.01, 1.0, 0.2]);
    assert_eq!(points[2], [0.0, 0.01, 2.0, 0.5]);
    assert!((points[4][1] - 0.1).abs() < 1e-15);
    assert_eq!(points[35], [1.0, 1.0, 2.0, 0.2]);
    for (i, point) in points.iter().enumerate() {
        assert!(!points[..i].contains(point), "each point once");
        space.apply(&config, point).unwrap();
    }
}

#[test]
fn whole_numbers_are_spread_evenly() {
    let config = json!({ "n": 0 });
    let levels = |range, levels| -> Vec<f64> {
        let space = Space::new(&config, [Number::integer("n", range)]).unwrap();
        Grid::new(&space, levels).unwrap().points().map(|point| point[0]).collect()
    };
    assert_eq!(levels(0..=10, 3), [0.0, 5.0, 10.0]);
    assert_eq!(levels(-3..=0, 9), [-3.0, -2.0, -1.0, 0.0]);
    assert_eq!(levels(0..=0, 2), [0.0]);
    assert_eq!(levels(0..=100, 4), [0.0, 33.0, 67.0, 100.0]);
}

#[test]
fn absurd_grids_are_refused_with_their_size() {
    let refused = |n: usize, levels| {
        let config = json!({ "t": vec![0.5; n] });
        let space = Space::new(&config, [Number::real("t", 0.0..=1.0)]).unwrap();
        let error = Grid::new(&space, levels).unwrap_err();
        assert!(matches!(error, Error::Value { .. }));
        error.to_string()
    };
    let error = refused(6, 10);
    assert!(error.contains("10 × 10 × 10 × 10 × 10 × 10 = 1000000 points"), "{error}");
    assert!(error.contains("at most 100000 points"), "{error}");
    let error = refused(60, 5);
    assert!(error.contains("points, more than 340282366920938463463374607431768211455"), "{error}");
    assert!(refused(1, 1).contains("at least 2"));
}
