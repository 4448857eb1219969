//! 3 × 3 convolutions of stride 1 by minimal filtering, F(2×2, 3×3) (Winograd 1980; Lavin and Gray 2016): 16
//! multiplications where the sum over taps takes 36.
//!
//! The destination is cut into 2 × 2 tiles. The 4 × 4 source pixels under a tile are transformed, point by point they
//! meet transformed weights, and the result is transformed back. Over channels each of the 16 points is a matrix
//! product, `tiles × c` times `c × k`, which the register tile computes. A unit of tiles passes through all three steps
//! while its values lie in the second-level cache.
//!
//! The input gradient is the same with flipped, transposed weights; the weight gradient is in `dweight`.
//!
//! Floor: 16/36 of the multiply-adds of the sum over taps, counting whole tiles; the transforms read and write 16
//! values for every 4 of source and destination, within the cache.
//!
//! Rounding differs from the direct sum (a few times larger in the worst case), so that inference, where an image must
//! give the same bits in any batch and one image must not wait for transformed weights, stays with that.

mod dweight;
mod transform;

pub(super) use dweight::WeightGradient;

use super::axis::Direction;
use super::pack::{Block, Columns, pack_transposed};
use super::taps::aligned;
use super::window::Source;
use super::{Activation, ConvGeometry, Epilogue};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile::{self, Finish, Loop, Tile};
use transform::{LANES, POINTS};

/// With fewer channels on one side, or on both, the transforms cost more than the products save.
const MIN_CHANNELS: usize = 32;
const MIN_MORE_CHANNELS: usize = 64;

/// Maps with fewer tiles are mostly edge: the direct sum leaves out products with padding there.
const MIN_TILES: usize = 4;

/// Forward, maps with shorter sides gain less than a fifth, and keep the direct sum's smaller rounding errors.
const MIN_FORWARD_SIDE: usize = 8;

/// The most work items; each has room for a unit.
const MAX_ITEMS: usize = 32;

/// Whether the algorithm is for this geometry, whatever the batch.
fn suits(g: &ConvGeometry) -> bool {
    let channels = |c: usize| c >= MIN_CHANNELS && c.is_multiple_of(LANES);
    (g.kernel, g.stride, g.dilation, g.groups) == ((3, 3), (1, 1), (1, 1), 1)
        && g.pad.0 <= 2
        && g.pad.1 <= 2
        && channels(g.in_c)
        && channels(g.out_c)
        && g.in_c.max(g.out_c) >= MIN_MORE_CHANNELS
        && g.out_h.div_ceil(2) * g.out_w.div_ceil(2) >= MIN_TILES
}

/// Tiles per unit: whole register tiles at every level, few enough that a unit's values stay in the cache.
fn unit_tiles(channels: usize) -> usize {
    if channels <= 192 { 48 } else { 24 }
}

/// Floats between the parts of a unit that belong to neighbouring points: 16 parts that lie a multiple of 4 KB apart
/// would share a few sets of the first-level cache.
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
        Grid { rows: h.div_ceil(2), columns: w.div_ceil(2) }
    }

    fn tiles(&self, n: usize) -> usize {
        n * self.rows * self.columns
    }

    fn place(&self, tile: usize) -> Place {
        let (image, rest) = (tile / (self.rows * self.columns), tile % (self.rows * self.columns));
        Place { image, y: 2 * (rest / self.columns), x: 2 * (rest % self.columns) }
    }
}

