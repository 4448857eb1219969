//! Floor: forward reads x and writes y once; backward reads dy and writes dx once. Each direction by itself: 6 + 6
//! multiply-adds instead of 36.

use rayon::prelude::*;

use super::{Blur, TAPS, source};
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

#[inline(always)]
fn tap(k: usize) -> f32 {
    (TAPS[k] / 32.0) as f32
}

impl Kernel<Cpu> for Blur {
    fn scratch(&self, inputs: &[Shape], _output: Shape, n: usize) -> usize {
        // a row per image
        n * inputs[0].w * inputs[0].c
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let (level, (_, h, w, c)) = (simd_level(), io.x[0].dim());
        let input = Shape::new(h, w, c);
        let x = parallel::contiguous(&io.x[0]);
        let y = parallel::contiguous_mut(&mut io.y).par_chunks_mut(h / 2 * (w / 2) * c);
        let images = y.zip(x.par_chunks(input.len())).zip(io.scratch.par_chunks_mut(w * c));
        images.for_each(|((y, x), line)| forward_image(level, x, input, y, line));
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let level = simd_level();
        let dy = parallel::contiguous_mut(&mut io.dy);
        let Some((dx, add)) = io.dx[0].target() else { return };
        let (_, h, w, c) = dx.dim();
        let input = Shape::new(h, w, c);
        let dx = parallel::contiguous_mut(dx).par_chunks_mut(input.len());
        let images = dx.zip(dy.par_chunks(h / 2 * (w / 2) * c)).zip(io.scratch.par_chunks_mut(w * c));
        images.for_each(|((dx, dy), line)| {
            if !add {
                dx.fill(0.0);
            }
            backward_image(level, dy, input, dx, line);
        });
    }
}

/// y = Σ of the six rows, weighed by the taps.
#[inline(always)]
fn weigh(y: &mut [f32], rows: [&[f32]; 6]) {
    let len = y.len();
    let [a, b, c, d, e, f] = rows.map(|row| &row[..len]);
    for i in 0..len {
        y[i] = tap(0) * (a[i] + f[i]) + tap(1) * (b[i] + e[i]) + tap(2) * (c[i] + d[i]);
    }
}

/// y += weight·x.
#[inline(always)]
fn add_scaled(y: &mut [f32], x: &[f32], weight: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += weight * x;
    }
}

crate::multiversion! {
    /// One image, from x to y; `line` holds a row of x, blurred from top to bottom.
    fn forward_image(x: &[f32], input: Shape, y: &mut [f32], line: &mut [f32]) {
        let Shape { h: height, w: width, c, .. } = input;
        for (o, y) in y.chunks_mut(width / 2 * c).enumerate() {
            weigh(line, [0, 1, 2, 3, 4, 5].map(|k| &x[source(o, k, height) * width * c..][..width * c]));
            for (p, y) in y.chunks_mut(c).enumerate() {
                weigh(y, [0, 1, 2, 3, 4, 5].map(|l| &line[source(p, l, width) * c..][..c]));
            }
        }
    }
}

crate::multiversion! {
    /// One image, from dy added to dx; `line` holds what a row of dy gives each row of dx.
    fn backward_image(dy: &[f32], input: Shape, dx: &mut [f32], line: &mut [f32]) {
        let Shape { h: height, w: width, c, .. } = input;
        for (o, dy) in dy.chunks(width / 2 * c).enumerate() {
            line.fill(0.0);
            for (p, dy) in dy.chunks(c).enumerate() {
                for l in 0..6 {
                    add_scaled(&mut line[source(p, l, width) * c..][..c], dy, tap(l));
                }
            }
            for k in 0..6 {
                add_scaled(&mut dx[source(o, k, height) * width * c..][..width * c], line, tap(k));
            }
        }
    }
}
