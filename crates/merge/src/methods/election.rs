//! Sign election: at each place the deltas of one sign take part, that of the sum over the models.
//!
//! TIES, Yadav et al. 2023, arXiv 2306.01708. The paper elects `sgn(sum_i d_i)` (Algorithm 1); mergekit
//! weighs first, `sgn(sum_i w_i d_i)`, so that a negative weight turns a model's vote. A sum of zero elects
//! plus. A delta of zero has no sign and never takes part.

use super::parameter::{Parameter, Resolved};
use super::task_vectors::PIECE;
use crate::group::Group;
use crate::ops;

/// Whose signs are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// Those of the weighted deltas, as mergekit does.
    Weighted,
    /// Those of the deltas, as the paper does.
    Unweighted,
}

impl Election {
    pub(super) fn parameter() -> Parameter {
        Parameter::choice("election", &["weighted", "unweighted"])
    }

    pub(super) fn new(p: &Resolved) -> Self {
        if p.choice("election") == "unweighted" { Self::Unweighted } else { Self::Weighted }
    }

    /// `y = sum_i M_i w_i d_i` and `divisor = sum_i M_i w_i` (1 where that is 0), with `M_i` 1 where the
    /// sign is the elected one and else 0. At most [`PIECE`] places at a time; the deltas are overwritten.
    pub(super) fn sum(
        self,
        group: &Group<'_>,
        w: &[f32],
        deltas: &mut [&mut [f32]],
        y: &mut [f32],
        divisor: &mut [f32],
    ) {
        let weigh = |w: f32, d: &mut [f32]| {
            ops::scale(d, w);
            group.round(d);
        };
        if self == Self::Weighted {
            deltas.iter_mut().zip(w).for_each(|(d, w)| weigh(*w, d));
        }
        let (mut elected, mut mask) = ([0.0; PIECE], [0.0; PIECE]);
        let (elected, mask) = (&mut elected[..y.len()], &mut mask[..y.len()]);
        for d in deltas.iter() {
            ops::add_to(elected, d);
        }
        y.fill(0.0);
        divisor.fill(0.0);
        for (d, w) in deltas.iter_mut().zip(w) {
            ops::same_sign(mask, d, elected);
            if self == Self::Unweighted {
                weigh(*w, d);
            }
            // A product, not a choice: what is no number stays visible.
            ops::add_product(y, d, mask);
            ops::axpy(divisor, *w, mask);
        }
        group.round(y);
        group.round(divisor);
        ops::zeros_to_ones(divisor);
    }
}
