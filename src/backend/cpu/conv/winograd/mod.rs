//! 3 × 3 convolutions of stride 1 by minimal filtering, F(4×4, 3×3) (Winograd 1980; Lavin and Gray 2016): 36
//! multiplications where the sum over taps takes 144.
//!
//! The destination is cut into 4 × 4 tiles. The 6 × 6 source pixels under a tile, its window, are transformed, point by
//! point they meet transformed weights, and the result is transformed back. Over channels each of the 36 points is a matrix
//! product, `tiles × c` times `c × k`, which the register tile computes.
//!
//! Where tiles are many and weights few, all weights are transformed once, and a unit of tiles passes through all three
//! steps while its values lie in the second-level cache (`by_units`). Where transformed weights would leave even the last
//! level, the windows of a whole batch are transformed instead, and a range of output channels at a time passes
//! through the rest (`by_columns`). Both give the same bits.
//!
//! The input gradient is the same with flipped, transposed weights; the weight gradient is in `dweight`.
//!
//! Floor: a quarter of the multiply-adds of the sum over taps, counting whole tiles; the transforms read and write 36 values
//! for every 16 of source and destination, within the caches.
//!
//! Rounding errors are about twice the direct sum's (root mean square). The choice between the two depends on the layer's shape
//! alone, so that an image gives the same bits in any batch. In inference the weights are transformed once, before the
//! first image.

mod by_columns;
mod by_units;
mod dweight;
mod transform;

pub(super) use dweight::WeightGradient;

use super::axis::Direction;
use super::pack::{Block, Columns, pack_transposed};
use super::tail::finish;
use super::window::Source;
use super::{Activation, ConvGeometry, Epilogue};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::Disjoint;
use crate::backend::cpu::tile::{self, Finish, Loop, Tile};
use transform::{LANES, PIXELS, POINTS, TAPS, TILE, WINDOW};

/// With fewer channels on one side, or on both, the transforms cost more than the products save.
const MIN_CHANNELS: usize = 32;
const MIN_MORE_CHANNELS: usize = 64;

/// Forward, maps with shorter sides keep the direct sum's smaller rounding errors.
const MIN_FORWARD_SIDE: usize = 8;

/// With prepared weights, maps with shorter sides read more weights per product than a single image can pay for.
const MIN_PREPARED_SIDE: usize = 7;

/// The most work items; each has room of its own.
const MAX_ITEMS: usize = 32;

/// The most floats of transformed weights that are worth keeping (4 MB); they are read once per unit.
const WEIGHT_LIMIT: usize = 1 << 20;

/// Whether the algorithm is for this geometry, whatever the batch.
fn suits(g: &ConvGeometry) -> bool {
    let channels = |c: usize| c >= MIN_CHANNELS && c.is_multiple_of(LANES);
    // Whole tiles must save half of the products: small maps are mostly edge, where the direct sum leaves some out.
    let tiles = g.out_h.div_ceil(TILE) * g.out_w.div_ceil(TILE);
    (g.kernel, g.stride, g.dilation, g.groups) == ((3, 3), (1, 1), (1, 1), 1)
        && g.pad.0 <= 2
        && g.pad.1 <= 2
        && channels(g.in_c)
        && channels(g.out_c)
        && g.in_c.max(g.out_c) >= MIN_MORE_CHANNELS
        && tiles * POINTS * 2 <= g.out_h * g.out_w * TAPS
}

/// Whether transformed weights are too many to be kept.
fn has_many_weights(cin: usize, cout: usize) -> bool {
    POINTS * cin * cout > WEIGHT_LIMIT
}

/// Floats between parts that belong to neighbouring points: parts that lie a multiple of 4 KB apart would share a few sets
/// of the first-level cache.
fn part_len(tiles: usize, channels: usize) -> usize {
    tiles * channels + 16
}

/// How a map is cut into tiles.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// Tiles in a column and in a row.
    rows: usize,
    columns: usize,
}

/// One tile: its image, and its first row and column.
#[derive(Clone, Copy, Debug)]
struct Place {
    image: usize,
    y: usize,
    x: usize,
}

impl Grid {
    fn over(h: usize, w: usize) -> Grid {
        Grid { rows: h.div_ceil(TILE), columns: w.div_ceil(TILE) }
    }

    fn tiles(&self, n: usize) -> usize {
        n * self.rows * self.columns
    }

