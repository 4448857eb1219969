use ndarray::Zip;

use super::Activation;
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Grad, Kernel, Op};

impl Kernel<Reference> for Activation {
    fn forward(&self, mut io: Forward<'_, f64>) {
        if io.in_place {
            io.y.mapv_inplace(|x| self.f(x));
        } else {
            Zip::from(&mut io.y).and(&io.x[0]).for_each(|y, &x| *y = self.f(x));
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let kept = if self.keeps().inputs { &io.x[0] } else { &io.y };
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => Zip::from(dx).and(kept).for_each(|dx, &kept| *dx *= self.df(kept)),
            Grad::Write(dx) => Zip::from(dx).and(kept).and(&io.dy).for_each(|dx, &kept, &dy| *dx = self.df(kept) * dy),
            Grad::Add(dx) => Zip::from(dx).and(kept).and(&io.dy).for_each(|dx, &kept, &dy| *dx += self.df(kept) * dy),
        }
    }
}
