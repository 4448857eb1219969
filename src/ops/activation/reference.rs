use ndarray::Zip;

use super::Activation;
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Kernel<Reference> for Activation {
    fn forward(&self, mut io: Forward<'_, f64>) {
        if io.in_place {
            io.y.mapv_inplace(|x| self.f(x));
        } else {
            Zip::from(&mut io.y).and(&io.x[0]).for_each(|y, &x| *y = self.f(x));
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => Zip::from(dx).and(&io.y).for_each(|dx, &y| *dx *= self.df(y)),
            Grad::Write(dx) => Zip::from(dx).and(&io.y).and(&io.dy).for_each(|dx, &y, &dy| *dx = self.df(y) * dy),
            Grad::Add(dx) => Zip::from(dx).and(&io.y).and(&io.dy).for_each(|dx, &y, &dy| *dx += self.df(y) * dy),
        }
    }
}
