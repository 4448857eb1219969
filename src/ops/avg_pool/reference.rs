use super::AvgPool;
use crate::backend::Reference;
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Kernel<Reference> for AvgPool {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let x = &io.x[0];
        let input = Shape::new(x.dim().1, x.dim().2, x.dim().3);
        for ((n, oh, ow, c), y) in io.y.indexed_iter_mut() {
            let valid = self.window.cells(oh, ow, input).count() as f64;
            *y = self.window.cells(oh, ow, input).map(|(_, i, j)| x[[n, i, j, c]]).sum::<f64>() / valid;
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let Some(dx) = io.dx[0].sum() else { return };
        let input = Shape::new(dx.dim().1, dx.dim().2, dx.dim().3);
        for ((n, oh, ow, c), dy) in io.dy.indexed_iter() {
            let valid = self.window.cells(oh, ow, input).count() as f64;
            self.window.cells(oh, ow, input).for_each(|(_, i, j)| dx[[n, i, j, c]] += dy / valid);
        }
    }
}
