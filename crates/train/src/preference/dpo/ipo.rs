//! IPO (Azar et al. 2023, arXiv:2310.12036, equation 17, where β is called τ).
//!
//! ```text
//! L = (d − 1/(2β))²,   d = c/|y_c| − r/|y_r|
//! ```
//!
//! The scores are divided by the lengths of the answers, as the authors do and TRL follows.

/// The loss and its slope by d.
pub(in crate::preference) fn loss(beta: f64, d: f64) -> (f64, f64) {
    let off = d - 0.5 / beta;
    (off * off, 2.0 * off)
}
