use super::{Blur, TAPS, source};
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Kernel};

/// Calls `each(row, column, weight)` for every pixel that output (o, p) of an h × w map reads.
fn for_each_source((o, p): (usize, usize), (h, w): (usize, usize), mut each: impl FnMut(usize, usize, f64)) {
    for (k, l) in (0..6).flat_map(|k| (0..6).map(move |l| (k, l))) {
        each(source(o, k, h), source(p, l, w), TAPS[k] * TAPS[l] / 1024.0);
    }
}

impl Kernel<Reference> for Blur {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (_, h, w, _) = io.x[0].dim();
        for ((n, o, p, c), y) in io.y.indexed_iter_mut() {
            *y = 0.0;
            for_each_source((o, p), (h, w), |i, j, weight| *y += weight * io.x[0][[n, i, j, c]]);
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let Some(dx) = io.dx[0].sum() else { return };
        let (_, h, w, _) = dx.dim();
        for ((n, o, p, c), dy) in io.dy.indexed_iter() {
            for_each_source((o, p), (h, w), |i, j, weight| dx[[n, i, j, c]] += weight * dy);
        }
    }
}
