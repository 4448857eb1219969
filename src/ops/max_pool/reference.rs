use super::MaxPool;
use crate::backend::Reference;
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Kernel<Reference> for MaxPool {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let x = &io.x[0];
        let input = Shape::new(x.dim().1, x.dim().2, x.dim().3);
        for (at, ((n, oh, ow, c), y)) in io.y.indexed_iter_mut().enumerate() {
            let mut winner = None;
            for (cell, i, j) in self.window.cells(oh, ow, input) {
                let value = x[[n, i, j, c]];
                if winner.is_none_or(|(_, best)| value > best || value.is_nan()) {
                    winner = Some((cell, value));
                }
            }
            let (cell, best) = winner.expect("every window has a cell on the map");
            *y = best;
            if !io.saved.is_empty() {
                io.saved[0][at] = cell as f64;
            }
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let Some(dx) = io.dx[0].sum() else { return };
        let input = Shape::new(dx.dim().1, dx.dim().2, dx.dim().3);
        for (at, ((n, oh, ow, c), dy)) in io.dy.indexed_iter().enumerate() {
            let (kh, kw) = (io.saved[0][at] as usize / self.window.kernel.1, io.saved[0][at] as usize % self.window.kernel.1);
            let i = self.window.row(oh, kh, input).expect("the winner lies on the map");
            let j = self.window.column(ow, kw, input).expect("the winner lies on the map");
            dx[[n, i, j, c]] += dy;
        }
    }
}
