//! The engine of forward and input gradient: a convolution as sums over taps of a padded source window.
//!
//! The destination is computed phase by phase (see [`axis`](super::axis)); pixels that no tap reaches get 0. A tile's
//! rows are either neighbouring pixels, over a padded window of the source; or, for small images in large batches,
//! one pixel of several images: they see the same taps inside the image, so that nothing is padded and nothing
//! multiplied by padding (31 % of the work at 4 × 4 pixels with a 3 × 3 kernel).

use super::axis::{Axis, Direction, Phase};
use super::depth::{Depth, Part};
use super::pack::{Block, Columns, groups_in_a_vector, pack_rows, pack_transposed};
use super::window::{Source, Unit, Units, View, inside};
use super::{Activation, ConvGeometry, Epilogue, Finisher};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Repeat, Run, Spread, Tile};
use std::ops::Range;

/// Output pixels per unit of work: enough that a panel of weights fetched into the second-level cache pays.
const UNIT_PIXELS: usize = 64;

/// The most floats of a window (256 KB): beside a panel of weights it stays in a core's second-level cache.
const WINDOW_LIMIT: usize = 64 * 1024;

/// Rows that are whole tiles at each level: units of many images have a multiple of it.
const WHOLE_TILES: usize = 24;

/// Images per unit where tiles hold one pixel of several images: whole tiles at most levels.
const POSITION_IMAGES: usize = 16;

/// The smallest batch and the largest grid for such tiles.
const POSITION_BATCH: usize = 8;
const POSITION_PIXELS: usize = 256;

/// The largest grid for them where channels are in groups: sums are short then, so that it counts for more that images lie
/// far from each other.
const POSITION_PIXELS_OF_GROUPS: usize = 64;

/// k per pass over a panel of weights; 1024·48 floats leave room for the window in the second-level cache.
pub(super) const PANEL_ROWS: usize = 1024;

/// Weights of bundles that a tile computes one after the other: few enough floats that they stay in the first-level cache.
const TOGETHER: usize = 4 * 1024;

/// Up to this many output pixels, weights are read where they are: packing them would cost as much as using them.
const UNPACKED_PIXELS: usize = 32;

/// Below this many weights, they are packed by one thread.
const PARALLEL_PACK: usize = 128 * 1024;

/// A convolution ready to run in one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct TapConvolution {
    level: Level,
    geometry: ConvGeometry,
    direction: Direction,
    y: Axis,
    x: Axis,
    source: Source,
    /// Channels of the destination.
    destination_c: usize,
    /// Channels of the source in one group.
    source_group: usize,
    /// Groups whose columns share a vector; they are computed as one bundle.
    bundle: usize,
    /// Channels of the destination in one bundle.
    columns_of_bundle: usize,
    columns: Columns,
    units: Units,
    /// Whether the source can be read without padding.
    in_place: bool,
}

/// Where a tile finds its weights: panels packed by [`TapConvolution::pack`], or the weights themselves.
#[derive(Clone, Copy)]
enum Weights<'a> {
    Packed(&'a [f32]),
    InPlace(&'a [f32]),
}

/// The weights of one block of columns for one phase, and of so many bundles behind it, each `step` floats further.
#[derive(Clone, Copy)]
struct Panel {
    start: *const f32,
    row: usize,
    count: usize,
    step: usize,
}

/// What a unit's tiles share.
struct UnitContext<'a> {
    unit: Unit,
    view: View,
    destination: Disjoint<'a>,
    epilogue: Epilogue<'a>,
    /// Whether a tile holds one pixel of several images.
    by_position: bool,
}

impl UnitContext<'_> {
    /// The residual of the destination's first float, or null.
    fn residual(&self) -> *const f32 {
        self.epilogue.tail.residual.map_or(std::ptr::null(), <[f32]>::as_ptr)
    }
}

/// One pass over a unit: a phase, the columns of a block, a part of k.
struct Pass<'a> {
    y: &'a Phase,
    x: &'a Phase,
    rows: Range<usize>,
    block: &'a Block,
    depth: &'a Depth,
    part: Part,
    panel: Panel,
    /// First channel of the bundle in the source; first column in the destination.
    channel: usize,
    column: usize,
}

