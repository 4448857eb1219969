use ndarray::s;

use super::Conv2d;
use crate::backend::Reference;
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Conv2d {
    /// Calls `visit(index of x, [n, oh, ow], output channels, first weight)` for every pixel of x under every window:
    /// the weights of the output channels that read it lie side by side.
    fn for_each_row(
        &self,
        (images, input): (usize, Shape),
        (rows, columns): (usize, usize),
        mut visit: impl FnMut([usize; 4], [usize; 3], std::ops::Range<usize>, usize),
    ) {
        let (cin, cout) = (input.c / self.groups, self.channels / self.groups);
        for n in 0..images {
            for (oh, ow) in (0..rows).flat_map(|oh| (0..columns).map(move |ow| (oh, ow))) {
                for (tap, i, j) in self.window.cells(oh, ow, input) {
                    for channel in 0..input.c {
                        let (group, channel_of_group) = (channel / cin, channel % cin);
                        let outputs = group * cout..(group + 1) * cout;
                        let weight = (tap * cin + channel_of_group) * self.channels + outputs.start;
                        visit([n, i, j, channel], [n, oh, ow], outputs, weight);
                    }
                }
            }
        }
    }
}

impl Kernel<Reference> for Conv2d {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (x, w, y) = (&io.x[0], io.params[0], &mut io.y);
        for ((_, _, _, q), y) in y.indexed_iter_mut() {
            *y = if self.bias { io.params[1][q] } else { 0.0 };
        }
        let (images, oh, ow, _) = y.dim();
        let input = Shape::new(x.dim().1, x.dim().2, x.dim().3);
        self.for_each_row((images, input), (oh, ow), |at, [n, oh, ow], outputs, weight| {
            let y = y.slice_mut(s![n, oh, ow, outputs]);
            y.into_iter().zip(&w[weight..]).for_each(|(y, w)| *y += w * x[at]);
        });
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (x, dy, w) = (&io.x[0], &io.dy, io.params[0]);
        let (images, oh, ow, _) = dy.dim();
        let pass = (images, Shape::new(x.dim().1, x.dim().2, x.dim().3));

        let dw = &mut io.dparams[0];
        if !dw.add {
            dw.values.fill(0.0);
        }
        self.for_each_row(pass, (oh, ow), |at, [n, oh, ow], outputs, weight| {
            let dy = dy.slice(s![n, oh, ow, outputs]);
            dy.iter().zip(&mut dw.values[weight..]).for_each(|(dy, dw)| *dw += x[at] * dy);
        });

        if self.bias {
            let db = &mut io.dparams[1];
            if !db.add {
                db.values.fill(0.0);
            }
            dy.indexed_iter().for_each(|((_, _, _, q), dy)| db.values[q] += dy);
        }

        let Some(dx) = io.dx[0].sum() else { return };
        self.for_each_row(pass, (oh, ow), |at, [n, oh, ow], outputs, weight| {
            let dy = dy.slice(s![n, oh, ow, outputs]);
            dx[at] += dy.iter().zip(&w[weight..]).map(|(dy, w)| dy * w).sum::<f64>();
        });
    }
}
