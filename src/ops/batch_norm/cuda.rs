//! Floor: forward reads x twice and writes y; backward reads x and dy twice and writes dx.

use super::{BatchNorm, Statistics};
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{Backward, Forward, Kernel, Launch, Ptr, blocks, columns, int, kernels};
use crate::graph::Shape;

kernels! { "norm":
    /// Means and squared deviations of each block of `chunk` pixels.
    /// Grid (⌈pixels/chunk⌉, ⌈c/64⌉), or ⌈c/256⌉ where c is a multiple of 4; block 256.
    fn norm_moments(x: Ptr, partial: Ptr, pixels: i32, c: i32, chunk: i32);
    /// Merges them: mean and 1/√(v + ε), and the states.
    /// Grid ⌈c/32⌉; block (32, 8).
    fn norm_finish(partial: Ptr, mean: Ptr, inverse_std: Ptr, state_mean: Ptr, state_var: Ptr, pixels: i32, c: i32, chunk: i32, momentum: f32, eps: f64, last_batch: i32);
    /// Mean and 1/√(v + ε) of the states, for an evaluation.
    /// Grid ⌈c/256⌉; block 256.
    fn norm_constants(state_mean: Ptr, state_var: Ptr, mean: Ptr, inverse_std: Ptr, c: i32, eps: f64);
    /// y = γ·(x − mean)·inverse_std + β.
    /// Grid (⌈pixels/chunk⌉, ⌈c/64⌉), or ⌈c/256⌉ where c is a multiple of 4; block 256.
    fn norm_apply(x: Ptr, y: Ptr, mean: Ptr, inverse_std: Ptr, gamma: Ptr, beta: Ptr, pixels: i32, c: i32, chunk: i32);
    /// Σ dy·x̂ and Σ dy of every block.
    /// Grid (⌈pixels/chunk⌉, ⌈c/64⌉), or ⌈c/256⌉ where c is a multiple of 4; block 256.
    fn norm_backward_sums(x: Ptr, dy: Ptr, mean: Ptr, inverse_std: Ptr, partial: Ptr, pixels: i32, c: i32, chunk: i32);
    /// Adds the blocks up to dγ and dβ, and gives the coefficients that dx takes.
    /// Grid ⌈c/32⌉; block (32, 8).
    fn norm_backward_finish(partial: Ptr, gamma: Ptr, inverse_std: Ptr, dgamma: Ptr, add_dgamma: i32, dbeta: Ptr, add_dbeta: i32, coefficients: Ptr, pixels: i32, c: i32, chunk: i32, training: i32, last_batch: i32);
    /// dx, written or added.
    /// Grid (⌈pixels/chunk⌉, ⌈c/64⌉), or ⌈c/256⌉ where c is a multiple of 4; block 256.
    fn norm_backward_apply(x: Ptr, dy: Ptr, dx: Ptr, mean: Ptr, coefficients: Ptr, pixels: i32, c: i32, chunk: i32, add: i32);
}

/// How the pixels of a batch are dealt to blocks.
pub(in crate::ops) struct Tiling {
    pub pixels: usize,
    pub channels: usize,
    pub chunk: usize,
    /// Per channel.
    pub finish: Launch,
    pub tiles: Launch,
}

impl Tiling {
    pub fn of(shape: Shape, n: usize) -> Self {
        let (pixels, channels) = (n * shape.h * shape.w, shape.c);
        let chunk = pixels.div_ceil(Self::most_blocks(pixels, channels)).max(1);
        let tiles = [blocks(pixels, chunk, u32::MAX), Self::column_tiles(channels), 1];
        Tiling {
            pixels,
            channels,
            chunk,
            finish: Launch { grid: [blocks(channels, 32, u32::MAX), 1, 1], block: [32, 8, 1], shared: 0 },
            tiles: Launch { grid: tiles, block: [256, 1, 1], shared: 0 },
        }
    }

    fn column_tiles(channels: usize) -> u32 {
        columns(channels).div_ceil(64).max(1)
    }

