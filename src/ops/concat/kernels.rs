//! Floor: every input read and the output written once, and the reverse.

use arrayvec::ArrayVec;
use rayon::prelude::*;

use super::Concat;
use crate::backend::{Host, Real, parallel};
use crate::ops::{Backward, Forward, Kernel, MAX_INPUTS};

/// Pixels per work item.
const PIXELS: usize = 256;

/// Calls `each(part, whole)` for every pixel's part of `parts` (`width` channels) and of `whole`, where it begins at
/// channel `first` of `channels`.
fn for_each_pixel<E: Real>(
    parts: &mut [E],
    width: usize,
    whole: &[E],
    (first, channels): (usize, usize),
    each: impl Fn(&mut [E], &[E]) + Sync,
) {
    parts.par_chunks_mut(PIXELS * width).zip(whole.par_chunks(PIXELS * channels)).for_each(|(parts, whole)| {
        for (part, whole) in parts.chunks_mut(width).zip(whole.chunks(channels)) {
            each(part, &whole[first..first + width]);
        }
    });
}

/// One implementation for every host backend: it only moves values.
impl<B: Host> Kernel<B> for Concat {
    fn forward(&self, mut io: Forward<'_, B::Elem>) {
        let channels = io.y.dim().3;
        let inputs = io.x.iter().map(|x| (parallel::contiguous(x), x.dim().3));
        let inputs: ArrayVec<_, MAX_INPUTS> = inputs.collect();
        if !io.saved.is_empty() {
            io.saved[0].iter_mut().zip(&inputs).for_each(|(saved, &(_, width))| *saved = B::Elem::of(width as f64));
        }
        let y = parallel::contiguous_mut(&mut io.y);
        y.par_chunks_mut(PIXELS * channels).enumerate().for_each(|(item, y)| {
            for (pixel, y) in y.chunks_mut(channels).enumerate() {
                let mut rest = y;
                for &(x, width) in &inputs {
                    let (part, others) = rest.split_at_mut(width);
                    part.copy_from_slice(&x[(item * PIXELS + pixel) * width..][..width]);
                    rest = others;
                }
            }
        });
    }

    fn backward(&self, mut io: Backward<'_, B::Elem>) {
        let channels = io.dy.dim().3;
        let dy = &*parallel::contiguous_mut(&mut io.dy);
        let mut first = 0;
        for (dx, width) in io.dx.iter_mut().zip(io.saved[0]) {
            let width = width.wide() as usize;
            if let Some((dx, add)) = dx.target() {
                let dx = parallel::contiguous_mut(dx);
                if add {
                    for_each_pixel(dx, width, dy, (first, channels), |dx, dy| {
                        dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy);
                    });
                } else {
                    for_each_pixel(dx, width, dy, (first, channels), |dx, dy| dx.copy_from_slice(dy));
                }
            }
            first += width;
        }
    }
}
