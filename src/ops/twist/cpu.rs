//! Floor: the convolution with 3·channels outputs at the rate of multiply-adds; besides, forward writes and reads the
//! three maps once, backward reads two of them and dy, and writes three gradients, once.

use rayon::prelude::*;

use super::{INNER, OUTER, Twist, TwistGradient};
use crate::backend::cpu::conv::{self, ConvGeometry, Epilogue};
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Conv2d, Forward, Grad, Kernel, ParamGrad};

const SLOPE: f32 = (1.0 / (OUTER - INNER)) as f32;

/// Where tap (a, b) of Wy finds its value in the projected Wx: at (b, 2 − a).
fn turned(tap: usize) -> usize {
    let (a, b) = (tap / 3, tap % 3);
    3 * b + 2 - a
}

/// The tap of Wy that takes its value from tap (a, b) of the projected Wx: [`turned`]'s inverse.
fn turned_back(tap: usize) -> usize {
    let (a, b) = (tap / 3, tap % 3);
    3 * (2 - b) + a
}

/// What a pass needs to know of every channel.
struct Channels<'a> {
    /// 1/R².
    inverse: &'a [f32],
    x: &'a [f32],
    y: &'a [f32],
}

impl Twist {
    /// The three convolutions as one.
    fn geometry(&self, input: Shape, output: Shape) -> ConvGeometry {
        let channels = 3 * self.channels;
        let conv = Conv2d { window: self.window(), ..Conv2d::square(channels, 3, 1, 1).no_bias() };
        conv.geometry(input, Shape::new(output.h, output.w, channels))
    }

    /// W, the projected Wx and Wy side by side: `[3][3][cin][3·channels]`.
    fn side_by_side(&self, params: &[&[f32]], all: &mut [f32]) {
        let width = self.channels;
        let block = params[0].len() / 9;
        parallel::rows_mut(all, 3 * width, 3 * width, |start, row| {
            let at = start / 3;
            let (tap, rest) = (at / block, at % block);
            let of = |kernel: &'_ [f32], tap: usize, q: usize| kernel[tap * block + rest + q];
            let projected = |tap, q| 0.5 * (of(params[1], tap, q) - of(params[1], 8 - tap, q));
            let (straight, rest) = row.split_at_mut(width);
            let (along_x, along_y) = rest.split_at_mut(width);
            for q in 0..width {
                straight[q] = of(params[0], tap, q);
                along_x[q] = projected(tap, q);
                along_y[q] = projected(turned(tap), q);
            }
        });
    }

    /// The gradients of the parameters W, Wx and Wy from that of [`Twist::side_by_side`].
    fn kernel_gradients(&self, dall: &[f32], dparams: &mut [ParamGrad<'_, f32>]) {
        let width = self.channels;
        let block = dall.len() / 27;
        // Value q of a tap's row in map k.
        let of = |tap: usize, rest: usize, k: usize, q: usize| dall[3 * (tap * block + rest) + k * width + q];
        for (which, dparam) in dparams.iter_mut().enumerate() {
            let add = dparam.add;
            parallel::rows_mut(dparam.values, width, width, |start, row| {
                let (tap, rest) = (start / block, start % block);
                let both = |tap: usize, q| of(tap, rest, 1, q) + of(turned_back(tap), rest, 2, q);
                for (q, value) in row.iter_mut().enumerate() {
                    let gradient = match (which, self.gradient) {
                        (0, _) => of(tap, rest, 0, q),
                        (1, TwistGradient::Published) => of(tap, rest, 1, q),
                        (1, TwistGradient::Tied) => 0.5 * (both(tap, q) - both(8 - tap, q)),
                        _ => 0.0,
                    };
                    *value = if add { *value + gradient } else { gradient };
                }
            });
        }
    }
}

fn shape((_, h, w, c): (usize, usize, usize, usize)) -> Shape {
    Shape::new(h, w, c)
}

/// The next `len` elements of scratch.
fn take<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    scratch.split_off_mut(..len).expect("scratch is as large as asked for")
}