    fn place(&self, tile: usize) -> Place {
        let (image, rest) = (tile / (self.rows * self.columns), tile % (self.rows * self.columns));
        Place { image, y: TILE * (rest / self.columns), x: TILE * (rest % self.columns) }
    }
}

/// Where the channels of `SIDE` × `SIDE` pixels of a map begin, from (y, x) on; outside the map they are `zeros`.
fn pixels<const SIDE: usize, const COUNT: usize>(
    values: &[f32],
    map: Source,
    (image, y, x): (usize, isize, isize),
    zeros: &[f32],
) -> [*const f32; COUNT] {
    debug_assert!(COUNT == SIDE * SIDE && zeros.len() >= map.c);
    let mut pixels = [zeros.as_ptr(); COUNT];
    for (i, row) in pixels.chunks_exact_mut(SIDE).enumerate() {
        let y = y + i as isize;
        if (0..map.h as isize).contains(&y) {
            let line = &values[(image * map.h + y as usize) * map.w * map.c..][..map.w * map.c];
            for (j, pixel) in row.iter_mut().enumerate() {
                let x = x + j as isize;
                if (0..map.w as isize).contains(&x) {
                    *pixel = line[x as usize * map.c..].as_ptr();
                }
            }
        }
    }
    pixels
}

/// A forward pass or input gradient ready to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd {
    level: Level,
    direction: Direction,
    source: Source,
    destination: Source,
    /// Rows and columns of zeros before the source.
    pad: (usize, usize),
    grid: Grid,
    columns: Columns,
}

/// Values and weights of one pass.
#[derive(Clone, Copy)]
struct Pass<'a> {
    source: &'a [f32],
    weights: &'a [f32],
    destination: Disjoint<'a>,
    epilogue: Epilogue<'a>,
    /// A source pixel's channels outside the map.
    zeros: &'a [f32],
}

/// Products of some tiles with a range of the destination's channels.
struct Products<'a> {
    /// Per point, `stride` floats apart, a row of `width` sums for each tile.
    sums: &'a [f32],
    stride: usize,
    width: usize,
    /// The channels' first.
    first: usize,
}

impl Winograd {
    /// `None` where the direct sum is better.
    pub(super) fn new(level: Level, g: &ConvGeometry, direction: Direction) -> Option<Winograd> {
        if !suits(g) || (direction == Direction::Forward && g.out_h.min(g.out_w) < MIN_FORWARD_SIDE) {
            return None;
        }
        Some(Winograd::of(level, g, direction))
    }

    /// Forward with weights that are prepared once: `None` where the direct sum is better, and where a single image would
    /// have too many weights to read.
    pub(super) fn prepared(level: Level, g: &ConvGeometry) -> Option<Winograd> {
        let pays = suits(g) && g.out_h.min(g.out_w) >= MIN_PREPARED_SIDE && !has_many_weights(g.in_c, g.out_c);
        pays.then(|| Winograd::of(level, g, Direction::Forward))
    }

    fn of(level: Level, g: &ConvGeometry, direction: Direction) -> Winograd {
        let input = Source { h: g.in_h, w: g.in_w, c: g.in_c };
        let output = Source { h: g.out_h, w: g.out_w, c: g.out_c };
        // dx[i] = Σ dy[i + pad − k]·w[k] reads dy from i − (2 − pad) on, with the kernel flipped.
        let (source, destination, pad) = match direction {
            Direction::Forward => (input, output, g.pad),
            Direction::InputGradient => (output, input, (2 - g.pad.0, 2 - g.pad.1)),
        };
        let (grid, columns) = (Grid::over(destination.h, destination.w), Columns::new(destination.c, level));
        Winograd { level, direction, source, destination, pad, grid, columns }
    }

    fn has_many_weights(&self) -> bool {
        has_many_weights(self.source.c, self.destination.c)
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        if self.has_many_weights() { self.scratch_by_columns(max_n) } else { self.scratch_by_units(max_n) }
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
        if n == 0 {
            return;
        }
        debug_assert!(scratch.len() >= self.scratch(n), "scratch: {} floats < {}", scratch.len(), self.scratch(n));
        let (zeros, scratch) = super::taps::aligned(scratch).split_at_mut(self.source.c);
        zeros.fill(0.0);
        let pass = Pass { source, weights, destination: Disjoint::new(destination), epilogue, zeros };
        if self.has_many_weights() {
            self.run_by_columns(n, pass, scratch)
        } else {
            self.run_by_units(n, pass, scratch)
        }
    }

