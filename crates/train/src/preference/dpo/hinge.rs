//! The hinge of `SLiC-HF` (Zhao et al. 2023, arXiv:2305.10425) and RSO (Liu et al. 2023,
//! arXiv:2309.06657).
//!
//! ```text
//! L = max(0, 1 − β d)
//! ```

/// The loss and its slope by d.
pub(in crate::preference) fn loss(beta: f64, d: f64) -> (f64, f64) {
    let short = 1.0 - beta * d;
    if short > 0.0 { (short, -beta) } else { (0.0, 0.0) }
}
