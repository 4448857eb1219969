use ndarray::Zip;

use super::Scale;
use crate::backend::{Cpu, Reference, parallel};
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Kernel<Reference> for Scale {
    fn forward(&self, mut io: Forward<'_, f64>) {
        if !io.in_place {
            io.y.assign(&io.x[0]);
        }
        io.y *= self.factor;
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => *dx *= self.factor,
            Grad::Write(dx) => Zip::from(dx).and(&io.dy).for_each(|dx, &dy| *dx = self.factor * dy),
            Grad::Add(dx) => dx.scaled_add(self.factor, &io.dy),
        }
    }
}

impl Kernel<Cpu> for Scale {
    fn forward(&self, io: Forward<'_, f32>) {
        let factor = self.factor as f32;
        parallel::map(io, move |x| factor * x);
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let factor = self.factor as f32;
        let dy = parallel::contiguous_mut(&mut io.dy);
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => parallel::chunks_mut(parallel::contiguous_mut(dx), |_, dx| {
                dx.iter_mut().for_each(|dx| *dx *= factor);
            }),
            Grad::Write(dx) => parallel::chunks_mut(parallel::contiguous_mut(dx), |start, dx| {
                dx.iter_mut().zip(&dy[start..]).for_each(|(dx, &dy)| *dx = factor * dy);
            }),
            Grad::Add(dx) => parallel::chunks_mut(parallel::contiguous_mut(dx), |start, dx| {
                dx.iter_mut().zip(&dy[start..]).for_each(|(dx, &dy)| *dx += factor * dy);
            }),
        }
    }
}
