//! Floor: forward reads x and writes y and the winners once; backward reads dy and the winners and writes dx once.

use rayon::prelude::*;

use super::MaxPool;
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Kernel<Cpu> for MaxPool {
    fn forward(&self, mut io: Forward<'_, f32>) {
        let (level, (_, h, w, c)) = (simd_level(), io.x[0].dim());
        let (_, oh, ow, _) = io.y.dim();
        let (input, out_len) = (Shape::new(h, w, c), oh * ow * c);
        let x = parallel::contiguous(&io.x[0]);
        let y = parallel::contiguous_mut(&mut io.y);
        if !io.saved.is_empty() {
            let images = y.par_chunks_mut(out_len).zip(io.saved[0].par_chunks_mut(out_len)).zip(x.par_chunks(h * w * c));
            images.for_each(|((y, winners), x)| {
                let pixels = y.chunks_mut(c).zip(winners.chunks_mut(c));
                for (pixel, (y, winners)) in pixels.enumerate() {
                    let mut cells = self.window.cells(pixel / ow, pixel % ow, input);
                    let (cell, i, j) = cells.next().expect("every window has a cell on the map");
                    y.copy_from_slice(&x[(i * w + j) * c..][..c]);
                    winners.fill(cell as f32);
                    for (cell, i, j) in cells {
                        challenge(level, y, winners, &x[(i * w + j) * c..][..c], cell as f32);
                    }
                }
            });
        } else {
            // One row at a time, so that a single image keeps several threads busy.
            let (line, (kh, kw)) = (ow * c, self.window.kernel);
            parallel::rows_mut(y, line, line.saturating_mul(kh.saturating_mul(kw)), |start, y| {
                let (x, row) = (&x[start / out_len * h * w * c..], start % out_len / line);
                for (column, y) in y.chunks_mut(c).enumerate() {
                    y.fill(f32::NEG_INFINITY);
                    for (_, i, j) in self.window.cells(row, column, input) {
                        raise(level, y, &x[(i * w + j) * c..][..c]);
                    }
                }
            });
        }
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (level, (_, oh, ow, c)) = (simd_level(), io.dy.dim());
        let dy = parallel::contiguous_mut(&mut io.dy);
        let Some((dx, add)) = io.dx[0].target() else { return };
        let (_, h, w, _) = dx.dim();
        let (input, out_len) = (Shape::new(h, w, c), oh * ow * c);
        let dx = parallel::contiguous_mut(dx);
        let images = dx.par_chunks_mut(h * w * c).zip(dy.par_chunks(out_len)).zip(io.saved[0].par_chunks(out_len));
        images.for_each(|((dx, dy), winners)| {
            if !add {
                dx.fill(0.0);
            }
            for (pixel, (dy, winners)) in dy.chunks(c).zip(winners.chunks(c)).enumerate() {
                for (cell, i, j) in self.window.cells(pixel / ow, pixel % ow, input) {
                    hand_back(level, &mut dx[(i * w + j) * c..][..c], dy, winners, cell as f32);
                }
            }
        });
    }
}

// What one cell of a window does to the channels of one pixel, compiled for each SIMD level.

crate::multiversion! {
    /// y ← max(y, x) per channel, and who won.
    fn challenge(y: &mut [f32], winners: &mut [f32], x: &[f32], cell: f32) {
        for ((y, winner), &x) in y.iter_mut().zip(winners).zip(x) {
            let wins = x > *y || x.is_nan();
            *y = if wins { x } else { *y };
            *winner = if wins { cell } else { *winner };
        }
    }
}

crate::multiversion! {
    /// y ← max(y, x) per channel.
    fn raise(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = if x > *y || x.is_nan() { x } else { *y };
        }
    }
}

crate::multiversion! {
    /// dx ← dx + dy in the channels where this cell won.
    fn hand_back(dx: &mut [f32], dy: &[f32], winners: &[f32], cell: f32) {
        for ((dx, &dy), &winner) in dx.iter_mut().zip(dy).zip(winners) {
            *dx += if winner == cell { dy } else { 0.0 };
        }
    }
}
