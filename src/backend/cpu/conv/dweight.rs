//! The weight gradient: dw[tap, c][o] = Σ over pixels of x[pixel·s + tap][c]·dy[pixel][o].
//!
//! Rows of the tile are (kernel row, kernel column, channel), k runs over the pixels of a unit, and dy serves as B
//! where it lies. A tile under one tap visits only the pixels whose input lies inside the image; images of few
//! channels, where tiles need several taps, are padded instead. Units are dealt to a few partial sums, fixed by the
//! shape, that are added in order at the end; large weights get fewer partial sums and are cut into tiles of rows and
//! columns instead.

use super::ConvGeometry;
use super::pack::{Columns, groups_in_a_vector};
use super::taps::aligned;
use super::window::{Source, Span, Unit, Units, View, inside};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Loop, Run, Spread, Tile};
use std::ops::Range;

/// Output pixels per unit: sums stay in registers for so many k before they are added to memory.
const UNIT_PIXELS: usize = 192;

/// The most floats of x in a unit (512 KB). It is read a row of tiles at a time, so that it may leave the second-level
/// cache; more pixels per unit count for more, because every unit reads and writes all of dw.
const WINDOW_LIMIT: usize = 128 * 1024;

/// Channels per group from which on a tile's rows lie under one tap; with fewer they go over to the next one, which
/// needs padding.
const CLIPPED_CHANNELS: usize = 8;

/// The most floats of all partial sums (4 MB).
const PARTIAL_LIMIT: usize = 1 << 20;

/// The most work items; each has a window.
pub(super) const MAX_ITEMS: usize = 32;

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
    /// Groups whose columns share a vector; they are computed as one bundle.
    bundle: usize,
    /// Output channels of a bundle.
    columns_of_bundle: usize,
    columns: Columns,
    units: Units,
    in_place: bool,
    /// Whether each tap visits only the pixels whose input lies inside the image, so that nothing is padded.
    clipped: bool,
}

/// How the work is dealt: partial sums × row tiles × column tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deal {
    pub partials: usize,
    pub by_row: usize,
    pub by_block: usize,
}

impl Deal {
    pub(super) fn items(&self) -> usize {
        self.partials * self.by_row * self.by_block
    }
}

impl WeightGradient {
    pub(super) fn new(level: Level, geometry: &ConvGeometry) -> WeightGradient {
        let g = *geometry;
        let source = Source { h: g.in_h, w: g.in_w, c: g.in_c };
        let (rows, columns) = (span_y(&g, 0..g.out_h), span_x(&g));
        let bundle = groups_in_a_vector(level, g.groups, g.out_c / g.groups);
        let columns_of_bundle = bundle * g.out_c / g.groups;
        let in_place = rows.is_inside(g.in_h) && columns.is_inside(g.in_w);
        WeightGradient {
            level,
            geometry: g,
            source,
            in_group: g.in_c / g.groups,
            bundle,
            columns_of_bundle,
            columns: Columns::new(columns_of_bundle, level),
            units: Units::new(UNIT_PIXELS, WINDOW_LIMIT, (g.out_h, g.out_w), columns.len * g.in_c, |rows| {
                span_y(&g, 0..rows).len
            }),
            in_place,
            clipped: !in_place && g.in_c / g.groups >= CLIPPED_CHANNELS,
        }
    }

    /// Rows of dw in one group.
    fn rows(&self) -> usize {
        self.geometry.kernel.0 * self.geometry.kernel.1 * self.in_group
    }

    fn blocks(&self) -> usize {
        self.geometry.groups / self.bundle * self.columns.blocks()
    }

    fn window_len(&self, n: usize) -> usize {
        if self.in_place || self.clipped {
            return 0;
        }
        let rows = span_y(&self.geometry, 0..self.units.rows).len;
        (self.units.images.min(n) * rows * span_x(&self.geometry).len * self.source.c).next_multiple_of(16)
    }

    /// Partial sums that the memory limit and the number of units allow; independent of how the rest is dealt.
    fn most_partials(&self, n: usize) -> usize {
        most_partials(self.geometry.weight_len()).min(self.units.count(n)).max(1)
    }