impl Kernel<Cpu> for Twist {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize) -> usize {
        let (level, geometry) = (simd_level(), self.geometry(inputs[0], output));
        let (maps, weights) = (geometry.output_len(n), geometry.weight_len());
        let convolution = conv::forward_scratch(level, &geometry, n);
        let forward = weights + maps + convolution.max(conv::forward_in_training_scratch(level, &geometry, n));
        let gradients = conv::weight_gradient_scratch(level, &geometry, n);
        let gradients = gradients.max(conv::input_gradient_scratch(level, &geometry, n));
        let backward = 2 * weights + maps + n * 6 * self.channels + gradients;
        self.channels + forward.max(backward)
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let (level, (n, h, w, width)) = (simd_level(), io.y.dim());
        let geometry = self.geometry(shape(io.x[0].dim()), Shape::new(h, w, width));
        let mut scratch = io.scratch;
        let inverse = take(&mut scratch, width);
        inverse.iter_mut().zip(io.params[3]).for_each(|(inverse, radius)| *inverse = 1.0 / (radius * radius));
        let kernels = take(&mut scratch, geometry.weight_len());
        self.side_by_side(&io.params, kernels);
        let maps = match io.saved.first_mut() {
            Some(saved) => &mut **saved,
            None => take(&mut scratch, geometry.output_len(n)),
        };
        let forward = if io.training { conv::forward_in_training } else { conv::forward };
        forward(level, &geometry, n, parallel::contiguous(&io.x[0]), kernels, maps, Epilogue::NONE, scratch);

        let (maps, channels) = (&*maps, Channels { inverse, x: io.params[4], y: io.params[5] });
        parallel::rows_mut(parallel::contiguous_mut(&mut io.y), w * width, 4 * w * width, |start, y| {
            let row = self.coordinate(start / (w * width) % h, h);
            combine(level, *self, y, &maps[3 * start..], row, &channels);
        });
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (level, (n, h, w, width)) = (simd_level(), io.dy.dim());
        let geometry = self.geometry(shape(io.x[0].dim()), Shape::new(h, w, width));
        let mut scratch = io.scratch;
        let inverse = take(&mut scratch, width);
        inverse.iter_mut().zip(io.params[3]).for_each(|(inverse, radius)| *inverse = 1.0 / (radius * radius));
        let kernels = take(&mut scratch, geometry.weight_len());
        let dkernels = take(&mut scratch, geometry.weight_len());
        let dmaps = take(&mut scratch, geometry.output_len(n));
        let sums = take(&mut scratch, n * 6 * width);

        let channels = Channels { inverse, x: io.params[4], y: io.params[5] };
        let (maps, dy) = (io.saved[0], &*parallel::contiguous_mut(&mut io.dy));
        let len = h * w * width;
        let images = dmaps.par_chunks_mut(3 * len).zip(sums.par_chunks_mut(6 * width));
        images.zip(maps.par_chunks(3 * len).zip(dy.par_chunks(len))).for_each(|((dmaps, sums), (maps, dy))| {
            let (total, of_row) = sums.split_at_mut(3 * width);
            total.fill(0.0);
            for i in 0..h {
                // Sums of rows first: fewer roundings of a large sum.
                of_row.fill(0.0);
                let (at, row) = (i * w * width, self.coordinate(i, h));
                let dmaps = &mut dmaps[3 * at..][..3 * w * width];
                spread(level, *self, dmaps, &maps[3 * at..], &dy[at..], row, &channels, of_row);
                total.iter_mut().zip(&*of_row).for_each(|(total, sum)| *total += sum);
            }
        });
        for q in 0..width {
            let total = |which: usize| -> f64 {
                sums.chunks(6 * width).map(|sums| f64::from(sums[which * width + q])).sum()
            };
            io.dparams[3].put(q, (-2.0 * total(0) / f64::from(io.params[3][q])) as f32);
            io.dparams[4].put(q, -total(1) as f32);
            io.dparams[5].put(q, -total(2) as f32);
        }

