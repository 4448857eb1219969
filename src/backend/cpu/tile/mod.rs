//! The register tile on which convolutions and linear layers, forward and backward, spend their time.
//!
//! `C[r][j] = Σ_k A[r][k]·B[k][j]` for a few rows r and one to three vectors of columns j, all sums in registers.
//! A is never packed: an element is broadcast straight from memory at `a[r] + offset(k)`, where k runs over three
//! nested loops of constant steps. For a convolution over NHWC these are (kernel row, kernel column, channel), for
//! its weight gradient (image, pixel row, pixel). B is a matrix of `ldb` floats per row.
//!
//! Floor: rows·vectors fused multiply-adds per k; the broadcasts (`rows`) and the loads of B (`vectors`) fit into
//! the two load ports beside them.

// Indexed loops over constants are what the compiler unrolls completely, so that the sums become registers.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

pub(super) use portable::Four;

use super::conv::Activation;
use super::simd::Level;

/// The most rows of any tile.
pub(super) const MAX_ROWS: usize = 8;

/// The most vectors of columns of a tile at a level. With 16 registers, 12 sums of 6 rows leave room for two columns,
/// a broadcast and a mask (or, without fused multiply-add, a product); with 32, there are 24 sums of 8 rows.
pub(super) fn max_vectors(level: Level) -> usize {
    if level == Level::Avx512 { 3 } else { 2 }
}

/// One of the nested loops over k: how often, how many floats A's pointers advance each time, and how many floats of
/// B are skipped after each pass (of the outer two loops; within the inner one, B advances by its row).
#[derive(Clone, Copy, Debug)]
pub(super) struct Loop {
    pub count: usize,
    pub step: usize,
    pub skip: usize,
}

impl Loop {
    /// A loop of one pass.
    pub(super) const ONCE: Loop = Loop { count: 1, step: 0, skip: 0 };
}

/// What happens to the sums: `C ← act(sum [+ C] + bias) [+ C]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    /// Adds C as it was before bias and activation: C holds the sum over earlier k.
    pub partial: bool,
    /// Adds C as it was after the activation: the caller's "add" instead of "write".
    pub add: bool,
    /// One float per column of the tile, or null.
    pub bias: *const f32,
    pub activation: Activation,
}

impl Finish {
    /// Whether C stays as it is if there is nothing to sum.
    pub(super) fn is_identity(&self) -> bool {
        (self.partial || self.add) && self.bias.is_null() && self.activation == Activation::None
    }

    /// Plain `C ← sum`, or `C ← C + sum`.
    pub(super) fn plain(add: bool) -> Finish {
        Finish { partial: add, add: false, bias: std::ptr::null(), activation: Activation::None }
    }
}

/// One call of the tile. Entries of `a` and `c` from `rows` on are ignored.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub a: [*const f32; MAX_ROWS],
    pub c: [*mut f32; MAX_ROWS],
    pub rows: usize,
    pub outer: Loop,
    pub middle: Loop,
    pub inner: Loop,
    pub b: *const f32,
    pub ldb: usize,
    /// Columns of the last vector that exist, 1..=lanes.
    pub last_columns: usize,
    pub finish: Finish,
}

impl Tile {
    /// A tile with nothing to do, to be filled in.
    pub(super) fn empty() -> Tile {
        Tile {
            a: [std::ptr::null(); MAX_ROWS],
            c: [std::ptr::null_mut(); MAX_ROWS],
            rows: 0,
            outer: Loop::ONCE,
            middle: Loop::ONCE,
            inner: Loop::ONCE,
            b: std::ptr::null(),
            ldb: 0,
            last_columns: 0,
            finish: Finish::plain(false),
        }
    }

    /// Whether there is no k.
    pub(super) fn is_empty(&self) -> bool {
        self.outer.count == 0 || self.middle.count == 0 || self.inner.count == 0
    }
}

/// Floats per vector at a level.
pub(super) fn lanes(level: Level) -> usize {
    match level {
        Level::Portable => 4,
        Level::Avx2 => 8,
        Level::Avx512 => 16,
    }
}

/// Rows of the full tile with `vectors` vectors of columns at a level.
pub(super) fn tile_rows(level: Level, vectors: usize) -> usize {
    match (level, vectors) {
        (Level::Avx512, _) | (_, 1) => 8,
        _ => 6,
    }
}

/// Computes one tile.
///
/// # Safety
/// For each row r < `rows` and each k, `a[r]` + offset(k) is readable; B's rows are readable up to the last column;
/// `c[r]` up to the last column is this thread's to write, and initialised if `finish` adds it; `rows` is at most
/// [`tile_rows`] and `vectors` at most [`max_vectors`], and the machine has the level.
#[inline]
pub(super) unsafe fn run(level: Level, vectors: usize, tile: &Tile) {
    debug_assert!((1..=tile_rows(level, vectors)).contains(&tile.rows) && (1..=max_vectors(level)).contains(&vectors));
    debug_assert!((1..=lanes(level)).contains(&tile.last_columns));
    // SAFETY: the caller's promise.
    unsafe {
        match level {
            Level::Portable => portable::run(vectors, tile),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::run(vectors, tile),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::run(vectors, tile),
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::run(vectors, tile),
        }
    }
}

