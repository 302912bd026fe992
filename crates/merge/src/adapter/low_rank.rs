//! The product of two thin matrices, `s B A`, read in tiles of the weight that it changes.

use crate::source::Source;

/// `s B A`: what an adapter adds to one weight.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `A`, r x (what is left of its elements): `lora_A.weight`, or `lora_embedding_A` over the vocabulary.
    pub a: Source,
    /// `B`, (first dimension) x r.
    pub b: Source,
    /// `s`.
    pub scale: f32,
    /// Whether the weight is stored as the transpose of `B A` whatever its shape: embeddings.
    pub embedding: bool,
}

impl LowRank {
    /// `r`.
    pub fn rank(&self) -> usize {
        self.a.shape().first().copied().unwrap_or(0)
    }

    /// Rows and columns of `B A`.
    pub fn dims(&self) -> (usize, usize) {
        let rank = self.rank().max(1);
        (self.b.numel() / rank, self.a.numel() / rank)
    }

    /// Rows `rows` of the left factor of the weight, (rows) x r: of `B`, or of `A^T` for a transposed weight.
    pub(super) fn left(&self, transposed: bool, row: usize, rows: usize) -> Vec<f32> {
        if transposed { columns_of_a(self, row, rows, true) } else { rows_of_b(self, row, rows) }
    }

    /// Columns of the right factor of the weight, r x (columns): of `A`, or of `B^T`.
    pub(super) fn right(&self, transposed: bool, column: usize, columns: usize) -> Vec<f32> {
        if transposed {
            transpose(&rows_of_b(self, column, columns), columns, self.rank())
        } else {
            columns_of_a(self, column, columns, false)
        }
    }

    /// The factors in f32: `A` r x n, and `B` m x r.
    pub fn factors(&self) -> (Vec<f32>, Vec<f32>) {
        let mut a = vec![0.0; self.a.numel()];
        let mut b = vec![0.0; self.b.numel()];
        self.a.read(0, &mut a);
        self.b.read(0, &mut b);
        (a, b)
    }
}

fn rows_of_b(delta: &LowRank, row: usize, rows: usize) -> Vec<f32> {
    let rank = delta.rank();
    let mut out = vec![0.0; rows * rank];
    delta.b.read(row * rank, &mut out);
    out
}

fn columns_of_a(delta: &LowRank, column: usize, columns: usize, transposed: bool) -> Vec<f32> {
    let (rank, (_, n)) = (delta.rank(), delta.dims());
    let mut out = vec![0.0; rank * columns];
    for (k, row) in out.chunks_mut(columns.max(1)).enumerate() {
        delta.a.read(k * n + column, row);
    }
    if transposed { transpose(&out, rank, columns) } else { out }
}

/// A rows x columns matrix, transposed.
pub(super) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    // In squares: the lines of both sides stay in the cache.
    for row in (0..rows).step_by(32) {
        for column in (0..columns).step_by(32) {
            for i in row..rows.min(row + 32) {
                for j in column..columns.min(column + 32) {
                    out[j * rows + i] = values[i * columns + j];
                }
            }
        }
    }
    out
}
