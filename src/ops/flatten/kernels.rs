use super::Flatten;
use crate::backend::{Host, parallel};
use crate::ops::{Backward, Forward, Grad, Kernel};

/// Copies are all there is to do, on every backend, and in place not even those.
impl<B: Host> Kernel<B> for Flatten {
    fn forward(&self, mut io: Forward<'_, B::Elem>) {
        if !io.in_place {
            parallel::contiguous_mut(&mut io.y).copy_from_slice(parallel::contiguous(&io.x[0]));
        }
    }

    fn backward(&self, mut io: Backward<'_, B::Elem>) {
        let dy = parallel::contiguous_mut(&mut io.dy);
        match &mut io.dx[0] {
            Grad::Skip | Grad::InPlace(_) => {}
            Grad::Write(dx) => parallel::contiguous_mut(dx).copy_from_slice(dy),
            Grad::Add(dx) => parallel::contiguous_mut(dx).iter_mut().zip(dy).for_each(|(dx, dy)| *dx += *dy),
        }
    }
}