    fn deal(&self, n: usize) -> Deal {
        let items = threads::items_for(self.geometry.flops(n));
        let partials = self.most_partials(n).min(items);
        if partials >= MAX_PARTIALS {
            return Deal { partials, by_row: 1, by_block: 1 };
        }
        let tiles = (items / partials).min(MAX_ITEMS / partials).max(1);
        let by_block = self.blocks().min(tiles);
        let by_row = (tiles / by_block).min(self.rows().div_ceil(ROW_QUANTUM)).max(1);
        Deal { partials, by_row, by_block }
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        let windows = self.window_len(max_n) * MAX_ITEMS;
        partial_len(self.most_partials(max_n), self.geometry.weight_len()) + 16 + windows
    }

    pub(super) fn run(&self, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32], add: bool, scratch: &mut [f32]) {
        debug_assert!(scratch.len() >= self.scratch(n), "scratch: {} floats < {}", scratch.len(), self.scratch(n));
        let deal = self.deal(n);
        run_in_partials(self.level, deal.partials, dw, add, scratch, |sums, add, windows| {
            self.sum_units(n, x, dy, sums, add, deal, &mut windows[..self.window_len(n) * deal.items()]);
        });
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
                let pass = self.pass(&unit, x, dy, window, to, add || index > units.start);
                for block in blocks.clone() {
                    self.add_unit(&pass, block, rows.clone());
                }
            }
        });
    }

    /// What the tiles of a unit share.
    fn pass<'a>(
        &self,
        unit: &'a Unit,
        x: &[f32],
        dy: &'a [f32],
        window: &mut [f32],
        to: *mut f32,
        add: bool,
    ) -> Pass<'a> {
        let g = &self.geometry;
        let view = if self.in_place || self.clipped {
            self.source.in_place(x, unit.images.start)
        } else {
            let (rows, columns) = (span_y(g, unit.rows.clone()), span_x(g));
            self.source.padded(x, unit.images.clone(), rows, columns, window)
        };
        let dy = &dy[(unit.images.start * g.out_h + unit.rows.start) * g.out_w * g.out_c..];
        Pass { unit, view, dy, to, add }
    }

    /// Adds one unit's pixels to some rows and one block of columns of dw.
    fn add_unit(&self, pass: &Pass, block: usize, rows: Range<usize>) {
        let (bundle, block) = (block / self.columns.blocks(), self.columns.block(block % self.columns.blocks()));
        let column = bundle * self.columns_of_bundle + block.first;
        let mut tile = Tile::empty();
        tile.ldb = self.geometry.out_c;
        if self.bundle > 1 {
            let run = match Spread::run_of(self.in_group) {
                1 => Run::Depth(1),
                run => Run::Rows(run),
            };
            tile.spread = Spread { parts: self.bundle, step: self.in_group, run };
        }
        tile.last_columns = block.last_columns(tile::lanes(self.level));
        tile.finish = Finish::plain(pass.add);
        let at_most = tile.spread.tile_rows(self.level, block.vectors);
        let mut tap = TapRows::new(self, bundle, pass.view.row, rows.start);
        let mut pixels = self.pixels(pass, &tap, column, &mut tile);
        let mut row = rows.start;
        while row < rows.end {
            tile.rows = at_most.min(rows.end - row);
            if self.clipped {
                tile.rows = tile.rows.min(tap.channels - tap.c);
                if tap.c == 0 {
                    pixels = self.pixels(pass, &tap, column, &mut tile);
                }
            }
            for r in 0..tile.rows {
                tile.a[r] = pixels.wrapping_add(tap.offset());
                tile.c[r] = pass.to.wrapping_add((row + r) * self.geometry.out_c + column);
                tap.advance();
            }
            row += tile.rows;
            // SAFETY: the view covers the tile's taps of all pixels that the loops visit; dy has one row per pixel, in
            // their order; these rows × columns of this partial sum belong to this work item alone. `run`'s caller
            // checked the lengths of all slices and that the machine has the level.
            unsafe { tile::run(self.level, block.vectors, &tile) }
        }
    }

    /// Sets the loops of `tile` to a unit's pixels, and its B to dy; returns where x lies for the first of them under
    /// tap (0, 0), channel 0. Clipped, these are the pixels whose input under `tap` lies inside the image.
    fn pixels(&self, pass: &Pass, tap: &TapRows, column: usize, tile: &mut Tile) -> *const f32 {
        let g = &self.geometry;
        let (unit, view) = (pass.unit, &pass.view);
        let top = (unit.rows.start * g.stride.0) as isize - g.pad.0 as isize - view.top;
        let left = -(g.pad.1 as isize) - view.left;
        let (mut rows, mut columns) = (0..unit.rows.len(), 0..g.out_w);
        if self.clipped {
            rows = inside(top + (tap.ky * g.dilation.0) as isize, g.stride.0, rows.len(), g.in_h);
            columns = inside(left + (tap.kx * g.dilation.1) as isize, g.stride.1, columns.len(), g.in_w);
        }
        let (step_y, step_x) = (g.stride.0 * view.row, g.stride.1 * self.source.c);
        let skip = |all: usize, visited: &Range<usize>, each: usize| (all - visited.len()) * each * g.out_c;
        let image = Loop { count: unit.images.len(), step: view.image, skip: skip(unit.rows.len(), &rows, g.out_w) };
        let row = Loop { count: rows.len(), step: step_y, skip: skip(g.out_w, &columns, 1) };
        let pixel = Loop { count: columns.len(), step: step_x, skip: 0 };
        [tile.outer, tile.middle, tile.inner] = match merge(row, pixel) {
            Some(pixel) => merge(image, pixel).map_or([Loop::ONCE, image, pixel], |all| [Loop::ONCE, Loop::ONCE, all]),
            None => [image, row, pixel],
        };
        tile.b = pass.dy.as_ptr().wrapping_add((rows.start * g.out_w + columns.start) * g.out_c + column);
        let corner = top * view.row as isize + left * self.source.c as isize;
        view.start.wrapping_offset(corner).wrapping_add(rows.start * step_y + columns.start * step_x)
    }
}

