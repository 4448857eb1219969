//! Which kernel a convolution launches, and in how many parts, from its shape alone: the same bits on every device.

/// A kernel that multiplies tiles: rows and columns of a block's tile, threads, blocks that fit into a multiprocessor, and
/// the part of the multiprocessor's rate that a full load of them reaches, in percent.
#[derive(Clone, Copy)]
pub struct Tile<K> {
    pub kernel: K,
    pub rows: u64,
    pub columns: u64,
    pub threads: u64,
    pub resident: u64,
    pub rate: u64,
}

/// Columns of A that a tile takes at a time: parts of a sum are multiples of it.
const STEP: u64 = 8;
/// Multiprocessors of the GPU that the choices are made for; others run them as well.
pub const PROCESSORS: u64 = 132;
/// The most numbers that parts of sums may take.
pub const SCRATCH: u64 = 16 << 20;

/// A matrix product, once for each group and for each class of pixels.
#[derive(Clone, Copy)]
pub struct Product {
    pub rows: u64,
    pub columns: u64,
    pub depth: u64,
    pub groups: u64,
    pub classes: u64,
    /// Numbers of the output, all groups together: what one part takes.
    pub length: u64,
}

/// What a product runs on.
pub struct Choice<K> {
    pub tile: Tile<K>,
    pub blocks: u64,
    pub parts: u64,
    /// Terms of a part.
    pub part: u64,
}

impl Product {
    /// Estimated time in cycles of a multiprocessor, in 1/100: its share of the blocks, one multiply-add a cycle and lane at
    /// the rate that so many warps reach, and the passes of adding parts up.
    fn time<K>(&self, tile: &Tile<K>, blocks: u64, parts: u64, part: u64) -> u64 {
        let share = (blocks * parts).div_ceil(PROCESSORS);
        // Warps hide each other's waiting: one on each of four schedulers reaches two thirds of what many do.
        let warps = 2 * share.min(tile.resident) * tile.threads / 128;
        let work = tile.rows * tile.columns * (part + 3 * STEP) / 128 * share;
        let multiply = work * 100 * (warps + 1) / warps * 100 / tile.rate;
        // Parts are written, read and added at some 8 bytes a cycle and multiprocessor; a launch takes some 4000 cycles.
        let add = if parts > 1 { self.length * (2 * parts + 1) * 4 / (8 * PROCESSORS) * 100 + 400_000 } else { 0 };
        multiply + add
    }

    pub fn choose<K: Copy>(&self, tiles: &[Tile<K>]) -> Choice<K> {
        let mut best: Option<(u64, Choice<K>)> = None;
        for &tile in tiles {
            let blocks = self.rows.div_ceil(tile.rows) * self.columns.div_ceil(tile.columns) * self.groups * self.classes;
            for wanted in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512] {
                let part = self.depth.div_ceil(wanted).next_multiple_of(STEP).max(STEP);
                let parts = self.depth.div_ceil(part).max(1);
                let fits = parts * self.length <= SCRATCH && part >= 8 * STEP && parts * self.groups <= 65535;
                if parts > 1 && !fits {
                    break;
                }
                let time = self.time(&tile, blocks, parts, part);
                if best.as_ref().is_none_or(|(least, _)| time < *least) {
                    best = Some((time, Choice { tile, blocks: blocks / self.groups, parts, part }));
                }
            }
        }
        best.expect("there are tiles to choose from").1
    }
}
