use super::{AdaptivePool, Reduce};
use crate::backend::Reference;
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Kernel<Reference> for AdaptivePool {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let x = &io.x[0];
        let input = Shape::new(x.dim().1, x.dim().2, x.dim().3);
        for (at, ((n, oh, ow, c), y)) in io.y.indexed_iter_mut().enumerate() {
            let pixels = || self.cell(oh, ow, input).map(|(i, j)| (i * input.w + j, x[[n, i, j, c]]));
            match self.reduce {
                Reduce::Mean => *y = pixels().map(|(_, x)| x).sum::<f64>() / pixels().count() as f64,
                Reduce::Max => {
                    let mut winner = None;
                    for (pixel, value) in pixels() {
                        if winner.is_none_or(|(_, best)| value > best || value.is_nan()) {
                            winner = Some((pixel, value));
                        }
                    }
                    let (pixel, best) = winner.expect("a cell has a pixel");
                    *y = best;
                    if !io.saved.is_empty() {
                        io.saved[0][at] = pixel as f64;
                    }
                }
            }
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let Some(dx) = io.dx[0].sum() else { return };
        let input = Shape::new(dx.dim().1, dx.dim().2, dx.dim().3);
        for (at, ((n, oh, ow, c), dy)) in io.dy.indexed_iter().enumerate() {
            match self.reduce {
                Reduce::Mean => {
                    let pixels = self.cell(oh, ow, input).count() as f64;
                    self.cell(oh, ow, input).for_each(|(i, j)| dx[[n, i, j, c]] += dy / pixels);
                }
                Reduce::Max => {
                    let winner = io.saved[0][at] as usize;
                    dx[[n, winner / input.w, winner % input.w, c]] += dy;
                }
            }
        }
    }
}