/// The channels of `SIDE` × `SIDE` pixels of a map from (y, x) on; outside the map they are `zeros`.
fn pixels<'a, const SIDE: usize, const COUNT: usize>(
    values: &'a [f32],
    map: Source,
    (image, y, x): (usize, isize, isize),
    zeros: &'a [f32],
) -> [&'a [f32]; COUNT] {
    let mut pixels = [&zeros[..map.c]; COUNT];
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let (y, x) = (y + (i / SIDE) as isize, x + (i % SIDE) as isize);
        if (0..map.h as isize).contains(&y) && (0..map.w as isize).contains(&x) {
            *pixel = &values[((image * map.h + y as usize) * map.w + x as usize) * map.c..][..map.c];
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
    unit: usize,
}

impl Winograd {
    /// `None` where the direct sum is better.
    pub(super) fn new(level: Level, g: &ConvGeometry, direction: Direction) -> Option<Winograd> {
        if !suits(g) || (direction == Direction::Forward && g.out_h.min(g.out_w) < MIN_FORWARD_SIDE) {
            return None;
        }
        let input = Source { h: g.in_h, w: g.in_w, c: g.in_c };
        let output = Source { h: g.out_h, w: g.out_w, c: g.out_c };
        // dx[i] = Σ dy[i + pad − k]·w[k] reads dy from i − (2 − pad) on, with the kernel flipped.
        let (source, destination, pad) = match direction {
            Direction::Forward => (input, output, g.pad),
            Direction::InputGradient => (output, input, (2 - g.pad.0, 2 - g.pad.1)),
        };
        Some(Winograd {
            level,
            direction,
            source,
            destination,
            pad,
            grid: Grid::over(destination.h, destination.w),
            columns: Columns::new(destination.c, level),
            unit: unit_tiles(source.c.max(destination.c)),
        })
    }

    /// Floats of the transformed weights of one point.
    fn point_len(&self) -> usize {
        self.source.c * self.columns.padded()
    }

    /// Floats of one unit: transformed source, products, the pixels of a tile.
    fn unit_len(&self) -> usize {
        let parts = part_len(self.unit, self.source.c) + part_len(self.unit, self.destination.c);
        POINTS * parts + 4 * self.destination.c
    }

    fn items(&self, n: usize) -> usize {
        self.grid.tiles(n).div_ceil(self.unit).min(MAX_ITEMS)
    }

    /// Floats of a block of transformed weights before it is transposed.
    fn block_len(&self) -> usize {
        POINTS * tile::max_vectors(self.level) * tile::lanes(self.level) * self.source.c
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch(&self, max_n: usize) -> usize {
        let units = self.items(max_n) * self.unit_len();
        let blocks = self.columns.blocks() * self.block_len();
        16 + POINTS * self.point_len() + self.source.c + units.max(blocks)
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
        let (kernels, rest) = aligned(scratch).split_at_mut(POINTS * self.point_len());
        let (zeros, rest) = rest.split_at_mut(self.source.c);
        zeros.fill(0.0);
        self.transform_weights(weights, kernels, rest);
        let (kernels, zeros) = (&*kernels, &*zeros);
        let (tiles, items) = (self.grid.tiles(n), self.items(n));
        let rooms = Disjoint::new(&mut rest[..items * self.unit_len()]);
        let destination = Disjoint::new(destination);
        threads::for_each_item(items, |item| {
            // SAFETY: every item has its own room.
            let room = unsafe { rooms.slice(item * self.unit_len()..(item + 1) * self.unit_len()) };
            for unit in threads::part(tiles.div_ceil(self.unit), items, item) {
                let first = unit * self.unit;
                let count = self.unit.min(tiles - first);
                self.run_unit(first, count, source, kernels, zeros, destination, epilogue, room);
            }
        });
    }

    /// U = G g Gᵀ: for each point the panels of all blocks, one behind the other.
    fn transform_weights(&self, weights: &[f32], kernels: &mut [f32], rooms: &mut [f32]) {
        let (point_len, room_len) = (self.point_len(), self.block_len());
        let (kernels, rooms) = (Disjoint::new(kernels), Disjoint::new(rooms));
        threads::for_each_item(self.columns.blocks(), |index| {
            let block = self.columns.block(index);
            let width = block.vectors * tile::lanes(self.level);
            let start = block.first * self.source.c;
            // SAFETY: every block has its own panels, one in each point's part, and its own room.
            let (mut panels, room) = unsafe {
                let panel = |point: usize| {
                    kernels.slice(point * point_len + start..point * point_len + start + self.source.c * width)
                };
                (std::array::from_fn::<_, POINTS, _>(panel), rooms.slice(index * room_len..(index + 1) * room_len))
            };
            match self.direction {
                Direction::Forward => self.transform_rows(weights, &block, room, &mut panels, width),
                Direction::InputGradient => self.transform_columns(weights, &block, room, &mut panels, width),
            }
        });
    }

    /// The panels of a block of output channels: a row of weights for each input channel.
    fn transform_rows(
        &self,
        weights: &[f32],
        block: &Block,
        room: &mut [f32],
        panels: &mut [&mut [f32]; POINTS],
        width: usize,
    ) {
        let (cin, cout) = (self.source.c, self.destination.c);
        for c in 0..cin {
            let taps: [&[f32]; 9] =
                std::array::from_fn(|tap| &weights[(tap * cin + c) * cout + block.first..][..block.columns]);
            transform::kernel(self.level, &taps, room, width, 0);
            for (panel, row) in panels.iter_mut().zip(room.chunks(width)) {
                let to = &mut panel[c * width..][..width];
                to[..block.columns].copy_from_slice(&row[..block.columns]);
                to[block.columns..].fill(0.0);
            }
        }
    }

    /// The panels of a block of input channels: flipped weights, transposed after their transformation.
    fn transform_columns(
        &self,
        weights: &[f32],
        block: &Block,
        room: &mut [f32],
        panels: &mut [&mut [f32]; POINTS],
        width: usize,
    ) {
        let (cin, cout) = (self.destination.c, self.source.c);
        let stride = block.columns * cout;
        for i in 0..block.columns {
            let taps: [&[f32]; 9] =
                std::array::from_fn(|tap| &weights[((8 - tap) * cin + block.first + i) * cout..][..cout]);
            transform::kernel(self.level, &taps, room, stride, i * cout);
        }
        for (panel, point) in panels.iter_mut().zip(room.chunks(stride)) {
            pack_transposed(point, cout, cout, block.columns, panel, width);
        }
    }

    /// All three steps for `count` tiles from `first` on.
    #[allow(clippy::too_many_arguments)]
    fn run_unit(
        &self,
        first: usize,
        count: usize,
        source: &[f32],
        kernels: &[f32],
        zeros: &[f32],
        destination: Disjoint,
        epilogue: Epilogue,
        room: &mut [f32],
    ) {
        let (cin, cout) = (self.source.c, self.destination.c);
        let (window_len, product_len) = (part_len(self.unit, cin), part_len(self.unit, cout));
        let (windows, rest) = room.split_at_mut(POINTS * window_len);
        let (products, pixel) = rest.split_at_mut(POINTS * product_len);
        for t in 0..count {
            let Place { image, y, x } = self.grid.place(first + t);
            let (top, left) = (y as isize - self.pad.0 as isize, x as isize - self.pad.1 as isize);
            let window = pixels::<4, POINTS>(source, self.source, (image, top, left), zeros);
            transform::source(self.level, &window, windows, window_len, t * cin);
        }
        for point in 0..POINTS {
            let window = &windows[point * window_len..][..count * cin];
            let product = &mut products[point * product_len..][..count * cout];
            self.multiply(window, &kernels[point * self.point_len()..][..self.point_len()], product, count);
        }
        let plain = epilogue.bias.is_none() && epilogue.activation == Activation::None;
        for t in 0..count {
            let points = std::array::from_fn(|point| &products[point * product_len + t * cout..][..cout]);
            let mut rows = pixel.chunks_exact_mut(cout);
            let mut rows = [(); 4].map(|()| rows.next().expect("room for four pixels"));
            let place = self.grid.place(first + t);
            if !plain {
                transform::output(self.level, &points, rows.each_mut().map(|row| &mut **row), false);
                for (i, row) in rows.iter().enumerate() {
                    if let Some(start) = self.destination_pixel(place, i) {
                        // SAFETY: a pixel lies in one tile, and a tile in one item.
                        finish(self.level, row, unsafe { destination.slice(start..start + cout) }, epilogue);
                    }
                }
                continue;
            }
            for (i, row) in rows.iter_mut().enumerate() {
                if let Some(start) = self.destination_pixel(place, i) {
                    // SAFETY: as above.
                    *row = unsafe { destination.slice(start..start + cout) };
                }
            }
            transform::output(self.level, &points, rows, epilogue.accumulate);
        }
    }

    /// Where pixel `i` of the four of a tile begins, or `None` beyond the map.
    fn destination_pixel(&self, place: Place, i: usize) -> Option<usize> {
        let (y, x) = (place.y + i / 2, place.x + i % 2);
        let Source { h, w, c } = self.destination;
        (y < h && x < w).then_some(((place.image * h + y) * w + x) * c)
    }

    /// product `[count, k]` = window `[count, c]` · the panels of one point.
    fn multiply(&self, window: &[f32], panels: &[f32], product: &mut [f32], count: usize) {
        let (cin, cout, lanes) = (self.source.c, self.destination.c, tile::lanes(self.level));
        assert!(window.len() >= count * cin && product.len() >= count * cout);
        // One pointer for all rows: taking each from the slice would end the life of those before it.
        let to = product.as_mut_ptr();
        let mut tile = Tile::empty();
        tile.finish = Finish::plain(false);
        tile.inner = Loop { count: cin, step: 1, skip: 0 };
        for block in (0..self.columns.blocks()).map(|index| self.columns.block(index)) {
            tile.b = panels[block.first * cin..].as_ptr();
            tile.ldb = block.vectors * lanes;
            tile.last_columns = block.last_columns(lanes);
            let at_most = tile::tile_rows(self.level, block.vectors);
            for row in (0..count).step_by(at_most) {
                tile.rows = at_most.min(count - row);
                for r in 0..tile.rows {
                    tile.a[r] = window[(row + r) * cin..].as_ptr();
                    tile.c[r] = to.wrapping_add((row + r) * cout + block.first);
                }
                // SAFETY: each row of the window has `cin` floats, the panel `cin` rows of its width, and each row of the
                // product the block's columns; the level was checked when the pass began.
                unsafe { tile::run(self.level, block.vectors, &tile) }
            }
        }
    }
}

crate::multiversion! {
    /// y ← act(sum + bias), or y ← y + act(sum + bias).
    fn finish(sums: &[f32], y: &mut [f32], epilogue: Epilogue) {
        let Epilogue { bias, activation, accumulate } = epilogue;
        for (i, (y, sum)) in y.iter_mut().zip(sums).enumerate() {
            let value = activation.apply(sum + bias.map_or(0.0, |bias| bias[i]));
            *y = if accumulate { *y + value } else { value };
        }
    }
}
