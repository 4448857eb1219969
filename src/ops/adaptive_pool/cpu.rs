use rayon::prelude::*;

use super::{AdaptivePool, Reduce};
use crate::backend::{Cpu, parallel};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl AdaptivePool {
    fn mean_image(&self, x: &[f32], input: Shape, y: &mut [f32]) {
        for (cell, y) in y.chunks_mut(input.c).enumerate() {
            let pixels = || self.cell(cell / self.output.1, cell % self.output.1, input);
            y.fill(0.0);
            for (i, j) in pixels() {
                y.iter_mut().zip(&x[(i * input.w + j) * input.c..]).for_each(|(y, x)| *y += x);
            }
            let share = 1.0 / pixels().count() as f32;
            y.iter_mut().for_each(|y| *y *= share);
        }
    }

    /// `winners` is empty outside training.
    fn max_image(&self, x: &[f32], input: Shape, y: &mut [f32], winners: &mut [f32]) {
        let c = input.c;
        for (cell, y) in y.chunks_mut(c).enumerate() {
            let mut pixels = self.cell(cell / self.output.1, cell % self.output.1, input);
            let (i, j) = pixels.next().expect("a cell has a pixel");
            y.copy_from_slice(&x[(i * input.w + j) * c..][..c]);
            if winners.is_empty() {
                for (i, j) in pixels {
                    let row = &x[(i * input.w + j) * c..][..c];
                    y.iter_mut().zip(row).for_each(|(y, &x)| *y = if x > *y || x.is_nan() { x } else { *y });
                }
                continue;
            }
            let winners = &mut winners[cell * c..][..c];
            winners.fill((i * input.w + j) as f32);
            for (i, j) in pixels {
                let pixel = (i * input.w + j) as f32;
                let row = &x[(i * input.w + j) * c..][..c];
                for ((y, winner), &x) in y.iter_mut().zip(winners.iter_mut()).zip(row) {
                    let wins = x > *y || x.is_nan();
                    *y = if wins { x } else { *y };
                    *winner = if wins { pixel } else { *winner };
                }
            }
        }
    }

    fn backward_image(&self, dy: &[f32], winners: &[f32], input: Shape, dx: &mut [f32]) {
        let c = input.c;
        for (cell, dy) in dy.chunks(c).enumerate() {
            match self.reduce {
                Reduce::Mean => {
                    let pixels = || self.cell(cell / self.output.1, cell % self.output.1, input);
                    let share = 1.0 / pixels().count() as f32;
                    for (i, j) in pixels() {
                        dx[(i * input.w + j) * c..].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += share * dy);
                    }
                }
                Reduce::Max => {
                    for (channel, (dy, &winner)) in dy.iter().zip(&winners[cell * c..][..c]).enumerate() {
                        dx[winner as usize * c + channel] += dy;
                    }
                }
            }
        }
    }
}

impl Kernel<Cpu> for AdaptivePool {
    fn forward(&self, mut io: Forward<'_, f32>) {
        let (_, h, w, c) = io.x[0].dim();
        let input = Shape::new(h, w, c);
        let x = parallel::contiguous(&io.x[0]);
        let (_, oh, ow, _) = io.y.dim();
        let out_len = oh * ow * c;
        let y = parallel::contiguous_mut(&mut io.y);
        let image = |n: usize| &x[n * input.len()..][..input.len()];
        match self.reduce {
            Reduce::Mean => parallel::images_mut(y, out_len, |n, y| self.mean_image(image(n), input, y)),
            Reduce::Max if io.saved.is_empty() => {
                parallel::images_mut(y, out_len, |n, y| self.max_image(image(n), input, y, &mut []));
            }
            Reduce::Max => y
                .par_chunks_mut(out_len)
                .zip(x.par_chunks(input.len()))
                .zip(io.saved[0].par_chunks_mut(out_len))
                .for_each(|((y, x), winners)| self.max_image(x, input, y, winners)),
        }
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (_, oh, ow, c) = io.dy.dim();
        let dy = parallel::contiguous_mut(&mut io.dy);
        let Some((dx, add)) = io.dx[0].target() else { return };
        let input = Shape::new(dx.dim().1, dx.dim().2, c);
        let dx = parallel::contiguous_mut(dx);
        let out_len = oh * ow * c;
        dx.par_chunks_mut(input.len()).zip(dy.par_chunks(out_len)).enumerate().for_each(|(n, (dx, dy))| {
            if !add {
                dx.fill(0.0);
            }
            let winners = if self.reduce == Reduce::Max { &io.saved[0][n * out_len..][..out_len] } else { &[] };
            self.backward_image(dy, winners, input, dx);
        });
    }
}
