//! The register tile on which convolutions and linear layers, forward and backward, spend their time.
//!
//! `C[r][j] = Σ_k A[r][k]·B[k][j]` for a few rows r and one to three vectors of columns j, all sums in registers.
//! A is never packed: an element is broadcast straight from memory at `a[r] + offset(k)`, where k runs over three
//! nested loops of constant steps. For a convolution over NHWC these are (kernel row, kernel column, channel), for
//! its weight gradient (image, pixel row, pixel). B is a matrix of `ldb` floats per row.
//!
//! Columns of several groups may share a vector ([`Spread`]).
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
mod row;

pub(super) use portable::Four;
pub(super) use row::{ROW_VECTORS, row};

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

/// How the columns of a tile of one vector share their elements of A: each of so many equal parts has its own, `step` floats
/// behind that of the part before. Groups of few channels fill a vector so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub parts: usize,
    pub step: usize,
    /// Elements of A next to each other that are loaded together.
    pub run: Run,
}

/// Whose elements of A lie next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Of so many steps of the inner loop, whose count is a multiple of it: 1, 2 or 4.
    Depth(usize),
    /// Of so many rows, whose number is a multiple of it: 2 or 4.
    Rows(usize),
}

impl Spread {
    /// All columns have the same.
    pub(super) const NONE: Spread = Spread { parts: 1, step: 0, run: Run::Depth(1) };

    /// The parts that tiles are made for, most first.
    pub(super) const PARTS: [usize; 2] = [4, 2];

    /// How many of `channels` elements are loaded together.
    pub(super) fn run_of(channels: usize) -> usize {
        [4, 2].into_iter().find(|&run| channels.is_multiple_of(run)).unwrap_or(1)
    }

    /// Rows of the full tile: fewer where columns have several parts, whose elements take registers along k.
    pub(super) fn tile_rows(self, level: Level, vectors: usize) -> usize {
        match self.run {
            Run::Depth(_) if self.parts > 1 => 6,
            _ => tile_rows(level, vectors),
        }
    }
}

/// Tiles beside each other that have rows and loops in common: so many, each so many floats behind the one before in A, B, and C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    pub count: usize,
    pub a: usize,
    pub b: usize,
    pub c: usize,
}

impl Repeat {
    /// One tile.
    pub(super) const ONCE: Repeat = Repeat { count: 1, a: 0, b: 0, c: 0 };
}

/// What happens to the sums: `C ← last(act(sum [+ C] + bias) [· scale + shift] [+ C] [+ residual])`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    /// Adds C as it was before bias and activation: C holds the sum over earlier k.
    pub partial: bool,
    /// Adds C as it was after the activation: the caller's "add" instead of "write".
    pub add: bool,
    /// One float per column of the tile, or null.
    pub bias: *const f32,
    pub activation: Activation,
    /// One float per column of the tile each, or null both.
    pub scale: *const f32,
    pub shift: *const f32,
    /// Whether [`Tile::residual`] is added.
    pub residual: bool,
    pub last: Activation,
}

impl Finish {
    /// Whether C stays as it is if there is nothing to sum.
    pub(super) fn is_identity(&self) -> bool {
        (self.partial || self.add)
            && self.bias.is_null()
            && self.activation == Activation::None
            && self.scale.is_null()
            && !self.residual
            && self.last == Activation::None
    }

    /// Plain `C ← sum`, or `C ← C + sum`.
    pub(super) fn plain(add: bool) -> Finish {
        Finish {
            partial: add,
            add: false,
            bias: std::ptr::null(),
            activation: Activation::None,
            scale: std::ptr::null(),
            shift: std::ptr::null(),
            residual: false,
            last: Activation::None,
        }
    }
}

