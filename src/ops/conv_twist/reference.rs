use ndarray::{Array4, ArrayView4, s};

use super::{ConvTwist, Twisting};
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Kernel, TwistGradient};

const SOBEL_X: [f64; 9] = [-1.0, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0];
const SOBEL_Y: [f64; 9] = [1.0, 2.0, 1.0, 0.0, 0.0, 0.0, -1.0, -2.0, -1.0];

/// (k − rot180 k)/2 of a kernel `[3][3][cin][cout]`.
fn antisymmetric(k: &[f64]) -> Vec<f64> {
    let block = k.len() / 9;
    (0..k.len()).map(|at| (k[at] - k[(8 - at / block) * block + at % block]) / 2.0).collect()
}

/// The gradients of W, Kx, Ky and of the shifts.
struct Sums {
    kernels: [Vec<f64>; 3],
    shifts: [Vec<f64>; 2],
}

impl ConvTwist {
    /// z with its groups in the order in which output groups read them.
    fn permuted(&self, z: &ArrayView4<'_, f64>) -> Array4<f64> {
        let size = z.dim().3 / self.groups;
        let from = |c: usize| self.order.source(c / size, self.groups) * size + c % size;
        Array4::from_shape_fn(z.raw_dim(), |(n, i, j, c)| z[[n, i, j, from(c)]])
    }

    /// W, Kx and Ky; only W where there is no twist.
    fn three(&self, params: &[&[f64]]) -> Vec<Vec<f64>> {
        let mut kernels = vec![params[0].to_vec()];
        match self.twist {
            Twisting::Off => {}
            Twisting::Sobel { .. } => {
                let (ax, ay) = (params[1], params[2]);
                let cin = ax.len() / self.channels;
                let build = |of: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
                    // of(tap, index into Ax) in the order [tap][cin][cout]
                    let at = |k: usize| (k / (cin * self.channels), (k % self.channels) * cin + k / self.channels % cin);
                    (0..params[0].len()).map(|k| of(at(k).0, at(k).1)).collect()
                };
                kernels.push(build(&|tap, a| ax[a] * SOBEL_X[tap] + ay[a] * SOBEL_Y[tap]));
                kernels.push(build(&|tap, a| ay[a] * SOBEL_X[tap] - ax[a] * SOBEL_Y[tap]));
            }
            Twisting::Free { .. } => kernels.extend([antisymmetric(params[1]), antisymmetric(params[2])]),
        }
        kernels
    }

    /// X or Y: the coordinate of pixel `at` of `size`, in channel q.
    fn coordinate(&self, params: &[&[f64]], which: usize, (at, size): (usize, usize), q: usize) -> f64 {
        let shift = if matches!(self.twist, Twisting::Free { .. }) { params[3 + which][q] } else { 0.0 };
        2.0 * at as f64 / size as f64 - 1.0 + shift
    }

    /// W∗z, Kx∗z, Ky∗z.
    fn maps(&self, kernels: &[Vec<f64>], z: &ArrayView4<'_, f64>, (h, w): (usize, usize)) -> Vec<Array4<f64>> {
        let z = self.permuted(z);
        let map = |kernel: &Vec<f64>| {
            let mut map = Array4::zeros((z.dim().0, h, w, self.channels));
            self.conv().add_convolved(&z.view(), kernel, &mut map.view_mut());
            map
        };
        kernels.iter().map(map).collect()
    }

    /// T(z).
    fn twisted(&self, params: &[&[f64]], z: &ArrayView4<'_, f64>, (h, w): (usize, usize)) -> Array4<f64> {
        let maps = self.maps(&self.three(params), z, (h, w));
        let mut y = maps[0].clone();
        if let [_, b, c] = &maps[..] {
            for (at, y) in y.indexed_iter_mut() {
                let (_, i, j, q) = at;
                *y += self.coordinate(params, 0, (j, w), q) * b[at] + self.coordinate(params, 1, (i, h), q) * c[at];
            }
        }
        y
    }

    /// Tᵀ(d), and what d makes of z added to `sums`.
    fn twisted_backward(
        &self,
        params: &[&[f64]],
        z: &ArrayView4<'_, f64>,
        d: &Array4<f64>,
        sums: &mut Sums,
    ) -> Array4<f64> {
        let (_, h, w, _) = d.dim();
        let kernels = self.three(params);
        let shifts = matches!(self.twist, Twisting::Free { .. });
        let maps = if shifts { self.maps(&kernels, z, (h, w)) } else { Vec::new() };
        let permuted = self.permuted(z);
        let mut dpermuted = Array4::zeros(z.raw_dim());
        for (k, kernel) in kernels.iter().enumerate() {
            let coordinate = |(_, i, j, q): (usize, usize, usize, usize)| match k {
                0 => 1.0,
                1 => self.coordinate(params, 0, (j, w), q),
                _ => self.coordinate(params, 1, (i, h), q),
            };
            let dmap = Array4::from_shape_fn(d.raw_dim(), |at| coordinate(at) * d[at]);
            self.conv().add_dw(&permuted.view(), &dmap.view(), &mut sums.kernels[k]);
            self.conv().add_dx(kernel, &dmap.view(), &mut dpermuted.view_mut());
            if shifts && k > 0 {
                d.indexed_iter().for_each(|(at, d)| sums.shifts[k - 1][at.3] += d * maps[k][at]);
            }
        }
        let size = z.dim().3 / self.groups;
        let mut dz = Array4::zeros(z.raw_dim());
        for group in 0..self.groups {
            let from = self.order.source(group, self.groups) * size;
            let part = dpermuted.slice(s![.., .., .., group * size..(group + 1) * size]);
            dz.slice_mut(s![.., .., .., from..from + size]).assign(&part);
        }
        dz
    }
}

