//! Floor: forward reads x twice and writes y once, backward reads x and dy twice and writes dx once.

use rayon::prelude::*;

use super::BatchNorm;
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Grad, Kernel};

/// Values per block of statistics: 64 KiB, so that the second look at a block comes from the L2 cache.
const BLOCK: usize = 16 * 1024;
/// Values that what follows the normalisation finds in the first-level cache.
const PIECE: usize = 4 * 1024;
/// Vector lanes that the inner loops are widened to: several pixels side by side where there are few channels.
const LANES: usize = 64;

/// How pixels are grouped: a function of the shape alone, so that sums come out the same for any thread count.
#[derive(Clone, Copy)]
struct Grouping {
    channels: usize,
    /// Channels × pixels handled side by side.
    wide: usize,
    /// Values per piece and per block, multiples of `wide`.
    piece: usize,
    block: usize,
}

impl Grouping {
    fn new(channels: usize) -> Self {
        let wide = channels * LANES.div_ceil(channels);
        let values = |most: usize| wide * (most / wide).max(1);
        Grouping { channels, wide, piece: values(PIECE), block: values(BLOCK) }
    }

    fn blocks(&self, len: usize) -> usize {
        len.div_ceil(self.block)
    }

    /// Repeats one value per channel over `wide` lanes.
    fn widen(&self, from: impl Fn(usize) -> f32, to: &mut [f32]) {
        to.iter_mut().enumerate().for_each(|(i, to)| *to = from(i % self.channels));
    }

    /// The normalisation as scale·x + shift.
    fn affine(
        &self,
        params: &[&[f32]],
        mean: &dyn Fn(usize) -> f32,
        inverse_std: &dyn Fn(usize) -> f32,
        scale: &mut [f32],
        shift: &mut [f32],
    ) {
        self.widen(|c| params[0][c] * inverse_std(c), scale);
        self.widen(|c| params[1][c] - mean(c) * inverse_std(c) * params[0][c], shift);
    }

    /// Sums lanes of the same channel, in f64.
    fn fold(&self, wide: &[f32], c: usize) -> f64 {
        wide.iter().skip(c).step_by(self.channels).map(|&v| f64::from(v)).sum()
    }
}

impl Kernel<Cpu> for BatchNorm {
    fn scratch(&self, inputs: &[Shape], _output: Shape, n: usize) -> usize {
        let grouping = Grouping::new(inputs[0].c);
        // two sums per block and channel lane, and five vectors of coefficients
        2 * grouping.wide * grouping.blocks(n * inputs[0].len()) + 5 * grouping.wide
    }

    fn forward(&self, io: Forward<'_, f32>) {
        self.forward_then(io, |_, _| {});
    }

    fn backward(&self, io: Backward<'_, f32>) {
        self.backward_behind(io, |_| {});
    }
}

/// A block of the backward pass, for what lies between this layer and its gradient `dy`.
pub(in crate::ops) struct Piece<'a> {
    /// Where in the tensor it begins.
    pub start: usize,
    pub x: &'a [f32],
    /// The gradient behind what follows; to become that of the normalisation's output.
    pub dy: &'a mut [f32],
    /// The gradient of a second input, to be written or added to; empty where there is none.
    pub dr: &'a mut [f32],
    /// The output of the normalisation is scale·x + shift: coefficients of a group of pixels.
    pub scale: &'a [f32],
    pub shift: &'a [f32],
}

