use ndarray::{Axis, Zip};

use super::NormAct;
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Grad, Kernel, Op};

impl Kernel<Reference> for NormAct {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let r = self.add.then(|| io.x[1]);
        self.norm.reference().forward(Forward { y: io.y.view_mut(), ..io });
        if let Some(r) = r {
            io.y += &r;
        }
        io.y.mapv_inplace(|z| self.act.f(z));
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let of_input = self.act.keeps().inputs;
        let (dx, dr) = io.dx.split_at_mut(1);
        let dy = match &mut dx[0] {
            Grad::InPlace(dx) => dx,
            _ => &mut io.dy,
        };
        for (c, mut dy) in dy.axis_iter_mut(Axis(3)).enumerate() {
            let (gamma, beta) = (io.params[0][c], io.params[1][c]);
            let (mean, inverse_std) = (io.saved[0][c], io.saved[1][c]);
            let mut z = io.x[0].index_axis(Axis(3), c).mapv(|x| gamma * ((x - mean) * inverse_std) + beta);
            if self.add {
                z += &io.x[1].index_axis(Axis(3), c);
            }
            Zip::from(&mut dy).and(&z).for_each(|dy, &z| *dy *= self.act.df(if of_input { z } else { self.act.f(z) }));
        }
        if let Some(dr) = dr.first_mut().and_then(Grad::sum) {
            *dr += &*dy;
        }
        self.norm.reference().backward(io);
    }
}
