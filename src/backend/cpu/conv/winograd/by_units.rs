//! Many tiles, few weights: all weights are transformed once, then units of tiles pass through.

use super::transform::{PIXELS, POINTS};
use super::{MAX_ITEMS, Pass, Products, Winograd, part_len};
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile;
use std::ops::Range;

/// Where there are fewer units than this, items share them, each for some of the columns.
const FEW_UNITS: usize = 4;

impl Winograd {
    /// Tiles per unit: two rows of register tiles, so that its values stay in the cache beside the weights of a point.
    fn unit(&self) -> usize {
        2 * tile::tile_rows(self.level, tile::max_vectors(self.level))
    }

    /// Floats of the transformed weights of one point: the panels of all blocks, one behind the other.
    fn point_len(&self) -> usize {
        self.source.c * self.columns.padded() + 16
    }

    /// Floats of one unit: transformed windows, products, the pixels of a tile.
    fn unit_len(&self) -> usize {
        let parts = part_len(self.unit(), self.source.c) + part_len(self.unit(), self.destination.c);
        POINTS * parts + PIXELS * self.destination.c
    }

    fn units(&self, n: usize) -> usize {
        self.grid.tiles(n).div_ceil(self.unit())
    }

    /// Work items as (parts of the units, parts of the blocks of columns): the blocks where units are few. What the
    /// parts of a unit have in common, the windows' transformation, each does for itself: so there are no more parts
    /// than threads. No sum depends on it.
    fn items(&self, n: usize) -> (usize, usize) {
        let units = self.units(n);
        let by_block = (FEW_UNITS / units).min(self.columns.blocks()).min(threads::available());
        (units.min(MAX_ITEMS), by_block.max(1))
    }

    /// Floats of all items' rooms for any n up to `max_n`.
    fn rooms_len(&self, max_n: usize) -> usize {
        self.units(max_n).clamp(FEW_UNITS, MAX_ITEMS) * self.unit_len()
    }

    /// Floats of all transformed weights.
    pub(in super::super) fn kernels_len(&self) -> usize {
        POINTS * self.point_len()
    }

    /// Floats of working memory of [`Self::transform_all_weights`].
    pub(in super::super) fn blocks_len(&self) -> usize {
        self.columns.blocks() * self.block_len()
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch_by_units(&self, max_n: usize) -> usize {
        16 + self.source.c + self.kernels_len() + self.rooms_len(max_n).max(self.blocks_len())
    }

    /// Scratch floats of [`Self::run_prepared`] for any n up to `max_n`.
    pub(in super::super) fn prepared_scratch(&self, max_n: usize) -> usize {
        16 + self.source.c + self.rooms_len(max_n)
    }

    pub(super) fn run_by_units(&self, n: usize, pass: Pass, scratch: &mut [f32]) {
        let (kernels, rest) = scratch.split_at_mut(self.kernels_len());
        self.transform_all_weights(pass.weights, kernels, rest);
        self.run_units(n, &pass, kernels, rest);
    }

    /// Units of tiles with transformed weights.
    pub(super) fn run_units(&self, n: usize, pass: &Pass, kernels: &[f32], scratch: &mut [f32]) {
        let (tiles, (by_unit, by_block)) = (self.grid.tiles(n), self.items(n));
        let rooms = Disjoint::new(&mut scratch[..by_unit * by_block * self.unit_len()]);
        threads::for_each_item(by_unit * by_block, |item| {
            // SAFETY: every item has its own room.
            let room = unsafe { rooms.slice(item * self.unit_len()..(item + 1) * self.unit_len()) };
            let blocks = threads::part(self.columns.blocks(), by_block, item % by_block);
            for unit in threads::part(self.units(n), by_unit, item / by_block) {
                let first = unit * self.unit();
                let tiles = first..tiles.min(first + self.unit());
                self.run_unit(tiles, blocks.clone(), kernels, pass, room);
            }
        });
    }

    /// U = G g Gᵀ: for each point the panels of all blocks, one behind the other.
    pub(in super::super) fn transform_all_weights(&self, weights: &[f32], kernels: &mut [f32], rooms: &mut [f32]) {
        let (point_len, room_len) = (self.point_len(), self.block_len());
        let (kernels, rooms) = (Disjoint::new(kernels), Disjoint::new(rooms));
        threads::for_each_item(self.columns.blocks(), |index| {
            let block = self.columns.block(index);
            // SAFETY: every block has its own panels, one in each point's part, and its own room.
            unsafe {
                let panels = kernels.start().add(block.first * self.source.c);
                let room = rooms.slice(index * room_len..(index + 1) * room_len);
                self.transform_weights(weights, &block, room, panels, point_len);
            }
        });
    }

    /// All three steps for some tiles and blocks of columns.
    fn run_unit(&self, tiles: Range<usize>, blocks: Range<usize>, kernels: &[f32], pass: &Pass, room: &mut [f32]) {
        let (cin, cout, count) = (self.source.c, self.destination.c, tiles.len());
        let (window_len, product_len) = (part_len(self.unit(), cin), part_len(self.unit(), cout));
        let (windows, rest) = room.split_at_mut(POINTS * window_len);
        let (products, pixels) = rest.split_at_mut(POINTS * product_len);
        for (t, tile) in tiles.clone().enumerate() {
            let to = windows[t * cin..].as_mut_ptr();
            // SAFETY: each point's part has `cin` floats for every tile of a unit.
            unsafe { self.transform_window(tile, pass, to, window_len) };
        }
        let last = self.columns.block(blocks.end - 1);
        let channel = self.columns.block(blocks.start).first;
        let width = last.first + last.columns - channel;
        for point in 0..POINTS {
            let window = &windows[point * window_len..][..count * cin];
            let product = &mut products[point * product_len..][..count * width];
            let panels = &kernels[point * self.point_len()..][..self.point_len()];
            for block in blocks.clone().map(|index| self.columns.block(index)) {
                let (panel, column) = (&panels[block.first * cin..], block.first - channel);
                self.multiply(window, &block, panel, &mut product[column..], width, count);
            }
        }
        let products = Products { sums: products, stride: product_len, width, first: channel };
        self.finish_tiles(&products, tiles.start, count, pass, pixels);
    }
}