impl BatchNorm {
    /// The forward pass; `then` gets pieces of the output, and where they begin, while they lie in the cache.
    pub(in crate::ops) fn forward_then(&self, mut io: Forward<'_, f32>, then: impl Fn(usize, &mut [f32]) + Sync) {
        let (level, (n, h, w, channels)) = (simd_level(), io.y.dim());
        let count = n * h * w;
        let grouping = Grouping::new(channels);
        let y = parallel::contiguous_mut(&mut io.y);
        let x = (!io.in_place).then(|| parallel::contiguous(&io.x[0]));
        let (coefficients, sums) = io.scratch.split_at_mut(5 * grouping.wide);
        let (scale, shift) = coefficients[..2 * grouping.wide].split_at_mut(grouping.wide);

        if io.again {
            // What was saved is there.
        } else if io.training && count > 0 {
            let source = x.unwrap_or(y);
            let sums = &mut sums[..2 * grouping.wide * grouping.blocks(source.len())];
            moments(source, grouping, sums);
            for c in 0..channels {
                let (mean, squares) = merge(sums, grouping, source.len(), c);
                let (means, variances) = io.states.split_at_mut(1);
                self.update([&mut means[0][c], &mut variances[0][c]], mean, squares, count);
                io.saved[0][c] = mean as f32;
                io.saved[1][c] = self.inverse_std(squares / self.divisor(count)) as f32;
            }
        } else if let [means, inverse_stds] = &mut io.saved[..] {
            means.copy_from_slice(io.states[0]);
            let variances = inverse_stds.iter_mut().zip(&*io.states[1]);
            variances.for_each(|(to, &variance)| *to = self.inverse_std(f64::from(variance)) as f32);
        }
        let (mean, inverse_std): (&dyn Fn(usize) -> f32, &dyn Fn(usize) -> f32) = if io.training {
            (&|c| io.saved[0][c], &|c| io.saved[1][c])
        } else {
            (&|c| io.states[0][c], &|c| self.inverse_std(f64::from(io.states[1][c])) as f32)
        };
        grouping.affine(&io.params, mean, inverse_std, scale, shift);
        let (scale, shift) = (&*scale, &*shift);
        parallel::rows_mut(y, grouping.block, grouping.block, |start, y| {
            for (i, y) in y.chunks_mut(grouping.piece).enumerate() {
                let start = start + i * grouping.piece;
                match x {
                    Some(x) => normalise(level, y, &x[start..], scale, shift),
                    None => normalise_in_place(level, y, scale, shift),
                }
                then(start, y);
            }
        });
    }

