//! The singular value decomposition of a small matrix by one-sided Jacobi rotations (Hestenes 1958), in f64.
//!
//! Rotations J make the rows of `J M` orthogonal: with their lengths S and directions `V^T`,
//! `M = J^T S V^T`.

/// Sweeps are done when no cosine between rows is larger.
const DONE: f64 = 1e-14;
/// It converges quadratically; real matrices need ten or so.
const SWEEPS: usize = 60;

/// `M = U S V^T`.
#[derive(Clone, Debug)]
pub(super) struct Small {
    /// Columns of `U`, one after the other.
    pub(super) u: Vec<Vec<f64>>,
    /// `S`, falling.
    pub(super) s: Vec<f64>,
    /// Rows of `V^T`; zeros where `S` is zero.
    pub(super) v: Vec<Vec<f64>>,
}

/// Decomposes a matrix that is given by its rows.
pub(super) fn decompose(mut rows: Vec<Vec<f64>>) -> Small {
    let n = rows.len();
    let mut j: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|k| f64::from(u8::from(i == k))).collect()).collect();
    for _ in 0..SWEEPS {
        let mut largest = 0.0f64;
        for p in 0..n {
            for q in p + 1..n {
                let (a, b, c) =
                    (dot(&rows[p], &rows[p]), dot(&rows[q], &rows[q]), dot(&rows[p], &rows[q]));
                let scale = (a * b).sqrt();
                if scale == 0.0 || c.abs() <= DONE * scale {
                    continue;
                }
                largest = largest.max(c.abs() / scale);
                let zeta = (b - a) / (2.0 * c);
                let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let cos = 1.0 / t.hypot(1.0);
                rotate(&mut rows, p, q, cos, cos * t);
                rotate(&mut j, p, q, cos, cos * t);
            }
        }
        if largest <= DONE {
            break;
        }
    }
    let lengths: Vec<f64> = rows.iter().map(|row| dot(row, row).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| lengths[*b].total_cmp(&lengths[*a]));
    let direction = |i: &usize| {
        let length = if lengths[*i] > 0.0 { lengths[*i] } else { 1.0 };
        rows[*i].iter().map(|x| x / length).collect()
    };
    Small {
        u: order.iter().map(|i| j[*i].clone()).collect(),
        s: order.iter().map(|i| lengths[*i]).collect(),
        v: order.iter().map(direction).collect(),
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, a_rest) = a.as_chunks::<4>();
    let (b, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a.iter().zip(b) {
        for i in 0..4 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn rotate(rows: &mut [Vec<f64>], p: usize, q: usize, cos: f64, sin: f64) {
    let (before, after) = rows.split_at_mut(q);
    for (x, y) in before[p].iter_mut().zip(&mut after[0]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_the_matrix() {
        for (n, width) in [(1, 1), (4, 4), (7, 9), (9, 7), (30, 30)] {
            let rows: Vec<Vec<f64>> = (0..n)
                .map(|i| (0..width).map(|k| ((i * 7 + k * k) as f64 * 0.61).sin()).collect())
                .collect();
            let Small { u, s, v } = decompose(rows.clone());
            assert!(s.is_sorted_by(|a, b| a >= b));
            for i in 0..n {
                for k in 0..width {
                    let product: f64 = (0..n).map(|c| u[c][i] * s[c] * v[c][k]).sum();
                    assert!((product - rows[i][k]).abs() < 1e-12);
                }
            }
            for a in 0..n {
                for b in 0..n {
                    let same = f64::from(u8::from(a == b));
                    assert!((dot(&u[a], &u[b]) - same).abs() < 1e-12);
                    if s[a].min(s[b]) > 1e-10 {
                        assert!((dot(&v[a], &v[b]) - same).abs() < 1e-10);
                    }
                }
            }
        }
    }

    /// [[3, 0], [4, 5]] has the singular values 3 sqrt 5 and sqrt 5.
    #[test]
    fn by_hand() {
        let small = decompose(vec![vec![3.0, 0.0], vec![4.0, 5.0]]);
        for (s, wanted) in small.s.iter().zip([45f64.sqrt(), 5f64.sqrt()]) {
            assert!((s - wanted).abs() < 1e-14);
        }
        let small = decompose(vec![vec![0.0, 0.0], vec![0.0, 2.0], vec![0.0, -2.0]]);
        assert!((small.s[0] - 8f64.sqrt()).abs() < 1e-15 && small.s[1..] == [0.0, 0.0]);
    }
}
