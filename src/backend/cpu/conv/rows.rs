//! Products of rows with prepared weights: linear layers in inference.
//!
//! One row alone: its sums over several vectors of columns run side by side, for those of a block would wait for each
//! other. Several rows: the sum over taps, of which there is one. Either way each value is the sum over the same parts
//! of k, each a chain of multiply-adds, so that a row gives the same bits in any company.

use super::Epilogue;
use super::axis::Direction;
use super::pack::Columns;
use super::tail::finish;
use super::taps::{PANEL_ROWS, TapConvolution};
use crate::backend::cpu::gemm::LinearGeometry;
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile;
use std::ops::Range;

/// Up to this many rows run one by one.
const FEW_ROWS: usize = 2;

/// A linear layer ready to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowProduct {
    level: Level,
    inputs: usize,
    outputs: usize,
    columns: Columns,
    several: TapConvolution,
}

impl RowProduct {
    pub(super) fn new(level: Level, geometry: &LinearGeometry) -> RowProduct {
        let LinearGeometry { inputs, outputs } = *geometry;
        let several = TapConvolution::new(level, &geometry.as_convolution(), Direction::Forward);
        RowProduct { level, inputs, outputs, columns: Columns::new(outputs, level), several }
    }

    /// Floats of the packed weights: for each block of columns a row of its width for each input.
    pub(super) fn packed_len(&self) -> usize {
        self.several.packed_len()
    }

    /// Packs `[inputs][outputs]`.
    pub(super) fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        self.several.pack_all(weights, packed);
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        self.several.packed_scratch(max_n)
    }

    /// Runs over `n` rows.
    pub(super) fn run(
        &self,
        n: usize,
        x: &[f32],
        packed: &[f32],
        y: &mut [f32],
        epilogue: Epilogue,
        scratch: &mut [f32],
    ) {
        if n > FEW_ROWS {
            return self.several.run_packed(n, x, packed, y, epilogue, scratch);
        }
        assert_eq!(packed.len(), self.packed_len(), "weights packed for this layer");
        assert!(!epilogue.accumulate, "sums take the output's place before anything is added");
        let blocks = self.columns.blocks();
        let items = threads::items_for(2 * n * self.inputs * self.outputs).min(blocks).min(threads::available());
        let y = Disjoint::new(y);
        threads::for_each_item(items, |item| {
            for row in 0..n {
                let x = &x[row * self.inputs..][..self.inputs];
                self.run_row(x, packed, threads::part(blocks, items, item), y, row, epilogue);
            }
        });
    }

    /// One row's values in some blocks, as many vectors of columns at a time as there are sums in a row.
    fn run_row(&self, x: &[f32], packed: &[f32], blocks: Range<usize>, y: Disjoint, row: usize, epilogue: Epilogue) {
        let lanes = tile::lanes(self.level);
        let mut index = blocks.start;
        while index < blocks.end {
            let first = self.columns.block(index).first;
            let (mut columns, mut count) = (first..first, 0);
            let mut panels = [std::ptr::null(); tile::ROW_VECTORS];
            let mut widths = [0; tile::ROW_VECTORS];
            while index < blocks.end {
                let block = self.columns.block(index);
                if count + block.vectors > tile::ROW_VECTORS {
                    break;
                }
                for vector in 0..block.vectors {
                    panels[count] = packed[block.first * self.inputs + vector * lanes..].as_ptr();
                    widths[count] = block.vectors * lanes;
                    count += 1;
                }
                columns.end = block.first + block.columns;
                index += 1;
            }
            let start = row * self.outputs + columns.start;
            // SAFETY: the columns of a block belong to one item.
            let values = unsafe { y.slice(start..start + columns.len()) };
            let parts = self.inputs.div_ceil(PANEL_ROWS);
            for part in 0..parts {
                let k = threads::part(self.inputs, parts, part);
                let mut panels = panels;
                panels.iter_mut().zip(widths).for_each(|(panel, width)| *panel = panel.wrapping_add(k.start * width));
                let (panels, widths) = (&panels[..count], &widths[..count]);
                // SAFETY: each vector's panel has a row of its block's width for each of the row's values, padded to whole
                // vectors; `PackedConvolution::run` checked the level.
                unsafe { tile::row(self.level, &x[k], panels, widths, values, part > 0) };
            }
            finish(self.level, values, &[], &epilogue, columns.start, start);
            if let Some(finisher) = epilogue.tail.finisher {
                finisher.run(start, values);
            }
        }
    }
}
