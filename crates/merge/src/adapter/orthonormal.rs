//! Orthonormal bases by modified Gram-Schmidt, twice (Giraud, Langou, Rozloznik 2005: the second pass
//! makes the basis orthogonal to rounding, however close the vectors were to dependence).

use rayon::prelude::*;

use crate::ops;

/// What is left of a vector below this part of it is rounding, not a direction.
const NOTHING: f64 = 1e-6;
/// The same in the second pass, in which a good vector keeps its length.
const LOST: f64 = 0.1;
/// Vectors shorter than this are not worth a thread each.
const SHORT: usize = 4096;

/// Makes `vectors`, each of `length` numbers, orthonormal. Vectors that depend on those before them become
/// zero.
pub(super) fn orthonormalize(vectors: &mut [f32], length: usize) {
    if length == 0 {
        return;
    }
    for least in [NOTHING, LOST] {
        let before: Vec<f64> = vectors.chunks(length).map(|v| ops::dot(v, v).sqrt()).collect();
        for (index, before) in before.into_iter().enumerate() {
            let (done, rest) = vectors.split_at_mut((index + 1) * length);
            let q = &mut done[index * length..];
            let norm = ops::dot(q, q).sqrt();
            if norm <= least * before || norm == 0.0 {
                q.fill(0.0);
                continue;
            }
            ops::scale(q, (1.0 / norm) as f32);
            let q = &*q;
            let remove = |v: &mut [f32]| {
                let part = ops::dot(q, v);
                ops::axpy(v, -part as f32, q);
            };
            if length < SHORT {
                rest.chunks_mut(length).for_each(remove);
            } else {
                rest.par_chunks_mut(length).for_each(remove);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(count: usize, length: usize) -> Vec<f32> {
        (1..=count * length).map(|i| ((i * i % 1009) as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn orthonormal_and_of_the_same_span() {
        for (count, length) in [(1, 1), (5, 40), (16, 16), (9, 5000)] {
            let vectors = sine(count, length);
            let mut q = vectors.clone();
            orthonormalize(&mut q, length);
            for (i, a) in q.chunks(length).enumerate() {
                for (j, b) in q.chunks(length).enumerate() {
                    let wanted = f64::from(u8::from(i == j));
                    assert!(
                        (ops::dot(a, b) - wanted).abs() < 1e-6,
                        "{count} {length}: {i} {j} {}",
                        ops::dot(a, b)
                    );
                }
            }
            for v in vectors.chunks(length) {
                let mut rest = v.to_vec();
                for q in q.chunks(length) {
                    let part = ops::dot(q, &rest);
                    ops::axpy(&mut rest, -part as f32, q);
                }
                assert!(ops::dot(&rest, &rest) < 1e-10 * ops::dot(v, v));
            }
        }
    }

    #[test]
    fn dependent_vectors_become_zero() {
        let mut vectors = sine(2, 50);
        let sum: Vec<f32> = (0..50).map(|i| vectors[i] * 3.0 - vectors[50 + i]).collect();
        vectors.extend(sum);
        vectors.extend(vec![0.0; 50]);
        vectors.extend(sine(3, 50).split_off(100));
        orthonormalize(&mut vectors, 50);
        let lengths: Vec<f64> = vectors.chunks(50).map(|v| ops::dot(v, v).sqrt()).collect();
        for (length, wanted) in lengths.iter().zip([1.0, 1.0, 0.0, 0.0, 1.0]) {
            assert!((length - wanted).abs() < 1e-6, "{lengths:?}");
        }
    }
}
