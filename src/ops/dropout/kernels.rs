use rayon::prelude::*;

use super::Dropout;
use crate::backend::{Host, Real, parallel};
use crate::ops::{Backward, Forward, Grad, Kernel};
use crate::rng::Key;

impl Dropout {
    /// What element `i` of an image is multiplied with, given the image's key.
    fn factor<E: Real>(&self, image: Key, i: usize) -> E {
        // p as a 64-bit threshold: an element drops where its random integer is below it.
        let threshold = (self.p * 2f64.powi(64)) as u64;
        if image.at(i as u64) < threshold { E::zero() } else { E::of(1.0 / (1.0 - self.p)) }
    }

    /// Calls `each(value, index, factor)` for every element of a batch, images in parallel.
    fn for_each<E: Real>(&self, key: Key, values: &mut [E], images: usize, each: impl Fn(&mut E, usize, E) + Sync) {
        let len = values.len() / images.max(1);
        values.par_chunks_mut(len.max(1)).enumerate().for_each(|(n, image)| {
            let key = key.with(n as u64);
            image.iter_mut().enumerate().for_each(|(i, value)| each(value, n * len + i, self.factor(key, i)));
        });
    }
}

/// One implementation for every host backend: the reference and the fast one must draw the same mask anyway.
impl<B: Host> Kernel<B> for Dropout {
    fn forward(&self, mut io: Forward<'_, B::Elem>) {
        let images = io.y.dim().0;
        if !io.in_place {
            io.y.assign(&io.x[0]);
        }
        if io.training {
            let y = parallel::contiguous_mut(&mut io.y);
            self.for_each(io.key, y, images, |y, _, factor| *y *= factor);
        }
    }

    fn backward(&self, mut io: Backward<'_, B::Elem>) {
        // Evaluation keeps everything.
        let dropout = if io.training { *self } else { Dropout { p: 0.0 } };
        let dy = parallel::contiguous_mut(&mut io.dy);
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => {
                let images = dx.dim().0;
                dropout.for_each(io.key, parallel::contiguous_mut(dx), images, |dx, _, factor| *dx *= factor);
            }
            Grad::Write(dx) => {
                let images = dx.dim().0;
                dropout.for_each(io.key, parallel::contiguous_mut(dx), images, |dx, i, factor| *dx = dy[i] * factor);
            }
            Grad::Add(dx) => {
                let images = dx.dim().0;
                dropout.for_each(io.key, parallel::contiguous_mut(dx), images, |dx, i, factor| *dx += dy[i] * factor);
            }
        }
    }
}