/// One call of the tile. Entries of `a`, `c` and `residual` from `rows` on are ignored.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub a: [*const f32; MAX_ROWS],
    pub c: [*mut f32; MAX_ROWS],
    /// Read where `finish` says so.
    pub residual: [*const f32; MAX_ROWS],
    pub rows: usize,
    pub outer: Loop,
    pub middle: Loop,
    pub inner: Loop,
    pub b: *const f32,
    pub ldb: usize,
    pub spread: Spread,
    pub repeat: Repeat,
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
            residual: [std::ptr::null(); MAX_ROWS],
            rows: 0,
            outer: Loop::ONCE,
            middle: Loop::ONCE,
            inner: Loop::ONCE,
            b: std::ptr::null(),
            ldb: 0,
            spread: Spread::NONE,
            repeat: Repeat::ONCE,
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
/// `c[r]` up to the last column is this thread's to write, and initialised if `finish` adds it; likewise `residual[r]` is
/// readable; `rows` is at most
/// [`Spread::tile_rows`] and `vectors` at most [`max_vectors`], and the machine has the level. A spread has 1 part, or one of
/// [`Spread::PARTS`] and one vector, and is readable for each part. All of this holds for each repetition.
#[inline]
pub(super) unsafe fn run(level: Level, vectors: usize, tile: &Tile) {
    let most = tile.spread.tile_rows(level, vectors);
    debug_assert!((1..=most).contains(&tile.rows) && (1..=max_vectors(level)).contains(&vectors));
    debug_assert!(tile.spread.parts == 1 || (vectors == 1 && Spread::PARTS.contains(&tile.spread.parts)));
    debug_assert!(match tile.spread.run {
        Run::Depth(1) => true,
        Run::Depth(run) => tile.inner.count.is_multiple_of(run) && tile.inner.step == 1,
        Run::Rows(run) => tile.rows.is_multiple_of(run),
    });
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
    /// Each vector's lanes in `PARTS` equal parts, each filled with one float: those at `from`, `from` + step, … for the first
    /// vector, those behind them for the next.
    unsafe fn spread<const PARTS: usize, const RUN: usize>(from: *const f32, step: usize) -> [Self; RUN];
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
    // SAFETY: the caller's promise.
    unsafe { compute_spread::<V, ROWS, VECTORS, 1, 1, 1>(tile) }
}

/// The tile of one vector whose columns are spread over A.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn compute_parts<V: Vector>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        match (tile.spread.parts, tile.spread.run) {
            (2, Run::Depth(4)) => compute_rows::<V, 2, 4, 1>(tile),
            (2, Run::Depth(2)) => compute_rows::<V, 2, 2, 1>(tile),
            (2, Run::Depth(_)) => compute_rows::<V, 2, 1, 1>(tile),
            (2, Run::Rows(4)) => compute_rows::<V, 2, 1, 4>(tile),
            (2, Run::Rows(_)) => compute_rows::<V, 2, 1, 2>(tile),
            (_, Run::Depth(4)) => compute_rows::<V, 4, 4, 1>(tile),
            (_, Run::Depth(2)) => compute_rows::<V, 4, 2, 1>(tile),
            (_, Run::Depth(_)) => compute_rows::<V, 4, 1, 1>(tile),
            (_, Run::Rows(4)) => compute_rows::<V, 4, 1, 4>(tile),
            (_, Run::Rows(_)) => compute_rows::<V, 4, 1, 2>(tile),
        }
    }
}

/// [`compute_parts`] for as many rows as there are.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn compute_rows<V: Vector, const PARTS: usize, const DEPTH: usize, const RUN: usize>(tile: &Tile) {
    // SAFETY: the caller's promise; each arm has at least `tile.rows` rows.
    unsafe {
        match tile.rows {
            5.. if RUN > 1 => compute_spread::<V, 8, 1, PARTS, DEPTH, RUN>(tile),
            _ if RUN > 1 => compute_spread::<V, 4, 1, PARTS, DEPTH, RUN>(tile),
            4.. => compute_spread::<V, 6, 1, PARTS, DEPTH, RUN>(tile),
            _ => compute_spread::<V, 3, 1, PARTS, DEPTH, RUN>(tile),
        }
    }
}

/// [`compute`] where each of `PARTS` parts of a vector has its own element of A, and those of `DEPTH` k or of `RUN` rows are
/// loaded together.
///
/// # Safety
/// As [`run`]; `tile.rows` ≤ `ROWS`, a multiple of `RUN`.
#[inline(always)]
unsafe fn compute_spread<
    V: Vector,
    const ROWS: usize,
    const VECTORS: usize,
    const PARTS: usize,
    const DEPTH: usize,
    const RUN: usize,
