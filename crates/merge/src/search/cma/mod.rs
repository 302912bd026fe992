//! CMA-ES: the `(μ/μ_w, λ)` evolution strategy with covariance matrix adaptation, active (negative)
//! weights and cumulative step-size adaptation, as an optimiser that asks and is told.
//!
//! One generation, from N. Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772),
//! with scores sorted from the best:
//!
//! ```text
//! z_k ~ N(0, I),  y_k = C^½ z_k,  x_k = m + σ y_k                     k = 1..λ
//! m   <- m + σ Σ_{i<=μ} w_i y_i
//! p_σ <- (1 - c_σ) p_σ + √(c_σ (2 - c_σ) μ_eff) Σ_{i<=μ} w_i z_i
//! h   =  |p_σ|² / (1 - (1 - c_σ)^(2g)) < (2 + 4/(n + 1)) n
//! p_c <- (1 - c_c) p_c + h √(c_c (2 - c_c) μ_eff) Σ_{i<=μ} w_i y_i
//! c'_1 = c_1 (1 - (1 - h) c_c (2 - c_c))
//! C   <- (1 - c'_1 - c_μ Σ w_i) C + c'_1 p_c p_cᵀ + c_μ Σ_i w°_i y_i y_iᵀ
//!        w°_i = w_i, or w_i n / |z_i|² for negative ones
//! σ   <- σ exp(min(1, c_σ/d_σ (|p_σ| / E‖N(0, I)‖ - 1)))
//! ```
//!
//! C^½ is the symmetric root, so that `C^-½ y_i = z_i` and a turned problem with turned z gives the
//! turned search. Only the ranks of the scores count. Against pycma 4.5: no mirrored sampling below
//! λ = 6 (for one number), and a score that is not finite ranks last, where pycma gives NaN the
//! median.

mod bounds;
mod eigen;
mod normal;
mod parameters;
mod stop;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::bounds::Bounds;
use self::stop::History;
use super::Point;
use crate::Error;

pub use self::parameters::{Parameters, default_lambda};
pub use self::stop::Stop;

/// How a CMA-ES begins and when it ends. The default has mergekit's first step, a sixth of a unit
/// range, and pycma's tolerances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The first standard deviation of each number. In a [`Search`](super::Search) every range is
    /// one long.
    pub sigma: f64,
    /// Candidates of a generation, λ; none for 4 + ⌊3 ln n⌋.
    pub population: Option<usize>,
    /// The smallest step that is worth a trial, in the unit of `sigma`.
    pub tolx: f64,
    /// The smallest difference of scores that means anything.
    pub tolfun: f64,
    /// The most scores; none for no such end. A [`Search`](super::Search) has its own limit as
    /// well.
    pub max_evaluations: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        let sigma = 1.0 / 6.0;
        Self { sigma, population: None, tolx: 1e-11, tolfun: 1e-11, max_evaluations: None }
    }
}

/// A CMA-ES that looks for the highest score. Plain data: stored with serde, it goes on where it
/// was, with the same numbers.
///
/// ```
/// use posttrain_merge::search::{Cma, Settings};
///
/// let settings = Settings { sigma: 0.5, ..Settings::default() };
/// let mut cma = Cma::new(vec![0.0, 0.0], settings, 1)?.within(&[(-1.0, 1.0), (-1.0, 1.0)])?;
/// while cma.stop().is_none() {
///     let scored: Vec<_> = cma
///         .ask()
///         .into_iter()
///         .map(|x| {
///             let score = -(x[0] - 0.3).powi(2) - (x[1] + 0.7).powi(2);
///             (x, score)
///         })
///         .collect();
///     cma.tell(&scored)?;
/// }
/// assert!((cma.mean()[0] - 0.3).abs() < 1e-4);
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cma {
    settings: Settings,
    parameters: Parameters,
    bounds: Option<Vec<Bounds>>,
    seed: u64,
    generation: u64,
    evaluations: usize,
    m: Vec<f64>,
    sigma: f64,
    /// C and its symmetric root, row by row.
    c: Vec<f64>,
    root: Vec<f64>,
    rooted_at: u64,
    p_s: Vec<f64>,
    p_c: Vec<f64>,
    history: History,
    stop: Option<Stop>,
}

impl Cma {
    /// Begins at `start`, without bounds.
    ///
    /// # Errors
    /// [`Error::Value`] for an empty start, numbers that are not finite, a `sigma` that is not
    /// positive or fewer than two candidates.
    pub fn new(start: Vec<f64>, settings: Settings, seed: u64) -> Result<Self, Error> {
        let n = start.len();
        if n == 0 {
            return Err(Error::value("start", "empty", "at least one number"));
        }
        if let Some(i) = start.iter().position(|x| !x.is_finite()) {
            return Err(Error::value(format!("start[{i}]"), start[i], "a finite number"));
        }
        if !(settings.sigma.is_finite() && settings.sigma > 0.0) {
            return Err(Error::value("sigma", settings.sigma, "a positive number"));
        }
        for (key, tolerance) in [("tolx", settings.tolx), ("tolfun", settings.tolfun)] {
            if !(tolerance.is_finite() && tolerance >= 0.0) {
                return Err(Error::value(key, tolerance, "zero or a positive number"));
            }
        }
        let lambda = settings.population.unwrap_or_else(|| default_lambda(n));
        if !(2..=1_000_000).contains(&lambda) {
            return Err(Error::value("population", lambda, "2 to 1000000 candidates"));
        }
        let mut identity = vec![0.0; n * n];
        (0..n).for_each(|i| identity[i * n + i] = 1.0);
        Ok(Self {
            sigma: settings.sigma,
            settings,
            parameters: Parameters::new(n, lambda),
            bounds: None,
            seed,
            generation: 0,
            evaluations: 0,
            m: start,
            c: identity.clone(),
            root: identity,
            rooted_at: 0,
            p_s: vec![0.0; n],
            p_c: vec![0.0; n],
            history: History::default(),
            stop: None,
        })
    }

