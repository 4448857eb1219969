//! The weight gradient by minimal filtering: dw = Gᵀ[Σ over tiles (Bᵀ d B)ᵀ·(A dy Aᵀ)]G. Per point it is a product of
//! matrices, `c × tiles` times `tiles × k`.
//!
//! The windows and gradients of some tiles are transformed; then each block of weights gets all its products and is
//! transformed back at once, so that no transformed sums are kept.

use super::transform::{self, PIXELS, POINTS, TAPS, TILE, WINDOW};
use super::{Grid, MAX_ITEMS, Place, part_len, pixels, suits};
use crate::backend::cpu::conv::ConvGeometry;
use crate::backend::cpu::conv::pack::Columns;
use crate::backend::cpu::conv::taps::aligned;
use crate::backend::cpu::conv::window::Source;
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Loop, Tile};
use std::ops::Range;

/// Tiles per work item of the transformations.
const TILE_ITEM: usize = 8;

/// The most floats of windows and gradients kept at a time (4 MB), and the fewest tiles: fewer would not pay for
/// transforming sums back.
const KEPT_LIMIT: usize = 1 << 20;
const MIN_CHUNK: usize = 64;

/// Up to this many channels, blocks are small: enough of them for several threads.
const FEW_CHANNELS: usize = 128;

/// The channels of one side of the weights in blocks.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    channels: usize,
    block: usize,
}

impl Blocks {
    fn count(&self) -> usize {
        self.channels.div_ceil(self.block)
    }

    fn range(&self, index: usize) -> Range<usize> {
        index * self.block..((index + 1) * self.block).min(self.channels)
    }

    /// Floats of a block of transformed values of `tiles` tiles: per point a row of a block's channels for each tile.
    fn len(&self, tiles: usize) -> usize {
        POINTS * part_len(tiles, self.block)
    }
}

/// A weight gradient ready to run.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu::conv) struct WeightGradient {
    level: Level,
    source: Source,
    output: Source,
    pad: (usize, usize),
    grid: Grid,
    /// Of input channels, whole rows of register tiles, and of output channels, whole columns of them.
    rows: Blocks,
    columns: Blocks,
}

/// What the products are made of, and a pixel's channels outside the maps.
#[derive(Clone, Copy)]
struct Values<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    zeros: &'a [f32],
}

impl WeightGradient {
    /// `None` where the direct sum is better.
    pub(in crate::backend::cpu::conv) fn new(level: Level, g: &ConvGeometry) -> Option<WeightGradient> {
        let few = |channels: usize| channels <= FEW_CHANNELS;
        suits(g).then(|| WeightGradient {
            level,
            source: Source { h: g.in_h, w: g.in_w, c: g.in_c },
            output: Source { h: g.out_h, w: g.out_w, c: g.out_c },
            pad: g.pad,
            grid: Grid::over(g.out_h, g.out_w),
            rows: Blocks { channels: g.in_c, block: if few(g.in_c) { 24 } else { 48 } },
            columns: Blocks { channels: g.out_c, block: if few(g.out_c) { 32 } else { 48 } },
        })
    }

    /// The most tiles that are transformed at a time.
    fn most_tiles(&self) -> usize {
        (KEPT_LIMIT / (POINTS * (self.source.c + self.output.c))).max(MIN_CHUNK)
    }

    /// Tiles that are transformed at a time: equal parts of all.
    fn chunk(&self, n: usize) -> usize {
        let tiles = self.grid.tiles(n);
        tiles.div_ceil(tiles.div_ceil(self.most_tiles()).max(1)).max(1)
    }

    fn items(&self) -> usize {
        (self.rows.count() * self.columns.count()).min(MAX_ITEMS)
    }

    /// Floats of the sums of one point of a block.
    fn sums_len(&self) -> usize {
        part_len(self.rows.block, self.columns.block)
    }

    /// Scratch floats for any n up to `max_n`.
    pub(in crate::backend::cpu::conv) fn scratch(&self, max_n: usize) -> usize {
        // Equal parts of fewer tiles may be larger than those of `max_n`.
        let most = self.most_tiles().min(self.grid.tiles(max_n)).max(1);
        let kept = self.rows.count() * self.rows.len(most) + self.columns.count() * self.columns.len(most);
        16 + self.source.c.max(self.output.c) + kept + self.items() * POINTS * self.sums_len()
    }

    pub(in crate::backend::cpu::conv) fn run(
        &self,
        n: usize,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        add: bool,
        scratch: &mut [f32],
    ) {
        debug_assert!(scratch.len() >= self.scratch(n), "scratch: {} floats < {}", scratch.len(), self.scratch(n));
        let (zeros, rest) = aligned(scratch).split_at_mut(self.source.c.max(self.output.c));
        zeros.fill(0.0);
        let values = Values { x, dy, zeros };
        let (tiles, chunk, items) = (self.grid.tiles(n), self.chunk(n), self.items());
        let (windows, rest) = rest.split_at_mut(self.rows.count() * self.rows.len(chunk));
        let (gradients, rooms) = rest.split_at_mut(self.columns.count() * self.columns.len(chunk));
        let (blocks, room_len) = (self.rows.count() * self.columns.count(), POINTS * self.sums_len());
        for first in (0..tiles).step_by(chunk) {
            let tiles = first..(first + chunk).min(tiles);
            self.transform_tiles(&tiles, chunk, &values, windows, gradients);
            let (windows, gradients, add) = (&*windows, &*gradients, add || first > 0);
            let (rooms, dw) = (Disjoint::new(rooms), Disjoint::new(dw));
            threads::for_each_item(items, |item| {
                // SAFETY: every item has its own room.
                let sums = unsafe { rooms.slice(item * room_len..(item + 1) * room_len) };
                for block in threads::part(blocks, items, item) {
                    let (row, column) = (block / self.columns.count(), block % self.columns.count());
                    let window = &windows[row * self.rows.len(chunk)..][..self.rows.len(chunk)];
                    let gradient = &gradients[column * self.columns.len(chunk)..][..self.columns.len(chunk)];
                    let (rows, columns) = (self.rows.range(row), self.columns.range(column));
                    self.multiply(window, gradient, (tiles.len(), chunk), (rows.len(), columns.len()), sums);
                    self.finish(sums, rows, columns, dw, add);
                }
            });
        }
    }

