//! Floor: x read and y written once, and the reverse.

use super::{AdaptivePool, Reduce};
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Launch, Ptr, blocks, columns, int, kernels};
use crate::ops::max_pool::cuda::per_vector;

kernels! { "pool":
    /// The mean of each cell.
    /// Grid (images·oh·ow, ⌈c/64⌉), or ⌈c/256⌉ where c is a multiple of 4; block 256.
    fn pool_adaptive_mean_forward(x: Ptr, y: Ptr, h: i32, w: i32, c: i32, oh: i32, ow: i32);
    /// The maximum of each cell, and the pixel that has it; `winners` may be null.
    /// Grid (images·oh·ow, ⌈c/64⌉), or ⌈c/256⌉ where c is a multiple of 4; block 256.
    fn pool_adaptive_max_forward(x: Ptr, y: Ptr, winners: Ptr, h: i32, w: i32, c: i32, oh: i32, ow: i32);
    /// dx of the mean, gathered from the cells that cover a pixel.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_adaptive_mean_backward(dy: Ptr, dx: Ptr, images: i32, h: i32, w: i32, c: i32, oh: i32, ow: i32, add: i32);
    /// dx of the winners.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_adaptive_max_backward(dy: Ptr, winners: Ptr, dx: Ptr, images: i32, h: i32, w: i32, c: i32, oh: i32, ow: i32, add: i32);
}

impl Kernel for AdaptivePool {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let [h, w, c, oh, ow] = [io.inputs[0].h, io.inputs[0].w, io.inputs[0].c, io.output.h, io.output.w].map(int);
        let grid = [blocks(io.n * io.output.h * io.output.w, 1, u32::MAX), columns(io.output.c).div_ceil(64).max(1), 1];
        let launch = Launch { grid, block: [256, 1, 1], shared: 0 };
        match self.reduce {
            Reduce::Mean => pool_adaptive_mean_forward(io.gpu, launch, io.x[0], io.y, h, w, c, oh, ow),
            Reduce::Max => {
                let winners = io.saved.first().copied().unwrap_or_default();
                pool_adaptive_max_forward(io.gpu, launch, io.x[0], io.y, winners, h, w, c, oh, ow)
            }
        }
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let [h, w, c, oh, ow] = [io.inputs[0].h, io.inputs[0].w, io.inputs[0].c, io.output.h, io.output.w].map(int);
        let (launch, n, add) = (per_vector(io.n, io.inputs[0]), int(io.n), i32::from(add));
        match self.reduce {
            Reduce::Mean => pool_adaptive_mean_backward(io.gpu, launch, io.dy, dx, n, h, w, c, oh, ow, add),
            Reduce::Max => pool_adaptive_max_backward(io.gpu, launch, io.dy, io.saved[0], dx, n, h, w, c, oh, ow, add),
        }
    }
}
