use super::Linear;
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Kernel<Reference> for Linear {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (x, w) = (&io.x[0], io.params[0]);
        for ((n, _, _, o), y) in io.y.indexed_iter_mut() {
            let bias = if self.bias { io.params[1][o] } else { 0.0 };
            *y = bias + (0..x.dim().3).map(|i| x[[n, 0, 0, i]] * w[i * self.outputs + o]).sum::<f64>();
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (x, dy, w) = (&io.x[0], &io.dy, io.params[0]);
        let (images, inputs) = (x.dim().0, x.dim().3);

        let dw = &mut io.dparams[0];
        for i in 0..inputs {
            for o in 0..self.outputs {
                dw.put(i * self.outputs + o, (0..images).map(|n| x[[n, 0, 0, i]] * dy[[n, 0, 0, o]]).sum());
            }
        }
        if self.bias {
            let db = &mut io.dparams[1];
            (0..self.outputs).for_each(|o| db.put(o, (0..images).map(|n| dy[[n, 0, 0, o]]).sum()));
        }

        let at = |n, i| (0..self.outputs).map(|o| dy[[n, 0, 0, o]] * w[i * self.outputs + o]).sum::<f64>();
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(_) => unreachable!("a linear layer never works in place"),
            Grad::Write(dx) => dx.indexed_iter_mut().for_each(|((n, _, _, i), dx)| *dx = at(n, i)),
            Grad::Add(dx) => dx.indexed_iter_mut().for_each(|((n, _, _, i), dx)| *dx += at(n, i)),
        }
    }
}