    /// The backward pass; `behind` gets each block before anything else is done with its gradient.
    pub(in crate::ops) fn backward_behind(&self, mut io: Backward<'_, f32>, behind: impl Fn(Piece<'_>) + Sync) {
        let (level, (n, h, w, channels)) = (simd_level(), io.x[0].dim());
        let count = n * h * w;
        let grouping = Grouping::new(channels);
        let x = parallel::contiguous(&io.x[0]);
        let (dx, dr) = io.dx.split_at_mut(1);
        let dy = match &mut dx[0] {
            Grad::InPlace(dx) => parallel::contiguous_mut(dx),
            _ => parallel::contiguous_mut(&mut io.dy),
        };
        let dr = dr.first_mut().and_then(Grad::target).map(|(dr, _)| parallel::contiguous_mut(dr));
        let (coefficients, sums) = io.scratch.split_at_mut(5 * grouping.wide);
        let (mean, rest) = coefficients.split_at_mut(grouping.wide);
        let (inverse_std, rest) = rest.split_at_mut(grouping.wide);
        grouping.widen(|c| io.saved[0][c], mean);
        grouping.widen(|c| io.saved[1][c], inverse_std);
        let (mean, inverse_std) = (&*mean, &*inverse_std);

        let (scale, rest) = rest.split_at_mut(grouping.wide);
        let (shift, _) = rest.split_at_mut(grouping.wide);
        grouping.affine(&io.params, &|c| mean[c], &|c| inverse_std[c], scale, shift);
        let (scale, shift) = (&*scale, &*shift);
        let sums = &mut sums[..2 * grouping.wide * grouping.blocks(x.len())];
        let block = |i: usize, sums: &mut [f32], x: &[f32], dy: &mut [f32], dr: &mut [f32]| {
            behind(Piece { start: i * grouping.block, x, dy, dr, scale, shift });
            let (dgamma, dbeta) = sums.split_at_mut(grouping.wide);
            reduce(level, x, dy, mean, inverse_std, dgamma, dbeta);
        };
        let blocks = sums.par_chunks_mut(2 * grouping.wide).zip(x.par_chunks(grouping.block));
        let blocks = blocks.zip(dy.par_chunks_mut(grouping.block)).enumerate();
        match dr {
            None => blocks.for_each(|(i, ((sums, x), dy))| block(i, sums, x, dy, &mut [])),
            Some(dr) => blocks
                .zip(dr.par_chunks_mut(grouping.block))
                .for_each(|((i, ((sums, x), dy)), dr)| block(i, sums, x, dy, dr)),
        }

        // dx = slope·dy + pull·x + shift, with what does not depend on the pixel gathered per channel
        let (slope, rest) = coefficients[2 * grouping.wide..].split_at_mut(grouping.wide);
        let (pull, shift) = rest.split_at_mut(grouping.wide);
        for c in 0..channels {
            let total = |which: usize| -> f64 {
                let half = |sums: &[f32]| grouping.fold(&sums[which * grouping.wide..][..grouping.wide], c);
                sums.chunks(2 * grouping.wide).map(half).sum()
            };
            let (dgamma, dbeta) = (total(0), total(1));
            io.dparams[0].put(c, dgamma as f32);
            io.dparams[1].put(c, dbeta as f32);
            let (mean, inverse_std) = (f64::from(io.saved[0][c]), f64::from(io.saved[1][c]));
            let gain = f64::from(io.params[0][c]) * inverse_std;
            slope[c] = gain as f32;
            // Statistics that are constant pass nothing on.
            let through = if io.training { gain } else { 0.0 };
            let per_deviation = -through * inverse_std * dgamma / self.divisor(count);
            pull[c] = per_deviation as f32;
            shift[c] = (-through * dbeta / count as f64 - per_deviation * mean) as f32;
        }
        for i in channels..grouping.wide {
            (slope[i], pull[i], shift[i]) = (slope[i - channels], pull[i - channels], shift[i - channels]);
        }
        let (slope, pull, shift) = (&*slope, &*pull, &*shift);
        let add = matches!(io.dx[0], Grad::Add(_));
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => {
                parallel::rows_mut(parallel::contiguous_mut(dx), grouping.block, grouping.block, |at, dx| {
                    gradient_in_place(level, dx, &x[at..], slope, pull, shift);
                });
            }
            Grad::Write(dx) | Grad::Add(dx) => {
                let dy = &*parallel::contiguous_mut(&mut io.dy);
                parallel::rows_mut(parallel::contiguous_mut(dx), grouping.block, grouping.block, |at, dx| {
                    gradient(level, dx, &dy[at..], &x[at..], slope, pull, shift, add);
                });
            }
        }
    }
}

// The loops over a block, compiled for each SIMD level. Coefficients are as wide as a group of pixels.

crate::multiversion! {
    fn normalise(y: &mut [f32], x: &[f32], scale: &[f32], shift: &[f32]) {
        for (y, x) in y.chunks_mut(scale.len()).zip(x.chunks(scale.len())) {
            y.iter_mut().zip(x).zip(scale.iter().zip(shift)).for_each(|((y, x), (a, b))| *y = x * a + b);
        }
    }
}

crate::multiversion! {
    fn normalise_in_place(y: &mut [f32], scale: &[f32], shift: &[f32]) {
        for y in y.chunks_mut(scale.len()) {
            y.iter_mut().zip(scale.iter().zip(shift)).for_each(|(y, (a, b))| *y = *y * a + b);
        }
    }
}

