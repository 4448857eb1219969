//! The weight gradient by minimal filtering: dw = Gᵀ[Σ over tiles (Bᵀ d B)ᵀ·(A dy Aᵀ)]G.
//!
//! Per point it is a product of matrices, `c × tiles` times `tiles × k`. The sums over tiles stay transformed until
//! the end. Work is dealt to partial sums, which are added in order, and to ranges of columns where partial sums would
//! be large.

use super::transform::{self, POINTS};
use super::{Grid, MAX_ITEMS, Place, part_len, pixels, suits};
use crate::backend::cpu::conv::ConvGeometry;
use crate::backend::cpu::conv::pack::Columns;
use crate::backend::cpu::conv::taps::aligned;
use crate::backend::cpu::conv::window::Source;
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Loop, Tile};

/// Tiles per unit: a sum stays in registers for so many products before it is added to memory.
const UNIT: usize = 96;

/// The most floats of all partial sums (8 MB).
const PARTIAL_LIMIT: usize = 2 << 20;

/// The most partial sums.
const MAX_PARTIALS: usize = 16;

/// Columns of a range are a multiple of this: whole register tiles at every level.
const COLUMN_QUANTUM: usize = 48;

/// Work items aimed at: enough for several threads to end together.
const ITEMS: usize = 16;

/// A weight gradient ready to run.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu::conv) struct WeightGradient {
    level: Level,
    source: Source,
    output: Source,
    pad: (usize, usize),
    grid: Grid,
}

impl WeightGradient {
    /// `None` where the direct sum is better.
    pub(in crate::backend::cpu::conv) fn new(level: Level, g: &ConvGeometry) -> Option<WeightGradient> {
        suits(g).then(|| WeightGradient {
            level,
            source: Source { h: g.in_h, w: g.in_w, c: g.in_c },
            output: Source { h: g.out_h, w: g.out_w, c: g.out_c },
            pad: g.pad,
            grid: Grid::over(g.out_h, g.out_w),
        })
    }

    /// Floats of a transformed gradient.
    fn sum_len(&self) -> usize {
        POINTS * self.source.c * self.output.c
    }

    fn units(&self, n: usize) -> usize {
        self.grid.tiles(n).div_ceil(UNIT)
    }

    fn partials(&self, n: usize) -> usize {
        (PARTIAL_LIMIT / self.sum_len()).clamp(1, MAX_PARTIALS).min(self.units(n).div_ceil(2)).max(1)
    }

    /// Ranges of columns.
    fn ranges(&self, n: usize) -> usize {
        let quanta = self.output.c.div_ceil(COLUMN_QUANTUM);
        (ITEMS / self.partials(n)).clamp(1, quanta)
    }

    /// The columns of a range.
    fn range(&self, ranges: usize, index: usize) -> std::ops::Range<usize> {
        let quanta = threads::part(self.output.c.div_ceil(COLUMN_QUANTUM), ranges, index);
        quanta.start * COLUMN_QUANTUM..(quanta.end * COLUMN_QUANTUM).min(self.output.c)
    }

    /// Floats of one item's unit: transformed windows and gradients.
    fn unit_len(&self) -> usize {
        POINTS * (part_len(UNIT, self.source.c) + part_len(UNIT, self.output.c))
    }

    /// Scratch floats for any n up to `max_n`.
    pub(in crate::backend::cpu::conv) fn scratch(&self, max_n: usize) -> usize {
        let zeros = self.source.c.max(self.output.c);
        let items = ITEMS.max(self.partials(max_n)).min(MAX_ITEMS);
        16 + zeros + self.partials(max_n) * self.sum_len() + items * self.unit_len()
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
        if n == 0 {
            if !add {
                dw.fill(0.0);
            }
            return;
        }
        debug_assert!(scratch.len() >= self.scratch(n), "scratch: {} floats < {}", scratch.len(), self.scratch(n));
        let (partials, ranges) = (self.partials(n), self.ranges(n));
        let (zeros, rest) = aligned(scratch).split_at_mut(self.source.c.max(self.output.c));
        zeros.fill(0.0);
        let zeros = &*zeros;
        let (sums, rooms) = rest.split_at_mut(partials * self.sum_len());
        {
            let (sums, rooms) = (Disjoint::new(sums), Disjoint::new(rooms));
            threads::for_each_item(partials * ranges, |item| {
                let (partial, columns) = (item % partials, self.range(ranges, item / partials));
                // SAFETY: every item has its own room.
                let room = unsafe { rooms.slice(item * self.unit_len()..(item + 1) * self.unit_len()) };
                let to = sums.start().wrapping_add(partial * self.sum_len() + columns.start);
                let units = threads::part(self.units(n), partials, partial);
                for unit in units.clone() {
                    let tiles = unit * UNIT..((unit + 1) * UNIT).min(self.grid.tiles(n));
                    let count = tiles.len();
                    self.transform(tiles, x, dy, zeros, &columns, room);
                    self.multiply(room, count, columns.len(), to, unit > units.start);
                }
            });
        }
        self.finish(partials, sums, dw, add);
    }