impl TapConvolution {
    pub(super) fn new(level: Level, geometry: &ConvGeometry, direction: Direction) -> TapConvolution {
        let g = geometry;
        let input = Source { h: g.in_h, w: g.in_w, c: g.in_c };
        let output = Source { h: g.out_h, w: g.out_w, c: g.out_c };
        let (source, destination) = match direction {
            Direction::Forward => (input, output),
            Direction::InputGradient => (output, input),
        };
        let y = Axis {
            direction,
            destination: destination.h,
            kernel: g.kernel.0,
            stride: g.stride.0,
            pad: g.pad.0,
            dilation: g.dilation.0,
        };
        let x = Axis {
            direction,
            destination: destination.w,
            kernel: g.kernel.1,
            stride: g.stride.1,
            pad: g.pad.1,
            dilation: g.dilation.1,
        };
        let columns = x.span(0..x.grid());
        let bundle = groups_in_a_vector(level, g.groups, destination.c / g.groups);
        let columns_of_bundle = bundle * destination.c / g.groups;
        let in_place = y.span(0..y.grid()).is_inside(source.h) && columns.is_inside(source.w);
        let limit = if in_place { 2 * WINDOW_LIMIT } else { WINDOW_LIMIT };
        let mut units =
            Units::new(UNIT_PIXELS, limit, (y.grid(), x.grid()), columns.len * source.c, |rows| y.span(0..rows).len);
        if units.images > WHOLE_TILES {
            units.images -= units.images % WHOLE_TILES;
        }
        TapConvolution {
            level,
            geometry: *g,
            direction,
            y,
            x,
            source,
            destination_c: destination.c,
            source_group: source.c / g.groups,
            bundle,
            columns_of_bundle,
            columns: Columns::new(columns_of_bundle, level),
            units,
            in_place,
        }
    }

    /// k of one destination value, over all phases.
    fn depth(&self) -> usize {
        self.geometry.kernel.0 * self.geometry.kernel.1 * self.source_group
    }

    /// Floats of the packed weights.
    pub(super) fn packed_len(&self) -> usize {
        self.bundles() * self.depth() * self.columns.padded()
    }

    fn bundles(&self) -> usize {
        self.geometry.groups / self.bundle
    }

    /// Whether tiles hold one pixel of several images in batches of `n`.
    fn by_position(&self, n: usize) -> bool {
        n >= POSITION_BATCH && self.has_positions()
    }

    fn has_positions(&self) -> bool {
        let most = if self.geometry.groups > 1 { POSITION_PIXELS_OF_GROUPS } else { POSITION_PIXELS };
        !self.in_place && self.y.grid() * self.x.grid() <= most
    }

    fn units(&self, n: usize) -> Units {
        if self.by_position(n) { Units::whole(POSITION_IMAGES, self.y.grid()) } else { self.units }
    }

    /// Floats of one work item's window.
    fn window_len(&self, n: usize) -> usize {
        if self.in_place || self.by_position(n) {
            return 0;
        }
        let rows = self.y.span(0..self.units.rows).len;
        let columns = self.x.span(0..self.x.grid()).len;
        (self.units.images.min(n) * rows * columns * self.source.c).next_multiple_of(16)
    }

    /// Blocks of columns over all bundles.
    fn blocks(&self) -> usize {
        self.bundles() * self.columns.blocks()
    }

    /// Bundles that run together: more than one where a bundle is one block, short enough that what leads to a tile counts.
    fn together(&self) -> usize {
        let bundle = self.depth() * self.columns.padded();
        if self.columns.blocks() > 1 { 1 } else { (TOGETHER / bundle.max(1)).clamp(1, self.bundles()) }
    }

