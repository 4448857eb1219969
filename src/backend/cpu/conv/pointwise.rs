//! The weight gradient of a 1 × 1 kernel: dw[c][o] = Σ over pixels of x[pixel][c]·dy[pixel][o], a product of two matrices
//! whose k, the pixels, runs down both.
//!
//! Read where they lie, the few channels that a tile needs of each pixel are a cache line, and with many channels a page, per k.
//! So a chunk of pixels of both is copied first into panels in the tile's own order, `[tile][pixel][channel of the tile]`
//! (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). A chunk's panels serve all tiles of a
//! work item; the deal of the work keeps enough of these beside each other.

use super::ConvGeometry;
use super::dweight::{self, Deal};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Loop, Tile};
use std::ops::Range;

/// Pixels of a chunk: a panel of dy stays in the first-level cache beside one of x.
const DEPTH: usize = 256;

/// Channels on both sides from which on the copies pay.
const MIN_CHANNELS: usize = 128;

/// Columns of a work item, where there are more, before its rows are cut: what the copies of x are shared by.
const SHARED_COLUMNS: usize = 256;

/// Pixels copied at a time: their lines of the source stay cached from one panel to the next, whatever lies between them.
const STRIP: usize = 8;

/// The weight gradient of a 1 × 1 kernel ready to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightGradient {
    level: Level,
    geometry: ConvGeometry,
}

impl WeightGradient {
    /// None where [`dweight`] serves better: for other kernels, and few channels.
    pub(super) fn new(level: Level, geometry: &ConvGeometry) -> Option<WeightGradient> {
        let g = *geometry;
        let fits = g.kernel == (1, 1) && g.pad == (0, 0) && g.groups == 1 && g.in_c.min(g.out_c) >= MIN_CHANNELS;
        fits.then_some(WeightGradient { level, geometry: g })
    }

    /// Rows and columns of a tile.
    fn tile(&self) -> (usize, usize) {
        let vectors = tile::max_vectors(self.level);
        (tile::tile_rows(self.level, vectors), vectors * tile::lanes(self.level))
    }

    /// Panels of x and of dy.
    fn panels(&self) -> (usize, usize) {
        let (rows, columns) = self.tile();
        (self.geometry.in_c.div_ceil(rows), self.geometry.out_c.div_ceil(columns))
    }

    fn pixels(&self, n: usize) -> usize {
        n * self.geometry.out_h * self.geometry.out_w
    }

    /// Rows and columns are cut by the shape alone; more images mean more partial sums, up to a number that the shape sets.
    fn deal(&self, n: usize) -> Deal {
        if threads::items_for(self.geometry.flops(n)) == 1 {
            return Deal { partials: 1, by_row: 1, by_block: 1 };
        }
        let most = dweight::most_partials(self.geometry.weight_len());
        let tiles = dweight::MAX_ITEMS / most;
        let (rows, columns) = self.panels();
        let by_block = (self.geometry.out_c / SHARED_COLUMNS).clamp(1, columns.min(tiles));
        let by_row = (tiles / by_block).clamp(1, rows);
        Deal { partials: most.min(self.pixels(n).div_ceil(DEPTH)), by_row, by_block }
    }

    /// Floats of a work item's panels of x and of dy.
    fn panel_len(&self, deal: Deal) -> (usize, usize) {
        let ((rows, columns), (row_panels, column_panels)) = (self.tile(), self.panels());
        let x = DEPTH * rows * row_panels.div_ceil(deal.by_row);
        let dy = DEPTH * columns * column_panels.div_ceil(deal.by_block);
        (x.next_multiple_of(16), dy)
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        let deal = self.deal(max_n);
        let (x, dy) = self.panel_len(deal);
        dweight::partial_len(deal.partials, self.geometry.weight_len()) + 16 + deal.items() * (x + dy)
    }