    /// The transformed windows of some tiles, and behind them the transformed gradients of some columns.
    fn transform(
        &self,
        tiles: std::ops::Range<usize>,
        x: &[f32],
        dy: &[f32],
        zeros: &[f32],
        columns: &std::ops::Range<usize>,
        room: &mut [f32],
    ) {
        let (cin, width) = (self.source.c, columns.len());
        let (windows, gradients) = room.split_at_mut(POINTS * part_len(UNIT, cin));
        for (t, tile) in tiles.enumerate() {
            let Place { image, y, x: column } = self.grid.place(tile);
            let (top, left) = (y as isize - self.pad.0 as isize, column as isize - self.pad.1 as isize);
            let window = pixels::<4, POINTS>(x, self.source, (image, top, left), zeros);
            transform::source(self.level, &window, windows, part_len(UNIT, cin), t * cin);
            let pixels = pixels::<2, 4>(dy, self.output, (image, y as isize, column as isize), zeros);
            let pixels = pixels.map(|pixel| &pixel[columns.clone()]);
            transform::gradient(self.level, &pixels, gradients, part_len(UNIT, width), t * width);
        }
    }

    /// Adds the products of a unit to the sums from `to` on, or writes them.
    fn multiply(&self, room: &[f32], count: usize, width: usize, to: *mut f32, keep: bool) {
        let (cin, lanes) = (self.source.c, tile::lanes(self.level));
        let (windows, gradients) = room.split_at(POINTS * part_len(UNIT, cin));
        let blocks = Columns::new(width, self.level);
        let mut tile = Tile::empty();
        tile.finish = Finish::plain(keep);
        tile.inner = Loop { count, step: cin, skip: 0 };
        tile.ldb = width;
        for point in 0..POINTS {
            let window = &windows[point * part_len(UNIT, cin)..][..count * cin];
            let gradient = &gradients[point * part_len(UNIT, width)..][..count * width];
            for block in (0..blocks.blocks()).map(|index| blocks.block(index)) {
                tile.b = gradient[block.first..].as_ptr();
                tile.last_columns = block.last_columns(lanes);
                let at_most = tile::tile_rows(self.level, block.vectors);
                for row in (0..cin).step_by(at_most) {
                    tile.rows = at_most.min(cin - row);
                    for r in 0..tile.rows {
                        tile.a[r] = window[row + r..].as_ptr();
                        tile.c[r] = to.wrapping_add((point * cin + row + r) * self.output.c + block.first);
                    }
                    // SAFETY: windows and gradients have `count` rows of `cin` and `width` floats; the item's columns of
                    // its partial sum are its own, written before they are added to; the level was checked when the pass
                    // began.
                    unsafe { tile::run(self.level, block.vectors, &tile) }
                }
            }
        }
    }

    /// Adds the partial sums in order and transforms them back, a row of input channels at a time.
    fn finish(&self, partials: usize, sums: &mut [f32], dw: &mut [f32], add: bool) {
        let (cin, cout) = (self.source.c, self.output.c);
        let (sum_len, dw) = (self.sum_len(), Disjoint::new(dw));
        let sums = Disjoint::new(sums);
        let items = threads::items_for(4 * partials * sum_len).min(cin);
        threads::for_each_item(items, |item| {
            for c in threads::part(cin, items, item) {
                let row = |partial: usize, point: usize| {
                    let start = partial * sum_len + (point * cin + c) * cout;
                    start..start + cout
                };
                for point in 0..POINTS {
                    // SAFETY: rows of different input channels are different items'.
                    let total = unsafe { sums.slice(row(0, point)) };
                    for partial in 1..partials {
                        // SAFETY: as above.
                        add_row(self.level, total, unsafe { sums.slice(row(partial, point)) });
                    }
                }
                // SAFETY: as above; nothing is written to them any more.
                let points: [&[f32]; POINTS] = std::array::from_fn(|point| unsafe { &*sums.slice(row(0, point)) });
                let taps = std::array::from_fn(|tap| {
                    let start = (tap * cin + c) * cout;
                    // SAFETY: as above.
                    unsafe { dw.slice(start..start + cout) }
                });
                transform::dkernel(self.level, &points, taps, add);
            }
        });
    }
}

crate::multiversion! {
    /// total ← total + more.
    fn add_row(total: &mut [f32], more: &[f32]) {
        total.iter_mut().zip(more).for_each(|(total, more)| *total += more);
    }
}