    /// Work items as (parts of the units, parts of the blocks): units first, blocks too where units are few. Each part of
    /// the blocks copies its window for itself: there are no more of them than threads can use. No sum depends on it.
    fn items(&self, n: usize) -> (usize, usize) {
        let items = threads::items_for(self.geometry.flops(n));
        let by_unit = self.units(n).count(n).min(items);
        let by_block = if by_unit >= 16 { 1 } else { (items / by_unit).min(16).min(self.blocks()) };
        let useful = if threads::available() > 1 { 2 * threads::available() } else { 1 };
        (by_unit, by_block.min(threads::MAX_ITEMS / by_unit).min(useful))
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        let most = if self.has_positions() { max_n.min(POSITION_BATCH - 1) } else { max_n };
        let items = (self.units.count(most) * self.blocks()).min(threads::MAX_ITEMS);
        self.packed_len() + 16 + self.window_len(most) * items
    }

    /// Runs over `n` images.
    pub(super) fn run(
        &self,
        n: usize,
        source: &[f32],
        weights: &[f32],
        destination: &mut [f32],
        epilogue: Epilogue,
        scratch: &mut [f32],
    ) {
        if n == 0 || destination.is_empty() {
            return;
        }
        debug_assert!(scratch.len() >= self.scratch(n), "scratch: {} floats < {}", scratch.len(), self.scratch(n));
        let (packed, windows) = aligned(scratch).split_at_mut(self.packed_len());
        let weights = self.place_weights(n, weights, packed);
        self.run_on(n, source, weights, destination, epilogue, windows);
    }

    /// Scratch floats of [`TapConvolution::run_packed`] for any n up to `max_n`.
    pub(super) fn packed_scratch(&self, max_n: usize) -> usize {
        self.scratch(max_n) - self.packed_len()
    }

    /// Runs over `n` images with weights that [`TapConvolution::pack_all`] has packed.
    pub(super) fn run_packed(
        &self,
        n: usize,
        source: &[f32],
        packed: &[f32],
        destination: &mut [f32],
        epilogue: Epilogue,
        scratch: &mut [f32],
    ) {
        if n > 0 && !destination.is_empty() {
            assert_eq!(packed.len(), self.packed_len(), "weights packed for this convolution");
            self.run_on(n, source, Weights::Packed(packed), destination, epilogue, aligned(scratch));
        }
    }

    fn run_on(
        &self,
        n: usize,
        source: &[f32],
        weights: Weights,
        destination: &mut [f32],
        epilogue: Epilogue,
        windows: &mut [f32],
    ) {
        let (by_unit, by_block) = self.items(n);
        let (window, units, by_position) = (self.window_len(n), self.units(n), self.by_position(n));
        let windows = Disjoint::new(&mut windows[..window * by_unit * by_block]);
        let destination = Disjoint::new(destination);
        threads::for_each_item(by_unit * by_block, |item| {
            // SAFETY: every item has its own window.
            let window = unsafe { windows.slice(item * window..(item + 1) * window) };
            let blocks = threads::part(self.blocks(), by_block, item % by_block);
            for index in threads::part(units.count(n), by_unit, item / by_block) {
                let unit = units.unit(index, n);
                let view = if self.in_place || by_position {
                    self.source.in_place(source, unit.images.start)
                } else {
                    let (rows, columns) = (self.y.span(unit.rows.clone()), self.x.span(0..self.x.grid()));
                    self.source.padded(source, unit.images.clone(), rows, columns, window)
                };
                let context = UnitContext { unit, view, destination, epilogue, by_position };
                for block in blocks.clone().step_by(self.together()) {
                    self.run_block(&context, block..(block + self.together()).min(blocks.end), weights);
                }
                if let Some(finisher) = epilogue.tail.finisher {
                    self.finish_unit(&context, &blocks, finisher);
                }
            }
        });
    }