    /// Bᵀ d B of the windows and A dy Aᵀ of the gradients of `tiles`, a block of channels behind the other.
    fn transform_tiles(
        &self,
        tiles: &Range<usize>,
        chunk: usize,
        values: &Values,
        windows: &mut [f32],
        gradients: &mut [f32],
    ) {
        let (windows, gradients) = (Disjoint::new(windows), Disjoint::new(gradients));
        let items = tiles.len().div_ceil(TILE_ITEM).min(MAX_ITEMS);
        threads::for_each_item(items, |item| {
            for t in threads::part(tiles.len(), items, item) {
                let Place { image, y, x } = self.grid.place(tiles.start + t);
                let (top, left) = (y as isize - self.pad.0 as isize, x as isize - self.pad.1 as isize);
                let window = pixels::<WINDOW, POINTS>(values.x, self.source, (image, top, left), values.zeros);
                for (index, block) in (0..self.rows.count()).map(|index| (index, self.rows.range(index))) {
                    let window = window.map(|pixel| pixel.wrapping_add(block.start));
                    let to = windows.start().wrapping_add(index * self.rows.len(chunk) + t * self.rows.block);
                    let stride = part_len(chunk, self.rows.block);
                    // SAFETY: each pixel has the block's channels, and the block room for them at each point and tile of a
                    // chunk; a tile is one item's.
                    unsafe { transform::source(self.level, block.len(), &window, to, stride) };
                }
                let (y, x) = (y as isize, x as isize);
                let pixels = pixels::<TILE, PIXELS>(values.dy, self.output, (image, y, x), values.zeros);
                for (index, block) in (0..self.columns.count()).map(|index| (index, self.columns.range(index))) {
                    let pixels = pixels.map(|pixel| pixel.wrapping_add(block.start));
                    let to = gradients.start().wrapping_add(index * self.columns.len(chunk) + t * self.columns.block);
                    let stride = part_len(chunk, self.columns.block);
                    // SAFETY: as above.
                    unsafe { transform::gradient(self.level, block.len(), &pixels, to, stride) };
                }
            }
        });
    }

    /// The sums over `count` tiles of a chunk for one block of weights, all points.
    fn multiply(
        &self,
        windows: &[f32],
        gradients: &[f32],
        (count, chunk): (usize, usize),
        (rows, columns): (usize, usize),
        sums: &mut [f32],
    ) {
        let blocks = Columns::new(columns, self.level);
        let mut tile = Tile::empty();
        tile.finish = Finish::plain(false);
        tile.inner = Loop { count, step: self.rows.block, skip: 0 };
        tile.ldb = self.columns.block;
        for point in 0..POINTS {
            let window = &windows[point * part_len(chunk, self.rows.block)..][..count * self.rows.block];
            let gradient = &gradients[point * part_len(chunk, self.columns.block)..][..count * self.columns.block];
            let to = sums[point * self.sums_len()..][..self.sums_len()].as_mut_ptr();
            for block in (0..blocks.blocks()).map(|index| blocks.block(index)) {
                tile.b = gradient[block.first..].as_ptr();
                tile.last_columns = block.last_columns(tile::lanes(self.level));
                let at_most = tile::tile_rows(self.level, block.vectors);
                for row in (0..rows).step_by(at_most) {
                    tile.rows = at_most.min(rows - row);
                    for r in 0..tile.rows {
                        tile.a[r] = window[row + r..].as_ptr();
                        tile.c[r] = to.wrapping_add((row + r) * self.columns.block + block.first);
                    }
                    // SAFETY: windows and gradients have `count` rows of their blocks, the sums a row for each row of the
                    // weights; the level was checked when the pass began.
                    unsafe { tile::run(self.level, block.vectors, &tile) }
                }
            }
        }
    }

    /// Transforms the sums of a block back into its weights.
    fn finish(&self, sums: &[f32], rows: Range<usize>, columns: Range<usize>, dw: Disjoint, add: bool) {
        let (cin, cout) = (self.source.c, self.output.c);
        for (i, c) in rows.enumerate() {
            let taps: [*mut f32; TAPS] = std::array::from_fn(|tap| {
                let start = (tap * cin + c) * cout + columns.start;
                // SAFETY: a weight lies in one block, and a block in one item.
                unsafe { dw.slice(start..start + columns.len()) }.as_mut_ptr()
            });
            let points = sums[i * self.columns.block..][..(POINTS - 1) * self.sums_len() + columns.len()].as_ptr();
            // SAFETY: sums and taps have the block's columns.
            unsafe { transform::dkernel(self.level, columns.len(), points, self.sums_len(), &taps, add) };
        }
    }
}
