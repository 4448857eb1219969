use ndarray::{ArrayView4, ArrayViewMut4};

use super::Conv2d;
use crate::backend::Reference;
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Conv2d {
    /// Calls `visit(index of x, index of y, index of w)` for every product of the sum.
    fn for_each_product(
        &self,
        x: (usize, Shape),
        output: (usize, usize),
        mut visit: impl FnMut([usize; 4], [usize; 4], usize),
    ) {
        let (images, input) = x;
        let cin = input.c / self.groups;
        let cout = self.channels / self.groups;
        for n in 0..images {
            for oh in 0..output.0 {
                for ow in 0..output.1 {
                    for (tap, i, j) in self.window.cells(oh, ow, input) {
                        for q in 0..self.channels {
                            for channel in 0..cin {
                                let weight = (tap * cin + channel) * self.channels + q;
                                visit([n, i, j, q / cout * cin + channel], [n, oh, ow, q], weight);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Kernel<Reference> for Conv2d {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (x, w, y) = (&io.x[0], io.params[0], &mut io.y);
        let (images, oh, ow, _) = y.dim();
        for ((_, _, _, q), y) in y.indexed_iter_mut() {
            *y = if self.bias { io.params[1][q] } else { 0.0 };
        }
        let input = Shape::new(x.dim().1, x.dim().2, x.dim().3);
        self.for_each_product((images, input), (oh, ow), |at_x, at_y, k| y[at_y] += w[k] * x[at_x]);
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (x, dy): (&ArrayView4<f64>, &ArrayViewMut4<f64>) = (&io.x[0], &io.dy);
        let (images, oh, ow, _) = dy.dim();
        let input = Shape::new(x.dim().1, x.dim().2, x.dim().3);
        let pass = (images, input);

        let w = io.params[0];
        let dw = &mut io.dparams[0];
        if !dw.add {
            dw.values.fill(0.0);
        }
        self.for_each_product(pass, (oh, ow), |at_x, at_y, k| dw.values[k] += x[at_x] * dy[at_y]);

        if self.bias {
            let db = &mut io.dparams[1];
            if !db.add {
                db.values.fill(0.0);
            }
            dy.indexed_iter().for_each(|((_, _, _, q), dy)| db.values[q] += dy);
        }

        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(_) => unreachable!("a convolution never works in place"),
            Grad::Write(dx) => {
                dx.fill(0.0);
                self.for_each_product(pass, (oh, ow), |at_x, at_y, k| dx[at_x] += w[k] * dy[at_y]);
            }
            Grad::Add(dx) => self.for_each_product(pass, (oh, ow), |at_x, at_y, k| dx[at_x] += w[k] * dy[at_y]),
        }
    }
}
