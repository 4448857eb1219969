//! Floor: x read and y written once, and the reverse.

use super::Blur;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Ptr, int, kernels};
use crate::ops::max_pool::cuda::per_vector;

kernels! { "pool":
    /// y of half the height and width.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_blur_forward(x: Ptr, y: Ptr, images: i32, h: i32, w: i32, c: i32);
    /// dx, written or added.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_blur_backward(dy: Ptr, dx: Ptr, images: i32, h: i32, w: i32, c: i32, add: i32);
}

impl Kernel for Blur {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let [h, w, c] = [io.inputs[0].h, io.inputs[0].w, io.inputs[0].c].map(int);
        pool_blur_forward(io.gpu, per_vector(io.n, io.output), io.x[0], io.y, int(io.n), h, w, c)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let [h, w, c] = [io.inputs[0].h, io.inputs[0].w, io.inputs[0].c].map(int);
        pool_blur_backward(io.gpu, per_vector(io.n, io.inputs[0]), io.dy, dx, int(io.n), h, w, c, i32::from(add))
    }
}
