//! The decompositions from which `PiSSA` and `OLoRA` start, on the host in f64.
//!
//! The largest singular values come from a block Krylov space of Wᵀ W (Musco & Musco 2015,
//! arXiv:1504.05477) that is built until W v = σ u and Wᵀ u = σ v hold: a full decomposition would
//! cost hundreds of times as much and most of it would be thrown away.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// A matrix of f64, row by row.
#[derive(Clone, Debug)]
struct Columns {
    numbers: Vec<f64>,
    /// Number of columns.
    width: usize,
}

impl Columns {
    fn zeros(rows: usize, width: usize) -> Self {
        Self { numbers: vec![0.0; rows * width], width }
    }

    fn random(rows: usize, width: usize, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let numbers = StandardNormal.sample_iter(random).take(rows * width).collect();
        Self { numbers, width }
    }

    fn rows(&self) -> std::slice::Chunks<'_, f64> {
        self.numbers.chunks(self.width.max(1))
    }

    /// The columns from `from` on, `width` of them.
    fn part(&self, from: usize, width: usize) -> Self {
        let numbers = self.rows().flat_map(|row| row[from..from + width].iter().copied());
        Self { numbers: numbers.collect(), width }
    }

    fn beside(&self, other: &Self) -> Self {
        let rows = self.rows().zip(other.rows());
        let numbers = rows.flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
        Self { numbers, width: self.width + other.width }
    }

    /// self · small, with small `[width, columns]`.
    fn times(&self, small: &Self) -> Self {
        let mut product = Self::zeros(self.numbers.len() / self.width, small.width);
        for (row, out) in self.rows().zip(product.numbers.chunks_mut(small.width)) {
            for (x, factors) in row.iter().zip(small.rows()) {
                out.iter_mut().zip(factors).for_each(|(out, f)| *out += x * f);
            }
        }
        product
    }

    /// selfᵀ · other, `[width, other.width]`.
    fn dots(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.width, other.width);
        for (row, factors) in self.rows().zip(other.rows()) {
            for (x, out) in row.iter().zip(product.numbers.chunks_mut(other.width)) {
                out.iter_mut().zip(factors).for_each(|(out, f)| *out += x * f);
            }
        }
        product
    }
}

/// A matrix `[n, k]` of f32.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    numbers: &'a [f32],
    k: usize,
}

impl Matrix<'_> {
    /// W X, `[n, width]`.
    fn times(self, x: &Columns) -> Columns {
        let rows = self.numbers.par_chunks(self.k);
        let product = rows.flat_map_iter(|row| {
            let mut sums = vec![0.0; x.width];
            for (w, x) in row.iter().zip(x.rows()) {
                let w = f64::from(*w);
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += w * x);
            }
            sums
        });
        Columns { numbers: product.collect(), width: x.width }
    }

    /// Wᵀ Y, `[k, width]`. The parts whose sums are added do not depend on the number of threads.
    fn transposed_times(self, y: &Columns) -> Columns {
        if y.width == 0 {
            return y.clone();
        }
        let n = self.numbers.len() / self.k;
        let part = n.div_ceil(16).max(1);
        let parts =
            self.numbers.par_chunks(part * self.k).zip(y.numbers.par_chunks(part * y.width));
        let sums: Vec<Columns> = parts
            .map(|(w, y_part)| {
                let mut sum = Columns::zeros(self.k, y.width);
                for (row, y_row) in w.chunks(self.k).zip(y_part.chunks(y.width)) {
                    for (w, out) in row.iter().zip(sum.numbers.chunks_mut(y.width)) {
                        let w = f64::from(*w);
                        out.iter_mut().zip(y_row).for_each(|(out, y)| *out += w * y);
                    }
                }
                sum
            })
            .collect();
        let mut total = Columns::zeros(self.k, y.width);
        for sum in sums {
            total.numbers.iter_mut().zip(sum.numbers).for_each(|(total, x)| *total += x);
        }
        total
    }
}