/// Two nested loops as one, if the strides allow it.
fn merge(outer: Loop, inner: Loop) -> Option<Loop> {
    let even = inner.count == 1 || outer.count == 1 || outer.step == inner.count * inner.step;
    let step = if inner.count == 1 { outer.step } else { inner.step };
    (outer.skip == 0 && even).then_some(Loop { count: outer.count * inner.count, step, skip: 0 })
}

/// A unit's pixels, and the dw or partial sum that they are added to.
struct Pass<'a> {
    unit: &'a Unit,
    view: View,
    /// dy from the unit's first pixel on.
    dy: &'a [f32],
    to: *mut f32,
    add: bool,
}

/// Walks the rows of dw in one bundle: (kernel row, kernel column, channel), as offsets into a view.
struct TapRows {
    kernel_w: usize,
    channels: usize,
    step_y: usize,
    step_x: usize,
    /// The bundle's first channel.
    first: usize,
    ky: usize,
    kx: usize,
    c: usize,
}

impl TapRows {
    fn new(of: &WeightGradient, bundle: usize, x_row: usize, row: usize) -> TapRows {
        let g = &of.geometry;
        let (tap, c) = (row / of.in_group, row % of.in_group);
        TapRows {
            kernel_w: g.kernel.1,
            channels: of.in_group,
            step_y: g.dilation.0 * x_row,
            step_x: g.dilation.1 * g.in_c,
            first: bundle * of.bundle * of.in_group,
            ky: tap / g.kernel.1,
            kx: tap % g.kernel.1,
            c,
        }
    }

    fn offset(&self) -> usize {
        self.ky * self.step_y + self.kx * self.step_x + self.first + self.c
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

/// Partial sums of so many weights that the memory limit allows.
pub(super) fn most_partials(weight_len: usize) -> usize {
    (PARTIAL_LIMIT / weight_len.max(1)).clamp(1, MAX_PARTIALS)
}

/// Scratch floats of the partial sums, whole cache lines; a single one is dw itself.
pub(super) fn partial_len(partials: usize, weight_len: usize) -> usize {
    if partials > 1 { (partials * weight_len).next_multiple_of(16) } else { 0 }
}

/// Has `sum(sums, add, rest of the scratch)` fill the partial sums, `partials` times the size of dw, and adds them up.
pub(super) fn run_in_partials(
    level: Level,
    partials: usize,
    dw: &mut [f32],
    add: bool,
    scratch: &mut [f32],
    sum: impl FnOnce(&mut [f32], bool, &mut [f32]),
) {
    let (sums, rest) = aligned(scratch).split_at_mut(partial_len(partials, dw.len()));
    if partials == 1 {
        return sum(dw, add, rest);
    }
    let sums = &mut sums[..partials * dw.len()];
    sum(sums, false, rest);
    add_partials(level, sums, dw, add);
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