    /// Runs over `n` images with weights that [`Winograd::transform_all_weights`] has transformed.
    pub(super) fn run_prepared(
        &self,
        n: usize,
        source: &[f32],
        kernels: &[f32],
        destination: &mut [f32],
        epilogue: Epilogue,
        scratch: &mut [f32],
    ) {
        if n == 0 {
            return;
        }
        assert_eq!(kernels.len(), self.kernels_len(), "weights transformed for this convolution");
        let (zeros, scratch) = super::taps::aligned(scratch).split_at_mut(self.source.c);
        zeros.fill(0.0);
        let pass = Pass { source, weights: &[], destination: Disjoint::new(destination), epilogue, zeros };
        self.run_units(n, &pass, kernels, scratch);
    }

    /// Floats per row of a block's panels.
    fn width(&self, block: &Block) -> usize {
        block.vectors * tile::lanes(self.level)
    }

    /// The width of the widest block's panels.
    fn most_columns(&self) -> usize {
        (tile::max_vectors(self.level) * tile::lanes(self.level)).min(self.columns.padded())
    }

    /// Floats of a block of weights that are transposed before they are transformed.
    fn block_len(&self) -> usize {
        match self.direction {
            Direction::Forward => 0,
            Direction::InputGradient => TAPS * self.most_columns() * self.source.c,
        }
    }

    /// V = Bᵀ d B of the window of a tile, from `to` on, the points `stride` floats apart.
    ///
    /// # Safety
    /// `to` and the parts behind it are this thread's, a pixel's channels each.
    unsafe fn transform_window(&self, tile: usize, pass: &Pass, to: *mut f32, stride: usize) {
        let Place { image, y, x } = self.grid.place(tile);
        let (top, left) = (y as isize - self.pad.0 as isize, x as isize - self.pad.1 as isize);
        let window = pixels::<WINDOW, POINTS>(pass.source, self.source, (image, top, left), pass.zeros);
        // SAFETY: each pixel of the window has the source's channels; the rest is the caller's promise.
        unsafe { transform::source(self.level, self.source.c, &window, to, stride) }
    }

    /// U = G g Gᵀ of a block of columns: a panel for each point from `panels` on, `stride` floats apart. `room` has
    /// [`Self::block_len`] floats.
    ///
    /// # Safety
    /// The panels are this thread's.
    unsafe fn transform_weights(
        &self,
        weights: &[f32],
        block: &Block,
        room: &mut [f32],
        panels: *mut f32,
        stride: usize,
    ) {
        let (rows, width) = (self.source.c, self.width(block));
        // Where a row's weights of a tap lie: neighbours in memory, or kernels flipped and transposed.
        let (weights, tap_step, row_step, first) = match self.direction {
            Direction::Forward => (weights, rows * self.destination.c, self.destination.c, block.first),
            Direction::InputGradient => {
                for (tap, to) in room.chunks_exact_mut(rows * width).enumerate().take(TAPS) {
                    let from = &weights[((TAPS - 1 - tap) * self.destination.c + block.first) * rows..];
                    pack_transposed(from, rows, rows, (0, block.columns), to, width);
                }
                (&*room, rows * width, width, 0)
            }
        };
        if block.columns < width {
            for point in 0..POINTS {
                // SAFETY: the caller's promise.
                unsafe { std::slice::from_raw_parts_mut(panels.add(point * stride), rows * width) }.fill(0.0);
            }
        }
        for row in 0..rows {
            let taps: [*const f32; TAPS] =
                std::array::from_fn(|tap| weights[tap * tap_step + row * row_step + first..][..block.columns].as_ptr());
            // SAFETY: each tap has the block's columns, and so has the row of each panel.
            unsafe { transform::kernel(self.level, block.columns, &taps, panels.add(row * width), stride) };
        }
    }

    /// product `[count, columns]`, its rows `stride` floats apart, = window `[count, c]` · the panel of one point.
    fn multiply(&self, window: &[f32], block: &Block, panel: &[f32], product: &mut [f32], stride: usize, count: usize) {
        let (cin, width) = (self.source.c, self.width(block));
        assert!(window.len() >= count * cin && panel.len() >= cin * width);
        assert!(product.len() >= (count - 1) * stride + block.columns);
        // One pointer for all rows: taking each from the slice would end the life of those before it.
        let to = product.as_mut_ptr();
        let mut tile = Tile::empty();
        tile.finish = Finish::plain(false);
        tile.inner = Loop { count: cin, step: 1, skip: 0 };
        tile.b = panel.as_ptr();
        tile.ldb = width;
        tile.last_columns = block.last_columns(tile::lanes(self.level));
        let at_most = tile::tile_rows(self.level, block.vectors);
        for row in (0..count).step_by(at_most) {
            tile.rows = at_most.min(count - row);
            for r in 0..tile.rows {
                tile.a[r] = window[(row + r) * cin..].as_ptr();
                tile.c[r] = to.wrapping_add((row + r) * stride);
            }
            // SAFETY: each row of the window has `cin` floats, the panel `cin` rows of its width, and each row of the product
            // the block's columns; the level was checked when the pass began.
            unsafe { tile::run(self.level, block.vectors, &tile) }
        }
    }

