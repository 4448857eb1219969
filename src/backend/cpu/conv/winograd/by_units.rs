//! Many tiles, few weights: all weights are transformed once, then units of tiles pass through.

use super::transform::{PIXELS, POINTS};
use super::{MAX_ITEMS, Pass, Products, Winograd, part_len};
use crate::backend::cpu::threads::{self, Disjoint};
use crate::backend::cpu::tile;

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

    fn items(&self, n: usize) -> usize {
        self.grid.tiles(n).div_ceil(self.unit()).min(MAX_ITEMS)
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch_by_units(&self, max_n: usize) -> usize {
        let units = self.items(max_n) * self.unit_len();
        let blocks = self.columns.blocks() * self.block_len();
        16 + self.source.c + POINTS * self.point_len() + units.max(blocks)
    }

    pub(super) fn run_by_units(&self, n: usize, pass: Pass, scratch: &mut [f32]) {
        let (kernels, rest) = scratch.split_at_mut(POINTS * self.point_len());
        self.transform_all_weights(pass.weights, kernels, rest);
        let kernels = &*kernels;
        let (tiles, items) = (self.grid.tiles(n), self.items(n));
        let rooms = Disjoint::new(&mut rest[..items * self.unit_len()]);
        threads::for_each_item(items, |item| {
            // SAFETY: every item has its own room.
            let room = unsafe { rooms.slice(item * self.unit_len()..(item + 1) * self.unit_len()) };
            for unit in threads::part(tiles.div_ceil(self.unit()), items, item) {
                let first = unit * self.unit();
                self.run_unit(first, self.unit().min(tiles - first), kernels, &pass, room);
            }
        });
    }

    fn transform_all_weights(&self, weights: &[f32], kernels: &mut [f32], rooms: &mut [f32]) {
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

    /// All three steps for `count` tiles from `first` on.
    fn run_unit(&self, first: usize, count: usize, kernels: &[f32], pass: &Pass, room: &mut [f32]) {
        let (cin, cout) = (self.source.c, self.destination.c);
        let (window_len, product_len) = (part_len(self.unit(), cin), part_len(self.unit(), cout));
        let (windows, rest) = room.split_at_mut(POINTS * window_len);
        let (products, pixels) = rest.split_at_mut(POINTS * product_len);
        for t in 0..count {
            let to = windows[t * cin..].as_mut_ptr();
            // SAFETY: each point's part has `cin` floats for every tile of a unit.
            unsafe { self.transform_window(first + t, pass, to, window_len) };
        }
        for point in 0..POINTS {
            let window = &windows[point * window_len..][..count * cin];
            let product = &mut products[point * product_len..][..count * cout];
            let panels = &kernels[point * self.point_len()..][..self.point_len()];
            for block in (0..self.columns.blocks()).map(|index| self.columns.block(index)) {
                let panel = &panels[block.first * cin..];
                self.multiply(window, &block, panel, &mut product[block.first..], cout, count);
            }
        }
        let products = Products { sums: products, stride: product_len, width: cout, first: 0 };
        self.finish_tiles(&products, first, count, pass, pixels);
    }
}
