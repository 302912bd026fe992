//! The numbers of the report, from the sums over the elements.

use serde::Serialize;

use super::sums::{ModelSums, PairSums, Sums, TogetherSums, pairs};

/// What was measured of a tensor, or of several as if they were one vector.
///
/// `x_i` is a model, `b` the base, `d_i = x_i - b` what training did. A number that does not exist, such as a
/// ratio to a norm of zero, is `None`; so is all that needs a base where there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measures {
    /// Elements of one model.
    pub elements: u64,
    /// Each model, in the order in which they were given.
    pub models: Vec<OfModel>,
    /// Each pair of models: `(0, 1), (0, 2), .., (1, 2), ..`.
    pub pairs: Vec<OfPair>,
    /// The signs of all models together; `None` for a single one.
    pub together: Option<Signs>,
}

/// Measures of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfModel {
    /// `||x||`.
    pub norm: f64,
    /// `||d||`.
    pub delta: Option<f64>,
    /// `||d|| / ||b||`.
    pub distance: Option<f64>,
    /// `||x|| / ||b||`.
    pub norm_ratio: Option<f64>,
    /// The cosine of the angle between x and b.
    pub cosine_to_base: Option<f64>,
    /// The share of elements that are as in the base.
    pub unchanged: Option<f64>,
    /// The mean of `|d|`.
    pub mean_change: Option<f64>,
    /// The largest `|d|`.
    pub largest_change: Option<f64>,
    /// The share of `sum |d|` that the largest tenth of each tensor's elements holds: 0.26 for deltas from a
    /// normal distribution, 0.1 for deltas of one size.
    pub top_tenth: Option<f64>,
    /// The same for the largest fifth: 0.44 for deltas from a normal distribution.
    pub top_fifth: Option<f64>,
    /// The stable rank `||d||_F^2 / ||d||_2^2`, the mean over matrices that changed. The spectral norm is estimated
    /// from below, so this is from above.
    pub stable_rank: Option<f64>,
}

/// Measures of two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfPair {
    /// The first model, by its place.
    pub first: usize,
    /// The second model.
    pub second: usize,
    /// The cosine of the angle between their deltas; between the models themselves without a base.
    pub cosine: Option<f64>,
    /// `||x_i - x_j|| / sqrt(||x_i|| ||x_j||)`.
    pub distance: Option<f64>,
    /// How their signs agree.
    pub signs: Signs,
}

/// How the signs of several models' deltas agree; of the weights themselves without a base.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Signs {
    /// The share of elements that at least two of the models changed.
    pub shared: f64,
    /// The share of the shared elements where two signs meet.
    pub conflict: Option<f64>,
    /// What it would be if signs were tossed: 0.5 for two models, `1 - 2^(1 - k)` where k changed an element.
    pub chance: Option<f64>,
    /// The conflict with each element counted by `sum_i |d_i|`.
    pub conflict_by_size: Option<f64>,
    /// `1 - sum |sum_i d_i| / sum sum_i |d_i|`: the share of all changes that is lost when deltas are added.
    pub cancelled: Option<f64>,
}

/// `a / b`; nothing for a `b` of zero.
fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

/// `<a, b> / (||a|| ||b||)` from the inner products.
fn cosine(dot: f64, a: f64, b: f64) -> Option<f64> {
    // The root of the product: of a vector with itself it is exact.
    ratio(dot, (a * b).sqrt()).map(|cosine| cosine.clamp(-1.0, 1.0))
}

impl Measures {
    pub(super) fn of(sums: &Sums) -> Self {
        let n = sums.models.len();
        let pair = |((first, second), pair): ((usize, usize), &PairSums)| {
            let (a, b) = (&sums.models[first], &sums.models[second]);
            OfPair {
                first,
                second,
                cosine: cosine(pair.dot, a.d, b.d),
                distance: ratio(pair.apart.sqrt(), (a.x * b.x).sqrt().sqrt()),
                signs: Signs::of(&pair.signs, sums.elements),
            }
        };
        Self {
            elements: sums.elements,
            models: sums
                .models
                .iter()
                .map(|model| OfModel::of(model, sums.base, sums.elements))
                .collect(),
            pairs: pairs(n).zip(&sums.pairs).map(pair).collect(),
            together: (n > 1).then(|| Signs::of(&sums.together, sums.elements)),
        }
    }

    /// Whether all models have what the base has, or what each other has without one.
    pub fn is_identical(&self) -> bool {
        let as_base = |model: &OfModel| model.delta == Some(0.0);
        let equal = |pair: &OfPair| pair.distance.is_none_or(|distance| distance == 0.0);
        if self.models.iter().any(|model| model.delta.is_some()) {
            self.models.iter().all(as_base)
        } else {
            self.pairs.iter().all(equal)
        }
    }

    /// The largest distance of a model from the base; between two models without one.
    pub fn largest_distance(&self) -> Option<f64> {
        let to_base = self.models.iter().filter_map(|model| model.distance);
        let apart = self.pairs.iter().filter_map(|pair| pair.distance);
        to_base.reduce(f64::max).or_else(|| {
            let without_base = self.models.iter().all(|model| model.delta.is_none());
            apart.reduce(f64::max).filter(|_| without_base)
        })
    }
}

impl OfModel {
    fn of(sums: &ModelSums, base: Option<f64>, elements: u64) -> Self {
        let n = elements as f64;
        let with_base = |value: f64| base.map(|_| value);
        Self {
            norm: sums.x.sqrt(),
            delta: with_base(sums.d.sqrt()),
            distance: base.and_then(|b| ratio(sums.d.sqrt(), b.sqrt())),
            norm_ratio: base.and_then(|b| ratio(sums.x.sqrt(), b.sqrt())),
            cosine_to_base: base.and_then(|b| cosine(sums.x_b, sums.x, b)),
            unchanged: base.and_then(|_| ratio(n - sums.changed as f64, n)),
            mean_change: base.and_then(|_| ratio(sums.size, n)),
            largest_change: with_base(sums.largest),
            top_tenth: base.and_then(|_| ratio(sums.tenth, sums.size)),
            top_fifth: base.and_then(|_| ratio(sums.fifth, sums.size)),
            stable_rank: ratio(sums.rank, sums.ranked as f64),
        }
    }
}

impl Signs {
    fn of(sums: &TogetherSums, elements: u64) -> Self {
        let shared = sums.shared as f64;
        Self {
            shared: ratio(shared, elements as f64).unwrap_or(0.0),
            conflict: ratio(sums.conflicts as f64, shared),
            chance: ratio(sums.by_chance, shared),
            conflict_by_size: ratio(sums.conflicts_size, sums.shared_size),
            cancelled: ratio(sums.size - sums.net, sums.size),
        }
    }
}