    /// Hands the values of some blocks of columns of a unit to a finisher: in long runs, where these are all columns.
    fn finish_unit(&self, context: &UnitContext, blocks: &Range<usize>, finisher: Finisher) {
        let columns = if blocks.len() == self.blocks() {
            0..self.destination_c
        } else {
            let place = |index: usize| {
                let (bundle, block) = self.bundle_and_block(index);
                bundle * self.columns_of_bundle + block.first
            };
            let (last_bundle, last) = self.bundle_and_block(blocks.end - 1);
            place(blocks.start)..last_bundle * self.columns_of_bundle + last.first + last.columns
        };
        let whole = columns.len() == self.destination_c;
        let line = self.x.destination * self.destination_c;
        for image in context.unit.images.clone() {
            let rows = &context.unit.rows;
            let first = image * self.y.destination;
            let (start, end) = ((first + rows.start) * line, (first + rows.end) * line);
            if whole {
                // SAFETY: the pixels of a unit belong to this work item alone.
                finisher.run(start, unsafe { context.destination.slice(start..end) });
                continue;
            }
            for pixel in (start..end).step_by(self.destination_c) {
                let range = pixel + columns.start..pixel + columns.end;
                // SAFETY: and so do the columns of its blocks.
                finisher.run(range.start, unsafe { context.destination.slice(range) });
            }
        }
    }

    /// Packs the weights unless they can serve as they are.
    fn place_weights<'a>(&self, n: usize, weights: &'a [f32], packed: &'a mut [f32]) -> Weights<'a> {
        let pixels = n * self.y.destination * self.x.destination;
        let one_aligned_block = self.blocks() == 1 && self.columns.padded() == self.destination_c;
        if self.direction == Direction::Forward && (one_aligned_block || pixels <= UNPACKED_PIXELS) {
            return Weights::InPlace(weights);
        }
        self.pack_all(weights, packed);
        Weights::Packed(packed)
    }

    /// Packs the weights of all bundles, blocks and phases.
    pub(super) fn pack_all(&self, weights: &[f32], packed: &mut [f32]) {
        let shared = Disjoint::new(packed);
        let pack = |item: usize| {
            let (bundle, block) = self.bundle_and_block(item);
            let range = self.panel_range(bundle, &block);
            // SAFETY: every block has its own panel.
            self.pack(bundle, &block, weights, unsafe { shared.slice(range) });
        };
        if self.packed_len() < PARALLEL_PACK {
            (0..self.blocks()).for_each(pack);
        } else {
            threads::for_each_item(self.blocks(), pack);
        }
    }

    fn bundle_and_block(&self, index: usize) -> (usize, Block) {
        (index / self.columns.blocks(), self.columns.block(index % self.columns.blocks()))
    }

    /// Where a block's panel lies in the packed weights: all its phases, one after the other.
    fn panel_range(&self, bundle: usize, block: &Block) -> Range<usize> {
        let start = (bundle * self.columns.padded() + block.first) * self.depth();
        start..start + block.vectors * tile::lanes(self.level) * self.depth()
    }

    /// The phases of both axes, rows first.
    fn phases(&self) -> impl Iterator<Item = (Phase, Phase)> {
        let (y, x) = (self.y, self.x);
        (0..y.phases()).flat_map(move |i| (0..x.phases()).map(move |j| (y.phase(i), x.phase(j))))
    }

    fn pack(&self, bundle: usize, block: &Block, weights: &[f32], mut panel: &mut [f32]) {
        let g = &self.geometry;
        let width = block.vectors * tile::lanes(self.level);
        let (in_group, out_group) = (g.in_c / g.groups, g.out_c / g.groups);
        for (y, x) in self.phases() {
            for (ty, tx) in (0..y.taps).flat_map(|ty| (0..x.taps).map(move |tx| (ty, tx))) {
                let tap = y.kernel_index(ty) * g.kernel.1 + x.kernel_index(tx);
                let (now, rest) = panel.split_at_mut(self.source_group * width);
                panel = rest;
                match self.direction {
                    Direction::Forward => {
                        let from = &weights[tap * in_group * g.out_c + bundle * self.columns_of_bundle + block.first..];
                        pack_rows(from, g.out_c, self.source_group, block.columns, now, width);
                    }
                    Direction::InputGradient => {
                        let from = &weights[(tap * in_group + block.first) * g.out_c..];
                        let columns = block.columns / self.bundle;
                        for part in 0..self.bundle {
                            let from = &from[(bundle * self.bundle + part) * out_group..];
                            let to = (part * columns, columns);
                            pack_transposed(from, g.out_c, self.source_group, to, now, width);
                        }
                    }
                }
            }
        }
    }

