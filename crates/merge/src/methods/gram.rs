//! The inner products `G_ij = <v_i, v_j>` of the inputs' vectors `v_i`: `x_i`, or `x_i - b` with a base.
//!
//! What a method does with sums of the vectors, however often, it can do with their coefficients alone:
//! `|sum c_i v_i|^2 = c' G c`. One pass over the tensors makes `G`, and a second one the result.
//! Products and sums are in f64, so that `c' G c` is right to about `1e-16 sum c_i^2 G_ii` also where the
//! sum nearly vanishes.

use super::task_vectors::subtract_base;
use crate::dtype::Dtype;
use crate::group::Group;
use crate::{Error, ops};

/// An error unless as many values were given as there are inputs.
pub(super) fn one_each(tensor: &str, what: &str, given: usize, inputs: usize) -> Result<(), Error> {
    if given == inputs {
        return Ok(());
    }
    let reason = format!("{given} values of `{what}` for {inputs} inputs, expected one for each");
    Err(Error::tensor(tensor, reason))
}

/// Inner products of the inputs' vectors.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gram {
    n: usize,
    /// Row by row.
    products: Vec<f64>,
}

/// `<a, b>`, each product rounded as the group's arithmetic rounds.
pub(super) fn dot(group: &Group<'_>, a: &[f32], b: &[f32]) -> f64 {
    if group.arithmetic == Dtype::F32 {
        return ops::dot_f64(a, b);
    }
    let mut products = a.to_vec();
    ops::scale_each(&mut products, b);
    group.round(&mut products);
    products.iter().map(|product| f64::from(*product)).sum()
}

/// `y = sum c_i v_i`.
pub(super) fn combine(y: &mut [f32], c: &[f32], v: &[Vec<f32>]) {
    y.fill(0.0);
    for (c, v) in c.iter().zip(v) {
        ops::axpy(y, *c, v);
    }
}

impl Gram {
    /// Those of the whole tensor.
    ///
    /// # Errors
    /// When a norm is not finite.
    pub(super) fn of(group: &Group<'_>) -> Result<Self, Error> {
        let n = group.inputs.len();
        let products = group.sums(n * n, |block| {
            subtract_base(group, block);
            Self::of_vectors(group, &block.inputs, 0..block.inputs.first().map_or(0, Vec::len))
                .products
        });
        let gram = Self { n, products };
        for i in 0..n {
            if !gram.norm(i).is_finite() {
                let reason = format!("input {i} has values that are NaN or infinite");
                return Err(Error::tensor(group.name, reason));
            }
        }
        Ok(gram)
    }

    /// Those of a stretch of the vectors.
    pub(super) fn of_vectors(
        group: &Group<'_>,
        v: &[Vec<f32>],
        range: std::ops::Range<usize>,
    ) -> Self {
        let n = v.len();
        let mut products = vec![0.0; n * n];
        for i in 0..n {
            for j in i..n {
                let (a, b) = (&v[i][range.clone()], &v[j][range.clone()]);
                let product = if i == j { ops::dot_f64(a, b) } else { dot(group, a, b) };
                products[i * n + j] = product;
                products[j * n + i] = product;
            }
        }
        Self { n, products }
    }

    /// The number of vectors.
    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// `<v_i, v_j>`.
    pub(super) fn dot(&self, i: usize, j: usize) -> f64 {
        self.products[i * self.n + j]
    }

    /// `|v_i|`.
    pub(super) fn norm(&self, i: usize) -> f64 {
        self.dot(i, i).sqrt()
    }

    /// `<v_i, sum_j c_j v_j>`.
    pub(super) fn dot_with(&self, i: usize, c: &[f64]) -> f64 {
        (0..self.n).map(|j| c[j] * self.dot(i, j)).sum()
    }

    /// `|sum_i c_i v_i|`.
    pub(super) fn norm_of(&self, c: &[f64]) -> f64 {
        let square: f64 = (0..self.n).map(|i| c[i] * self.dot_with(i, c)).sum();
        square.max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(inputs: &[crate::Source]) -> Group<'_> {
        let (base, arithmetic) = (None, Dtype::F32);
        Group { name: "", shape: &[], base, inputs, seed: 0, arithmetic, block: 1 }
    }

    #[test]
    fn by_hand() {
        let v = [vec![3.0, 4.0, 9.0], vec![0.0, 2.0, 9.0]];
        let gram = Gram::of_vectors(&group(&[]), &v, 0..2);
        assert_eq!((gram.norm(0), gram.norm(1), gram.dot(1, 0)), (5.0, 2.0, 8.0));
        assert_eq!(gram.norm_of(&[1.0, -1.0]), 13f64.sqrt());
        assert_eq!(gram.dot_with(1, &[1.0, 2.0]), 16.0);
    }

    #[test]
    fn almost_opposite_vectors_keep_their_difference() {
        let a: Vec<f32> = (0..4096).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = a.iter().map(|a| -a * (1.0 + 1e-6)).collect();
        let sum: f64 = a.iter().zip(&b).map(|(a, b)| (f64::from(*a) + f64::from(*b)).powi(2)).sum();
        let gram = Gram::of_vectors(&group(&[]), &[a, b], 0..4096);
        assert!((gram.norm_of(&[1.0, 1.0]) / sum.sqrt() - 1.0).abs() < 1e-2);
    }
}
