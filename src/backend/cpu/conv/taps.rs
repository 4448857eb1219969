//! The engine of forward and input gradient: a convolution as sums over taps of a padded source window.
//!
//! Forward, output pixel (y, x) reads source pixels y·s − p + ky·d. For the input gradient the roles turn: input
//! pixel i gets dy[o]·w[k] from every tap k with i + p = o·s + k·d. Only taps with k·d ≡ i + p (mod s) do, so the
//! input pixels fall into s classes per axis ("phases"). Within a phase, i = first + s·a, and o advances by one with
//! a: a convolution of stride 1 over dy with a subset of the taps, flipped. Pixels that no tap reaches get 0.

use super::pack::{Block, Columns, pack_rows, pack_transposed};
use super::window::{Source, Span, Unit, Units, View};
use super::{Activation, ConvGeometry, Epilogue};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Loop, Tile};
use std::ops::Range;

/// Output pixels per unit of work: enough that a panel of weights fetched into the second-level cache pays.
const UNIT_PIXELS: usize = 64;

/// k per pass over a panel of weights; 1024·48 floats leave room for the window in the second-level cache.
const PANEL_ROWS: usize = 1024;

/// Up to this many output pixels, weights are read where they are: packing them would cost as much as using them.
const UNPACKED_PIXELS: usize = 32;

/// Below this many weights, they are packed by one thread.
const PARALLEL_PACK: usize = 128 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    InputGradient,
}

/// One dimension of the convolution, seen from its destination.
#[derive(Clone, Copy, Debug)]
struct Axis {
    direction: Direction,
    destination: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
}

/// The destination pixels first, first + stride, … of an axis that the same taps reach.
#[derive(Clone, Copy, Debug)]
struct Phase {
    first: usize,
    count: usize,
    taps: usize,
    /// Source pixels from one tap to the next.
    tap_step: usize,
    /// Source position of the first tap of the first pixel.
    origin: isize,
    /// Kernel index of the first tap, and from one tap to the next.
    kernel_first: usize,
    kernel_step: isize,
}

impl Phase {
    fn kernel_index(&self, tap: usize) -> usize {
        (self.kernel_first as isize + tap as isize * self.kernel_step) as usize
    }
}

impl Axis {
    fn phases(&self) -> usize {
        match self.direction {
            Direction::Forward => 1,
            Direction::InputGradient => self.stride,
        }
    }

    /// Source pixels from one destination pixel of a phase to the next.
    fn source_step(&self) -> usize {
        match self.direction {
            Direction::Forward => self.stride,
            Direction::InputGradient => 1,
        }
    }

    /// Destination pixels of the largest phase.
    fn grid(&self) -> usize {
        self.destination.div_ceil(self.phases())
    }

    fn phase(&self, index: usize) -> Phase {
        match self.direction {
            Direction::Forward => Phase {
                first: 0,
                count: self.destination,
                taps: self.kernel,
                tap_step: self.dilation,
                origin: -(self.pad as isize),
                kernel_first: 0,
                kernel_step: 1,
            },
            Direction::InputGradient => self.gradient_phase(index),
        }
    }

    /// Input pixels i with i + pad ≡ index (mod stride), and the taps k with k·dilation ≡ index (mod stride).
    fn gradient_phase(&self, index: usize) -> Phase {
        let (stride, dilation) = (self.stride, self.dilation);
        let divisor = gcd(stride, dilation);
        let (kernel_step, tap_step) = (stride / divisor, dilation / divisor);
        let first_tap = (0..kernel_step.min(self.kernel)).find(|k| k * dilation % stride == index);
        let taps = first_tap.map_or(0, |k| (self.kernel - k).div_ceil(kernel_step));
        let first = (index + stride - self.pad % stride) % stride;
        let count = self.destination.saturating_sub(first).div_ceil(stride);
        // o of the first pixel under the first tap; exact by the choice of both.
        let lowest_tap = first_tap.unwrap_or(0);
        let output = (first + self.pad) as isize - (lowest_tap * dilation) as isize;
        let output = output.div_euclid(stride as isize);
        let behind = taps.saturating_sub(1);
        Phase {
            first,
            count,
            taps,
            tap_step,
            origin: output - (behind * tap_step) as isize,
            kernel_first: lowest_tap + behind * kernel_step,
            kernel_step: -(kernel_step as isize),
        }
    }

