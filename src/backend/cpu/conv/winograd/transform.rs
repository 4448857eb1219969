//! The five transforms of F(4×4, 3×3), a vector of channels at a time.
//!
//! A 6 × 6 window d of the source under a 3 × 3 kernel g gives 4 × 4 values y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A.
//! The gradient of the product's left side is (Bᵀ d B) ⊙ (A dy Aᵀ), and that of g is Gᵀ[…]G.
//!
//! The matrices are those of Toom and Cook for products of polynomials, taken at 0, ±P, ±Q and ∞. With P = ¾ and Q = 1½
//! all entries of A and B are exact and of similar size, and rounding errors are half those of the usual ±1 and ±2: their
//! root mean square is about twice the direct sum's. With a = P², b = Q², a line (a row or a column) becomes
//!
//! - Bᵀd = [ab·d₀ − (a+b)d₂ + d₄,  (d₄ − b·d₂) ± P(d₃ − b·d₁),  (d₄ − a·d₂) ± Q(d₃ − a·d₁),  ab·d₁ − (a+b)d₃ + d₅];
//! - Gg = [g₀/ab,  (g₀ ± P·g₁ + a·g₂) / 2a(a−b),  (g₀ ± Q·g₁ + b·g₂) / 2b(b−a),  g₂];
//! - Aᵀm = [m₀ + m₁ + m₂ + m₃ + m₄,  P(m₁−m₂) + Q(m₃−m₄),  a(m₁+m₂) + b(m₃+m₄),  P³(m₁−m₂) + Q³(m₃−m₄) + m₅].

// Indexed loops over constants are what the compiler unrolls completely, so that values stay registers.
#![allow(clippy::needless_range_loop)]

use crate::backend::cpu::simd::Level;
use crate::backend::cpu::tile::{Four, Vector};

/// Pixels of a tile's side in the destination, and of its window's side in the source.
pub(super) const TILE: usize = 4;
pub(super) const WINDOW: usize = 6;

/// Pixels of a tile.
pub(super) const PIXELS: usize = TILE * TILE;

/// Points of the transformed window, each a product of its own.
pub(super) const POINTS: usize = WINDOW * WINDOW;

/// Weights of a kernel.
pub(super) const TAPS: usize = 9;

/// Channels are a multiple of this.
pub(super) const LANES: usize = 8;

/// The points at which polynomials are taken, beside 0 and ∞, and their squares.
const P: f32 = 0.75;
const Q: f32 = 1.5;
const A: f32 = P * P;
const B: f32 = Q * Q;

/// Of the rows of G: 1/ab, 1/2a(a−b), 1/2b(b−a).
const G_ZERO: f32 = 1.0 / (A * B);
const G_P: f32 = 1.0 / (2.0 * A * (A - B));
const G_Q: f32 = 1.0 / (2.0 * B * (B - A));

/// An array of the expression at 0, 1, 2, …: written out, so that its values become registers.
macro_rules! each {
    (3, $i:ident => $value:expr) => {
        [at!($i = 0, $value), at!($i = 1, $value), at!($i = 2, $value)]
    };
    (4, $i:ident => $value:expr) => {
        [at!($i = 0, $value), at!($i = 1, $value), at!($i = 2, $value), at!($i = 3, $value)]
    };
    (6, $i:ident => $value:expr) => {
        [
            at!($i = 0, $value),
            at!($i = 1, $value),
            at!($i = 2, $value),
            at!($i = 3, $value),
            at!($i = 4, $value),
            at!($i = 5, $value),
        ]
    };
}

macro_rules! at {
    ($i:ident = $index:literal, $value:expr) => {{
        let $i: usize = $index;
        $value
    }};
}

/// Applies a map of one line to the columns of a matrix, then to its rows: an array of rows.
macro_rules! separable {
    ($from:tt => $to:tt, $line:ident, ($i:ident, $j:ident) => $value:expr) => {{
        let columns = each!($from, $j => $line(each!($from, $i => $value)));
        each!($to, i => $line(each!($from, j => columns[j][i])))
    }};
}

