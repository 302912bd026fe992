//! Laws of the update, and numbers against pycma.

use super::*;

fn fixture(name: &str) -> serde_json::Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/merge/search/");
    let text = std::fs::read_to_string(format!("{path}{name}")).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).expect("numbers")
}

#[test]
fn default_parameters_are_pycmas() {
    let rows = fixture("parameters.json");
    for row in rows.as_array().expect("rows") {
        let n = row["n"].as_u64().expect("n") as usize;
        let ours = Parameters::new(n, default_lambda(n));
        assert_eq!(ours.lambda as u64, row["lambda"], "{n}");
        assert_eq!(ours.mu as u64, row["mu"], "{n}");
        for (name, found) in [
            ("mu_eff", ours.mu_eff),
            ("c_c", ours.c_c),
            ("c_1", ours.c_1),
            ("c_mu", ours.c_mu),
            ("c_s", ours.c_s),
            ("d_s", ours.d_s),
        ] {
            let wanted = row[name].as_f64().expect("a number");
            assert!((found - wanted).abs() <= 1e-12 * wanted.abs(), "{n} {name}: {found} {wanted}");
        }
        let wanted = numbers(&row["weights"]);
        assert_eq!(wanted.len(), ours.weights.len());
        for (found, wanted) in ours.weights.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-12, "{n}: {found} {wanted}");
        }
    }
}

/// n = 2, λ = 6: ln 3.5 - ln i for i = 1, 2, 3 over their sum; μ_eff and c_c from them.
#[test]
fn parameters_by_hand() {
    let ours = Parameters::new(2, 6);
    let raw = [3.5f64.ln(), 1.75f64.ln(), (3.5f64 / 3.0).ln()];
    let sum: f64 = raw.iter().sum();
    for (w, raw) in ours.weights.iter().zip(raw) {
        assert!((w - raw / sum).abs() < 1e-15);
    }
    let mu_eff = sum * sum / raw.iter().map(|x| x * x).sum::<f64>();
    assert!((ours.mu_eff - mu_eff).abs() < 1e-14);
    assert!((ours.c_1 - 2.0 / (3.3 * 3.3 + mu_eff)).abs() < 1e-15);
    assert!((ours.c_c - (4.0 + mu_eff / 2.0) / (6.0 + mu_eff)).abs() < 1e-15);
}

#[test]
fn bounds_are_pycmas() {
    for row in fixture("bounds.json").as_array().expect("rows") {
        let [low, high] = ["low", "high"].map(|key| row[key].as_f64().expect("a number"));
        let bounds = Bounds { low, high };
        for (x, wanted) in numbers(&row["x"]).into_iter().zip(numbers(&row["y"])) {
            let found = bounds.inside(x);
            assert!((found - wanted).abs() < 1e-12 * high.abs().max(1.0), "{x}: {found} {wanted}");
            assert!((bounds.inside(bounds.outside(found)) - found).abs() < 1e-12 * (1.0 + high));
        }
    }
}

fn cma(start: Vec<f64>, seed: u64) -> Cma {
    let settings = Settings { sigma: 0.7, tolx: 0.0, tolfun: 0.0, ..Settings::default() };
    Cma::new(start, settings, seed).expect("settings")
}

fn ellipsoid(x: &[f64]) -> f64 {
    let n = x.len() as f64;
    -x.iter().enumerate().map(|(i, x)| 100f64.powf(i as f64 / (n - 1.0)) * x * x).sum::<f64>()
}

/// The reflection at the plane across (1, 2, .., n).
fn turn(x: &[f64]) -> Vec<f64> {
    let v: Vec<f64> = (1..=x.len()).map(|i| i as f64).collect();
    let along = 2.0 * dot(&v, x) / dot(&v, &v);
    x.iter().zip(&v).map(|(x, v)| x - along * v).collect()
}

fn step(cma: &mut Cma, z: &[Vec<f64>], f: impl Fn(&[f64]) -> f64) {
    let scores: Vec<f64> = z.iter().map(|z| f(&cma.candidate(z))).collect();
    cma.learn(z, &scores);
}

#[test]
fn turned_and_moved_problems_give_the_turned_and_moved_search() {
    let start = vec![1.0, -0.5, 0.3, 2.0, -1.0];
    let away = [10.0, -20.0, 5.0, 0.5, 3.0];
    let there =
        |x: &[f64]| -> Vec<f64> { turn(x).iter().zip(away).map(|(x, away)| x + away).collect() };
    let back = |x: &[f64]| -> Vec<f64> {
        turn(&x.iter().zip(away).map(|(x, away)| x - away).collect::<Vec<_>>())
    };
    let mut plain = cma(start.clone(), 4);
    let mut moved = cma(there(&start), 4);
    for _ in 0..60 {
        let z = plain.z();
        let turned: Vec<Vec<f64>> = z.iter().map(|z| turn(z)).collect();
        step(&mut plain, &z, ellipsoid);
        step(&mut moved, &turned, |x| ellipsoid(&back(x)));
        assert!((plain.sigma / moved.sigma - 1.0).abs() < 1e-9);
        for (a, b) in there(&plain.m).iter().zip(&moved.m) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }
    assert!(ellipsoid(&plain.m) > -0.05, "it went somewhere: {}", ellipsoid(&plain.m));
}

