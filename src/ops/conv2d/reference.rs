use ndarray::{ArrayView4, ArrayViewMut4, s};

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

    /// y += x ∗ w, for this and other ops that convolve.
    pub(in crate::ops) fn add_convolved(&self, x: &ArrayView4<'_, f64>, w: &[f64], y: &mut ArrayViewMut4<'_, f64>) {
        let (images, oh, ow, _) = y.dim();
        self.for_each_row((images, shape(x)), (oh, ow), |at, [n, oh, ow], outputs, weight| {
            let y = y.slice_mut(s![n, oh, ow, outputs]);
            y.into_iter().zip(&w[weight..]).for_each(|(y, w)| *y += w * x[at]);
        });
    }

    /// dw += what dy makes of x.
    pub(in crate::ops) fn add_dw(&self, x: &ArrayView4<'_, f64>, dy: &ArrayView4<'_, f64>, dw: &mut [f64]) {
        let (images, oh, ow, _) = dy.dim();
        self.for_each_row((images, shape(x)), (oh, ow), |at, [n, oh, ow], outputs, weight| {
            let dy = dy.slice(s![n, oh, ow, outputs]);
            dy.iter().zip(&mut dw[weight..]).for_each(|(dy, dw)| *dw += x[at] * dy);
        });
    }

    /// dx += what dy makes of w.
    pub(in crate::ops) fn add_dx(&self, w: &[f64], dy: &ArrayView4<'_, f64>, dx: &mut ArrayViewMut4<'_, f64>) {
        let (images, oh, ow, _) = dy.dim();
        self.for_each_row((images, shape(&dx.view())), (oh, ow), |at, [n, oh, ow], outputs, weight| {
            let dy = dy.slice(s![n, oh, ow, outputs]);
            dx[at] += dy.iter().zip(&w[weight..]).map(|(dy, w)| dy * w).sum::<f64>();
        });
    }
}

fn shape(x: &ArrayView4<'_, f64>) -> Shape {
    let (_, h, w, c) = x.dim();
    Shape::new(h, w, c)
}

impl Kernel<Reference> for Conv2d {
    fn forward(&self, mut io: Forward<'_, f64>) {
        for ((_, _, _, q), y) in io.y.indexed_iter_mut() {
            *y = if self.bias { io.params[1][q] } else { 0.0 };
        }
        self.add_convolved(&io.x[0], io.params[0], &mut io.y);
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let dy = io.dy.view();
        for dparam in &mut io.dparams {
            if !dparam.add {
                dparam.values.fill(0.0);
            }
        }
        self.add_dw(&io.x[0], &dy, io.dparams[0].values);
        if self.bias {
            let db = &mut io.dparams[1];
            dy.indexed_iter().for_each(|((_, _, _, q), dy)| db.values[q] += dy);
        }
        if let Some(dx) = io.dx[0].sum() {
            self.add_dx(io.params[0], &dy, dx);
        }
    }
}
