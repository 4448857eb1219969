//! Floor: x read and y written once, and the reverse.

use super::AvgPool;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Ptr, int, kernels};
use crate::ops::max_pool::cuda::{WindowArgument, per_vector};

kernels! { "pool":
    /// The mean of each window's cells on the map.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_avg_forward(x: Ptr, y: Ptr, images: i32, c: i32, window: WindowArgument);
    /// dx, gathered from the windows that cover a pixel.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_avg_backward(dy: Ptr, dx: Ptr, images: i32, c: i32, add: i32, window: WindowArgument);
}

impl Kernel for AvgPool {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let (window, c) = (WindowArgument::new(&self.window, io.inputs[0], io.output), int(io.output.c));
        pool_avg_forward(io.gpu, per_vector(io.n, io.output), io.x[0], io.y, int(io.n), c, window)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let (window, c) = (WindowArgument::new(&self.window, io.inputs[0], io.output), int(io.output.c));
        pool_avg_backward(io.gpu, per_vector(io.n, io.inputs[0]), io.dy, dx, int(io.n), c, i32::from(add), window)
    }
}
