use std::ops::Range;

use ndarray::s;

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

    /// The output channels that read a channel of x, and the first of their weights for a cell: the others follow it.
    fn readers(&self, tap: usize, channel: usize, cin: usize) -> (Range<usize>, usize) {
        let cout = self.channels / self.groups;
        let (group, channel_of_group) = (channel / cin, channel % cin);
        let outputs = group * cout..(group + 1) * cout;
        let weight = (tap * cin + channel_of_group) * self.channels + outputs.start;
        (outputs, weight)
    }
}

impl Kernel<Reference> for Conv2d {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (x, w, y) = (&io.x[0], io.params[0], &mut io.y);
        for ((_, _, _, q), y) in y.indexed_iter_mut() {
            *y = if self.bias { io.params[1][q] } else { 0.0 };
        }
        let (images, oh, ow, _) = y.dim();
        let (_, h, width, channels) = x.dim();
        let cin = channels / self.groups;
        self.for_each_tap((images, Shape::new(h, width, channels)), (oh, ow), |at, [n, oh, ow], tap| {
            let mut y = y.slice_mut(s![n, oh, ow, ..]);
            let y = y.as_slice_mut().expect("maps are contiguous");
            for (channel, x) in x.slice(s![at[0], at[1], at[2], ..]).iter().enumerate() {
                let (outputs, weight) = self.readers(tap, channel, cin);
                y[outputs].iter_mut().zip(&w[weight..]).for_each(|(y, w)| *y += w * x);
            }
        });
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (x, dy, w) = (&io.x[0], &io.dy, io.params[0]);
        let (images, oh, ow, _) = dy.dim();
        let (_, h, width, channels) = x.dim();
        let cin = channels / self.groups;
        let pass = (images, Shape::new(h, width, channels));

        let dw = &mut io.dparams[0];
        if !dw.add {
            dw.values.fill(0.0);
        }
        self.for_each_tap(pass, (oh, ow), |at, out, tap| {
            let dy = dy.slice(s![out[0], out[1], out[2], ..]);
            let dy = dy.as_slice().expect("maps are contiguous");
            for (channel, x) in x.slice(s![at[0], at[1], at[2], ..]).iter().enumerate() {
                let (outputs, weight) = self.readers(tap, channel, cin);
                dy[outputs].iter().zip(&mut dw.values[weight..]).for_each(|(dy, dw)| *dw += x * dy);
            }
        });

        if self.bias {
            let db = &mut io.dparams[1];
            if !db.add {
                db.values.fill(0.0);
            }
            dy.indexed_iter().for_each(|((_, _, _, q), dy)| db.values[q] += dy);
        }

        let Some(dx) = io.dx[0].sum() else { return };
        self.for_each_tap(pass, (oh, ow), |at, out, tap| {
            let dy = dy.slice(s![out[0], out[1], out[2], ..]);
            let dy = dy.as_slice().expect("maps are contiguous");
            for (channel, dx) in dx.slice_mut(s![at[0], at[1], at[2], ..]).iter_mut().enumerate() {
                let (outputs, weight) = self.readers(tap, channel, cin);
                *dx += dy[outputs].iter().zip(&w[weight..]).map(|(dy, w)| dy * w).sum::<f64>();
            }
        });
    }
}