    /// Keeps every candidate within the lowest and highest value of each number; the standard
    /// deviation of a number is at most a third of its range.
    ///
    /// # Errors
    /// [`Error::Value`] for bounds of another number of numbers, empty ranges, and a start outside.
    pub fn within(mut self, bounds: &[(f64, f64)]) -> Result<Self, Error> {
        if bounds.len() != self.m.len() {
            let expected = format!("{} pairs", self.m.len());
            return Err(Error::value("bounds", format!("{} pairs", bounds.len()), expected));
        }
        let mut boxed = Vec::with_capacity(bounds.len());
        for (i, ((low, high), x)) in bounds.iter().zip(&mut self.m).enumerate() {
            if !(low.is_finite() && high.is_finite() && low < high) {
                let key = format!("bounds[{i}]");
                return Err(Error::value(key, format!("{low} to {high}"), "low below high"));
            }
            if !(low..=high).contains(&&*x) {
                return Err(Error::value(format!("start[{i}]"), x, format!("{low} to {high}")));
            }
            let bounds = Bounds { low: *low, high: *high };
            *x = bounds.outside(*x);
            boxed.push(bounds);
        }
        self.bounds = Some(boxed);
        self.keep_in_range();
        Ok(self)
    }

    /// The candidates of this generation, the same ones until they are told.
    pub fn ask(&self) -> Vec<Point> {
        self.z().iter().map(|z| self.candidate(z)).collect()
    }

    /// Takes the scores of the candidates asked for, in any order. One that is not finite counts as
    /// a failure and ranks last; equal scores rank in the order of [`Cma::ask`].
    ///
    /// # Errors
    /// [`Error::Value`] when these are not the candidates of this generation, or none has a finite
    /// score; nothing has changed then.
    pub fn tell(&mut self, scored: &[(Point, f64)]) -> Result<Option<Stop>, Error> {
        let lambda = self.parameters.lambda;
        let z = self.z();
        let mut scores: Vec<Option<f64>> = vec![None; lambda];
        let asked: Vec<Point> = z.iter().map(|z| self.candidate(z)).collect();
        for (told, (point, score)) in scored.iter().enumerate() {
            let places = (told.min(lambda)..lambda).chain(0..told.min(lambda));
            let place = { places }.find(|i| scores[*i].is_none() && asked[*i] == *point);
            let Some(place) = place else {
                let expected = format!("one of the {lambda} candidates of this generation, once");
                return Err(Error::value(format!("told[{told}]"), format!("{point:?}"), expected));
            };
            scores[place] = Some(*score);
        }
        let scores: Vec<f64> = scores.into_iter().flatten().collect();
        if scores.len() < lambda {
            return Err(Error::value(
                "told",
                format!("{} scores", scores.len()),
                lambda.to_string(),
            ));
        }
        if !scores.iter().any(|score| score.is_finite()) {
            return Err(Error::value("told", "no finite score", "at least one"));
        }
        self.learn(&z, &scores);
        Ok(self.stop)
    }

    /// Why there is nothing more to do, once there is not.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// The middle of the distribution, a good guess of the best point.
    pub fn mean(&self) -> Point {
        self.inside(self.m.clone())
    }

    /// The step size σ.
    pub fn sigma(&self) -> f64 {
        self.sigma
    }

    /// The strategy parameters in use.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Finished generations.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Scores told so far.
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    fn z(&self) -> Vec<Vec<f64>> {
        let n = self.m.len();
        let numbers = normal::normals(self.seed, self.generation, n * self.parameters.lambda);
        numbers.chunks_exact(n).map(<[f64]>::to_vec).collect()
    }

    fn candidate(&self, z: &[f64]) -> Point {
        let y = times(&self.root, z);
        self.inside(self.m.iter().zip(&y).map(|(m, y)| m + self.sigma * y).collect())
    }

    fn inside(&self, mut x: Point) -> Point {
        if let Some(bounds) = &self.bounds {
            x.iter_mut().zip(bounds).for_each(|(x, bounds)| *x = bounds.inside(*x));
        }
        x
    }

