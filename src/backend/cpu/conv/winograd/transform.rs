//! The five transforms of F(2×2, 3×3), eight channels at a time.
//!
//! With the matrices of Lavin and Gray (2016),
//! Bᵀ = [1 0 −1 0; 0 1 1 0; 0 −1 1 0; 0 1 0 −1], G = [1 0 0; ½ ½ ½; ½ −½ ½; 0 0 1], Aᵀ = [1 1 1 0; 0 1 −1 −1],
//! a 4 × 4 window d of the source under a 3 × 3 kernel g gives 2 × 2 values y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A.
//! The gradient of the product's left side is (Bᵀ d B) ⊙ (A dy Aᵀ), and that of g is Gᵀ[…]G.

// Indexed loops over constants are what the compiler unrolls completely, so that the lanes become registers.
#![allow(clippy::needless_range_loop)]

/// Points of the transformed 4 × 4 window, each a product of its own.
pub(super) const POINTS: usize = 16;

/// Channels that a transform handles at a time.
pub(super) const LANES: usize = 8;

type Lanes = [f32; LANES];

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    let mut sum = a;
    for i in 0..LANES {
        sum[i] += b[i];
    }
    sum
}

#[inline(always)]
fn sub(a: Lanes, b: Lanes) -> Lanes {
    let mut difference = a;
    for i in 0..LANES {
        difference[i] -= b[i];
    }
    difference
}

#[inline(always)]
fn half(a: Lanes) -> Lanes {
    let mut half = a;
    for i in 0..LANES {
        half[i] *= 0.5;
    }
    half
}

/// Applies a map of one line to the columns of a matrix, then to its rows.
macro_rules! separable {
    ($from:expr, $rows:literal => $to_rows:literal, $line:ident) => {{
        let from = $from;
        let mut columns = [[0.0; LANES]; $rows * $to_rows];
        for j in 0..$rows {
            let mut line = [[0.0; LANES]; $rows];
            for i in 0..$rows {
                line[i] = from[i * $rows + j];
            }
            let line = $line(line);
            for i in 0..$to_rows {
                columns[i * $rows + j] = line[i];
            }
        }
        let mut to = [[0.0; LANES]; $to_rows * $to_rows];
        for i in 0..$to_rows {
            let mut line = [[0.0; LANES]; $rows];
            for j in 0..$rows {
                line[j] = columns[i * $rows + j];
            }
            let line = $line(line);
            for j in 0..$to_rows {
                to[i * $to_rows + j] = line[j];
            }
        }
        to
    }};
}

/// Bᵀ·line.
#[inline(always)]
fn source_line(d: [Lanes; 4]) -> [Lanes; 4] {
    [sub(d[0], d[2]), add(d[1], d[2]), sub(d[2], d[1]), sub(d[1], d[3])]
}

/// G·line.
#[inline(always)]
fn kernel_line(g: [Lanes; 3]) -> [Lanes; 4] {
    let outer = add(g[0], g[2]);
    [g[0], half(add(outer, g[1])), half(sub(outer, g[1])), g[2]]
}

/// Aᵀ·line.
#[inline(always)]
fn output_line(m: [Lanes; 4]) -> [Lanes; 2] {
    let (sum, difference) = (add(m[1], m[2]), sub(m[1], m[2]));
    [add(m[0], sum), sub(difference, m[3])]
}

/// A·line.
#[inline(always)]
fn gradient_line(dy: [Lanes; 2]) -> [Lanes; 4] {
    [dy[0], add(dy[0], dy[1]), sub(dy[0], dy[1]), sub([0.0; LANES], dy[1])]
}

/// Gᵀ·line.
#[inline(always)]
fn dkernel_line(u: [Lanes; 4]) -> [Lanes; 3] {
    let (sum, difference) = (half(add(u[1], u[2])), half(sub(u[1], u[2])));
    [add(u[0], sum), difference, add(sum, u[3])]
}

