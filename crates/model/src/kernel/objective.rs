//! What training makes small, token by token.

/// The loss l of a target t under the probabilities p of a vocabulary of V words.
///
/// | objective | l |
/// |---|---|
/// | `Nll` | −log p\[t\] |
/// | `Dft` | −sg(p\[t\]) log p\[t\], where no gradient runs through sg |
/// | `LabelSmoothing(ε)` | −(1 − ε) log p\[t\] − ε/V Σⱼ log p\[j\] |
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Objective {
    /// Negative log-likelihood: cross-entropy.
    #[default]
    Nll,
    /// Dynamic fine-tuning (Wu et al. 2025, arXiv:2508.05629): unlikely targets weigh less.
    Dft,
    /// Label smoothing (Szegedy et al. 2015, arXiv:1512.00567) as transformers' `LabelSmoother` has
    /// it: ε of the target's probability is spread over all words, the target included.
    LabelSmoothing(f32),
}

impl Objective {
    /// ε of label smoothing, else 0.
    pub(super) fn smoothing(self) -> f32 {
        match self {
            Self::LabelSmoothing(epsilon) => epsilon,
            Self::Nll | Self::Dft => 0.0,
        }
    }
}
