use ndarray::Axis;

use super::BatchNorm;
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Kernel<Reference> for BatchNorm {
    fn forward(&self, mut io: Forward<'_, f64>) {
        if !io.in_place {
            io.y.assign(&io.x[0]);
        }
        for (c, mut y) in io.y.axis_iter_mut(Axis(3)).enumerate() {
            let count = y.len();
            let (mean, inverse_std) = if io.again {
                (io.saved[0][c], io.saved[1][c])
            } else if io.training {
                let mean = y.sum() / count as f64;
                let squares: f64 = y.iter().map(|x| (x - mean).powi(2)).sum();
                if let [means, variances] = &mut io.states[..] {
                    self.update([&mut means[c], &mut variances[c]], mean, squares, count);
                }
                (mean, self.inverse_std(squares / self.divisor(count)))
            } else {
                (io.states[0][c], self.inverse_std(io.states[1][c]))
            };
            if let [means, inverse_stds] = &mut io.saved[..] {
                (means[c], inverse_stds[c]) = (mean, inverse_std);
            }
            y.mapv_inplace(|x| io.params[0][c] * ((x - mean) * inverse_std) + io.params[1][c]);
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let x = &io.x[0];
        // A copy, so that the formula below reads the same whether dx overwrites dy or not.
        let dy = match &io.dx[0] {
            Grad::InPlace(dx) => dx.to_owned(),
            _ => io.dy.to_owned(),
        };
        for c in 0..x.dim().3 {
            let (x, dy) = (x.index_axis(Axis(3), c), dy.index_axis(Axis(3), c));
            let (mean, inverse_std) = (io.saved[0][c], io.saved[1][c]);
            let normalised = x.mapv(|x| (x - mean) * inverse_std);
            let (dgamma, dbeta) = ((&dy * &normalised).sum(), dy.sum());

            let count = x.len();
            let slope = io.params[0][c] * inverse_std;
            // Statistics that are constant pass nothing on.
            let through = if io.training { (dbeta / count as f64, dgamma / self.divisor(count)) } else { (0.0, 0.0) };
            let dx_value = slope * (&dy - through.0 - &normalised * through.1);
            match &mut io.dx[0] {
                Grad::Skip => {}
                Grad::Write(dx) | Grad::InPlace(dx) => dx.index_axis_mut(Axis(3), c).assign(&dx_value),
                Grad::Add(dx) => {
                    let mut dx = dx.index_axis_mut(Axis(3), c);
                    dx += &dx_value;
                }
            }
            io.dparams[0].put(c, dgamma);
            io.dparams[1].put(c, dbeta);
        }
    }
}
