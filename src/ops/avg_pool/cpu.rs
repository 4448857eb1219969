use rayon::prelude::*;

use super::AvgPool;
use crate::backend::{Cpu, parallel};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Kernel<Cpu> for AvgPool {
    fn forward(&self, mut io: Forward<'_, f32>) {
        let (_, h, w, c) = io.x[0].dim();
        let (_, oh, ow, _) = io.y.dim();
        let input = Shape::new(h, w, c);
        let x = parallel::contiguous(&io.x[0]);
        let y = parallel::contiguous_mut(&mut io.y);
        // One row at a time, so that a single image keeps several threads busy.
        let (line, (kh, kw)) = (ow * c, self.window.kernel);
        parallel::rows_mut(y, line, line.saturating_mul(kh.saturating_mul(kw)), |start, y| {
            let (x, row) = (&x[start / (oh * line) * h * w * c..], start / line % oh);
            for (column, y) in y.chunks_mut(c).enumerate() {
                let cells = || self.window.cells(row, column, input);
                y.fill(0.0);
                for (_, i, j) in cells() {
                    y.iter_mut().zip(&x[(i * w + j) * c..][..c]).for_each(|(y, x)| *y += x);
                }
                let share = 1.0 / cells().count() as f32;
                y.iter_mut().for_each(|y| *y *= share);
            }
        });
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (_, oh, ow, c) = io.dy.dim();
        let dy = parallel::contiguous_mut(&mut io.dy);
        let Some((dx, add)) = io.dx[0].target() else { return };
        let (_, h, w, _) = dx.dim();
        let input = Shape::new(h, w, c);
        let dx = parallel::contiguous_mut(dx);
        dx.par_chunks_mut(h * w * c).zip(dy.par_chunks(oh * ow * c)).for_each(|(dx, dy)| {
            if !add {
                dx.fill(0.0);
            }
            for (pixel, dy) in dy.chunks(c).enumerate() {
                let cells = || self.window.cells(pixel / ow, pixel % ow, input);
                let share = 1.0 / cells().count() as f32;
                for (_, i, j) in cells() {
                    dx[(i * w + j) * c..][..c].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += share * dy);
                }
            }
        });
    }
}
