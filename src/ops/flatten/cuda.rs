use super::Flatten;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Gpu, Grad, Kernel, Ptr, int, kernels, per_four};

kernels! { "elementwise":
    /// y = x, or that added.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn elementwise_copy(x: Ptr, y: Ptr, n: i32, add: i32);
}

/// y = x for `n` elements, or that added; nothing where both are the same memory.
pub(in crate::ops) fn copy(gpu: &Gpu, x: Ptr, y: Ptr, n: usize, add: bool) -> Result<()> {
    if x == y {
        return Ok(());
    }
    elementwise_copy(gpu, per_four(n), x, y, int(n), i32::from(add))
}

/// The gradient `dy` of `n` elements as it is.
pub(in crate::ops) fn pass_on(gpu: &Gpu, dy: Ptr, dx: Grad, n: usize) -> Result<()> {
    dx.target().map_or(Ok(()), |(dx, add)| copy(gpu, dy, dx, n, add))
}

impl Kernel for Flatten {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        copy(io.gpu, io.x[0], io.y, io.n * io.output.len(), false)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        pass_on(io.gpu, io.dy, io.dx[0], io.n * io.output.len())
    }
}
