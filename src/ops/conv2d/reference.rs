use std::ops::Range;

use ndarray::{ArrayView4, ArrayViewMut4, s};

use super::Conv2d;
use crate::backend::Reference;
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Conv2d {
    /// Calls `visit([n, i, j], [n, oh, ow], cell)` for every pixel of x under every window.
    fn for_each_tap(
        &self,
        (images, input): (usize, Shape),
        (rows, columns): (usize, usize),
        mut visit: impl FnMut([usize; 3], [usize; 3], usize),
    ) {
        for n in 0..images {
            for (oh, ow) in (0..rows).flat_map(|oh| (0..columns).map(move |ow| (oh, ow))) {
                for (tap, i, j) in self.window.cells(oh, ow, input) {
                    visit([n, i, j], [n, oh, ow], tap);
                }
            }
        }
    }

    /// The output channels that read a channel of x, and the first of their weights in a cell: the others follow it.
    fn readers(&self, tap: usize, channel: usize, channels: usize) -> (Range<usize>, usize) {
        let (cin, cout) = (channels / self.groups, self.channels / self.groups);
        let (group, channel_of_group) = (channel / cin, channel % cin);
        let outputs = group * cout..(group + 1) * cout;
        let weight = (tap * cin + channel_of_group) * self.channels + outputs.start;
        (outputs, weight)
    }

    /// y += x ∗ w, for this and other ops that convolve.
    pub(in crate::ops) fn add_convolved(&self, x: &ArrayView4<'_, f64>, w: &[f64], y: &mut ArrayViewMut4<'_, f64>) {
        let (images, oh, ow, _) = y.dim();
        self.for_each_tap((images, shape(x)), (oh, ow), |at, out, tap| {
            let x = x.slice(s![at[0], at[1], at[2], ..]);
            let mut y = y.slice_mut(s![out[0], out[1], out[2], ..]);
            let y = y.as_slice_mut().expect("maps are contiguous");
            for (channel, &value) in x.iter().enumerate() {
                let (outputs, weight) = self.readers(tap, channel, x.len());
                y[outputs].iter_mut().zip(&w[weight..]).for_each(|(y, w)| *y += w * value);
            }
        });
    }

    /// dw += what dy makes of x.
    pub(in crate::ops) fn add_dw(&self, x: &ArrayView4<'_, f64>, dy: &ArrayView4<'_, f64>, dw: &mut [f64]) {
        let (images, oh, ow, _) = dy.dim();
        self.for_each_tap((images, shape(x)), (oh, ow), |at, out, tap| {
            let x = x.slice(s![at[0], at[1], at[2], ..]);
            let dy = dy.slice(s![out[0], out[1], out[2], ..]);
            let dy = dy.as_slice().expect("maps are contiguous");
            for (channel, &value) in x.iter().enumerate() {
                let (outputs, weight) = self.readers(tap, channel, x.len());
                dy[outputs].iter().zip(&mut dw[weight..]).for_each(|(dy, dw)| *dw += value * dy);
            }
        });
    }

    /// dx += what dy makes of w.
    pub(in crate::ops) fn add_dx(&self, w: &[f64], dy: &ArrayView4<'_, f64>, dx: &mut ArrayViewMut4<'_, f64>) {
        let (images, oh, ow, _) = dy.dim();
        self.for_each_tap((images, shape(&dx.view())), (oh, ow), |at, out, tap| {
            let dy = dy.slice(s![out[0], out[1], out[2], ..]);
            let dy = dy.as_slice().expect("maps are contiguous");
            let mut dx = dx.slice_mut(s![at[0], at[1], at[2], ..]);
            let channels = dx.len();
            for (channel, dx) in dx.iter_mut().enumerate() {
                let (outputs, weight) = self.readers(tap, channel, channels);
                *dx += dy[outputs].iter().zip(&w[weight..]).map(|(dy, w)| dy * w).sum::<f64>();
            }
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