    pub(super) fn run(&self, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32], add: bool, scratch: &mut [f32]) {
        let deal = self.deal(n);
        dweight::run_in_partials(self.level, deal.partials, dw, add, scratch, |sums, add, panels| match self.level {
            Level::Portable => self.sum::<6, 8>(n, x, dy, sums, add, deal, panels),
            Level::Avx2 => self.sum::<6, 16>(n, x, dy, sums, add, deal, panels),
            Level::Avx512 => self.sum::<8, 48>(n, x, dy, sums, add, deal, panels),
        });
    }

    /// Fills the partial sums with tiles of `ROWS` × `COLUMNS`.
    #[allow(clippy::too_many_arguments)]
    fn sum<const ROWS: usize, const COLUMNS: usize>(
        &self,
        n: usize,
        x: &[f32],
        dy: &[f32],
        sums: &mut [f32],
        add: bool,
        deal: Deal,
        panels: &mut [f32],
    ) {
        assert_eq!(self.tile(), (ROWS, COLUMNS));
        let g = &self.geometry;
        let ((row_panels, column_panels), pixels) = (self.panels(), self.pixels(n));
        let (x_len, dy_len) = self.panel_len(deal);
        let (panels, sums) = (Disjoint::new(panels), Disjoint::new(sums));
        threads::for_each_item(deal.items(), |item| {
            // SAFETY: every item has its own panels.
            let panels = unsafe { panels.slice(item * (x_len + dy_len)..(item + 1) * (x_len + dy_len)) };
            let (x_panels, dy_panels) = panels.split_at_mut(x_len);
            let (partial, tiles) = (item % deal.partials, item / deal.partials);
            let rows = channels(threads::part(row_panels, deal.by_row, tiles % deal.by_row), ROWS, g.in_c);
            let columns = channels(threads::part(column_panels, deal.by_block, tiles / deal.by_row), COLUMNS, g.out_c);
            let to = sums.start().wrapping_add(partial * g.weight_len());
            let chunks = threads::part(pixels.div_ceil(DEPTH), deal.partials, partial);
            for chunk in chunks.clone() {
                let depth = chunk * DEPTH..((chunk + 1) * DEPTH).min(pixels);
                copy::<ROWS>(x, |pixel| self.input_of(pixel), depth.clone(), rows.clone(), x_panels);
                copy::<COLUMNS>(dy, |pixel| pixel * g.out_c, depth.clone(), columns.clone(), dy_panels);
                let mut tile = Tile::empty();
                tile.inner = Loop { count: depth.len(), step: ROWS, skip: 0 };
                tile.ldb = COLUMNS;
                tile.finish = Finish::plain(add || chunk > chunks.start);
                for (column, dy) in columns.clone().step_by(COLUMNS).zip(dy_panels.chunks_exact(DEPTH * COLUMNS)) {
                    let (lanes, width) = (tile::lanes(self.level), COLUMNS.min(columns.end - column));
                    let vectors = width.div_ceil(lanes);
                    tile.last_columns = width - (vectors - 1) * lanes;
                    tile.b = dy.as_ptr();
                    for (row, x) in rows.clone().step_by(ROWS).zip(x_panels.chunks_exact(DEPTH * ROWS)) {
                        tile.rows = ROWS.min(rows.end - row);
                        for r in 0..tile.rows {
                            tile.a[r] = x[r..].as_ptr();
                            tile.c[r] = to.wrapping_add((row + r) * g.out_c + column);
                        }
                        // SAFETY: a panel has `DEPTH` ≥ `depth.len()` rows of `ROWS` or `COLUMNS` floats, of which `copy` wrote
                        // those that exist; these rows × columns of this partial sum belong to this work item alone. The
                        // machine has the level, as `run`'s caller checked.
                        unsafe { tile::run(self.level, vectors, &tile) }
                    }
                }
            }
        });
    }

    /// Where the input under an output pixel of the batch starts.
    fn input_of(&self, pixel: usize) -> usize {
        let g = &self.geometry;
        if g.stride == (1, 1) && (g.out_h, g.out_w) == (g.in_h, g.in_w) {
            return pixel * g.in_c;
        }
        let (row, column) = (pixel / g.out_w, pixel % g.out_w);
        let (image, row) = (row / g.out_h, row % g.out_h);
        ((image * g.in_h + row * g.stride.0) * g.in_w + column * g.stride.1) * g.in_c
    }
}

/// The channels of some panels of `width`.
fn channels(panels: Range<usize>, width: usize, all: usize) -> Range<usize> {
    panels.start * width..(panels.end * width).min(all)
}

/// Copies `columns` of the pixels in `depth`, each of which starts at `start(pixel)`, into panels of `DEPTH` rows of `WIDTH`. Of
/// the last panel only the columns that exist are written.
fn copy<const WIDTH: usize>(
    from: &[f32],
    start: impl Fn(usize) -> usize,
    depth: Range<usize>,
    columns: Range<usize>,
    to: &mut [f32],
) {
    for first in (0..depth.len()).step_by(STRIP) {
        let strip = first..(first + STRIP).min(depth.len());
        let mut starts = [0; STRIP];
        for k in strip.clone() {
            starts[k - first] = start(depth.start + k);
        }
        for (column, panel) in columns.clone().step_by(WIDTH).zip(to.chunks_exact_mut(DEPTH * WIDTH)) {
            let width = WIDTH.min(columns.end - column);
            for (row, start) in panel[strip.start * WIDTH..strip.end * WIDTH].chunks_exact_mut(WIDTH).zip(starts) {
                let from = &from[start + column..][..width];
                // Of a length that the compiler knows where it can be.
                match <&[f32; WIDTH]>::try_from(from) {
                    Ok(from) => row.copy_from_slice(from),
                    Err(_) => row[..width].copy_from_slice(from),
                }
            }
        }
    }
}