    /// The update of one generation: `z` and `scores` in the order of asking.
    fn learn(&mut self, z: &[Vec<f64>], scores: &[f64]) {
        let n = self.m.len();
        let p = &self.parameters;
        // Not finite is below every score; the sort is stable.
        let rank = |i: &usize| if scores[*i].is_finite() { scores[*i] } else { f64::NEG_INFINITY };
        let mut order: Vec<usize> = (0..z.len()).collect();
        order.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).unwrap_or(std::cmp::Ordering::Equal));
        let finite: Vec<f64> =
            order.iter().map(|i| scores[*i]).filter(|score| score.is_finite()).collect();

        let sorted: Vec<(f64, &[f64], Vec<f64>)> = p
            .weights
            .iter()
            .zip(&order)
            .map(|(w, i)| (*w, z[*i].as_slice(), times(&self.root, &z[*i])))
            .collect();
        let (mut z_w, mut y_w) = (vec![0.0; n], vec![0.0; n]);
        for (w, z, y) in &sorted[..p.mu] {
            add(&mut z_w, *w, z);
            add(&mut y_w, *w, y);
        }
        add(&mut self.m, self.sigma, &y_w);

        self.p_s.iter_mut().for_each(|x| *x *= 1.0 - p.c_s);
        add(&mut self.p_s, (p.c_s * (2.0 - p.c_s) * p.mu_eff).sqrt(), &z_w);
        let length = dot(&self.p_s, &self.p_s);
        self.generation += 1;
        self.evaluations += z.len();
        let faded = 1.0 - (1.0 - p.c_s).powf(2.0 * self.generation as f64);
        let h = length / faded < (2.0 + 4.0 / (n as f64 + 1.0)) * n as f64;

        self.p_c.iter_mut().for_each(|x| *x *= 1.0 - p.c_c);
        let (mut c_1, gain) = (p.c_1, p.c_c * (2.0 - p.c_c));
        if h {
            add(&mut self.p_c, (gain * p.mu_eff).sqrt(), &y_w);
        } else {
            c_1 *= 1.0 - gain;
        }
        let kept = 1.0 - c_1 - p.c_mu * p.weights.iter().sum::<f64>();
        self.c.iter_mut().for_each(|x| *x *= kept);
        add_outer(&mut self.c, c_1, &self.p_c);
        for (w, z, y) in &sorted {
            let w = if *w < 0.0 { w * n as f64 / dot(z, z).max(f64::MIN_POSITIVE) } else { *w };
            add_outer(&mut self.c, p.c_mu * w, y);
        }
        self.sigma *= (p.c_s / p.d_s * (length.sqrt() / p.chi_n - 1.0)).min(1.0).exp();
        self.keep_in_range();

        // C changes little in one generation of many numbers: its root waits (appendix B.2).
        let p = &self.parameters;
        let wait = 1.0 / (10.0 * n as f64 * (p.c_1 + p.c_mu));
        let singular = (self.generation - self.rooted_at) as f64 >= wait && !self.take_root();
        self.history.push(&finite);
        self.stop = if singular { Some(Stop::Condition) } else { self.reason(&finite) };
    }

    /// Renews the root of C; false when C is no longer positive definite in floating point, or so
    /// long in one direction that sums lose the others.
    fn take_root(&mut self) -> bool {
        self.rooted_at = self.generation;
        let Some(eigen) = eigen::symmetric(&self.c, self.m.len()) else { return false };
        let high = eigen.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let low = eigen.values.iter().copied().fold(f64::INFINITY, f64::min);
        let sound = low > 0.0 && high <= 1e14 * low;
        if sound {
            self.root = eigen.root();
        }
        sound
    }

    fn keep_in_range(&mut self) {
        let n = self.m.len();
        for (i, bounds) in self.bounds.iter().flatten().enumerate() {
            let most = (bounds.high - bounds.low) / 3.0;
            self.sigma = self.sigma.min(most / self.c[i * n + i].sqrt());
        }
    }

    fn reason(&self, finite: &[f64]) -> Option<Stop> {
        let (n, lambda) = (self.m.len(), self.parameters.lambda);
        let Settings { tolx, tolfun, max_evaluations, .. } = self.settings;
        let small = (0..n).all(|i| {
            self.sigma * self.c[i * n + i].sqrt() < tolx && self.sigma * self.p_c[i].abs() < tolx
        });
        let range = finite[0] - finite[finite.len() - 1];
        if small {
            Some(Stop::Tolx)
        } else if range < tolfun && self.history.is_flat(n, lambda, tolfun) {
            Some(Stop::Tolfun)
        } else if self.history.stagnates(n, lambda, self.generation as usize) {
            Some(Stop::Stagnation)
        } else if max_evaluations.is_some_and(|most| self.evaluations >= most) {
            Some(Stop::MaxEvaluations)
        } else {
            None
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// a += w b.
fn add(a: &mut [f64], w: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += w * b);
}

/// A += w b bᵀ.
fn add_outer(a: &mut [f64], w: f64, b: &[f64]) {
    for (row, b_i) in a.chunks_exact_mut(b.len()).zip(b) {
        add(row, w * b_i, b);
    }
}

/// A b for a square A.
fn times(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.chunks_exact(b.len()).map(|row| dot(row, b)).collect()
}