impl Kernel<Reference> for ConvTwist {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (n, h, w, c) = io.x[0].dim();
        let size = (io.y.dim().1, io.y.dim().2);
        let iterations = self.iterations(crate::graph::Shape::new(h, w, c));
        if iterations == 1 {
            io.y.assign(&self.twisted(&io.params, &io.x[0], size));
            return;
        }
        let mut z = io.x[0].to_owned();
        for iteration in 0..iterations {
            if iteration > 0 && !io.saved.is_empty() {
                let len = n * h * w * c;
                let saved = &mut io.saved[0][(iteration - 1) * len..][..len];
                saved.iter_mut().zip(&z).for_each(|(saved, z)| *saved = *z);
            }
            z = &z + self.twisted(&io.params, &z.view(), size) / iterations as f64;
        }
        io.y.assign(&(&z - &io.x[0]));
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let x = &io.x[0];
        let (n, h, w, c) = x.dim();
        let iterations = self.iterations(crate::graph::Shape::new(h, w, c));
        let zeros = || vec![0.0; io.params[0].len()];
        let mut sums = Sums {
            kernels: [zeros(), zeros(), zeros()],
            shifts: [vec![0.0; self.channels], vec![0.0; self.channels]],
        };
        let dy = io.dy.to_owned();
        let dx_values = if iterations == 1 {
            self.twisted_backward(&io.params, x, &dy, &mut sums)
        } else {
            let mut e = dy.clone();
            for iteration in (0..iterations).rev() {
                let len = n * h * w * c;
                let z = match iteration {
                    0 => x.view(),
                    _ => ArrayView4::from_shape(x.raw_dim(), &io.saved[0][(iteration - 1) * len..][..len])
                        .expect("as large as x"),
                };
                let share = &e / iterations as f64;
                e = &e + self.twisted_backward(&io.params, &z, &share, &mut sums);
            }
            e - &dy
        };
        if let Some(dx) = io.dx[0].sum() {
            *dx += &dx_values;
        }

        let [dw, dkx, dky] = sums.kernels;
        dw.iter().enumerate().for_each(|(k, &value)| io.dparams[0].put(k, value));
        match self.twist {
            Twisting::Off => {}
            Twisting::Sobel { .. } => {
                let cin = io.params[1].len() / self.channels;
                for (o, i) in (0..self.channels).flat_map(|o| (0..cin).map(move |i| (o, i))) {
                    let sum = |kernel: &[f64], with: &[f64; 9]| -> f64 {
                        (0..9).map(|tap| kernel[(tap * cin + i) * self.channels + o] * with[tap]).sum()
                    };
                    io.dparams[1].put(o * cin + i, sum(&dkx, &SOBEL_X) - sum(&dky, &SOBEL_Y));
                    io.dparams[2].put(o * cin + i, sum(&dkx, &SOBEL_Y) + sum(&dky, &SOBEL_X));
                }
            }
            Twisting::Free { gradient } => {
                for (which, dk) in [dkx, dky].into_iter().enumerate() {
                    let dk = if gradient == TwistGradient::Tied { antisymmetric(&dk) } else { dk };
                    dk.iter().enumerate().for_each(|(k, &value)| io.dparams[1 + which].put(k, value));
                    let shifts = &sums.shifts[which];
                    shifts.iter().enumerate().for_each(|(q, &value)| io.dparams[3 + which].put(q, value));
                }
            }
        }
    }
}
