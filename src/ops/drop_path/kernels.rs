//! Floor: x read and y written once, and the reverse.

use rayon::prelude::*;

use super::DropPath;
use crate::backend::{Host, Real, parallel};
use crate::ops::{Backward, Forward, Grad, Kernel};
use crate::rng::Key;

impl DropPath {
    /// What image `n` is multiplied with.
    fn factor<E: Real>(&self, key: Key, n: usize) -> E {
        // p as a 64-bit threshold: an image drops where its random integer is below it.
        let threshold = (self.p * 2f64.powi(64)) as u64;
        if key.with(n as u64).at(0) < threshold { E::zero() } else { E::of(1.0 / (1.0 - self.p)) }
    }

    /// Calls `each(image, where it begins, factor)` for the images of a batch, in parallel.
    fn for_each<E: Real>(
        &self,
        key: Key,
        values: &mut [E],
        images: usize,
        each: impl Fn(&mut [E], usize, E) + Sync,
    ) {
        let len = (values.len() / images.max(1)).max(1);
        let images = values.par_chunks_mut(len).enumerate();
        images.for_each(|(n, image)| each(image, n * len, self.factor(key, n)));
    }
}

/// One implementation for every host backend: the reference and the fast one must drop the same images anyway.
impl<B: Host> Kernel<B> for DropPath {
    fn forward(&self, mut io: Forward<'_, B::Elem>) {
        let images = io.y.dim().0;
        if !io.in_place {
            io.y.assign(&io.x[0]);
        }
        if io.training {
            let y = parallel::contiguous_mut(&mut io.y);
            self.for_each(io.key, y, images, |y, _, factor| y.iter_mut().for_each(|y| *y *= factor));
        }
    }

    fn backward(&self, mut io: Backward<'_, B::Elem>) {
        // Evaluation keeps everything.
        let drop_path = if io.training { *self } else { DropPath { p: 0.0 } };
        let dy = &*parallel::contiguous_mut(&mut io.dy);
        let add = matches!(io.dx[0], Grad::Add(_));
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => {
                let images = dx.dim().0;
                drop_path.for_each(io.key, parallel::contiguous_mut(dx), images, |dx, _, factor| {
                    dx.iter_mut().for_each(|dx| *dx *= factor);
                });
            }
            Grad::Write(dx) | Grad::Add(dx) => {
                let images = dx.dim().0;
                drop_path.for_each(io.key, parallel::contiguous_mut(dx), images, |dx, start, factor| {
                    for (dx, &dy) in dx.iter_mut().zip(&dy[start..]) {
                        let old = if add { *dx } else { B::Elem::of(0.0) };
                        *dx = old + dy * factor;
                    }
                });
            }
        }
    }
}
