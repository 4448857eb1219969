//! Few tiles, many weights: the windows of many tiles are transformed, then ranges of output channels pass through, each
//! with weights that exist only meanwhile.

use super::transform::{PIXELS, POINTS};
use super::{MAX_ITEMS, Pass, Products, Winograd, part_len};
use crate::backend::cpu::threads::{self, Disjoint};
use std::ops::Range;

/// Tiles per work item of the windows' transformation.
const WINDOW_ITEM: usize = 8;

/// Channels per range, about: their weights for a point share the second-level cache with its windows.
const RANGE: usize = 64;

/// The most floats of windows kept at a time (8 MB), and the fewest tiles: fewer would not pay for transforming weights.
const WINDOW_LIMIT: usize = 2 << 20;
const MIN_CHUNK: usize = 64;

impl Winograd {
    /// Tiles whose windows are kept at a time.
    fn chunk(&self, n: usize) -> usize {
        (WINDOW_LIMIT / (POINTS * self.source.c)).max(MIN_CHUNK).min(self.grid.tiles(n))
    }

    /// Blocks of columns per range.
    fn range_blocks(&self) -> usize {
        RANGE.div_ceil(self.most_columns())
    }

    /// The most columns of a range.
    fn range_columns(&self) -> usize {
        self.range_blocks() * self.most_columns()
    }

    fn ranges(&self) -> usize {
        self.columns.blocks().div_ceil(self.range_blocks())
    }

    /// Floats of a range's panels for one point.
    fn panel_len(&self) -> usize {
        part_len(self.range_columns(), self.source.c)
    }

    /// Floats of a range's room: panels, weights before they are transposed, products, the pixels of a tile.
    fn range_room(&self, n: usize) -> usize {
        let width = self.range_columns();
        POINTS * (self.panel_len() + part_len(self.chunk(n), width)) + self.block_len() + PIXELS * width
    }

    fn range_items(&self) -> usize {
        self.ranges().min(MAX_ITEMS)
    }

    /// Scratch floats for any n up to `max_n`.
    pub(super) fn scratch_by_columns(&self, max_n: usize) -> usize {
        let windows = POINTS * part_len(self.chunk(max_n), self.source.c);
        16 + self.source.c + windows + self.range_items() * self.range_room(max_n)
    }

    pub(super) fn run_by_columns(&self, n: usize, pass: Pass, scratch: &mut [f32]) {
        let (tiles, chunk) = (self.grid.tiles(n), self.chunk(n));
        let (windows, rooms) = scratch.split_at_mut(POINTS * part_len(chunk, self.source.c));
        for first in (0..tiles).step_by(chunk) {
            let count = chunk.min(tiles - first);
            self.transform_windows(first, count, &pass, windows, part_len(chunk, self.source.c));
            let (rooms, windows) = (Disjoint::new(rooms), &*windows);
            let (items, len) = (self.range_items(), self.range_room(n));
            threads::for_each_item(items, |item| {
                // SAFETY: every item has its own room.
                let room = unsafe { rooms.slice(item * len..(item + 1) * len) };
                for range in threads::part(self.ranges(), items, item) {
                    let blocks = range * self.range_blocks()..(range + 1) * self.range_blocks();
                    let blocks = blocks.start..blocks.end.min(self.columns.blocks());
                    self.run_range(blocks, (first, count, chunk), windows, &pass, room);
                }
            });
        }
    }

    fn transform_windows(&self, first: usize, count: usize, pass: &Pass, windows: &mut [f32], stride: usize) {
        let windows = Disjoint::new(windows);
        let items = count.div_ceil(WINDOW_ITEM).min(MAX_ITEMS);
        threads::for_each_item(items, |item| {
            for t in threads::part(count, items, item) {
                let to = windows.start().wrapping_add(t * self.source.c);
                // SAFETY: each point's part has the source's channels for every tile of a chunk; a tile is one item's.
                unsafe { self.transform_window(first + t, pass, to, stride) };
            }
        });
    }

    /// Some blocks of output channels for `count` tiles from `first` on, in rooms for `chunk` tiles.
    fn run_range(
        &self,
        blocks: Range<usize>,
        (first, count, chunk): (usize, usize, usize),
        windows: &[f32],
        pass: &Pass,
        room: &mut [f32],
    ) {
        let cin = self.source.c;
        let (window_len, product_len) = (part_len(chunk, cin), part_len(chunk, self.range_columns()));
        let (panels, rest) = room.split_at_mut(POINTS * self.panel_len());
        let (weights, rest) = rest.split_at_mut(self.block_len());
        let (products, pixels) = rest.split_at_mut(POINTS * product_len);
        let blocks = blocks.map(|index| self.columns.block(index));
        let (mut channel, mut width) = (usize::MAX, 0);
        for block in blocks.clone() {
            channel = channel.min(block.first);
            width += block.columns;
            let to = panels[(block.first - channel) * cin..].as_mut_ptr();
            // SAFETY: each point's part has room for the panels of a range.
            unsafe { self.transform_weights(pass.weights, &block, weights, to, self.panel_len()) };
        }
        for point in 0..POINTS {
            let window = &windows[point * window_len..][..window_len];
            let panels = &panels[point * self.panel_len()..][..self.panel_len()];
            let product = &mut products[point * product_len..][..product_len];
            for block in blocks.clone() {
                let column = block.first - channel;
                self.multiply(window, &block, &panels[column * cin..], &mut product[column..], width, count);
            }
        }
        let products = Products { sums: products, stride: product_len, width, first: channel };
        self.finish_tiles(&products, first, count, pass, pixels);
    }
}