#[test]
fn only_ranks_count() {
    let mut plain = cma(vec![1.0; 6], 9);
    let mut bent = cma(vec![1.0; 6], 9);
    for _ in 0..80 {
        let asked = plain.ask();
        assert_eq!(asked, bent.ask());
        let scored = |f: &dyn Fn(&[f64]) -> f64| -> Vec<(Point, f64)> {
            asked.iter().map(|x| (x.clone(), f(x))).collect()
        };
        plain.tell(&scored(&ellipsoid)).expect("asked");
        bent.tell(&scored(&|x| (ellipsoid(x) / 50.0).exp() - 1000.0)).expect("asked");
    }
    assert_eq!((plain.m, plain.c, plain.sigma), (bent.m, bent.c, bent.sigma));
}

/// Candidates have the mean m and the covariance σ² C.
#[test]
fn candidates_have_the_distribution() {
    let n = 3;
    let settings = Settings { sigma: 0.5, population: Some(200_000), ..Settings::default() };
    let mut cma = Cma::new(vec![1.0, 2.0, 3.0], settings, 1).expect("settings");
    cma.c = vec![2.0, 0.5, 0.0, 0.5, 1.0, -0.3, 0.0, -0.3, 0.5];
    assert!(cma.take_root());
    let asked = cma.ask();
    for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let off = |x: &Point, i: usize| x[i] - cma.m[i];
        let found = asked.iter().map(|x| off(x, i) * off(x, j)).sum::<f64>() / 2e5;
        assert!((found - 0.25 * cma.c[i * n + j]).abs() < 0.01, "{i} {j}: {found}");
        assert!(asked.iter().map(|x| off(x, i)).sum::<f64>().abs() / 2e5 < 0.01);
    }
}

/// A score that is not finite ranks last, as the lowest score would.
#[test]
fn failures_rank_last() {
    let mut failed = cma(vec![1.0; 3], 2);
    let mut lowest = failed.clone();
    let asked = failed.ask();
    let scored = |bad: [f64; 2]| -> Vec<(Point, f64)> {
        let score = |i: usize, x: &Point| if i < 2 { bad[i] } else { ellipsoid(x) };
        asked.iter().enumerate().map(|(i, x)| (x.clone(), score(i, x))).collect()
    };
    failed.tell(&scored([f64::NAN, f64::INFINITY])).expect("asked");
    lowest.tell(&scored([-1e9, -2e9])).expect("asked");
    assert_eq!((&failed.m, &failed.c), (&lowest.m, &lowest.c));

    let nothing: Vec<(Point, f64)> = failed.ask().into_iter().map(|x| (x, f64::NAN)).collect();
    let before = failed.clone();
    let error = failed.tell(&nothing).expect_err("no score").to_string();
    assert!(error.contains("no finite score"), "{error}");
    assert_eq!(failed, before);
}

#[test]
fn stored_and_read_again_it_goes_on_with_the_same_bits() {
    let mut whole = cma(vec![0.4, 0.5, 0.6], 8).within(&[(0.0, 1.0); 3]).expect("bounds");
    let f = |x: &Point| -(x[0] - 0.9).abs() - (x[1] * x[2]).powi(2);
    let go = |cma: &mut Cma| {
        let mut scored: Vec<(Point, f64)> =
            cma.ask().into_iter().map(|x| (x.clone(), f(&x))).collect();
        scored.reverse();
        cma.tell(&scored).expect("asked");
    };
    (0..20).for_each(|_| go(&mut whole));
    let text = serde_json::to_string(&whole).expect("JSON");
    let mut again: Cma = serde_json::from_str(&text).expect("JSON");
    assert_eq!(again, whole);
    for _ in 0..20 {
        go(&mut whole);
        go(&mut again);
    }
    assert_eq!(again, whole);
}

#[test]
fn strangers_and_missing_scores_are_refused() {
    let mut cma = cma(vec![1.0; 2], 2);
    let asked = cma.ask();
    let stranger = [(vec![9.0, 9.0], 1.0)];
    let error = cma.tell(&stranger).expect_err("not asked").to_string();
    assert!(error.contains("`told[0]` is [9.0, 9.0]"), "{error}");
    let error = cma.tell(&[(asked[0].clone(), 1.0)]).expect_err("too few").to_string();
    assert!(error.contains("1 scores, expected 6"), "{error}");
    let twice = vec![(asked[0].clone(), 1.0); 6];
    assert!(cma.tell(&twice).is_err());
    assert_eq!(cma.generation(), 0);
}
