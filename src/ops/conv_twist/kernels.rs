//! The kernels of the fast implementation: all of a layer in one tensor, and the way back.

use super::{ConvTwist, Twisting};
use crate::backend::parallel;
use crate::ops::{ParamGrad, TwistGradient};

const SOBEL_X: [f32; 9] = [-1.0, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0];
const SOBEL_Y: [f32; 9] = [1.0, 2.0, 1.0, 0.0, 0.0, 0.0, -1.0, -2.0, -1.0];

impl ConvTwist {
    /// Channels of an output group.
    fn group(&self) -> usize {
        self.channels / self.groups
    }

    /// Where kernel `kind` of an output group's channels begins in a row of the tensor: in the block of the input group
    /// that it reads.
    fn column(&self, group: usize, kind: usize) -> usize {
        (self.order.source(group, self.groups) * self.kinds() + kind) * self.group()
    }

    /// Writes all kernels: `[3][3][cin/groups]` rows of `kinds·channels`.
    pub(super) fn gather(&self, params: &[&[f32]], all: &mut [f32]) {
        let (width, kinds) = (self.channels, self.kinds());
        let block = params[0].len() / 9;
        let cin = block / width;
        parallel::rows_mut(all, kinds * width, kinds * width, |start, row| {
            let at = start / (kinds * width);
            let (tap, i) = (at / cin, at % cin);
            let of = |kernel: &'_ [f32], tap: usize, o: usize| kernel[tap * block + i * width + o];
            let projected = |kernel: &'_ [f32], o| 0.5 * (of(kernel, tap, o) - of(kernel, 8 - tap, o));
            for group in 0..self.groups {
                let first = group * self.group();
                let [straight, along_x, along_y] = [0, 1, 2].map(|kind| self.column(group, kind));
                for q in 0..self.group() {
                    let o = first + q;
                    row[straight + q] = of(params[0], tap, o);
                    match self.twist {
                        Twisting::Off => {}
                        Twisting::Sobel { .. } => {
                            let (ax, ay) = (params[1][o * cin + i], params[2][o * cin + i]);
                            row[along_x + q] = ax * SOBEL_X[tap] + ay * SOBEL_Y[tap];
                            row[along_y + q] = ay * SOBEL_X[tap] - ax * SOBEL_Y[tap];
                        }
                        Twisting::Free { .. } => {
                            let (kx, ky) = (projected(params[1], o), projected(params[2], o));
                            row[along_x + q] = kx;
                            row[along_y + q] = ky;
                            row[straight + q] += params[3][o] * kx + params[4][o] * ky;
                        }
                    }
                }
            }
        });
    }

    /// The parameters' gradients from that of what [`ConvTwist::gather`] wrote.
    pub(super) fn scatter(&self, params: &[&[f32]], dall: &[f32], dparams: &mut [ParamGrad<'_, f32>]) {
        let (width, kinds) = (self.channels, self.kinds());
        let block = params[0].len() / 9;
        let cin = block / width;
        let of = |tap: usize, i: usize, o: usize, kind: usize| {
            let (group, q) = (o / self.group(), o % self.group());
            dall[(tap * cin + i) * kinds * width + self.column(group, kind) + q]
        };
        kernel_gradient(&mut dparams[0], block, width, |tap, i, o| of(tap, i, o, 0));
        match self.twist {
            Twisting::Off => {}
            Twisting::Sobel { .. } => {
                for (o, i) in (0..width).flat_map(|o| (0..cin).map(move |i| (o, i))) {
                    let sum = |kind: usize, with: &[f32; 9]| -> f32 {
                        (0..9).map(|tap| of(tap, i, o, kind) * with[tap]).sum()
                    };
                    dparams[1].put(o * cin + i, sum(1, &SOBEL_X) - sum(2, &SOBEL_Y));
                    dparams[2].put(o * cin + i, sum(1, &SOBEL_Y) + sum(2, &SOBEL_X));
                }
            }
            Twisting::Free { gradient } => {
                for which in 0..2 {
                    let (kernel, shift) = (params[1 + which], params[3 + which]);
                    let raw = |tap, i, o| of(tap, i, o, 1 + which) + shift[o] * of(tap, i, o, 0);
                    kernel_gradient(&mut dparams[1 + which], block, width, |tap, i, o| match gradient {
                        TwistGradient::Published => raw(tap, i, o),
                        TwistGradient::Tied => 0.5 * (raw(tap, i, o) - raw(8 - tap, i, o)),
                    });
                    for o in 0..width {
                        let at = |tap: usize, i: usize| kernel[tap * block + i * width + o];
                        let term = |tap: usize, i: usize| {
                            f64::from(of(tap, i, o, 0)) * 0.5 * f64::from(at(tap, i) - at(8 - tap, i))
                        };
                        let sum: f64 = (0..9).flat_map(|tap| (0..cin).map(move |i| (tap, i))).map(|(t, i)| term(t, i)).sum();
                        dparams[3 + which].put(o, sum as f32);
                    }
                }
            }
        }
    }
}

/// Writes or adds the gradient of a kernel `[3][3][cin][width]` from its value at (tap, input, output).
fn kernel_gradient(
    dparam: &mut ParamGrad<'_, f32>,
    block: usize,
    width: usize,
    value: impl Fn(usize, usize, usize) -> f32 + Sync,
) {
    let add = dparam.add;
    parallel::rows_mut(dparam.values, width, width, |start, row| {
        for (o, gradient) in row.iter_mut().enumerate() {
            let value = value(start / block, start % block / width, o);
            *gradient = if add { *gradient + value } else { value };
        }
    });
}
