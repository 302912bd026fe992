//! DoRA (Liu et al. 2024, arXiv:2402.09353): magnitude and direction of a weight apart.
//!
//! W' = c (W + s B A) by rows, with c = m / ‖W + s B A‖ and the norm taken as a constant (section
//! 4.3 of the paper). The norm needs no dense W + s B A: for each row
//!
//!   ‖w + s b A‖² = ‖w‖² + 2 s (w Aᵀ) · b + s² b (A Aᵀ) bᵀ

use burn::tensor::{DType, Tensor};

use super::Initial;
use crate::decoder::{Weight, plain};

/// A and B of everything that is added to a matrix, without a graph.
pub(crate) struct Factors {
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f32,
}

impl Factors {
    /// The trained factors, and with them those that an initialisation took out of the matrix.
    pub(crate) fn new(a: &Tensor<2>, b: &Tensor<2>, scale: f32, initial: Option<&Initial>) -> Self {
        let (a, b) = (plain(a.clone()), plain(b.clone()));
        let Some(initial) = initial else { return Self { a, b, scale } };
        let (a0, b0) = (plain(initial.a.clone()), plain(initial.b.clone()));
        let (a, b) = (Tensor::cat(vec![a, a0], 0), Tensor::cat(vec![b, b0.neg()], 1));
        Self { a, b, scale }
    }
}

/// ‖W + s B A‖ of each row, `[out]`: W `[out, in]`, A `[r, in]`, B `[out, r]`.
pub(crate) fn row_norms(weight: &Weight, factors: &Factors) -> Tensor<1> {
    let Factors { a, b, scale } = factors;
    let through = plain(weight.forward(a.clone())).transpose();
    norms(weight.row_squares(), through, a.clone().matmul(a.clone().transpose()), b, *scale)
}

/// The same of the columns of an embedding E + s (B A)ᵀ, `[hidden_size]`: E `[vocab, hidden_size]`,
/// A `[r, vocab]`, B `[hidden_size, r]`.
pub(crate) fn column_norms(e: Tensor<2>, a: Tensor<2>, b: Tensor<2>, scale: f32) -> Tensor<1> {
    let e = e.cast(DType::F32);
    let squares = e.clone().square().sum_dim(0).reshape([-1]);
    let through = a.clone().matmul(e).transpose();
    norms(squares, through, a.clone().matmul(a.transpose()), &b, scale)
}

fn norms(
    squares: Tensor<1>,
    through: Tensor<2>,
    gram: Tensor<2>,
    b: &Tensor<2>,
    scale: f32,
) -> Tensor<1> {
    let cross = (through * b.clone()).sum_dim(1).reshape([-1]).mul_scalar(2.0 * scale);
    let own = (b.clone().matmul(gram) * b.clone()).sum_dim(1).reshape([-1]);
    // Rounding may leave less than nothing of a row that the update takes away.
    (squares + cross + own.mul_scalar(scale * scale)).clamp_min(0.0).sqrt()
}

/// c = m / norm; the norm gets no gradient.
pub(crate) fn ratio(magnitude: Tensor<1>, norm: Tensor<1>) -> Tensor<1> {
    let norm = if magnitude.is_autodiff() { Tensor::from_inner(norm) } else { norm };
    magnitude / norm
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn norms_by_hand() {
        // W + 2 B A with W = (1 2 / 0 1), A = (1 1), B = (1 / −1): (3 4 / −2 −1).
        let device = Device::flex();
        let tensor = |rows: [[f32; 2]; 2]| Tensor::<2>::from_data(rows, &device);
        let a = Tensor::<2>::from_data([[1.0, 1.0]], &device);
        let b = Tensor::<2>::from_data([[1.0], [-1.0]], &device);
        let weight = Weight::Dense(Param::from_tensor(tensor([[1.0, 2.0], [0.0, 1.0]])));
        let found = row_norms(&weight, &Factors::new(&a, &b, 2.0, None));
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        assert!((found[0] - 5.0).abs() < 1e-6 && (found[1] - 5.0_f32.sqrt()).abs() < 1e-6);
        // The transpose of W as an embedding, whose columns are those rows.
        let found = column_norms(tensor([[1.0, 0.0], [2.0, 1.0]]), a, b, 2.0);
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        assert!((found[0] - 5.0).abs() < 1e-6 && (found[1] - 5.0_f32.sqrt()).abs() < 1e-6);
    }
}