>(
    tile: &Tile,
) {
    // SAFETY: all pointers are the caller's, used inside the ranges that it promised. Rows beyond `tile.rows` repeat
    // the last ones' reads and are never written.
    unsafe {
        let mask = V::mask(tile.last_columns);
        for repetition in 0..tile.repeat.count {
            let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
            let shift = repetition * tile.repeat.a;
            let a: [*const f32; ROWS] = std::array::from_fn(|r| tile.a[r.min(tile.rows - RUN)].wrapping_add(shift));
            let mut b = tile.b.wrapping_add(repetition * tile.repeat.b);
            let column = repetition * tile.repeat.c;
            if tile.finish.partial {
                // Sums that wait in memory come from far away; they are here when the loops end.
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        V::prefetch(tile.c[r.min(tile.rows - 1)].wrapping_add(column + v * V::LANES));
                    }
                }
            }
            for i in 0..tile.outer.count {
                for j in 0..tile.middle.count {
                    let mut offset = i * tile.outer.step + j * tile.middle.step;
                    for _ in 0..tile.inner.count / DEPTH {
                        let mut columns = [[V::splat(0.0); VECTORS]; DEPTH];
                        for row in &mut columns {
                            *row = load_row::<V, VECTORS>(b, mask);
                            b = b.wrapping_add(tile.ldb);
                        }
                        for r in (0..ROWS).step_by(RUN) {
                            if RUN > 1 {
                                let x = V::spread::<PARTS, RUN>(a[r].add(offset), tile.spread.step);
                                for i in 0..RUN {
                                    sums[r + i][0] = x[i].multiply_add(columns[0][0], sums[r + i][0]);
                                }
                                continue;
                            }
                            let x = V::spread::<PARTS, DEPTH>(a[r].add(offset), tile.spread.step);
                            for k in 0..DEPTH {
                                for v in 0..VECTORS {
                                    sums[r][v] = x[k].multiply_add(columns[k][v], sums[r][v]);
                                }
                            }
                        }
                        offset = offset.wrapping_add(DEPTH * tile.inner.step);
                    }
                    b = b.wrapping_add(tile.middle.skip);
                }
                b = b.wrapping_add(tile.outer.skip);
            }
            finish::<V, ROWS, VECTORS>(tile, column, mask, &mut sums);
        }
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

/// Applies [`Finish`] to the columns from `column` on and stores the rows that exist.
#[inline(always)]
unsafe fn finish<V: Vector, const ROWS: usize, const VECTORS: usize>(
    tile: &Tile,
    column: usize,
    mask: V::Mask,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    // SAFETY: rows below `tile.rows` are the caller's to read and write up to the last column.
    unsafe {
        let old = tile.c.map(|c| c.cast_const().wrapping_add(column));
        if tile.finish.partial {
            add_rows::<V, ROWS, VECTORS>(&old, tile.rows, mask, sums);
        }
        if !tile.finish.bias.is_null() {
            let bias = load_row::<V, VECTORS>(tile.finish.bias.add(column), mask);
            for_each_vector(sums, |sum, v| sum.add(bias[v]));
        }
        activate::<V, ROWS, VECTORS>(tile.finish.activation, sums);
        if !tile.finish.scale.is_null() {
            let scale = load_row::<V, VECTORS>(tile.finish.scale.add(column), mask);
            let shift = load_row::<V, VECTORS>(tile.finish.shift.add(column), mask);
            // Two roundings, as everywhere where a scale is applied: an image gives the same bits by any way.
            let zero = V::splat(0.0);
            for_each_vector(sums, |sum, v| sum.multiply_add(scale[v], zero).add(shift[v]));
        }
        if tile.finish.add {
            add_rows::<V, ROWS, VECTORS>(&old, tile.rows, mask, sums);
        }
        if tile.finish.residual {
            let residual = tile.residual.map(|residual| residual.wrapping_add(column));
            add_rows::<V, ROWS, VECTORS>(&residual, tile.rows, mask, sums);
        }
        activate::<V, ROWS, VECTORS>(tile.finish.last, sums);
        for r in 0..ROWS {
            if r < tile.rows {
                let to = tile.c[r].add(column);
                for v in 0..VECTORS - 1 {
                    sums[r][v].store(to.add(v * V::LANES));
                }
                let (last, to) = (sums[r][VECTORS - 1], to.add((VECTORS - 1) * V::LANES));
                // Some machines take many times as long for a masked store.
                if tile.last_columns == V::LANES { last.store(to) } else { last.store_masked(to, mask) }
            }
        }
    }
}

/// Adds the first `count` of `rows`.
#[inline(always)]
unsafe fn add_rows<V: Vector, const ROWS: usize, const VECTORS: usize>(
    rows: &[*const f32; MAX_ROWS],
    count: usize,
    mask: V::Mask,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    for r in 0..ROWS {
        if r < count {
            // SAFETY: the caller's rows are readable up to the last column.
            unsafe {
                let row = load_row::<V, VECTORS>(rows[r], mask);
                for v in 0..VECTORS {
                    sums[r][v] = sums[r][v].add(row[v]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn activate<V: Vector, const ROWS: usize, const VECTORS: usize>(
    activation: Activation,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    // SAFETY: instructions that the machine has, by the caller's promise.
    unsafe {
        match activation {
            Activation::None => {}
            Activation::Relu => for_each_vector(sums, |sum, _| sum.relu()),
            Activation::LeakyRelu(slope) => for_each_vector(sums, |sum, _| sum.leaky_relu(V::splat(slope))),
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