    /// Source pixels that destination pixels `range` of all phases read.
    fn span(&self, range: Range<usize>) -> Span {
        let (mut start, mut end) = (isize::MAX, isize::MIN);
        for phase in (0..self.phases()).map(|i| self.phase(i)).filter(|p| p.taps > 0) {
            start = start.min(phase.origin);
            end = end.max(phase.origin + ((phase.taps - 1) * phase.tap_step) as isize);
        }
        let step = self.source_step();
        start += (range.start * step) as isize;
        end += ((range.end - 1) * step) as isize;
        Span { start, len: (end - start + 1) as usize }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A convolution ready to run in one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct TapConvolution {
    level: Level,
    geometry: ConvGeometry,
    direction: Direction,
    y: Axis,
    x: Axis,
    source: Source,
    /// Channels of the destination, and of one group of source and destination.
    destination_c: usize,
    source_group: usize,
    destination_group: usize,
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

/// The weights of one block of columns for one phase.
#[derive(Clone, Copy)]
struct Panel {
    start: *const f32,
    row: usize,
}

/// What a unit's tiles share.
struct UnitContext<'a> {
    unit: Unit,
    view: View,
    destination: Disjoint<'a>,
    epilogue: Epilogue<'a>,
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
        let destination_group = destination.c / g.groups;
        TapConvolution {
            level,
            geometry: *g,
            direction,
            y,
            x,
            source,
            destination_c: destination.c,
            source_group: source.c / g.groups,
            destination_group,
            columns: Columns::new(destination_group, tile::lanes(level)),
            units: Units::new(UNIT_PIXELS, (y.grid(), x.grid()), columns.len * source.c, |rows| y.span(0..rows).len),
            in_place: y.span(0..y.grid()).is_inside(source.h) && columns.is_inside(source.w),
        }
    }

    /// k of one destination value, over all phases.
    fn depth(&self) -> usize {
        self.geometry.kernel.0 * self.geometry.kernel.1 * self.source_group
    }

    fn packed_len(&self) -> usize {
        self.geometry.groups * self.depth() * self.columns.padded()
    }

    /// Floats of one work item's window.
    fn window_len(&self, n: usize) -> usize {
        if self.in_place {
            return 0;
        }
        let rows = self.y.span(0..self.units.rows).len;
        let columns = self.x.span(0..self.x.grid()).len;
        (self.units.images.min(n) * rows * columns * self.source.c).next_multiple_of(16)
    }

    /// Blocks of columns over all groups.
    fn blocks(&self) -> usize {
        self.geometry.groups * self.columns.blocks()
    }

    /// Work items as (parts of the units, parts of the blocks): units first, blocks too where units are few.
    fn items(&self, n: usize) -> (usize, usize) {
        let items = threads::items_for(self.geometry.flops(n));
        let by_unit = self.units.count(n).min(items);
        let by_block = if by_unit >= 16 { 1 } else { (items / by_unit).min(16).min(self.blocks()) };
        (by_unit, by_block.min(threads::MAX_ITEMS / by_unit))
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        let most_items = (self.units.count(max_n) * self.blocks()).min(threads::MAX_ITEMS);
        self.packed_len() + 16 + self.window_len(max_n) * most_items
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
        let (by_unit, by_block) = self.items(n);
        let window = self.window_len(n);
        let windows = Disjoint::new(&mut windows[..window * by_unit * by_block]);
        let destination = Disjoint::new(destination);
        threads::for_each_item(by_unit * by_block, |item| {
            // SAFETY: every item has its own window.
            let window = unsafe { windows.slice(item * window..(item + 1) * window) };
            let blocks = threads::part(self.blocks(), by_block, item % by_block);
            for index in threads::part(self.units.count(n), by_unit, item / by_block) {
                let unit = self.units.unit(index, n);
                let view = self.view(source, &unit, window);
                let context = UnitContext { unit, view, destination, epilogue };
                for block in blocks.clone() {
                    self.run_block(&context, block, weights);
                }
            }
        });
    }

    /// The source pixels of a unit: in place, or copied into its window.
    fn view(&self, source: &[f32], unit: &Unit, window: &mut [f32]) -> View {
        if self.in_place {
            return self.source.in_place(source, unit.images.start);
        }
        let (rows, columns) = (self.y.span(unit.rows.clone()), self.x.span(0..self.x.grid()));
        self.source.padded(source, unit.images.clone(), rows, columns, window)
    }

    /// Packs the weights unless they can serve as they are.
    fn place_weights<'a>(&self, n: usize, weights: &'a [f32], packed: &'a mut [f32]) -> Weights<'a> {
        let pixels = n * self.y.destination * self.x.destination;
        let one_aligned_block = self.blocks() == 1 && self.columns.padded() == self.destination_c;
        if self.direction == Direction::Forward && (one_aligned_block || pixels <= UNPACKED_PIXELS) {
            return Weights::InPlace(weights);
        }
        let shared = Disjoint::new(packed);
        let pack = |item: usize| {
            let (group, block) = self.group_and_block(item);
            let range = self.panel_range(group, &block);
            // SAFETY: every block has its own panel.
            self.pack(group, &block, weights, unsafe { shared.slice(range) });
        };
        if self.packed_len() < PARALLEL_PACK {
            (0..self.blocks()).for_each(pack);
        } else {
            threads::for_each_item(self.blocks(), pack);
        }
        Weights::Packed(packed)
    }

    fn group_and_block(&self, index: usize) -> (usize, Block) {
        (index / self.columns.blocks(), self.columns.block(index % self.columns.blocks()))
    }

    /// Where a block's panel lies in the packed weights: all its phases, one after the other.
    fn panel_range(&self, group: usize, block: &Block) -> Range<usize> {
        let start = (group * self.columns.padded() + block.first) * self.depth();
        start..start + block.vectors * tile::lanes(self.level) * self.depth()
    }

    /// The phases of both axes, rows first.
    fn phases(&self) -> impl Iterator<Item = (Phase, Phase)> {
        let (y, x) = (self.y, self.x);
        (0..y.phases()).flat_map(move |i| (0..x.phases()).map(move |j| (y.phase(i), x.phase(j))))
    }

    fn pack(&self, group: usize, block: &Block, weights: &[f32], mut panel: &mut [f32]) {
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
                        let from = &weights[tap * in_group * g.out_c + group * out_group + block.first..];
                        pack_rows(from, g.out_c, self.source_group, block.columns, now, width);
                    }
                    Direction::InputGradient => {
                        let from = &weights[(tap * in_group + block.first) * g.out_c + group * out_group..];
                        pack_transposed(from, g.out_c, self.source_group, block.columns, now, width);
                    }
                }
            }
        }
    }

    /// All phases of one block of columns over a unit.
    fn run_block(&self, context: &UnitContext, index: usize, weights: Weights) {
        let (group, block) = self.group_and_block(index);
        let mut depth_before = 0;
        for (y, x) in self.phases() {
            let panel = match weights {
                Weights::Packed(packed) => {
                    let row = block.vectors * tile::lanes(self.level);
                    let start = self.panel_range(group, &block).start + depth_before * row;
                    Panel { start: packed[start..].as_ptr(), row }
                }
                Weights::InPlace(weights) => Panel {
                    start: weights[group * self.destination_group + block.first..].as_ptr(),
                    row: self.destination_c,
                },
            };
            depth_before += y.taps * x.taps * self.source_group;
            self.run_phase(context, group, &block, panel, &y, &x);
        }
    }

    /// One phase of one block: all k, a panel of weights at a time.
    fn run_phase(&self, context: &UnitContext, group: usize, block: &Block, panel: Panel, y: &Phase, x: &Phase) {
        let rows = context.unit.rows.start..context.unit.rows.end.min(y.count);
        if rows.is_empty() || x.count == 0 {
            return;
        }
        let Epilogue { bias, activation, accumulate } = context.epilogue;
        let split = activation == Activation::None || !accumulate;
        let depth = Depth::new(self, &context.view, y, x, if split { PANEL_ROWS } else { usize::MAX });
        for part in 0..depth.parts() {
            let slice = depth.part(part);
            let last = part + 1 == depth.parts();
            let mut tile = Tile::empty();
            [tile.outer, tile.middle, tile.inner] = slice.loops;
            tile.b = panel.start.wrapping_add(slice.first * panel.row);
            tile.ldb = panel.row;
            tile.last_columns = block.last_columns(tile::lanes(self.level));
            tile.finish = Finish {
                partial: part > 0 || (accumulate && split),
                add: accumulate && !split,
                bias: std::ptr::null(),
                activation: if last { activation } else { Activation::None },
            };
            if let Some(bias) = bias.filter(|_| last) {
                tile.finish.bias = bias[group * self.destination_group + block.first..].as_ptr();
            }
            let source = (group * self.source_group + slice.offset) as isize
                + (y.origin - context.view.top) * context.view.row as isize
                + (x.origin - context.view.left) * self.source.c as isize;
            let column = group * self.destination_group + block.first;
            self.run_pixels(context, rows.clone(), block, (y, x), source, column, &mut tile);
        }
    }

    /// One pass over a unit's pixels, as many at a time as a tile has rows.
    #[allow(clippy::too_many_arguments)]
    fn run_pixels(
        &self,
        context: &UnitContext,
        rows: Range<usize>,
        block: &Block,
        (y, x): (&Phase, &Phase),
        source: isize,
        column: usize,
        tile: &mut Tile,
    ) {
        let view = &context.view;
        let (step_y, step_x) = (self.y.source_step() * view.row, self.x.source_step() * self.source.c);
        let (every_y, every_x) = (self.y.phases(), self.x.phases());
        let at_most = tile::tile_rows(self.level, block.vectors);
        let mut filled = 0;
        for (local, image) in context.unit.images.clone().enumerate() {
            for row in rows.clone() {
                let mut from = source + (local * view.image + row * step_y) as isize;
                let line = (image * self.y.destination + y.first + row * every_y) * self.x.destination + x.first;
                let mut to = line * self.destination_c + column;
                for _ in 0..x.count {
                    tile.a[filled] = view.start.wrapping_offset(from);
                    tile.c[filled] = context.destination.start().wrapping_add(to);
                    filled += 1;
                    from += step_x as isize;
                    to += every_x * self.destination_c;
                    if filled == at_most {
                        self.run_tile(block, tile, filled);
                        filled = 0;
                    }
                }
            }
        }
        if filled > 0 {
            self.run_tile(block, tile, filled);
        }
    }

    #[inline]
    fn run_tile(&self, block: &Block, tile: &mut Tile, rows: usize) {
        tile.rows = rows;
        // SAFETY: the view covers the spans of all taps of the unit's pixels, the panel has one row per k, and the
        // destination pixels of a unit × the columns of a block belong to this work item alone. `run` checked the
        // lengths of all slices against the geometry and that the machine has the level.
        unsafe { tile::run(self.level, block.vectors, tile) }
    }
}

