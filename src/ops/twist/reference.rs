use ndarray::Array4;

use super::{INNER, OUTER, Twist, TwistGradient};
use crate::backend::Reference;
use crate::ops::{Backward, Conv2d, Forward, Kernel};

/// A kernel `[3][3][cin][cout]`, element (i, j) from element `from(i, j)`.
fn moved(kernel: &[f64], from: impl Fn(usize, usize) -> (usize, usize)) -> Vec<f64> {
    let block = kernel.len() / 9;
    let taps = (0..3).flat_map(|i| (0..3).map(move |j| (i, j)));
    taps.flat_map(|(i, j)| {
        let (i, j) = from(i, j);
        kernel[(3 * i + j) * block..][..block].to_vec()
    })
    .collect()
}

/// (k − rot180 k)/2.
fn antisymmetric(kernel: &[f64]) -> Vec<f64> {
    kernel.iter().zip(moved(kernel, |i, j| (2 - i, 2 - j))).map(|(k, turned)| (k - turned) / 2.0).collect()
}

/// What the place has to do with one output value.
struct Place {
    x: f64,
    y: f64,
    r: f64,
    mask: f64,
    /// The mask's derivative by r.
    slope: f64,
}

impl Twist {
    fn conv(&self) -> Conv2d {
        Conv2d { window: self.window(), ..Conv2d::square(self.channels, 3, 1, 1).no_bias() }
    }

    /// W, the projected Wx, and Wy.
    fn kernels(&self, params: &[&[f64]]) -> [Vec<f64>; 3] {
        let along_x = antisymmetric(params[1]);
        // 90° counter-clockwise: what was on the right comes to the top
        let along_y = moved(&along_x, |i, j| (j, 2 - i));
        [params[0].to_vec(), along_x, along_y]
    }

    /// At row i, column j of h × w pixels, in channel q.
    fn place(&self, params: &[&[f64]], (i, j, q): (usize, usize, usize), (h, w): (usize, usize)) -> Place {
        let (radius, cx, cy) = (params[3][q], params[4][q], params[5][q]);
        let (x, y) = (self.coordinate::<f64>(j, w) - cx, self.coordinate::<f64>(i, h) - cy);
        let r = (x * x + y * y) / (radius * radius);
        let mask = ((OUTER - r) / (OUTER - INNER)).clamp(0.0, 1.0);
        let slope = if INNER < r && r < OUTER { -1.0 / (OUTER - INNER) } else { 0.0 };
        Place { x, y, r, mask, slope }
    }
}

impl Kernel<Reference> for Twist {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let (_, h, w, channels) = io.y.dim();
        let maps = self.kernels(&io.params).map(|kernel| {
            let mut map = Array4::zeros(io.y.raw_dim());
            self.conv().add_convolved(&io.x[0], &kernel, &mut map.view_mut());
            map
        });
        for ((n, i, j, q), y) in io.y.indexed_iter_mut() {
            let [a, b, c] = [0, 1, 2].map(|k| maps[k][[n, i, j, q]]);
            let place = self.place(&io.params, (i, j, q), (h, w));
            *y = a + place.mask * (place.x * b + place.y * c);
            if !io.saved.is_empty() {
                let pixel = (n * h + i) * w + j;
                for (k, value) in [a, b, c].into_iter().enumerate() {
                    io.saved[0][(3 * pixel + k) * channels + q] = value;
                }
            }
        }
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (_, h, w, channels) = io.dy.dim();
        let mut dmaps = [0, 1, 2].map(|_| Array4::<f64>::zeros(io.dy.raw_dim()));
        let mut dplaces = [0, 1, 2].map(|_| vec![0.0; channels]);
        for ((n, i, j, q), &dy) in io.dy.indexed_iter() {
            let pixel = (n * h + i) * w + j;
            let [_, b, c] = [0, 1, 2].map(|k| io.saved[0][(3 * pixel + k) * channels + q]);
            let radius = io.params[3][q];
            let Place { x, y, r, mask, slope } = self.place(&io.params, (i, j, q), (h, w));
            let t = x * b + y * c;
            let values = [dy, dy * mask * x, dy * mask * y];
            dmaps.iter_mut().zip(values).for_each(|(map, value)| map[[n, i, j, q]] = value);
            dplaces[0][q] -= dy * t * slope * 2.0 * r / radius;
            dplaces[1][q] -= dy * (mask * b + t * slope * 2.0 * x / (radius * radius));
            dplaces[2][q] -= dy * (mask * c + t * slope * 2.0 * y / (radius * radius));
        }
        let kernels = self.kernels(&io.params);
        let mut dkernels = [0, 1, 2].map(|k| vec![0.0; kernels[k].len()]);
        let mut dx = io.dx[0].sum();
        for (k, dmap) in dmaps.iter().enumerate() {
            self.conv().add_dw(&io.x[0], &dmap.view(), &mut dkernels[k]);
            if let Some(dx) = &mut dx {
                self.conv().add_dx(&kernels[k], &dmap.view(), dx);
            }
        }
        let along_x = match self.gradient {
            TwistGradient::Published => dkernels[1].clone(),
            TwistGradient::Tied => {
                // back by 90° clockwise
                let back = moved(&dkernels[2], |i, j| (2 - j, i));
                let both: Vec<f64> = dkernels[1].iter().zip(back).map(|(x, y)| x + y).collect();
                antisymmetric(&both)
            }
        };
        for (k, value) in dkernels[0].iter().enumerate() {
            io.dparams[0].put(k, *value);
            io.dparams[1].put(k, along_x[k]);
            io.dparams[2].put(k, 0.0);
        }
        for (which, values) in dplaces.iter().enumerate() {
            values.iter().enumerate().for_each(|(q, &value)| io.dparams[3 + which].put(q, value));
        }
    }
}
