//! Weights in the order in which a tile reads them: per block of columns, one row of `width` floats per k.

use crate::backend::cpu::tile::MAX_VECTORS;

/// How output columns are cut into blocks of 3 or 2 vectors (1 only if there is but one).
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    count: usize,
    lanes: usize,
    threes: usize,
    twos: usize,
}

/// One block of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub first: usize,
    pub vectors: usize,
    /// Columns that exist; the rest of the last vector is padding.
    pub columns: usize,
}

impl Block {
    /// Columns of the last vector that exist.
    pub(super) fn last_columns(&self, lanes: usize) -> usize {
        self.columns - (self.vectors - 1) * lanes
    }
}

impl Columns {
    pub(super) fn new(count: usize, lanes: usize) -> Columns {
        let vectors = count.div_ceil(lanes);
        let threes = match vectors % MAX_VECTORS {
            1 => (vectors / MAX_VECTORS).saturating_sub(1),
            _ => vectors / MAX_VECTORS,
        };
        Columns { count, lanes, threes, twos: (vectors - threes * MAX_VECTORS) / 2 }
    }

    /// Columns with the padding of the last vector.
    pub(super) fn padded(&self) -> usize {
        self.count.next_multiple_of(self.lanes)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        let vectors = self.count.div_ceil(self.lanes);
        self.threes + self.twos + (vectors - self.threes * MAX_VECTORS - self.twos * 2)
    }

    pub(super) fn block(&self, index: usize) -> Block {
        let twos = index.saturating_sub(self.threes);
        let vector = index.min(self.threes) * MAX_VECTORS + twos.min(self.twos) * 2;
        let vectors = match index {
            i if i < self.threes => 3,
            i if i < self.threes + self.twos => 2,
            _ => 1,
        };
        let first = vector * self.lanes;
        Block { first, vectors, columns: (self.count - first).min(vectors * self.lanes) }
    }
}

/// Copies `rows` rows of `columns` weights that lie `stride` apart into rows of `width`, zeros behind.
pub(super) fn pack_rows(from: &[f32], stride: usize, rows: usize, columns: usize, to: &mut [f32], width: usize) {
    for (r, to) in to.chunks_exact_mut(width).take(rows).enumerate() {
        to[..columns].copy_from_slice(&from[r * stride..][..columns]);
        to[columns..].fill(0.0);
    }
}

/// As [`pack_rows`], of the transposed matrix: `columns` rows of `rows` weights lie `stride` apart.
pub(super) fn pack_transposed(from: &[f32], stride: usize, rows: usize, columns: usize, to: &mut [f32], width: usize) {
    /// Rows written at a time: four cache lines of each column read, while the rows stay in the first-level cache.
    const STRIP: usize = 64;
    for (strip, to) in to[..rows * width].chunks_mut(STRIP * width).enumerate() {
        let strip_rows = to.len() / width;
        for column in 0..columns {
            let values = &from[column * stride + strip * STRIP..][..strip_rows];
            for (row, &value) in to.chunks_exact_mut(width).zip(values) {
                row[column] = value;
            }
        }
        to.chunks_exact_mut(width).for_each(|row| row[columns..].fill(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_columns_once() {
        for count in 1..200 {
            for lanes in [4, 8, 16] {
                let columns = Columns::new(count, lanes);
                let mut next = 0;
                for i in 0..columns.blocks() {
                    let block = columns.block(i);
                    assert_eq!(block.first, next, "{count} {lanes}");
                    assert!(block.vectors > 1 || columns.blocks() == 1);
                    assert!((1..=lanes).contains(&block.last_columns(lanes)));
                    next += block.columns;
                }
                assert_eq!(next, count);
            }
        }
    }

    #[test]
    fn transposing_packs_the_same_matrix() {
        let (rows, columns, stride, width) = (37, 5, 40, 8);
        let a: Vec<f32> = (0..columns * stride).map(|i| i as f32).collect();
        let mut transposed = vec![f32::NAN; rows * width];
        pack_transposed(&a, stride, rows, columns, &mut transposed, width);
        let turned: Vec<f32> = (0..rows).flat_map(|r| (0..columns).map(move |c| (c * stride + r) as f32)).collect();
        let mut packed = vec![f32::NAN; rows * width];
        pack_rows(&turned, columns, rows, columns, &mut packed, width);
        assert_eq!(transposed, packed);
    }
}