/// a + factor·b.
#[inline(always)]
unsafe fn add_scaled<V: Vector>(a: V, factor: f32, b: V) -> V {
    // SAFETY: arithmetic of a level that the caller has.
    unsafe { b.multiply_add(V::splat(factor), a) }
}

#[inline(always)]
unsafe fn scale<V: Vector>(factor: f32, a: V) -> V {
    // SAFETY: as above.
    unsafe { a.mul(V::splat(factor)) }
}

/// Bᵀ·line.
#[inline(always)]
unsafe fn source_line<V: Vector>(d: [V; 6]) -> [V; 6] {
    // SAFETY: as above.
    unsafe {
        let (even_p, odd_p) = (add_scaled(d[4], -B, d[2]), scale(P, add_scaled(d[3], -B, d[1])));
        let (even_q, odd_q) = (add_scaled(d[4], -A, d[2]), scale(Q, add_scaled(d[3], -A, d[1])));
        [
            add_scaled(add_scaled(d[4], -(A + B), d[2]), A * B, d[0]),
            even_p.add(odd_p),
            even_p.sub(odd_p),
            even_q.add(odd_q),
            even_q.sub(odd_q),
            add_scaled(add_scaled(d[5], -(A + B), d[3]), A * B, d[1]),
        ]
    }
}

/// G·line.
#[inline(always)]
unsafe fn kernel_line<V: Vector>(g: [V; 3]) -> [V; 6] {
    // SAFETY: as above.
    unsafe {
        let (even_p, odd_p) = (scale(G_P, add_scaled(g[0], A, g[2])), scale(G_P * P, g[1]));
        let (even_q, odd_q) = (scale(G_Q, add_scaled(g[0], B, g[2])), scale(G_Q * Q, g[1]));
        [scale(G_ZERO, g[0]), even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), g[2]]
    }
}

/// Aᵀ·line.
#[inline(always)]
unsafe fn output_line<V: Vector>(m: [V; 6]) -> [V; 4] {
    // SAFETY: as above.
    unsafe {
        let (sum_p, difference_p) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_q, difference_q) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum_p).add(sum_q),
            add_scaled(scale(P, difference_p), Q, difference_q),
            add_scaled(scale(A, sum_p), B, sum_q),
            add_scaled(add_scaled(m[5], P * A, difference_p), Q * B, difference_q),
        ]
    }
}

/// A·line.
#[inline(always)]
unsafe fn gradient_line<V: Vector>(dy: [V; 4]) -> [V; 6] {
    // SAFETY: as above.
    unsafe {
        let (even_p, odd_p) = (add_scaled(dy[0], A, dy[2]), scale(P, add_scaled(dy[1], A, dy[3])));
        let (even_q, odd_q) = (add_scaled(dy[0], B, dy[2]), scale(Q, add_scaled(dy[1], B, dy[3])));
        [dy[0], even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), dy[3]]
    }
}

/// Gᵀ·line.
#[inline(always)]
unsafe fn dkernel_line<V: Vector>(u: [V; 6]) -> [V; 3] {
    // SAFETY: as above.
    unsafe {
        let (sum_p, difference_p) = (scale(G_P, u[1].add(u[2])), scale(G_P * P, u[1].sub(u[2])));
        let (sum_q, difference_q) = (scale(G_Q, u[3].add(u[4])), scale(G_Q * Q, u[3].sub(u[4])));
        [
            add_scaled(sum_p.add(sum_q), G_ZERO, u[0]),
            difference_p.add(difference_q),
            add_scaled(add_scaled(u[5], A, sum_p), B, sum_q),
        ]
    }
}