crate::multiversion! {
    /// Sums of dy·x̂ and of dy per lane.
    fn reduce(
        x: &[f32], dy: &[f32], mean: &[f32], inverse_std: &[f32], dgamma: &mut [f32], dbeta: &mut [f32],
    ) {
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        for (x, dy) in x.chunks(mean.len()).zip(dy.chunks(mean.len())) {
            let sums = dgamma.iter_mut().zip(dbeta.iter_mut());
            let lanes = x.iter().zip(dy).zip(mean.iter().zip(inverse_std)).zip(sums);
            lanes.for_each(|(((x, dy), (mean, inverse_std)), (dgamma, dbeta))| {
                *dgamma += dy * ((x - mean) * inverse_std);
                *dbeta += dy;
            });
        }
    }
}

crate::multiversion! {
    /// dx = slope·dx + pull·x + shift, dx holding dy.
    fn gradient_in_place(dx: &mut [f32], x: &[f32], slope: &[f32], pull: &[f32], shift: &[f32]) {
        for (dx, x) in dx.chunks_mut(slope.len()).zip(x.chunks(slope.len())) {
            let lanes = dx.iter_mut().zip(x).zip(slope.iter().zip(pull).zip(shift));
            lanes.for_each(|((dx, x), ((a, b), c))| *dx = a * *dx + (b * x + c));
        }
    }
}

crate::multiversion! {
    /// dx = slope·dy + pull·x + shift, or that added.
    fn gradient(
        dx: &mut [f32], dy: &[f32], x: &[f32], slope: &[f32], pull: &[f32], shift: &[f32], add: bool,
    ) {
        for ((dx, dy), x) in dx.chunks_mut(slope.len()).zip(dy.chunks(slope.len())).zip(x.chunks(slope.len())) {
            let lanes = dx.iter_mut().zip(x.iter().zip(dy)).zip(slope.iter().zip(pull).zip(shift));
            lanes.for_each(|((dx, (x, dy)), ((a, b), c))| {
                let old = if add { *dx } else { 0.0 };
                *dx = old + (a * dy + (b * x + c));
            });
        }
    }
}

crate::multiversion! {
    /// The means of a block's lanes and their sums of squared deviations.
    fn block_moments(x: &[f32], means: &mut [f32], squares: &mut [f32]) {
        let wide = means.len();
        means.fill(0.0);
        squares.fill(0.0);
        for x in x.chunks(wide) {
            means.iter_mut().zip(x).for_each(|(mean, x)| *mean += x);
        }
        means.iter_mut().enumerate().for_each(|(lane, mean)| *mean /= lane_count(x.len(), wide, lane).max(1) as f32);
        for x in x.chunks(wide) {
            let lanes = squares.iter_mut().zip(&*means).zip(x);
            lanes.for_each(|((square, mean), x)| *square += (x - mean) * (x - mean));
        }
    }
}

/// Writes, for every block, the means of its lanes and their sums of squared deviations.
fn moments(x: &[f32], grouping: Grouping, sums: &mut [f32]) {
    let wide = grouping.wide;
    sums.par_chunks_mut(2 * wide).zip(x.par_chunks(grouping.block)).for_each(|(sums, x)| {
        let (means, squares) = sums.split_at_mut(wide);
        block_moments(simd_level(), x, means, squares);
    });
}

/// The values of one lane in a block of `len` values.
#[inline(always)]
fn lane_count(len: usize, wide: usize, lane: usize) -> usize {
    len / wide + usize::from(lane < len % wide)
}

/// Merges the moments of all lanes and blocks of channel `c`, in order: its mean and sum of squared deviations.
fn merge(sums: &[f32], grouping: Grouping, len: usize, c: usize) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for (block, sums) in sums.chunks(2 * grouping.wide).enumerate() {
        let block_len = grouping.block.min(len - block * grouping.block);
        for lane in (c..grouping.wide).step_by(grouping.channels) {
            let more = lane_count(block_len, grouping.wide, lane) as f64;
            if more > 0.0 {
                let delta = f64::from(sums[lane]) - mean;
                let total = count + more;
                mean += delta * more / total;
                squares += f64::from(sums[grouping.wide + lane]) + delta * delta * count * more / total;
                count = total;
            }
        }
    }
    (mean, squares)
}
