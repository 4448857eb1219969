//! The weight gradient: dw[tap, c][o] = Σ over pixels of x[pixel·s + tap][c]·dy[pixel][o].
//!
//! Rows of the tile are (kernel row, kernel column, channel), k runs over the pixels of a unit, and dy serves as B
//! where it lies. Units are dealt to a few partial sums, fixed by the shape, that are added in order at the end;
//! large weights get fewer partial sums and are cut into tiles of rows and columns instead.

use super::ConvGeometry;
use super::pack::Columns;
use super::taps::aligned;
use super::window::{Source, Span, Unit, Units, View};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Loop, Tile};
use std::ops::Range;

/// Output pixels per unit: sums stay in registers for so many k before they are added to memory.
const UNIT_PIXELS: usize = 192;

/// The most floats of all partial sums (16 MB).
const PARTIAL_LIMIT: usize = 4 << 20;

/// The most partial sums.
const MAX_PARTIALS: usize = 16;

/// Rows of dw are dealt to work items in multiples of this: whole tiles at every level.
const ROW_QUANTUM: usize = 24;

/// Below this many weights, partial sums are added by one thread; above, in chunks of this size.
const REDUCE_CHUNK: usize = 16 * 1024;

/// A weight gradient ready to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightGradient {
    level: Level,
    geometry: ConvGeometry,
    source: Source,
    /// Input channels per group.
    in_group: usize,
    out_group: usize,
    columns: Columns,
    units: Units,
    in_place: bool,
}

/// How the work is dealt: partial sums × row tiles × column tiles.
#[derive(Clone, Copy, Debug)]
struct Deal {
    partials: usize,
    by_row: usize,
    by_block: usize,
}

impl Deal {
    fn items(&self) -> usize {
        self.partials * self.by_row * self.by_block
    }
}

impl WeightGradient {
    pub(super) fn new(level: Level, geometry: &ConvGeometry) -> WeightGradient {
        let g = *geometry;
        let source = Source { h: g.in_h, w: g.in_w, c: g.in_c };
        let (rows, columns) = (span_y(&g, 0..g.out_h), span_x(&g));
        let out_group = g.out_c / g.groups;
        WeightGradient {
            level,
            geometry: g,
            source,
            in_group: g.in_c / g.groups,
            out_group,
            columns: Columns::new(out_group, tile::lanes(level)),
            units: Units::new(UNIT_PIXELS, (g.out_h, g.out_w), columns.len * g.in_c, |rows| span_y(&g, 0..rows).len),
            in_place: rows.is_inside(g.in_h) && columns.is_inside(g.in_w),
        }
    }

    /// Rows of dw in one group.
    fn rows(&self) -> usize {
        self.geometry.kernel.0 * self.geometry.kernel.1 * self.in_group
    }

    fn blocks(&self) -> usize {
        self.geometry.groups * self.columns.blocks()
    }

    fn window_len(&self, n: usize) -> usize {
        if self.in_place {
            return 0;
        }
        let rows = span_y(&self.geometry, 0..self.units.rows).len;
        (self.units.images.min(n) * rows * span_x(&self.geometry).len * self.source.c).next_multiple_of(16)
    }

    /// Partial sums that the memory limit and the number of units allow; independent of how the rest is dealt.
    fn most_partials(&self, n: usize) -> usize {
        (PARTIAL_LIMIT / self.geometry.weight_len().max(1)).clamp(1, MAX_PARTIALS).min(self.units.count(n)).max(1)
    }

    fn deal(&self, n: usize) -> Deal {
        let items = threads::items_for(self.geometry.flops(n));
        let partials = self.most_partials(n).min(items);
        if partials >= MAX_PARTIALS {
            return Deal { partials, by_row: 1, by_block: 1 };
        }
        let tiles = (items / partials).min(threads::MAX_ITEMS / 2 / partials).max(1);
        let by_block = self.blocks().min(tiles);
        let by_row = (tiles / by_block).min(self.rows().div_ceil(ROW_QUANTUM)).max(1);
        Deal { partials, by_row, by_block }
    }

    /// Floats of the partial sums; a single one is dw itself.
    fn partial_len(&self, partials: usize) -> usize {
        if partials > 1 { partials * self.geometry.weight_len() } else { 0 }
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        let windows = self.window_len(max_n) * threads::MAX_ITEMS;
        self.partial_len(self.most_partials(max_n)) + 16 + windows
    }