/// Makes the columns of `x` orthonormal, to each other and to those of `base`. Columns that lie in
/// the space of the others are left out.
fn orthonormal(x: &Columns, base: Option<&Columns>) -> Columns {
    if x.width == 0 {
        return x.clone();
    }
    let rows = x.numbers.len() / x.width;
    let mut kept: Vec<Vec<f64>> = base.map_or_else(Vec::new, |base| {
        (0..base.width)
            .map(|c| base.numbers.iter().skip(c).step_by(base.width).copied().collect())
            .collect()
    });
    let first = kept.len();
    for c in 0..x.width {
        let mut column: Vec<f64> = x.numbers.iter().skip(c).step_by(x.width).copied().collect();
        let size = norm(&column);
        // Twice is enough (Kahan).
        for _ in 0..2 {
            for other in &kept {
                let dot: f64 = other.iter().zip(&column).map(|(a, b)| a * b).sum();
                column.iter_mut().zip(other).for_each(|(x, o)| *x -= dot * o);
            }
        }
        let left = norm(&column);
        if left > 1e-10 * size && left > 0.0 {
            for x in &mut column {
                *x /= left;
            }
            kept.push(column);
        }
    }
    let columns = &kept[first..];
    let numbers = (0..rows).flat_map(|row| columns.iter().map(move |column| column[row]));
    Columns { numbers: numbers.collect(), width: columns.len() }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Eigenvalues and vectors (in columns) of a symmetric matrix, the largest first, by Jacobi's
/// rotations.
fn symmetric_eigen(matrix: &Columns) -> (Vec<f64>, Columns) {
    let n = matrix.width;
    let mut a = matrix.numbers.clone();
    let mut v = Columns::zeros(n, n);
    (0..n).for_each(|i| v.numbers[i * n + i] = 1.0);
    let total: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..100 {
        let off: f64 = (0..n)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| a[i * n + j].powi(2))
            .sum();
        if off <= 1e-30 * total {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for i in 0..n {
                    let (x, y) = (a[i * n + p], a[i * n + q]);
                    (a[i * n + p], a[i * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for i in 0..n {
                    let (x, y) = (a[p * n + i], a[q * n + i]);
                    (a[p * n + i], a[q * n + i]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (v.numbers[i * n + p], v.numbers[i * n + q]);
                    (v.numbers[i * n + p], v.numbers[i * n + q]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let vectors = v.rows().flat_map(|row| order.iter().map(move |&i| row[i])).collect();
    (values, Columns { numbers: vectors, width: n })
}

/// The r largest singular values of a matrix `[n, k]` with their vectors: W ≈ U diag(σ) Vᵀ.
#[derive(Clone, Debug)]
pub(crate) struct Svd {
    /// `[n, r]`
    pub(crate) u: Vec<f64>,
    pub(crate) sigma: Vec<f64>,
    /// `[k, r]`
    pub(crate) v: Vec<f64>,
}

/// The r largest singular values of W on a space, given by an orthonormal basis, with left and right
/// vectors; zeros where the space has fewer.
fn from_basis(w: Matrix<'_>, basis: &Columns, r: usize) -> (Columns, Vec<f64>, Columns) {
    let n = w.numbers.len() / w.k;
    let found = r.min(basis.width);
    if found == 0 {
        return (Columns::zeros(n, r), vec![0.0; r], Columns::zeros(w.k, r));
    }
    let y = w.times(basis);
    let (squares, z) = symmetric_eigen(&y.dots(&y));
    let z = z.part(0, found);
    let mut sigma: Vec<f64> =
        squares[..found].iter().map(|square| square.max(0.0).sqrt()).collect();
    let mut u = y.times(&z);
    for row in u.numbers.chunks_mut(found) {
        row.iter_mut().zip(&sigma).for_each(|(u, &s)| *u = if s > 0.0 { *u / s } else { 0.0 });
    }
    let v = basis.times(&z);
    let filled = |x: &Columns| {
        let zeros = std::iter::repeat_n(0.0, r - found);
        let rows = x.rows().flat_map(|row| row.iter().copied().chain(zeros.clone()));
        Columns { numbers: rows.collect(), width: r }
    };
    sigma.resize(r, 0.0);
    (filled(&u), sigma, filled(&v))
}

/// Exact to the last digits of f32. `rank` is at most the smaller side.
pub(crate) fn leading(numbers: &[f32], [n, k]: [usize; 2], rank: usize) -> Svd {
    /// More vectors than are wanted, blocks of a space, spaces.
    const EXTRA: usize = 8;
    const BLOCKS: usize = 6;
    const ROUNDS: usize = 60;
    let w = Matrix { numbers, k };
    let block = (rank + EXTRA).min(n.min(k));
    // In the space of the rows, where the right vectors are.
    let mut start = w.transposed_times(&Columns::random(n, block, 0x5eed));
    for round in 1.. {
        let mut basis = orthonormal(&start, None);
        let mut last = basis.clone();
        for _ in 1..BLOCKS {
            if basis.width >= n.min(k) || last.width == 0 {
                break;
            }
            last = orthonormal(&w.transposed_times(&w.times(&last)), Some(&basis));
            if last.width > 0 {
                basis = basis.beside(&last);
            }
        }
        let (u, sigma, v) = from_basis(w, &basis, block);
        // How far Wᵀ u is from σ v.
        let back = w.transposed_times(&u);
        let error = (0..rank).map(|c| {
            let rows = back.rows().zip(v.rows());
            rows.map(|(back, v)| (back[c] - sigma[c] * v[c]).powi(2)).sum::<f64>().sqrt()
        });
        let error = error.fold(0.0, f64::max);
        if error <= 1e-9 * sigma[0] || round == ROUNDS {
            let (u, v) = (u.part(0, rank), v.part(0, rank));
            return Svd { u: u.numbers, sigma: sigma[..rank].to_vec(), v: v.numbers };
        }
        start = v;
    }
    unreachable!("the last round returns")
}

/// By `iterations` of subspace iteration from random vectors (Halko et al. 2011, arXiv:0909.4061),
/// the algorithm of `torch.svd_lowrank`.
pub(crate) fn randomized(
    numbers: &[f32],
    [n, k]: [usize; 2],
    rank: usize,
    iterations: usize,
    seed: u64,
) -> Svd {
    let w = Matrix { numbers, k };
    debug_assert_eq!(numbers.len(), n * k);
    let mut q = orthonormal(&w.times(&Columns::random(k, rank, seed)), None);
    for _ in 0..iterations {
        q = orthonormal(&w.transposed_times(&q), None);
        q = orthonormal(&w.times(&q), None);
    }
    // The singular values of Qᵀ W, whose right vectors lie in the space of Wᵀ Q.
    let basis = orthonormal(&w.transposed_times(&q), None);
    let (u, sigma, v) = from_basis(w, &basis, rank);
    Svd { u: u.numbers, sigma, v: v.numbers }
}

/// The first r columns of Q and rows of R of W = Q R by Householder's reflections, with LAPACK's
/// signs: Q `[n, r]`, R `[r, k]`.
pub(crate) fn leading_qr(numbers: &[f32], [n, k]: [usize; 2], rank: usize) -> (Vec<f64>, Vec<f64>) {
    let w = Matrix { numbers, k };
    let column = |c: usize| numbers.iter().skip(c).step_by(k).map(|&x| f64::from(x));
    let mut columns: Vec<Vec<f64>> = (0..rank).map(|c| column(c).collect()).collect();
    // H = I − τ v vᵀ with v[j] = 1.
    let mut reflections: Vec<(Vec<f64>, f64)> = Vec::with_capacity(rank);
    let reflect = |x: &mut [f64], v: &[f64], tau: f64| {
        let dot: f64 = x.iter().zip(v).map(|(x, v)| x * v).sum();
        x.iter_mut().zip(v).for_each(|(x, v)| *x -= tau * dot * v);
    };
    for j in 0..rank {
        let x = &columns[j];
        let (alpha, below) = (x[j], norm(&x[j + 1..]));
        let (mut v, mut tau) = (vec![0.0; n], 0.0);
        v[j] = 1.0;
        if below > 0.0 {
            let beta = -alpha.hypot(below).copysign(alpha);
            tau = (beta - alpha) / beta;
            v[j + 1..].iter_mut().zip(&x[j + 1..]).for_each(|(v, x)| *v = x / (alpha - beta));
        }
        columns[j..].iter_mut().for_each(|column| reflect(column, &v, tau));
        reflections.push((v, tau));
    }
    let mut q = Columns::zeros(n, rank);
    for c in 0..rank {
        let mut x = vec![0.0; n];
        x[c] = 1.0;
        reflections.iter().rev().for_each(|(v, tau)| reflect(&mut x, v, *tau));
        x.iter().enumerate().for_each(|(i, x)| q.numbers[i * rank + c] = *x);
    }
    let transposed = w.transposed_times(&q);
    let r = (0..rank).flat_map(|c| transposed.rows().map(move |row| row[c]));
    let r = r.collect();
    (q.numbers, r)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let normal = Distribution::<f32>::sample_iter(StandardNormal, random);
        normal.take(count).collect()
    }

    /// Σ σ u vᵀ
    fn product(svd: &Svd, [n, k]: [usize; 2]) -> Vec<f64> {
        let r = svd.sigma.len();
        let at = |i: usize, j: usize| {
            (0..r).map(|c| svd.u[i * r + c] * svd.sigma[c] * svd.v[j * r + c]).sum()
        };
        (0..n).flat_map(|i| (0..k).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect()
    }

    #[test]
    fn a_diagonal_by_hand() {
        // 3, 2, 1 on the diagonal of a 3 by 4 matrix.
        let w = [3.0, 0.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let svd = leading(&w, [3, 4], 2);
        assert!((svd.sigma[0] - 3.0).abs() < 1e-12 && (svd.sigma[1] - 2.0).abs() < 1e-12);
        let expected = [3.0, 0.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        for (found, expected) in product(&svd, [3, 4]).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    /// All singular values equal: no vector is distinguished, but each set is orthonormal.
    #[test]
    fn equal_singular_values_do_no_harm() {
        let identity: Vec<f32> = (0..64 * 64).map(|i| f32::from(i % 65 == 0)).collect();
        let svd = leading(&identity, [64, 64], 5);
        assert!(svd.sigma.iter().all(|sigma| (sigma - 1.0).abs() < 1e-10), "{:?}", svd.sigma);
        let u = Columns { numbers: svd.u, width: 5 };
        for (i, x) in u.dots(&u).numbers.iter().enumerate() {
            assert!((x - f64::from(u8::from(i % 6 == 0))).abs() < 1e-10);
        }
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let svd = leading(&[0.0; 12], [3, 4], 2);
        assert_eq!((svd.sigma, svd.u.len(), svd.v.len()), (vec![0.0; 2], 6, 8));
        // Of rank one: the second value is zero.
        let svd = leading(&[1.0, 2.0, 2.0, 4.0], [2, 2], 2);
        assert!((svd.sigma[0] - 5.0).abs() < 1e-12 && svd.sigma[1].abs() < 1e-7);
        assert_eq!(randomized(&[0.0; 12], [3, 4], 2, 1, 0).sigma, [0.0; 2]);
    }

    #[test]
    fn what_is_left_is_orthogonal_to_what_is_taken() {
        for shape in [[300, 200], [200, 300]] {
            let w = numbers(shape[0] * shape[1], 1);
            let svd = leading(&w, shape, 6);
            assert!(svd.sigma.is_sorted_by(|a, b| a >= b));
            // Wᵀ U = V diag(σ) says that the vectors are singular; that they are the largest, the
            // power method says of the rest.
            let rest: Vec<f32> = w
                .iter()
                .zip(product(&svd, shape))
                .map(|(w, p)| (f64::from(*w) - p) as f32)
                .collect();
            let next = leading(&rest, shape, 1);
            assert!(next.sigma[0] <= svd.sigma[5] * (1.0 + 1e-6));
            let seven = leading(&w, shape, 7);
            assert!((seven.sigma[6] - next.sigma[0]).abs() < 1e-4);
        }
    }

    #[test]
    fn more_iterations_come_nearer() {
        let shape = [80, 60];
        let w = numbers(80 * 60, 2);
        let exact = leading(&w, shape, 4);
        let error = |iterations| {
            let found = randomized(&w, shape, 4, iterations, 7);
            (exact.sigma[0] - found.sigma[0]).abs()
        };
        assert!(error(1) > error(40) && error(200) < 1e-6, "{} {}", error(1), error(200));
        let again = randomized(&w, shape, 4, 3, 7);
        assert_eq!(again.u, randomized(&w, shape, 4, 3, 7).u);
    }

    /// Columns (3, 4) and (1, 2): the first reflects to −5, as LAPACK has it.
    #[test]
    fn a_qr_by_hand() {
        let (q, r) = leading_qr(&[3.0, 1.0, 4.0, 2.0], [2, 2], 1);
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(&q, &[-0.6, -0.8]) && near(&r, &[-5.0, -2.2]), "{q:?} {r:?}");
    }
}
