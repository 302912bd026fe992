//! Eigenvalues and eigenvectors of a symmetric matrix by Jacobi's rotations.
//!
//! One rotation makes one pair of entries off the diagonal zero (Golub and Van Loan, "Matrix
//! Computations", section 8.5):
//!
//! ```text
//! θ = (a_qq - a_pp) / (2 a_pq),  t = sign(θ) / (|θ| + √(θ² + 1)),  c = 1 / √(t² + 1),  s = t c
//! ```
//!
//! Sweeps over all pairs, of the order of n³ operations each, end when nothing is left off the
//! diagonal; small eigenvalues of a positive definite matrix keep their relative precision.

/// Eigenvalues, and the eigenvectors as the rows of an n × n matrix.
#[derive(Clone, Debug)]
pub(crate) struct Eigen {
    pub(crate) values: Vec<f64>,
    pub(crate) vectors: Vec<f64>,
}

/// More sweeps than any finite matrix needs.
const SWEEPS: usize = 60;

/// Of the symmetric `n` × `n` matrix `a`. None when it holds a number that is not finite.
pub(crate) fn symmetric(a: &[f64], n: usize) -> Option<Eigen> {
    if !a.iter().all(|x| x.is_finite()) {
        return None;
    }
    let mut a = a.to_vec();
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    for _ in 0..SWEEPS {
        let mut turned = false;
        for p in 0..n {
            for q in p + 1..n {
                turned |= rotate(&mut a, &mut vectors, n, p, q);
            }
        }
        if !turned {
            break;
        }
    }
    Some(Eigen { values: (0..n).map(|i| a[i * n + i]).collect(), vectors })
}

/// Makes `a_pq` zero; false when it already counts for nothing beside its diagonal.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) -> bool {
    let (a_pp, a_qq, a_pq) = (a[p * n + p], a[q * n + q], a[p * n + q]);
    if a_pq.abs() <= f64::EPSILON * 0.5 * (a_pp.abs() * a_qq.abs()).sqrt() {
        return false;
    }
    let theta = (a_qq - a_pp) / (2.0 * a_pq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for rows in [&mut *a, vectors] {
        let (above, below) = rows.split_at_mut(q * n);
        for (x, y) in above[p * n..(p + 1) * n].iter_mut().zip(&mut below[..n]) {
            (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
        }
    }
    // The columns are the rows again, but for the corner, which turns twice.
    for k in (0..n).filter(|k| *k != p && *k != q) {
        a[k * n + p] = a[p * n + k];
        a[k * n + q] = a[q * n + k];
    }
    a[p * n + p] = a_pp - t * a_pq;
    a[q * n + q] = a_qq + t * a_pq;
    a[p * n + q] = 0.0;
    a[q * n + p] = 0.0;
    true
}

impl Eigen {
    /// The symmetric root: `Σ √λ_i b_i b_iᵀ`.
    pub(crate) fn root(&self) -> Vec<f64> {
        let n = self.values.len();
        let mut root = vec![0.0; n * n];
        for (value, b) in self.values.iter().zip(self.vectors.chunks_exact(n)) {
            let length = value.sqrt();
            for (row, b_i) in root.chunks_exact_mut(n).zip(b) {
                for (entry, b_j) in row.iter_mut().zip(b) {
                    *entry += length * b_i * b_j;
                }
            }
        }
        root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_by_two_by_hand() {
        let eigen = symmetric(&[2.0, 1.0, 1.0, 2.0], 2).expect("finite");
        let mut values = eigen.values.clone();
        values.sort_by(f64::total_cmp);
        assert!((values[0] - 1.0).abs() < 1e-15 && (values[1] - 3.0).abs() < 1e-15);
        let root = eigen.root();
        let half = 3f64.sqrt() * 0.5;
        for (found, wanted) in root.iter().zip([half + 0.5, half - 0.5, half - 0.5, half + 0.5]) {
            assert!((found - wanted).abs() < 1e-15);
        }
        assert!(symmetric(&[f64::NAN], 1).is_none());
    }

    /// Q diag(d) Qᵀ with a reflection Q = I - 2 v vᵀ / vᵀv and d over twelve decades.
    #[test]
    fn a_root_squared_is_the_matrix() {
        let n = 60;
        let length: f64 = (1..=n).map(|i| (i * i) as f64).sum();
        let reflect = |i: usize, j: usize| {
            f64::from(u8::from(i == j)) - 2.0 * ((i + 1) * (j + 1)) as f64 / length
        };
        let d = |k: usize| 10f64.powf(-6.0 + 12.0 * k as f64 / (n - 1) as f64);
        let mut a = vec![0.0; n * n];
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            a[i * n + j] = (0..n).map(|k| reflect(i, k) * d(k) * reflect(j, k)).sum();
        }
        let eigen = symmetric(&a, n).expect("finite");
        let root = eigen.root();
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let squared: f64 = (0..n).map(|k| root[i * n + k] * root[k * n + j]).sum();
            // Of its norm, 1e6.
            assert!((squared - a[i * n + j]).abs() < 1e6 * 1e-13, "{i} {j}");
            let dot: f64 =
                (0..n).map(|k| eigen.vectors[i * n + k] * eigen.vectors[j * n + k]).sum();
            assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
        }
        let mut values = eigen.values;
        values.sort_by(f64::total_cmp);
        for (k, value) in values.iter().enumerate().skip(n / 2) {
            assert!((value / d(k) - 1.0).abs() < 1e-8, "{k}: {value}");
        }
    }
}