    pub(super) fn run(&self, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32], add: bool, scratch: &mut [f32]) {
        if n == 0 || dw.is_empty() {
            if !add {
                dw.fill(0.0);
            }
            return;
        }
        debug_assert!(scratch.len() >= self.scratch(n), "scratch: {} floats < {}", scratch.len(), self.scratch(n));
        let deal = self.deal(n);
        let (windows, rest) = aligned(scratch).split_at_mut(self.window_len(n) * deal.items());
        let partials = &mut rest[..self.partial_len(deal.partials)];
        if deal.partials == 1 {
            return self.sum_units(n, x, dy, dw, add, deal, windows);
        }
        self.sum_units(n, x, dy, partials, false, deal, windows);
        add_partials(self.level, partials, dw, add);
    }

    /// Fills the partial sums (`deal.partials` times the size of dw).
    #[allow(clippy::too_many_arguments)]
    fn sum_units(&self, n: usize, x: &[f32], dy: &[f32], sums: &mut [f32], add: bool, deal: Deal, windows: &mut [f32]) {
        let window = self.window_len(n);
        let (windows, sums) = (Disjoint::new(windows), Disjoint::new(sums));
        let quanta = self.rows().div_ceil(ROW_QUANTUM);
        threads::for_each_item(deal.items(), |item| {
            // SAFETY: every item has its own window.
            let window = unsafe { windows.slice(item * window..(item + 1) * window) };
            let (partial, tile) = (item % deal.partials, item / deal.partials);
            let rows = threads::part(quanta, deal.by_row, tile % deal.by_row);
            let rows = rows.start * ROW_QUANTUM..(rows.end * ROW_QUANTUM).min(self.rows());
            let blocks = threads::part(self.blocks(), deal.by_block, tile / deal.by_row);
            let to = sums.start().wrapping_add(partial * self.geometry.weight_len());
            let units = threads::part(self.units.count(n), deal.partials, partial);
            for index in units.clone() {
                let unit = self.units.unit(index, n);
                let view = self.view(x, &unit, window);
                for block in blocks.clone() {
                    self.add_unit(&unit, &view, dy, block, rows.clone(), to, add || index > units.start);
                }
            }
        });
    }

    fn view(&self, x: &[f32], unit: &Unit, window: &mut [f32]) -> View {
        if self.in_place {
            return self.source.in_place(x, unit.images.start);
        }
        let (rows, columns) = (span_y(&self.geometry, unit.rows.clone()), span_x(&self.geometry));
        self.source.padded(x, unit.images.clone(), rows, columns, window)
    }

    /// One unit's pixels, for some rows and one block of columns of dw at `to`.
    #[allow(clippy::too_many_arguments)]
    fn add_unit(
        &self,
        unit: &Unit,
        view: &View,
        dy: &[f32],
        block: usize,
        rows: Range<usize>,
        to: *mut f32,
        add: bool,
    ) {
        let g = &self.geometry;
        let (group, block) = (block / self.columns.blocks(), self.columns.block(block % self.columns.blocks()));
        let column = group * self.out_group + block.first;
        let first_pixel = (unit.images.start * g.out_h + unit.rows.start) * g.out_w;
        let mut tile = Tile::empty();
        [tile.outer, tile.middle, tile.inner] = self.pixel_loops(unit, view);
        tile.b = dy[first_pixel * g.out_c + column..].as_ptr();
        tile.ldb = g.out_c;
        tile.last_columns = block.last_columns(tile::lanes(self.level));
        tile.finish = Finish::plain(add);
        // The source position of the unit's first pixel under tap (0, 0).
        let top = (unit.rows.start * g.stride.0) as isize - g.pad.0 as isize - view.top;
        let left = -(g.pad.1 as isize) - view.left;
        let origin = (top * view.row as isize + left * self.source.c as isize) as usize + group * self.in_group;
        let at_most = tile::tile_rows(self.level, block.vectors);
        let mut from = TapRows::new(self, view, rows.start);
        for first in rows.clone().step_by(at_most) {
            tile.rows = at_most.min(rows.end - first);
            for r in 0..tile.rows {
                tile.a[r] = view.start.wrapping_add(origin + from.offset());
                tile.c[r] = to.wrapping_add((first + r) * g.out_c + column);
                from.advance();
            }
            // SAFETY: the view covers the spans of all taps of the unit's pixels; dy has one row per pixel, in the
            // order of the loops; these rows × columns of this partial sum belong to this work item alone. `run`'s
            // caller checked the lengths of all slices and that the machine has the level.
            unsafe { tile::run(self.level, block.vectors, &tile) }
        }
    }

    /// The pixels of a unit in the order of dy, with as few nested loops as its strides allow.
    fn pixel_loops(&self, unit: &Unit, view: &View) -> [Loop; 3] {
        let g = &self.geometry;
        let image = Loop { count: unit.images.len(), step: view.image };
        let row = Loop { count: unit.rows.len(), step: g.stride.0 * view.row };
        let pixel = Loop { count: g.out_w, step: g.stride.1 * self.source.c };
        match merge(row, pixel) {
            Some(pixel) => merge(image, pixel).map_or([Loop::ONCE, image, pixel], |all| [Loop::ONCE, Loop::ONCE, all]),
            None => merge(image, row).map_or([image, row, pixel], |row| [Loop::ONCE, row, pixel]),
        }
    }
}

