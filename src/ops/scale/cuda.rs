//! Floor: x read and y written once, and the reverse.

use super::Scale;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Ptr, int, kernels, per_four};

kernels! { "elementwise":
    /// y = factor·x, or that added.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn elementwise_scale(x: Ptr, y: Ptr, n: i32, factor: f32, add: i32);
}

impl Kernel for Scale {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let n = io.n * io.output.len();
        elementwise_scale(io.gpu, per_four(n), io.x[0], io.y, int(n), self.factor as f32, 0)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let n = io.n * io.output.len();
        elementwise_scale(io.gpu, per_four(n), io.dy, dx, int(n), self.factor as f32, i32::from(add))
    }
}