    /// All phases of one block of columns, or of those of several bundles, over a unit.
    fn run_block(&self, context: &UnitContext, blocks: Range<usize>, weights: Weights) {
        let (count, (bundle, block)) = (blocks.len(), self.bundle_and_block(blocks.start));
        let mut depth_before = 0;
        for (y, x) in self.phases() {
            let panel = match weights {
                Weights::Packed(packed) => {
                    let row = block.vectors * tile::lanes(self.level);
                    let start = self.panel_range(bundle, &block).start + depth_before * row;
                    Panel { start: packed[start..].as_ptr(), row, count, step: row * self.depth() }
                }
                Weights::InPlace(weights) => Panel {
                    start: weights[bundle * self.columns_of_bundle + block.first..].as_ptr(),
                    row: self.destination_c,
                    count,
                    step: self.columns_of_bundle,
                },
            };
            depth_before += y.taps * x.taps * self.source_group;
            self.run_phase(context, bundle, &block, panel, &y, &x);
        }
    }

    /// One phase of one block: all k, a panel of weights at a time.
    fn run_phase(&self, context: &UnitContext, bundle: usize, block: &Block, panel: Panel, y: &Phase, x: &Phase) {
        let rows = context.unit.rows.start..context.unit.rows.end.min(y.count);
        if rows.is_empty() || x.count == 0 {
            return;
        }
        let Epilogue { bias, activation, accumulate, tail } = context.epilogue;
        let split = !accumulate || (activation == Activation::None && tail.is_sum());
        let limit = if split { PANEL_ROWS } else { usize::MAX };
        let depth = Depth::new(&context.view, (y, x), self.source_group, self.source.c, limit);
        let column = bundle * self.columns_of_bundle + block.first;
        for part in 0..depth.parts() {
            let last = part + 1 == depth.parts();
            let mut tile = Tile::empty();
            let scale = tail.scale.filter(|_| last);
            let of_column = |values: &[f32]| values[column..].as_ptr();
            tile.ldb = panel.row;
            // A tap with more channels may be cut anywhere.
            let whole = self.bundle > 1 && self.source_group <= PANEL_ROWS;
            let run = Run::Depth(if whole { Spread::run_of(self.source_group) } else { 1 });
            tile.spread = Spread { parts: self.bundle, step: self.source_group, run };
            let (a, c) = (self.bundle * self.source_group, self.columns_of_bundle);
            tile.repeat = Repeat { count: panel.count, a, b: panel.step, c };
            tile.last_columns = block.last_columns(tile::lanes(self.level));
            tile.finish = Finish {
                partial: part > 0 || (accumulate && split),
                add: accumulate && !split,
                bias: bias.filter(|_| last).map_or(std::ptr::null(), of_column),
                activation: if last { activation } else { Activation::None },
                scale: scale.map_or(std::ptr::null(), |(scale, _)| of_column(scale)),
                shift: scale.map_or(std::ptr::null(), |(_, shift)| of_column(shift)),
                residual: last && tail.residual.is_some(),
                last: if last { tail.activation } else { Activation::None },
            };
            let (rows, part, depth) = (rows.clone(), depth.part(part), &depth);
            let channel = bundle * a;
            let pass = Pass { y, x, rows, block, depth, part, panel, channel, column };
            if context.by_position {
                self.run_positions(context, &pass, &mut tile);
            } else {
                self.run_pixels(context, &pass, &mut tile);
            }
        }
    }

