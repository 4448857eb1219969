use ndarray::{Array2, ArrayView2, ArrayView4, ArrayViewMut4, s};

use super::SelfAttention;
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Kernel};

/// Image `n` as X: `[C, N]`.
fn image(x: &ArrayView4<'_, f64>, n: usize) -> Array2<f64> {
    let (_, h, w, c) = x.dim();
    x.slice(s![n, .., .., ..]).to_shape((h * w, c)).expect("an image is contiguous").t().to_owned()
}

/// Adds a `[C, N]` matrix to image `n`.
fn add_to_image(x: &mut ArrayViewMut4<'_, f64>, n: usize, values: &Array2<f64>) {
    let (_, _, w, _) = x.dim();
    x.slice_mut(s![n, .., .., ..]).indexed_iter_mut().for_each(|((i, j, c), x)| *x += values[[c, i * w + j]]);
}

impl SelfAttention {
    /// W, or its symmetric part.
    fn matrix(&self, w: &[f64], channels: usize) -> Array2<f64> {
        let w = ArrayView2::from_shape((channels, channels), w).expect("C × C values");
        if self.sym { (&w + &w.t()) / 2.0 } else { w.to_owned() }
    }
}

impl Kernel<Reference> for SelfAttention {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (images, _, _, channels) = io.x[0].dim();
        let (w, gamma) = (io.params[0], io.params[1][0]);
        let (u, v) = io.states.split_at_mut(1);
        if io.training {
            self.iterate(w, u[0], v[0]);
        }
        let sigma = self.sigma(w, u[0], v[0]);
        if !io.saved.is_empty() {
            let values = u[0].iter().chain(&*v[0]).chain(std::iter::once(&sigma));
            io.saved[0].iter_mut().zip(values).for_each(|(saved, value)| *saved = *value);
        }
        let weight = self.matrix(w, channels) / sigma;
        io.y.assign(&io.x[0]);
        for n in 0..images {
            let x = image(&io.x[0], n);
            let attended = gamma * x.dot(&x.t()).dot(&weight.dot(&x));
            add_to_image(&mut io.y, n, &attended);
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (images, _, _, channels) = io.x[0].dim();
        let gamma = io.params[1][0];
        let (u, v) = io.saved[0].split_at(channels);
        let (v, sigma) = (&v[..channels], v[channels]);
        let matrix = self.matrix(io.params[0], channels);
        let weight = &matrix / sigma;
        let mut dx = io.dx[0].sum();
        let (mut dgamma, mut dweight) = (0.0, Array2::<f64>::zeros((channels, channels)));
        for n in 0..images {
            let (x, dy) = (image(&io.x[0], n), image(&io.dy.view(), n));
            let (gram, convolved) = (x.dot(&x.t()), weight.dot(&x));
            dgamma += (&dy * &gram.dot(&convolved)).sum();
            let dconvolved = gamma * gram.dot(&dy);
            let dgram = gamma * dy.dot(&convolved.t());
            dweight = dweight + dconvolved.dot(&x.t());
            if let Some(dx) = &mut dx {
                let values = &dy + &weight.t().dot(&dconvolved) + (&dgram + &dgram.t()).dot(&x);
                add_to_image(dx, n, &values);
            }
        }
        let inner = (&dweight * &matrix).sum();
        let dw = Array2::from_shape_fn((channels, channels), |(o, i)| {
            dweight[[o, i]] / sigma - inner / (sigma * sigma) * u[o] * v[i]
        });
        let dw = if self.sym { (&dw + &dw.t()) / 2.0 } else { dw };
        dw.iter().enumerate().for_each(|(k, &value)| io.dparams[0].put(k, value));
        io.dparams[1].put(0, dgamma);
    }
}