/// A transform compiled for each level; its body is for one vector of channels from `c` on.
macro_rules! transform {
    ($(#[$meta:meta])* $name:ident($c:ident, $($arg:ident: $type:ty),*) $body:block) => {
        $(#[$meta])*
        pub(super) unsafe fn $name(level: Level, channels: usize, $($arg: $type),*) {
            #[inline(always)]
            unsafe fn all<V: Vector>(channels: usize, $($arg: $type),*) {
                for $c in (0..channels).step_by(V::LANES) {
                    // SAFETY: the caller's pointers, read and written below `channels`.
                    unsafe { $body }
                }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2(channels: usize, $($arg: $type),*) {
                // SAFETY: as above.
                unsafe { all::<std::arch::x86_64::__m256>(channels, $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512(channels: usize, $($arg: $type),*) {
                // SAFETY: as above.
                unsafe { all::<std::arch::x86_64::__m512>(channels, $($arg),*) }
            }
            debug_assert!(channels.is_multiple_of(LANES));
            // SAFETY: the caller's promise; whole vectors at each level.
            unsafe {
                match level {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 if channels.is_multiple_of(2 * LANES) => avx512(channels, $($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 | Level::Avx2 => avx2(channels, $($arg),*),
                    _ => all::<Four>(channels, $($arg),*),
                }
            }
        }
    };
}

transform! {
    /// V = Bᵀ d B of the window `d`, each point `stride` floats behind the one before.
    ///
    /// # Safety
    /// For this and the other transforms: each pointer, and those `stride` apart, have `channels` floats, which for results are
    /// this thread's to write; the machine has the level.
    source(c, d: &[*const f32; POINTS], v: *mut f32, stride: usize) {
        let points = separable!(6 => 6, source_line, (i, j) => V::load(d[i * WINDOW + j].add(c)));
        for i in 0..WINDOW {
            for j in 0..WINDOW {
                points[i][j].store(v.add((i * WINDOW + j) * stride + c));
            }
        }
    }
}

transform! {
    /// U = G g Gᵀ of the nine rows of weights `g`, written as in [`source`].
    kernel(c, g: &[*const f32; TAPS], u: *mut f32, stride: usize) {
        let points = separable!(3 => 6, kernel_line, (i, j) => V::load(g[i * 3 + j].add(c)));
        for i in 0..WINDOW {
            for j in 0..WINDOW {
                points[i][j].store(u.add((i * WINDOW + j) * stride + c));
            }
        }
    }
}

transform! {
    /// y = Aᵀ m A of the points `m`, which lie `stride` floats apart; written to the pixels of a tile, or added. Null
    /// pixels are left out.
    output(c, m: *const f32, stride: usize, y: &[*mut f32; PIXELS], keep: bool) {
        let pixels = separable!(6 => 4, output_line, (i, j) => V::load(m.add((i * WINDOW + j) * stride + c)));
        for i in 0..TILE {
            for j in 0..TILE {
                let to = y[i * TILE + j].wrapping_add(c);
                if !y[i * TILE + j].is_null() {
                    let pixel = if keep { V::load(to).add(pixels[i][j]) } else { pixels[i][j] };
                    pixel.store(to);
                }
            }
        }
    }
}

transform! {
    /// dm = A dy Aᵀ of the pixels `dy` of a tile, written as in [`source`].
    gradient(c, dy: &[*const f32; PIXELS], dm: *mut f32, stride: usize) {
        let points = separable!(4 => 6, gradient_line, (i, j) => V::load(dy[i * TILE + j].add(c)));
        for i in 0..WINDOW {
            for j in 0..WINDOW {
                points[i][j].store(dm.add((i * WINDOW + j) * stride + c));
            }
        }
    }
}

transform! {
    /// dw = Gᵀ du G of the points `du`, which lie `stride` floats apart; written to nine rows of weights, or added.
    dkernel(c, du: *const f32, stride: usize, dw: &[*mut f32; TAPS], keep: bool) {
        let taps = separable!(6 => 3, dkernel_line, (i, j) => V::load(du.add((i * WINDOW + j) * stride + c)));
        for i in 0..3 {
            for j in 0..3 {
                let to = dw[i * 3 + j].add(c);
                let tap = if keep { V::load(to).add(taps[i][j]) } else { taps[i][j] };
                tap.store(to);
            }
        }
    }
}