    /// Transforms the products of `count` tiles from `first` on back into their pixels. `pixels` has room for a tile.
    fn finish_tiles(&self, products: &Products, first: usize, count: usize, pass: &Pass, pixels: &mut [f32]) {
        let &Products { sums, stride, width, first: channel } = products;
        let Epilogue { bias, activation, accumulate, tail } = pass.epilogue;
        let bare = bias.is_none() && activation == Activation::None && tail.is_plain();
        for t in 0..count {
            let place = self.grid.place(first + t);
            let points = sums[t * width..][..(POINTS - 1) * stride + width].as_ptr();
            let starts: [Option<usize>; PIXELS] =
                std::array::from_fn(|i| self.destination_pixel(place, i).map(|start| start + channel));
            // SAFETY: a tile's pixels in these channels belong to one item.
            let at = |start: usize| unsafe { pass.destination.slice(start..start + width) };
            if bare {
                let destination =
                    starts.map(|start| start.map_or(std::ptr::null_mut(), |start| at(start).as_mut_ptr()));
                // SAFETY: each point's row and each pixel have `width` floats.
                unsafe { transform::output(self.level, width, points, stride, &destination, accumulate) };
            } else {
                let rows: [*mut f32; PIXELS] = std::array::from_fn(|i| pixels[i * width..][..width].as_mut_ptr());
                // SAFETY: as above.
                unsafe { transform::output(self.level, width, points, stride, &rows, false) };
                for (sums, start) in pixels.chunks_exact_mut(width).zip(starts) {
                    let Some(start) = start else { continue };
                    let y = at(start);
                    let old = if accumulate { &*y } else { &[] };
                    finish(self.level, sums, old, &pass.epilogue, channel, start);
                    y.copy_from_slice(sums);
                }
            }
            if let Some(finisher) = tail.finisher {
                starts.into_iter().flatten().for_each(|start| finisher.run(start, at(start)));
            }
        }
    }

    /// Where pixel `i` of a tile begins, or `None` beyond the map.
    fn destination_pixel(&self, place: Place, i: usize) -> Option<usize> {
        let (y, x) = (place.y + i / TILE, place.x + i % TILE);
        let Source { h, w, c } = self.destination;
        (y < h && x < w).then_some(((place.image * h + y) * w + x) * c)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Shape, geometry, poison, random};
    use super::*;
    use crate::backend::cpu::simd::levels_available;

    /// More tiles than are transformed at a time, and weights for either way.
    const SHAPE: Shape = (35, 33, 1024, 32, (3, 3), (1, 1), (1, 1), (1, 1), 1);

    #[test]
    fn both_ways_give_the_same_bits() {
        for level in levels_available() {
            for (direction, n) in [(Direction::Forward, 1), (Direction::InputGradient, 2)] {
                let g = geometry(&SHAPE);
                let winograd = Winograd::new(level, &g, direction).expect("a shape for minimal filtering");
                let (Source { h, w, c }, to) = (winograd.source, winograd.destination);
                let (source, weights) = (random(n * h * w * c, 1), random(g.weight_len(), 2));
                let bias = random(to.c, 3);
                let run = |by_units: bool| {
                    let mut destination = poison(n * to.h * to.w * to.c);
                    let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
                    let zeros = vec![0.0; c];
                    let pass = Pass {
                        source: &source,
                        weights: &weights,
                        destination: Disjoint::new(&mut destination),
                        epilogue,
                        zeros: &zeros,
                    };
                    if by_units {
                        winograd.run_by_units(n, pass, &mut poison(winograd.scratch_by_units(n)));
                    } else {
                        winograd.run_by_columns(n, pass, &mut poison(winograd.scratch_by_columns(n)));
                    }
                    destination
                };
                assert!(run(true) == run(false), "{level:?} {direction:?}");
            }
        }
    }
}
