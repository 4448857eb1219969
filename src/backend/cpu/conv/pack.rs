//! Weights in the order in which a tile reads them: per block of columns, one row of `width` floats per k.

use crate::backend::cpu::simd::Level;
use crate::backend::cpu::tile::{self, Spread};

/// How output columns are cut into blocks of several vectors each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    count: usize,
    lanes: usize,
    /// Vectors of a full block, and how many of these there are.
    most: usize,
    full: usize,
    /// Blocks of two vectors behind them, and whether a last one has one vector.
    twos: usize,
    one: bool,
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
    pub(super) fn new(count: usize, level: Level) -> Columns {
        let (lanes, most) = (tile::lanes(level), tile::max_vectors(level));
        let vectors = count.div_ceil(lanes);
        // Two blocks of two vectors are better than one of three and one of one.
        let full = if vectors % most == 1 && most > 2 { (vectors / most).saturating_sub(1) } else { vectors / most };
        let rest = vectors - full * most;
        Columns { count, lanes, most, full, twos: rest / 2, one: !rest.is_multiple_of(2) }
    }

    /// Columns with the padding of the last vector.
    pub(super) fn padded(&self) -> usize {
        self.count.next_multiple_of(self.lanes)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.full + self.twos + usize::from(self.one)
    }

    pub(super) fn block(&self, index: usize) -> Block {
        let behind = index.saturating_sub(self.full);
        let first = (index.min(self.full) * self.most + behind.min(self.twos) * 2) * self.lanes;
        let vectors = match index {
            i if i < self.full => self.most,
            i if i < self.full + self.twos => 2,
            _ => 1,
        };
        Block { first, vectors, columns: (self.count - first).min(vectors * self.lanes) }
    }
}

/// How many groups of `columns` columns share a vector: as many as fill it, where there are tiles for so many.
pub(super) fn groups_in_a_vector(level: Level, groups: usize, columns: usize) -> usize {
    let fill = |&parts: &usize| parts * columns == tile::lanes(level) && groups.is_multiple_of(parts);
    Spread::PARTS.into_iter().find(fill).unwrap_or(1)
}

/// Copies `rows` rows of `columns` weights that lie `stride` apart into rows of `width`, zeros behind.
pub(super) fn pack_rows(from: &[f32], stride: usize, rows: usize, columns: usize, to: &mut [f32], width: usize) {
    for (r, to) in to.chunks_exact_mut(width).take(rows).enumerate() {
        to[..columns].copy_from_slice(&from[r * stride..][..columns]);
        to[columns..].fill(0.0);
    }
}

/// As [`pack_rows`], of the transposed matrix, from column `first` on: `columns` rows of `rows` weights lie `stride` apart.
pub(super) fn pack_transposed(
    from: &[f32],
    stride: usize,
    rows: usize,
    (first, columns): (usize, usize),
    to: &mut [f32],
    width: usize,
) {
    /// Rows written at a time: four cache lines of each column read, while the rows stay in the first-level cache.
    const STRIP: usize = 64;
    for (strip, to) in to[..rows * width].chunks_mut(STRIP * width).enumerate() {
        let strip_rows = to.len() / width;
        for column in 0..columns {
            let values = &from[column * stride + strip * STRIP..][..strip_rows];
            for (row, &value) in to.chunks_exact_mut(width).zip(values) {
                row[first + column] = value;
            }
        }
        to.chunks_exact_mut(width).for_each(|row| row[first + columns..].fill(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_columns_once() {
        for count in 1..200 {
            for level in Level::ALL {
                let (lanes, columns) = (tile::lanes(level), Columns::new(count, level));
                let mut next = 0;
                for i in 0..columns.blocks() {
                    let block = columns.block(i);
                    assert_eq!(block.first, next, "{count} {level:?}");
                    assert!(block.vectors <= tile::max_vectors(level));
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
        pack_transposed(&a, stride, rows, (0, 2), &mut transposed, width);
        pack_transposed(&a[2 * stride..], stride, rows, (2, columns - 2), &mut transposed, width);
        let turned: Vec<f32> = (0..rows).flat_map(|r| (0..columns).map(move |c| (c * stride + r) as f32)).collect();
        let mut packed = vec![f32::NAN; rows * width];
        pack_rows(&turned, columns, rows, columns, &mut packed, width);
        assert_eq!(transposed, packed);
    }
}
