//! Functions of one number that stay finite where their textbook form does not.

/// s(x) = 1 / (1 + e⁻ˣ)
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// log(1 + eˣ) = −log s(−x); its slope is s(x).
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// log s(x)
pub(super) fn log_sigmoid(x: f64) -> f64 {
    -softplus(-x)
}

/// s'(x) = s(x) s(−x)
pub(super) fn sigmoid_slope(x: f64) -> f64 {
    sigmoid(x) * sigmoid(-x)
}

/// eˣ − 1 and its slope, with x held at most 80, as TRL holds it: from there on it is flat.
pub(super) fn held_exp_m1(x: f64) -> (f64, f64) {
    const MOST: f64 = 80.0;
    if x <= MOST { (x.exp_m1(), x.exp()) } else { (MOST.exp_m1(), 0.0) }
}

pub(super) fn mean(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0_usize);
    for number in numbers {
        sum += number;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}