    /// All pixels of a unit, as many neighbours at a time as a tile has rows.
    fn run_pixels(&self, context: &UnitContext, pass: &Pass, tile: &mut Tile) {
        let Pass { y, x, .. } = pass;
        let view = &context.view;
        let slice = pass.depth.slice(&pass.part, &(0..y.taps), &(0..x.taps), pass.panel.start, tile);
        let source = (pass.channel + slice) as isize
            + (y.origin - view.top) * view.row as isize
            + (x.origin - view.left) * self.source.c as isize;
        let (step_y, step_x) = (self.y.source_step() * view.row, self.x.source_step() * self.source.c);
        let at_most = tile.spread.tile_rows(self.level, pass.block.vectors);
        let residual = context.residual();
        let mut filled = 0;
        for (local, image) in context.unit.images.clone().enumerate() {
            for row in pass.rows.clone() {
                let mut from = source + (local * view.image + row * step_y) as isize;
                let mut to = self.destination_pixel(image, (y, x), row, 0) + pass.column;
                for _ in 0..x.count {
                    tile.a[filled] = view.start.wrapping_offset(from);
                    tile.c[filled] = context.destination.start().wrapping_add(to);
                    tile.residual[filled] = residual.wrapping_add(to);
                    filled += 1;
                    from += step_x as isize;
                    to += self.x.phases() * self.destination_c;
                    if filled == at_most {
                        self.run_tile(pass.block, tile, filled);
                        filled = 0;
                    }
                }
            }
        }
        if filled > 0 {
            self.run_tile(pass.block, tile, filled);
        }
    }

    /// All pixels of a unit, each for as many images at a time as a tile has rows, with the taps inside the image.
    fn run_positions(&self, context: &UnitContext, pass: &Pass, tile: &mut Tile) {
        let Pass { y, x, .. } = pass;
        let (view, images, residual) = (&context.view, &context.unit.images, context.residual());
        let at_most = tile.spread.tile_rows(self.level, pass.block.vectors);
        for (row, column) in pass.rows.clone().flat_map(|row| (0..x.count).map(move |column| (row, column))) {
            let top = y.origin + (row * self.y.source_step()) as isize;
            let left = x.origin + (column * self.x.source_step()) as isize;
            let taps_y = inside(top, y.tap_step, y.taps, self.source.h);
            let taps_x = inside(left, x.tap_step, x.taps, self.source.w);
            let slice = pass.depth.slice(&pass.part, &taps_y, &taps_x, pass.panel.start, tile);
            if tile.is_empty() && tile.finish.is_identity() {
                continue;
            }
            let corner = top * view.row as isize + left * self.source.c as isize;
            let from = view.start.wrapping_offset(corner + (pass.channel + slice) as isize);
            let to = self.destination_pixel(images.start, (y, x), row, column) + pass.column;
            let (to, residual) = (context.destination.start().wrapping_add(to), residual.wrapping_add(to));
            let image = self.y.destination * self.x.destination * self.destination_c;
            for first in (0..images.len()).step_by(at_most) {
                let rows = at_most.min(images.len() - first);
                for r in 0..rows {
                    tile.a[r] = from.wrapping_add((first + r) * view.image);
                    tile.c[r] = to.wrapping_add((first + r) * image);
                    tile.residual[r] = residual.wrapping_add((first + r) * image);
                }
                self.run_tile(pass.block, tile, rows);
            }
        }
    }

    /// The first float of a destination pixel, counted within the grid of a phase.
    fn destination_pixel(&self, image: usize, (y, x): (&Phase, &Phase), row: usize, column: usize) -> usize {
        let line = image * self.y.destination + y.first + row * self.y.phases();
        (line * self.x.destination + x.first + column * self.x.phases()) * self.destination_c
    }

    #[inline]
    fn run_tile(&self, block: &Block, tile: &mut Tile, rows: usize) {
        tile.rows = rows;
        // SAFETY: the view covers all taps of the unit's pixels that the loops visit, the panel has one row per k, and the
        // destination pixels of a unit × the columns of a block belong to this work item alone. `run` checked the
        // lengths of all slices against the geometry and that the machine has the level.
        unsafe { tile::run(self.level, block.vectors, tile) }
    }
}

/// Scratch from its first 64-byte boundary on (16 floats are reserved for that), so that panels are aligned.
pub(super) fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(64).min(16).min(scratch.len());
    &mut scratch[skip..]
}