/// Two nested loops as one, if the strides allow it.
fn merge(outer: Loop, inner: Loop) -> Option<Loop> {
    if inner.count == 1 {
        return Some(outer);
    }
    let even = outer.count == 1 || outer.step == inner.count * inner.step;
    even.then_some(Loop { count: outer.count * inner.count, step: inner.step })
}

/// Walks the rows of dw: (kernel row, kernel column, channel), as offsets into a view.
struct TapRows {
    kernel_w: usize,
    channels: usize,
    step_y: usize,
    step_x: usize,
    ky: usize,
    kx: usize,
    c: usize,
}

impl TapRows {
    fn new(of: &WeightGradient, view: &View, row: usize) -> TapRows {
        let g = &of.geometry;
        let (tap, c) = (row / of.in_group, row % of.in_group);
        TapRows {
            kernel_w: g.kernel.1,
            channels: of.in_group,
            step_y: g.dilation.0 * view.row,
            step_x: g.dilation.1 * g.in_c,
            ky: tap / g.kernel.1,
            kx: tap % g.kernel.1,
            c,
        }
    }

    fn offset(&self) -> usize {
        self.ky * self.step_y + self.kx * self.step_x + self.c
    }

    fn advance(&mut self) {
        self.c += 1;
        if self.c == self.channels {
            (self.c, self.kx) = (0, self.kx + 1);
            if self.kx == self.kernel_w {
                (self.kx, self.ky) = (0, self.ky + 1);
            }
        }
    }
}

/// Input rows under output rows `range`.
fn span_y(g: &ConvGeometry, range: Range<usize>) -> Span {
    Span {
        start: (range.start * g.stride.0) as isize - g.pad.0 as isize,
        len: (range.len() - 1) * g.stride.0 + (g.kernel.0 - 1) * g.dilation.0 + 1,
    }
}

/// Input columns under all output columns.
fn span_x(g: &ConvGeometry) -> Span {
    Span { start: -(g.pad.1 as isize), len: (g.out_w - 1) * g.stride.1 + (g.kernel.1 - 1) * g.dilation.1 + 1 }
}

/// `to` ← [`to` +] Σ of the partial sums, always in the same order.
pub(super) fn add_partials(level: Level, partials: &[f32], to: &mut [f32], add: bool) {
    let len = to.len();
    let chunks = len.div_ceil(REDUCE_CHUNK);
    let to = Disjoint::new(to);
    threads::for_each_item(chunks, |chunk| {
        let range = chunk * REDUCE_CHUNK..((chunk + 1) * REDUCE_CHUNK).min(len);
        // SAFETY: every item has its own chunk.
        let to = unsafe { to.slice(range.clone()) };
        if !add {
            to.fill(0.0);
        }
        for partial in partials.chunks_exact(len) {
            add_assign(level, to, &partial[range.clone()]);
        }
    });
}

crate::multiversion! {
    /// to ← to + from.
    fn add_assign(to: &mut [f32], from: &[f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }
}
