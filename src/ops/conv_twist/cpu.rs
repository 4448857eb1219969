//! Floor: each application's convolution at the rate of multiply-adds; besides, forward writes and reads its three maps
//! once, backward reads the upstream gradient and writes three.

use super::ConvTwist;
use crate::backend::cpu::conv::{self, ConvGeometry, Epilogue};
use crate::backend::cpu::simd::Level;
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Conv2d, Forward, Grad, Kernel};

fn shape((_, h, w, c): (usize, usize, usize, usize)) -> Shape {
    Shape::new(h, w, c)
}

/// The next `len` elements of scratch.
fn take<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    scratch.split_off_mut(..len).expect("scratch is as large as asked for")
}

/// One pass over `n` images.
struct Pass<'a> {
    op: &'a ConvTwist,
    level: Level,
    n: usize,
    geometry: ConvGeometry,
    iterations: usize,
}

impl<'a> Pass<'a> {
    fn new(op: &'a ConvTwist, input: Shape, output: Shape, n: usize) -> Self {
        let channels = op.kinds() * op.channels;
        let conv = Conv2d { channels, ..op.conv() };
        let geometry = conv.geometry(input, Shape::new(output.h, output.w, channels));
        Pass { op, level: simd_level(), n, geometry, iterations: op.iterations(input) }
    }

    /// What each application of T is multiplied with.
    fn share(&self) -> f32 {
        1.0 / self.iterations as f32
    }

    /// y = T(z)·share, or that added.
    fn apply(&self, z: &[f32], kernels: &[f32], maps: &mut [f32], y: &mut [f32], add: bool, scratch: &mut [f32]) {
        let Pass { level, n, geometry, .. } = self;
        conv::forward(*level, geometry, *n, z, kernels, maps, Epilogue::NONE, scratch);
        let (h, w, width, kinds) = (geometry.out_h, geometry.out_w, self.op.channels, self.op.kinds());
        let (maps, share) = (&*maps, self.share());
        parallel::rows_mut(y, w * width, (kinds + 1) * w * width, |start, y| {
            let row = coordinate(start / (w * width) % h, h);
            combine(*level, self.op, y, &maps[kinds * start..], row, share, add);
        });
    }

    /// The maps' gradients: d·share, and that times the coordinates.
    fn spread(&self, d: &[f32], dmaps: &mut [f32]) {
        let (h, w, width, kinds) = (self.geometry.out_h, self.geometry.out_w, self.op.channels, self.op.kinds());
        let share = self.share();
        parallel::rows_mut(dmaps, kinds * w * width, (kinds + 1) * w * width, |start, dmaps| {
            let row = coordinate(start / (kinds * w * width) % h, h);
            spread(self.level, self.op, dmaps, &d[start / kinds..], row, share);
        });
    }
}

