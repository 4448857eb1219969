use super::SoftmaxCrossEntropy;
use crate::backend::{Host, Real};
use crate::ops::{Backward, Forward, Grad, Kernel};

/// One implementation for every host backend: a few numbers per image, where speed does not matter and accuracy does.
impl<B: Host> Kernel<B> for SoftmaxCrossEntropy {
    fn forward(&self, mut io: Forward<'_, B::Elem>) {
        for (n, x) in io.x[0].outer_iter().enumerate() {
            let targets = io.x[1].index_axis(ndarray::Axis(0), n);
            let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(x.wide()));
            let log_sum = max + x.iter().map(|x| (x.wide() - max).exp()).sum::<f64>().ln();
            let loss: f64 = x.iter().zip(&targets).map(|(x, t)| t.wide() * (log_sum - x.wide())).sum();
            io.y[[n, 0, 0, 0]] = B::Elem::of(loss);
            if !io.saved.is_empty() {
                let classes = x.len();
                for (j, (x, t)) in x.iter().zip(&targets).enumerate() {
                    io.saved[0][n * classes + j] = B::Elem::of(x.wide() - log_sum);
                    io.saved[1][n * classes + j] = *t;
                }
            }
        }
    }

    fn backward(&self, mut io: Backward<'_, B::Elem>) {
        let images = io.dy.dim().0;
        let classes = io.saved[0].len().checked_div(images).unwrap_or(0);
        let (log_p, targets) = (io.saved[0], io.saved[1]);
        for n in 0..images {
            let dy = io.dy[[n, 0, 0, 0]];
            let row = n * classes..(n + 1) * classes;
            let total: B::Elem = targets[row.clone()].iter().copied().sum();
            for (j, k) in row.enumerate() {
                let at = [n, 0, 0, j];
                let dx = (B::Elem::of(log_p[k].wide().exp()) * total - targets[k]) * dy;
                let dt = -log_p[k] * dy;
                for (grad, value) in io.dx.iter_mut().zip([dx, dt]) {
                    match grad {
                        Grad::Skip => {}
                        Grad::InPlace(_) => unreachable!("a loss never works in place"),
                        Grad::Write(grad) => grad[at] = value,
                        Grad::Add(grad) => grad[at] += value,
                    }
                }
            }
        }
    }
}
