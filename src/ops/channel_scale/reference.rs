use super::ChannelScale;
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Kernel<Reference> for ChannelScale {
    fn forward(&self, mut io: Forward<'_, f64>) {
        if !io.in_place {
            io.y.assign(&io.x[0]);
        }
        io.y.indexed_iter_mut().for_each(|((n, _, _, c), y)| *y *= io.x[1][[n, 0, 0, c]]);
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (x, s) = (&io.x[0], &io.x[1]);
        let (first, rest) = io.dx.split_first_mut().expect("two inputs");
        if let Some(ds) = rest[0].sum() {
            let dy = match first {
                Grad::InPlace(dx) => dx.view(),
                _ => io.dy.view(),
            };
            dy.indexed_iter().for_each(|((n, i, j, c), dy)| ds[[n, 0, 0, c]] += dy * x[[n, i, j, c]]);
        }
        match first {
            Grad::Skip => {}
            Grad::InPlace(dx) => dx.indexed_iter_mut().for_each(|((n, _, _, c), dx)| *dx *= s[[n, 0, 0, c]]),
            Grad::Write(dx) => dx.indexed_iter_mut().for_each(|(at, dx)| *dx = io.dy[at] * s[[at.0, 0, 0, at.3]]),
            Grad::Add(dx) => dx.indexed_iter_mut().for_each(|(at, dx)| *dx += io.dy[at] * s[[at.0, 0, 0, at.3]]),
        }
    }
}