        if io.dparams[..3].iter().any(|dparam| dparam.needed) {
            let x = parallel::contiguous(&io.x[0]);
            conv::weight_gradient(level, &geometry, n, x, dmaps, dkernels, false, scratch);
            self.kernel_gradients(dkernels, &mut io.dparams[..3]);
        }
        if matches!(io.dx[0], Grad::Skip) {
            return;
        }
        self.side_by_side(&io.params, kernels);
        let Some((dx, add)) = io.dx[0].target() else { return };
        conv::input_gradient(level, &geometry, n, dmaps, kernels, parallel::contiguous_mut(dx), add, scratch);
    }
}

/// The mask and its derivative by r.
#[inline(always)]
fn mask(r: f32) -> (f32, f32) {
    let ramp = (OUTER as f32 - r) * SLOPE;
    let slope = if ramp > 0.0 && ramp < 1.0 { -SLOPE } else { 0.0 };
    (ramp.clamp(0.0, 1.0), slope)
}

crate::multiversion! {
    /// y = a + mask·(X·b + Y·c) for one row of pixels, whose coordinate is `row`.
    fn combine(op: Twist, y: &mut [f32], maps: &[f32], row: f32, channels: &Channels<'_>) {
        let width = channels.inverse.len();
        let columns = y.len() / width;
        for (j, (y, maps)) in y.chunks_exact_mut(width).zip(maps.chunks_exact(3 * width)).enumerate() {
            let column: f32 = op.coordinate(j, columns);
            let (a, rest) = maps.split_at(width);
            let (b, c) = rest.split_at(width);
            let (inverse, cx, cy) = (&channels.inverse[..width], &channels.x[..width], &channels.y[..width]);
            for q in 0..width {
                let (x, up) = (column - cx[q], row - cy[q]);
                let (mask, _) = mask((x * x + up * up) * inverse[q]);
                y[q] = a[q] + mask * (x * b[q] + up * c[q]);
            }
        }
    }
}

crate::multiversion! {
    /// The gradients of a, b and c for one row of pixels; adds what R, cx and cy sum up to `sums`.
    fn spread(
        op: Twist, dmaps: &mut [f32], maps: &[f32], dy: &[f32], row: f32, channels: &Channels<'_>, sums: &mut [f32],
    ) {
        let width = channels.inverse.len();
        let columns = dmaps.len() / (3 * width);
        let (dr, rest) = sums.split_at_mut(width);
        let (dcx, dcy) = rest.split_at_mut(width);
        let pixels = dmaps.chunks_exact_mut(3 * width).zip(maps.chunks_exact(3 * width)).zip(dy.chunks_exact(width));
        for (j, ((dmaps, maps), dy)) in pixels.enumerate() {
            let column: f32 = op.coordinate(j, columns);
            let (b, c) = maps[width..].split_at(width);
            let (da, rest) = dmaps.split_at_mut(width);
            let (db, dc) = rest.split_at_mut(width);
            let (inverse, cx, cy) = (&channels.inverse[..width], &channels.x[..width], &channels.y[..width]);
            for q in 0..width {
                let (x, up) = (column - cx[q], row - cy[q]);
                let r = (x * x + up * up) * inverse[q];
                let (mask, slope) = mask(r);
                let pull = dy[q] * (x * b[q] + up * c[q]) * slope;
                let share = dy[q] * mask;
                da[q] = dy[q];
                db[q] = share * x;
                dc[q] = share * up;
                dr[q] += pull * r;
                dcx[q] += share * b[q] + 2.0 * pull * x * inverse[q];
                dcy[q] += share * c[q] + 2.0 * pull * up * inverse[q];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_back_undoes_a_turn() {
        assert!((0..9).all(|tap| turned_back(turned(tap)) == tap && turned(turned_back(tap)) == tap));
        // The top row of Wy is the right column of Wx, from above.
        assert_eq!([turned(0), turned(1), turned(2)], [2, 5, 8]);
    }
}
