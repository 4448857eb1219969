//! Which kernel a convolution launches, and in how many parts, from its shape alone: the same bits on every device.

/// A kernel that multiplies tiles: rows and columns of a block's tile, threads, blocks that fit into a multiprocessor, and
/// the part of the multiprocessor's rate of f32 that a full load of them reaches, in percent: on tensor cores above 100.
#[derive(Clone, Copy)]
pub struct Tile<K> {
    pub kernel: K,
    pub rows: u64,
    pub columns: u64,
    pub threads: u64,
    pub resident: u64,
    pub rate: u64,
}

/// Parts of a sum are multiples of it: the most terms that a tile takes at a time.
const STEP: u64 = 16;
/// Multiprocessors of the GPU that the choices are made for; others run them as well.
pub const PROCESSORS: u64 = 132;
/// The most numbers that parts of sums may take.
pub const SCRATCH: u64 = 16 << 20;

/// Matrix products of one size: as many as there are groups, times classes of pixels.
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

/// What a product runs on: a tile, and sums cut into parts of `part` terms.
#[derive(Clone, Copy)]
pub struct Choice<K> {
    pub tile: Tile<K>,
    pub parts: u64,
    pub part: u64,
}

impl Product {
    /// Blocks of one group and one part.
    pub fn blocks<K>(&self, tile: &Tile<K>) -> u64 {
        self.rows.div_ceil(tile.rows) * self.columns.div_ceil(tile.columns) * self.classes
    }

    /// The choice of some `parts`, where they are neither too many nor too large.
    pub fn cut<K>(&self, tile: Tile<K>, parts: u64) -> Option<Choice<K>> {
        let part = self.depth.div_ceil(parts).next_multiple_of(STEP).max(STEP);
        let parts = self.depth.div_ceil(part).max(1);
        let fits = parts == 1 || parts * self.length <= SCRATCH && parts * self.groups <= 65535;
        fits.then_some(Choice { tile, parts, part })
    }

    /// Estimated time in cycles, in 1/100: a multiprocessor's share of the blocks, one multiply-add a cycle and lane at the
    /// rate that so many warps reach, and the passes of adding parts up.
    fn time<K>(&self, choice: &Choice<K>) -> u64 {
        let Choice { tile, parts, part } = choice;
        let share = (self.blocks(tile) * self.groups * parts).div_ceil(PROCESSORS);
        // Warps hide each other's waiting: one on each of four schedulers reaches two thirds of what many do.
        let warps = 2 * share.min(tile.resident) * tile.threads / 128;
        let work = tile.rows * tile.columns * (part.min(&self.depth) + 2 * STEP) / 128 * share;
        let multiply = work * 100 * (warps + 1) / warps.max(1) * 100 / tile.rate;
        // Parts are written, read and added at some 8 bytes a cycle and multiprocessor; a launch takes some 4000 cycles.
        let add = if *parts > 1 { self.length * (2 * parts + 1) * 4 / (8 * PROCESSORS) * 100 + 400_000 } else { 0 };
        multiply + add
    }

    /// The fastest by that estimate, of at least one tile.
    pub fn choose<K: Copy>(&self, tiles: &[Tile<K>]) -> Choice<K> {
        const PARTS: [u64; 18] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
        let choices = tiles.iter().flat_map(|&tile| PARTS.iter().filter_map(move |&parts| self.cut(tile, parts)));
        let worth = choices.filter(|choice| choice.parts == 1 || choice.part >= 4 * STEP);
        worth.min_by_key(|choice| self.time(choice)).expect("one part is always possible")
    }
}