/// Where the transformed values of one row of channels go: 16 parts of `stride` floats, at `at` in each.
#[inline(always)]
fn parts(to: &mut [f32], stride: usize, at: usize, count: usize) -> [&mut [Lanes]; POINTS] {
    let mut parts = to.chunks_mut(stride);
    [(); POINTS].map(|()| &mut parts.next().expect("a part for each point")[at..].as_chunks_mut().0[..count])
}

/// Rows of the same channels.
#[inline(always)]
fn rows<'a, const N: usize>(from: &[&'a [f32]; N], count: usize) -> [&'a [Lanes]; N] {
    from.map(|row| &row.as_chunks().0[..count])
}

crate::multiversion! {
    /// V = Bᵀ d B of the 4 × 4 pixels `d`, written at `at` in each of 16 parts of `stride` floats.
    pub(super) fn source(d: &[&[f32]; POINTS], v: &mut [f32], stride: usize, at: usize) {
        let count = d[0].len() / LANES;
        let (d, v) = (rows(d, count), parts(v, stride, at, count));
        for c in 0..count {
            let mut window = [[0.0; LANES]; POINTS];
            for i in 0..POINTS {
                window[i] = d[i][c];
            }
            let window = separable!(window, 4 => 4, source_line);
            for i in 0..POINTS {
                v[i][c] = window[i];
            }
        }
    }
}

crate::multiversion! {
    /// U = G g Gᵀ of the nine rows of weights `g`, written as in [`source`].
    pub(super) fn kernel(g: &[&[f32]; 9], u: &mut [f32], stride: usize, at: usize) {
        let count = g[0].len() / LANES;
        let (g, u) = (rows(g, count), parts(u, stride, at, count));
        for c in 0..count {
            let mut taps = [[0.0; LANES]; 9];
            for i in 0..9 {
                taps[i] = g[i][c];
            }
            let points = separable!(taps, 3 => 4, kernel_line);
            for i in 0..POINTS {
                u[i][c] = points[i];
            }
        }
    }
}

crate::multiversion! {
    /// y = Aᵀ m A of the 16 rows `m`, written to four rows, or added.
    pub(super) fn output(m: &[&[f32]; POINTS], y: [&mut [f32]; 4], keep: bool) {
        let count = m[0].len() / LANES;
        let m = rows(m, count);
        let y = y.map(|row| &mut row.as_chunks_mut::<LANES>().0[..count]);
        for c in 0..count {
            let mut points = [[0.0; LANES]; POINTS];
            for i in 0..POINTS {
                points[i] = m[i][c];
            }
            let pixels = separable!(points, 4 => 2, output_line);
            for i in 0..4 {
                y[i][c] = if keep { add(y[i][c], pixels[i]) } else { pixels[i] };
            }
        }
    }
}

crate::multiversion! {
    /// dm = A dy Aᵀ of the 2 × 2 pixels `dy`, written as in [`source`].
    pub(super) fn gradient(dy: &[&[f32]; 4], dm: &mut [f32], stride: usize, at: usize) {
        let count = dy[0].len() / LANES;
        let (dy, dm) = (rows(dy, count), parts(dm, stride, at, count));
        for c in 0..count {
            let mut pixels = [[0.0; LANES]; 4];
            for i in 0..4 {
                pixels[i] = dy[i][c];
            }
            let points = separable!(pixels, 2 => 4, gradient_line);
            for i in 0..POINTS {
                dm[i][c] = points[i];
            }
        }
    }
}

crate::multiversion! {
    /// dw = Gᵀ du G of the 16 rows `du`, written to nine rows, or added.
    pub(super) fn dkernel(du: &[&[f32]; POINTS], dw: [&mut [f32]; 9], keep: bool) {
        let count = du[0].len() / LANES;
        let du = rows(du, count);
        let dw = dw.map(|row| &mut row.as_chunks_mut::<LANES>().0[..count]);
        for c in 0..count {
            let mut points = [[0.0; LANES]; POINTS];
            for i in 0..POINTS {
                points[i] = du[i][c];
            }
            let taps = separable!(points, 4 => 3, dkernel_line);
            for i in 0..9 {
                dw[i][c] = if keep { add(dw[i][c], taps[i]) } else { taps[i] };
            }
        }
    }
}
