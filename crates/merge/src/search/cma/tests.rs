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

/// n = 2, λ = 6: ln 3.5 - ln i for i = 1, 2, 3 over their sum; the rest from them.
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

/// Eight generations of pycma: its candidates and scores in, its distribution out.
#[test]
fn updates_are_pycmas() {
    let runs = fixture("updates.json");
    for run in runs.as_array().expect("runs") {
        let start = numbers(&run["start"]);
        let n = start.len();
        let mut ours = cma(start, 0);
        for (g, told) in run["generations"].as_array().expect("generations").iter().enumerate() {
            let eigen = eigen::symmetric(&ours.c, n).expect("finite");
            // z = C^-½ (x - m) / σ.
            let z: Vec<Vec<f64>> = told["x"]
                .as_array()
                .expect("candidates")
                .iter()
                .map(|x| {
                    let y: Vec<f64> =
                        numbers(x).iter().zip(&ours.m).map(|(x, m)| (x - m) / ours.sigma).collect();
                    let mut z = vec![0.0; n];
                    for (value, b) in eigen.values.iter().zip(eigen.vectors.chunks_exact(n)) {
                        add(&mut z, dot(b, &y) / value.sqrt(), b);
                    }
                    z
                })
                .collect();
            ours.learn(&z, &numbers(&told["scores"]));
            let near = |found: &[f64], wanted: &str| {
                let wanted = numbers(&told[wanted]);
                let size = wanted.iter().map(|x| x.abs()).fold(0.0, f64::max);
                assert_eq!(found.len(), wanted.len());
                for (found, wanted) in found.iter().zip(wanted) {
                    assert!((found - wanted).abs() < 1e-8 * size, "{n} {g}: {found} {wanted}");
                }
            };
            near(&ours.m, "m");
            near(&[ours.sigma], "sigma");
            near(&ours.c, "c");
            near(&ours.p_c, "p_c");
            near(&ours.p_s, "p_s");
        }
    }
}

/// Tells scores by generation and candidate until the end.
fn to_the_end(mut cma: Cma, score: impl Fn(u64, usize) -> f64) -> Cma {
    while cma.stop().is_none() && cma.generation() < 2000 {
        let g = cma.generation();
        let scored: Vec<_> =
            cma.ask().into_iter().enumerate().map(|(i, x)| (x, score(g, i))).collect();
        cma.tell(&scored).expect("asked");
    }
    cma
}

#[test]
fn ends_by_name() {
    let settings = Settings { sigma: 0.2, ..Settings::default() };
    let begin = |settings: Settings| {
        let cma = Cma::new(vec![0.5; 2], settings, 3).expect("settings");
        cma.within(&[(0.0, 1.0); 2]).expect("bounds")
    };
    // All the same for 10 + 30 · 2 / 6 generations.
    let flat = to_the_end(begin(settings.clone()), |_, _| 0.5);
    assert_eq!((flat.stop(), flat.generation()), (Some(Stop::Tolfun), 20));
    // Nothing but chance: at least 120 + 30 · 2 / 6 generations.
    let noise = |g: u64, i: usize| normal::normals(1, g, i + 1)[i];
    let chance = to_the_end(begin(Settings { tolx: 0.0, ..settings.clone() }), noise);
    assert_eq!(chance.stop(), Some(Stop::Stagnation));
    assert!((130..500).contains(&chance.generation()), "{}", chance.generation());
    let settings = Settings { max_evaluations: Some(13), ..settings };
    let short = to_the_end(begin(settings.clone()), noise);
    assert_eq!((short.stop(), short.evaluations()), (Some(Stop::MaxEvaluations), 18));
    let mut thin = begin(settings);
    thin.c = vec![1.0, 0.0, 0.0, 1e-16];
    assert_eq!(to_the_end(thin, noise).stop(), Some(Stop::Condition));
    let names = [Stop::Tolx, Stop::Tolfun, Stop::Stagnation, Stop::MaxEvaluations, Stop::Condition]
        .map(|stop| stop.to_string());
    assert_eq!(names, ["tolx", "tolfun", "stagnation", "max_evaluations", "condition"]);
}

/// Whatever the scores, candidates stay in their ranges and deviations below a third of them.
#[test]
fn bounds_hold() {
    let bounds = [(0.0, 1.0), (-5.0, -4.9), (100.0, 300.0)];
    let settings = Settings { sigma: 80.0, tolx: 0.0, tolfun: 0.0, ..Settings::default() };
    let mut cma = Cma::new(vec![1.0, -5.0, 200.0], settings, 5).expect("settings");
    cma = cma.within(&bounds).expect("bounds");
    let far = |x: &Point| x[0] - 10.0 * x[1] + 0.01 * x[2];
    for _ in 0..200 {
        let scored: Vec<_> = cma.ask().into_iter().map(|x| (x.clone(), far(&x))).collect();
        for (i, (low, high)) in bounds.iter().enumerate() {
            assert!(scored.iter().all(|(x, _)| (low..=high).contains(&&x[i])));
            assert!(cma.sigma * cma.c[i * 3 + i].sqrt() <= (high - low) / 3.0 * (1.0 + 1e-12));
        }
        cma.tell(&scored).expect("asked");
    }
    for (found, wanted) in cma.mean().iter().zip([1.0, -5.0, 300.0]) {
        assert!((found - wanted).abs() < 1e-3 * wanted.abs(), "{found} {wanted}");
    }
}

#[test]
fn many_numbers() {
    let mut wide = cma(vec![1.0; 60], 6);
    for _ in 0..60 {
        let scored: Vec<_> = wide.ask().into_iter().map(|x| (x.clone(), -dot(&x, &x))).collect();
        wide.tell(&scored).expect("asked");
    }
    assert!(dot(&wide.m, &wide.m) < 12.0, "from 60: {}", dot(&wide.m, &wide.m));
}

#[test]
fn settings_are_checked() {
    let fault = |start: Vec<f64>, settings: Settings| {
        Cma::new(start, settings, 1).expect_err("refused").to_string()
    };
    let with = |sigma, population| Settings { sigma, population, ..Settings::default() };
    assert!(fault(vec![], with(1.0, None)).contains("at least one number"));
    assert!(fault(vec![0.0, f64::NAN], with(1.0, None)).contains("`start[1]` is NaN"));
    assert!(fault(vec![0.0], with(0.0, None)).contains("`sigma` is 0"));
    assert!(fault(vec![0.0], with(1.0, Some(1))).contains("`population` is 1"));
    let negative = Settings { tolx: -1.0, ..Settings::default() };
    assert!(fault(vec![0.0], negative).contains("`tolx` is -1"));
    let boxed =
        |bounds: &[(f64, f64)]| cma(vec![0.5], 1).within(bounds).expect_err("refused").to_string();
    assert!(boxed(&[]).contains("0 pairs, expected 1 pairs"));
    assert!(boxed(&[(1.0, 1.0)]).contains("low below high"));
    assert!(boxed(&[(1.0, 2.0)]).contains("`start[0]` is 0.5, expected 1 to 2"));
}