    /// Blocks for these pixels or fewer: at least 64 pixels for a block, and about 1024 blocks at most.
    pub fn most_blocks(pixels: usize, channels: usize) -> usize {
        pixels.div_ceil(64).min((1024 / Self::column_tiles(channels) as usize).max(1)).max(1)
    }

    /// Elements of the blocks' partial sums.
    fn partial(pixels: usize, channels: usize) -> usize {
        2 * channels * Self::most_blocks(pixels, channels)
    }
}

/// Elements behind the partial sums: three coefficients of a backward pass, or mean and 1/√(v + ε) of an evaluation.
const PER_CHANNEL: usize = 3;

impl BatchNorm {
    fn is_last_batch(&self) -> i32 {
        i32::from(self.statistics == Statistics::LastBatch)
    }

    fn momentum(&self) -> f32 {
        if let Statistics::Running { momentum } = self.statistics { momentum as f32 } else { 0.0 }
    }
}

impl Kernel for BatchNorm {
    fn scratch(&self, _inputs: &[Shape], output: Shape, n: usize, _precision: Precision) -> usize {
        let pixels = n * output.h * output.w;
        Tiling::partial(pixels, output.c).next_multiple_of(16) + PER_CHANNEL * output.c.next_multiple_of(16)
    }

    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let tiling = Tiling::of(io.output, io.n);
        let Tiling { pixels, channels, chunk, .. } = tiling;
        let behind = io.scratch.at(Tiling::partial(pixels, channels).next_multiple_of(16));
        let (mean, inverse_std) = match io.saved[..] {
            [mean, inverse_std] => (mean, inverse_std),
            _ => (behind, behind.at(channels.next_multiple_of(16))),
        };
        let (pixels, c, chunk) = (int(pixels), int(channels), int(chunk));
        let [state_mean, state_var] = [io.states[0], io.states[1]];
        if io.training {
            norm_moments(io.gpu, tiling.tiles, io.x[0], io.scratch, pixels, c, chunk)?;
            norm_finish(
                io.gpu,
                tiling.finish,
                io.scratch,
                mean,
                inverse_std,
                state_mean,
                state_var,
                pixels,
                c,
                chunk,
                self.momentum(),
                self.eps,
                self.is_last_batch(),
            )?;
        } else {
            let launch = Launch::line(blocks(channels, 256, u32::MAX), 256);
            norm_constants(io.gpu, launch, state_mean, state_var, mean, inverse_std, c, self.eps)?;
        }
        let [gamma, beta] = [io.params[0], io.params[1]];
        norm_apply(io.gpu, tiling.tiles, io.x[0], io.y, mean, inverse_std, gamma, beta, pixels, c, chunk)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let tiling = Tiling::of(io.output, io.n);
        let Tiling { pixels, channels, chunk, .. } = tiling;
        let coefficients = io.scratch.at(Tiling::partial(pixels, channels).next_multiple_of(16));
        let (pixels, c, chunk) = (int(pixels), int(channels), int(chunk));
        let [mean, inverse_std] = [io.saved[0], io.saved[1]];
        norm_backward_sums(io.gpu, tiling.tiles, io.x[0], io.dy, mean, inverse_std, io.scratch, pixels, c, chunk)?;
        let [dgamma, dbeta] = [io.dparams[0], io.dparams[1]];
        norm_backward_finish(
            io.gpu,
            tiling.finish,
            io.scratch,
            io.params[0],
            inverse_std,
            dgamma.wanted(),
            i32::from(dgamma.add),
            dbeta.wanted(),
            i32::from(dbeta.add),
            coefficients,
            pixels,
            c,
            chunk,
            i32::from(io.training),
            self.is_last_batch(),
        )?;
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let add = i32::from(add);
        norm_backward_apply(io.gpu, tiling.tiles, io.x[0], io.dy, dx, mean, coefficients, pixels, c, chunk, add)
    }
}