/// The k of one phase as nested loops over the view, cut into parts of about `limit`.
struct Depth {
    rows: usize,
    row_step: usize,
    /// Runs of contiguous channels per tap row: one if its taps are neighbours.
    runs: usize,
    run_step: usize,
    run: usize,
    /// Parts per run (if a run alone exceeds the limit), else tap rows per part.
    run_parts: usize,
    part_rows: usize,
}

/// One part: its first k, where it starts in the view, and its loops.
struct DepthPart {
    first: usize,
    offset: usize,
    loops: [Loop; 3],
}

impl Depth {
    fn new(conv: &TapConvolution, view: &View, y: &Phase, x: &Phase, limit: usize) -> Depth {
        let contiguous = x.tap_step == 1 && conv.geometry.groups == 1;
        let (runs, run) = if contiguous { (1, x.taps * conv.source_group) } else { (x.taps, conv.source_group) };
        let rows = if runs * run == 0 { 0 } else { y.taps };
        let row_step = y.tap_step * view.row;
        let run_parts = run.div_ceil(limit).max(1);
        let part_rows = (limit / (runs * run).max(1)).max(1);
        Depth { rows, row_step, runs, run_step: x.tap_step * conv.source.c, run, run_parts, part_rows }
    }

    /// At least one, so that pixels without taps are written.
    fn parts(&self) -> usize {
        let parts = if self.run_parts > 1 {
            self.rows * self.runs * self.run_parts
        } else {
            self.rows.div_ceil(self.part_rows)
        };
        parts.max(1)
    }

    fn part(&self, index: usize) -> DepthPart {
        if self.run_parts > 1 {
            let (run, piece) = (index / self.run_parts, index % self.run_parts);
            let piece = threads::part(self.run, self.run_parts, piece);
            let offset = run / self.runs * self.row_step + run % self.runs * self.run_step + piece.start;
            let inner = Loop { count: piece.len(), step: 1 };
            return DepthPart { first: run * self.run + piece.start, offset, loops: [Loop::ONCE, Loop::ONCE, inner] };
        }
        let first = index * self.part_rows;
        let outer = Loop { count: self.part_rows.min(self.rows - first), step: self.row_step };
        let middle = Loop { count: self.runs, step: self.run_step };
        let inner = Loop { count: self.run, step: 1 };
        DepthPart { first: first * self.runs * self.run, offset: first * self.row_step, loops: [outer, middle, inner] }
    }
}

/// Scratch from its first 64-byte boundary on (16 floats are reserved for that), so that panels are aligned.
pub(super) fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(64).min(16).min(scratch.len());
    &mut scratch[skip..]
}