/// A SIMD register of floats.
///
/// # Safety
/// The methods compile to instructions that the machine must have; pointers must be valid for the lanes concerned.
pub(super) unsafe trait Vector: Copy {
    const LANES: usize;
    /// Which of the first lanes exist.
    type Mask: Copy;
    unsafe fn mask(lanes: usize) -> Self::Mask;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Lanes outside the mask are zero and not touched in memory.
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask);
    /// Asks for the cache line of a float; any address will do.
    #[inline(always)]
    fn prefetch(at: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, without effect on what memory holds or on invalid addresses; SSE is x86-64's baseline.
        unsafe {
            use std::arch::x86_64::*;
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    }
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, factor: Self) -> Self;
    /// self·factor + sum.
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self;
    /// max(0, self); NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// self where it is not negative, else slope·self.
    unsafe fn leaky_relu(self, slope: Self) -> Self;
}

/// The tile for any vector type; `ROWS`·`VECTORS` sums stay in registers.
///
/// # Safety
/// As [`run`]; `tile.rows` ≤ `ROWS`.
#[inline(always)]
unsafe fn compute<V: Vector, const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
    // SAFETY: all pointers are the caller's, used inside the ranges that it promised. Rows beyond `tile.rows` repeat
    // the last one's reads and are never written.
    unsafe {
        let mask = V::mask(tile.last_columns);
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        let a: [*const f32; ROWS] = std::array::from_fn(|r| tile.a[r.min(tile.rows - 1)]);
        let mut b = tile.b;
        if tile.finish.partial {
            // Sums that wait in memory come from far away; they are here when the loops end.
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    V::prefetch(tile.c[r.min(tile.rows - 1)].wrapping_add(v * V::LANES));
                }
            }
        }
        for i in 0..tile.outer.count {
            for j in 0..tile.middle.count {
                let mut offset = i * tile.outer.step + j * tile.middle.step;
                for _ in 0..tile.inner.count {
                    let columns = load_row::<V, VECTORS>(b, mask);
                    for r in 0..ROWS {
                        let x = V::splat(*a[r].add(offset));
                        for v in 0..VECTORS {
                            sums[r][v] = x.multiply_add(columns[v], sums[r][v]);
                        }
                    }
                    b = b.wrapping_add(tile.ldb);
                    offset = offset.wrapping_add(tile.inner.step);
                }
                b = b.wrapping_add(tile.middle.skip);
            }
            b = b.wrapping_add(tile.outer.skip);
        }
        finish::<V, ROWS, VECTORS>(tile, mask, &mut sums);
    }
}

/// Loads `VECTORS` vectors, the last one masked.
#[inline(always)]
unsafe fn load_row<V: Vector, const VECTORS: usize>(from: *const f32, mask: V::Mask) -> [V; VECTORS] {
    // SAFETY: the caller's pointer is readable up to the last column.
    unsafe {
        let mut row = [V::load_masked(from.add((VECTORS - 1) * V::LANES), mask); VECTORS];
        for v in 0..VECTORS - 1 {
            row[v] = V::load(from.add(v * V::LANES));
        }
        row
    }
}

/// Applies [`Finish`] and stores the rows that exist.
#[inline(always)]
unsafe fn finish<V: Vector, const ROWS: usize, const VECTORS: usize>(
    tile: &Tile,
    mask: V::Mask,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    // SAFETY: rows below `tile.rows` are the caller's to read and write up to the last column.
    unsafe {
        if tile.finish.partial {
            add_old::<V, ROWS, VECTORS>(tile, mask, sums);
        }
        if !tile.finish.bias.is_null() {
            let bias = load_row::<V, VECTORS>(tile.finish.bias, mask);
            for_each_vector(sums, |sum, v| sum.add(bias[v]));
        }
        match tile.finish.activation {
            Activation::None => {}
            Activation::Relu => for_each_vector(sums, |sum, _| sum.relu()),
            Activation::LeakyRelu(slope) => for_each_vector(sums, |sum, _| sum.leaky_relu(V::splat(slope))),
        }
        if tile.finish.add {
            add_old::<V, ROWS, VECTORS>(tile, mask, sums);
        }
        for r in 0..ROWS {
            if r < tile.rows {
                for v in 0..VECTORS - 1 {
                    sums[r][v].store(tile.c[r].add(v * V::LANES));
                }
                sums[r][VECTORS - 1].store_masked(tile.c[r].add((VECTORS - 1) * V::LANES), mask);
            }
        }
    }
}

#[inline(always)]
unsafe fn add_old<V: Vector, const ROWS: usize, const VECTORS: usize>(
    tile: &Tile,
    mask: V::Mask,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    for r in 0..ROWS {
        if r < tile.rows {
            // SAFETY: rows below `tile.rows` are readable up to the last column.
            unsafe {
                let old = load_row::<V, VECTORS>(tile.c[r], mask);
                for v in 0..VECTORS {
                    sums[r][v] = sums[r][v].add(old[v]);
                }
            }
        }
    }
}

#[inline(always)]
fn for_each_vector<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    f: impl Fn(V, usize) -> V,
) {
    for row in sums {
        for (v, sum) in row.iter_mut().enumerate() {
            *sum = f(*sum, v);
        }
    }
}