impl Kernel<Cpu> for ConvTwist {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize) -> usize {
        let Pass { level, geometry, iterations, .. } = Pass::new(self, inputs[0], output, n);
        let (maps, weights) = (geometry.output_len(n), geometry.weight_len());
        let buffer = if iterations > 1 { geometry.input_len(n) } else { 0 };
        let forward = conv::forward_scratch(level, &geometry, n);
        let gradients = conv::weight_gradient_scratch(level, &geometry, n);
        let gradients = gradients.max(conv::input_gradient_scratch(level, &geometry, n));
        weights + maps + buffer + forward.max(weights + gradients)
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let n = io.y.dim().0;
        let pass = Pass::new(self, shape(io.x[0].dim()), shape(io.y.dim()), n);
        let mut scratch = io.scratch;
        let kernels = take(&mut scratch, pass.geometry.weight_len());
        self.gather(&io.params, kernels);
        let maps = take(&mut scratch, pass.geometry.output_len(n));
        let x = parallel::contiguous(&io.x[0]);
        let y = parallel::contiguous_mut(&mut io.y);
        if pass.iterations == 1 {
            pass.apply(x, kernels, maps, y, false, scratch);
            return;
        }
        let buffer = take(&mut scratch, x.len());
        pass.apply(x, kernels, maps, y, false, scratch);
        for iteration in 1..pass.iterations {
            // y gathers Σ T(z)/k, so that z is x + y.
            let z = match io.saved.first_mut() {
                Some(saved) => &mut saved[(iteration - 1) * x.len()..][..x.len()],
                None => &mut *buffer,
            };
            let so_far = &*y;
            parallel::chunks_mut(z, |at, z| {
                parallel::combine2(pass.level, z, &x[at..], &so_far[at..], |_, x, y| x + y);
            });
            pass.apply(z, kernels, maps, y, true, scratch);
        }
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let n = io.dy.dim().0;
        let pass = Pass::new(self, shape(io.x[0].dim()), shape(io.dy.dim()), n);
        let Pass { level, iterations, geometry, .. } = &pass;
        let mut scratch = io.scratch;
        let kernels = take(&mut scratch, geometry.weight_len());
        self.gather(&io.params, kernels);
        let dkernels = take(&mut scratch, geometry.weight_len());
        let dmaps = take(&mut scratch, geometry.output_len(n));
        let x = parallel::contiguous(&io.x[0]);
        let dy = &*parallel::contiguous_mut(&mut io.dy);
        if *iterations == 1 {
            pass.spread(dy, dmaps);
            conv::weight_gradient(*level, geometry, n, x, dmaps, dkernels, false, scratch);
            if let Some((dx, add)) = io.dx[0].target() {
                let dx = parallel::contiguous_mut(dx);
                conv::input_gradient(*level, geometry, n, dmaps, kernels, dx, add, scratch);
            }
        } else {
            let e = take(&mut scratch, x.len());
            e.copy_from_slice(dy);
            for iteration in (0..*iterations).rev() {
                pass.spread(e, dmaps);
                let z = if iteration == 0 { x } else { &io.saved[0][(iteration - 1) * x.len()..][..x.len()] };
                let first = iteration + 1 == *iterations;
                conv::weight_gradient(*level, geometry, n, z, dmaps, dkernels, !first, scratch);
                if iteration > 0 || !matches!(io.dx[0], Grad::Skip) {
                    conv::input_gradient(*level, geometry, n, dmaps, kernels, e, true, scratch);
                }
            }
            let e = &*e;
            if let Some((dx, add)) = io.dx[0].target() {
                parallel::chunks_mut(parallel::contiguous_mut(dx), |at, dx| {
                    parallel::combine2(*level, dx, &e[at..], &dy[at..], |dx, e, dy| {
                        let old = if add { dx } else { 0.0 };
                        old + (e - dy)
                    });
                });
            }
        }
        self.scatter(&io.params, dkernels, &mut io.dparams);
    }
}

/// The coordinate of pixel `at` of `size`: from −1 on.
#[inline(always)]
fn coordinate(at: usize, size: usize) -> f32 {
    (2.0 * at as f64 / size as f64 - 1.0) as f32
}

crate::multiversion! {
    /// One row of pixels of y = share·(a + X·b + Y·c), or that added; Y is `row`. Groups are put in order.
    fn combine(op: &ConvTwist, y: &mut [f32], maps: &[f32], row: f32, share: f32, add: bool) {
        let (width, groups, kinds) = (op.channels, op.groups, op.kinds());
        let (size, columns) = (width / groups, y.len() / width);
        for (j, (y, maps)) in y.chunks_exact_mut(width).zip(maps.chunks_exact(kinds * width)).enumerate() {
            let (x, up) = (share * coordinate(j, columns), share * row);
            for (group, y) in y.chunks_exact_mut(size).enumerate() {
                let maps = &maps[op.order.source(group, groups) * kinds * size..][..kinds * size];
                let (a, rest) = maps.split_at(size);
                if kinds == 1 {
                    for (y, a) in y.iter_mut().zip(a) {
                        *y = if add { *y + share * a } else { share * a };
                    }
                    continue;
                }
                let (b, c) = rest.split_at(size);
                for (y, (a, (b, c))) in y.iter_mut().zip(a.iter().zip(b.iter().zip(c))) {
                    let old = if add { *y } else { 0.0 };
                    *y = old + (share * a + (x * b + up * c));
                }
            }
        }
    }
}

crate::multiversion! {
    /// The gradients of a, b and c of one row of pixels: share·d, X·share·d, Y·share·d.
    fn spread(op: &ConvTwist, dmaps: &mut [f32], d: &[f32], row: f32, share: f32) {
        let (width, groups, kinds) = (op.channels, op.groups, op.kinds());
        let (size, columns) = (width / groups, dmaps.len() / (kinds * width));
        for (j, (dmaps, d)) in dmaps.chunks_exact_mut(kinds * width).zip(d.chunks_exact(width)).enumerate() {
            let factors = [share, share * coordinate(j, columns), share * row];
            for (group, d) in d.chunks_exact(size).enumerate() {
                let dmaps = &mut dmaps[op.order.source(group, groups) * kinds * size..][..kinds * size];
                for (dmap, factor) in dmaps.chunks_exact_mut(size).zip(factors) {
                    for (dmap, d) in dmap.iter_mut().zip(d) {
                        *dmap = factor * d;
                    }
                }
            }
        }
    }
}
